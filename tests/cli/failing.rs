//! Exit codes where something is wrong.

use std::fs;

use bifrost_module_cache::keys;

use crate::support::{Postgres, READER_ACL, free_port, private_dir, private_file};
use crate::tool::{World, bare, run, tool, without_database};

/// Every command that needs a server.
fn commands(dir: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["warm"],
        vec!["status"],
        vec!["verify"],
        vec!["repair"],
        vec!["refresh", "a.py"],
        vec!["ls"],
        vec!["get", "a.py"],
        vec!["resolve", "a"],
        vec!["explain", "a.py"],
        vec!["explain", "a"],
        vec!["diff", "a.py"],
        vec!["publish", dir],
        vec!["publish", dir, "--exact"],
        vec!["rm", "a.py"],
        vec!["mv", "a.py", "b.py"],
        vec!["clear", "--yes"],
        vec!["watch"],
    ]
}

fn a_workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.py"), "1").unwrap();
    dir
}

#[test]
fn without_redis_each_command_says_so() {
    let (world, dir) = (World::new(), a_workspace());
    let url = format!("redis://127.0.0.1:{}/0", free_port());
    for arguments in commands(dir.path().to_str().unwrap()) {
        let mut command = tool(&world, &arguments);
        command.env("REDIS_URL", &url);
        let ran = run(command, 3).says(&["is unavailable", &url[8..]]);
        assert_eq!(ran.err.matches(&url[8..]).count(), 1, "{ran:?}");
    }
}

#[test]
fn without_postgres_what_needs_it_says_so() {
    let world = World::new();
    let url = format!("postgres://127.0.0.1:{}/x", free_port());
    for arguments in [
        &["warm"][..],
        &["verify"],
        &["repair"],
        &["refresh", "a.py"],
        &["diff", "a.py"],
    ] {
        let mut command = tool(&world, arguments);
        command.env("DATABASE_URL", &url);
        run(command, 3).says(&["could not be connected to", &url[11..url.len() - 2]]);
    }
    // Others don't look at it at all.
    let mut command = tool(&world, &["status"]);
    command.env("DATABASE_URL", "nonsense");
    run(command, 1);
}

#[test]
fn a_wrong_password_is_refused() {
    let (world, dir) = (World::new(), a_workspace());
    world.foreign().run("CONFIG SET requirepass right");
    for arguments in commands(dir.path().to_str().unwrap()) {
        for (url, code) in [
            (world.redis.url_as("default", "hunter2"), "WRONGPASS"),
            (world.redis.url(), "NOAUTH"),
        ] {
            let mut command = tool(&world, &arguments);
            command.env("REDIS_URL", url);
            let ran = run(command, 4).says(&["refused the command with", code]);
            assert!(!ran.err.contains("hunter2"), "{ran:?}");
        }
    }
}

#[test]
fn a_wrong_password_of_the_database_is_refused() {
    let world = World::new();
    let dir = private_dir("bifrost-hba-");
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let rules = private_file(&dir, "pg_hba.conf", rules);
    let postgres = Postgres::start_with(&[&format!("hba_file={}", rules.display())]);
    postgres.create_workspace("workspace_files");
    let role = "CREATE ROLE app LOGIN PASSWORD 'right'; GRANT SELECT ON workspace_files TO app";
    postgres.client().batch_execute(role).unwrap();
    let verify = |login: &str, code| {
        let url = postgres.url().replace("postgres@", &format!("{login}@"));
        let mut command = tool(&world, &["verify"]);
        command.env("DATABASE_URL", url);
        run(command, code)
    };
    verify("app:right", 0);
    let ran = verify("app:hunter2", 4).says(&["password authentication failed"]);
    assert!(!ran.err.contains("hunter2"), "{ran:?}");
    verify("app", 4).says(&["password"]);
}

#[test]
fn a_reader_s_user_reads_and_is_refused_the_rest() {
    let (world, dir) = (World::with_rows(&["a.py".to_owned()]), a_workspace());
    run(tool(&world, &["warm"]), 0);
    let mut foreign = world.foreign();
    foreign.run(&READER_ACL.replace("PASSWORD", "reads"));
    let url = world.redis.url_as("bifrost_reader", "reads");
    for arguments in commands(dir.path().to_str().unwrap()) {
        let mut command = tool(&world, &arguments);
        command.env("REDIS_URL", &url);
        match arguments[0] {
            "status" | "ls" | "get" | "resolve" | "explain" | "diff" => drop(run(command, 0)),
            // It would not end.
            "watch" => {}
            _ => drop(run(command, 4).says(&["refused the command with", "NOPERM"])),
        }
    }
    foreign.assert_is("a.py", Some("a.py"));
}

#[test]
fn a_busy_failover_is_worth_another_try() {
    let world = World::new();
    world.foreign().run("REPLICAOF 127.0.0.1 1");
    run(tool(&world, &["rm", "a.py"]), 3).says(&["READONLY"]);
}

#[test]
fn what_is_misconfigured_is_named() {
    let world = World::new();
    for (arguments, words) in [
        (
            &["status", "--redis-url", "hunter2"][..],
            &["the redis URL can't be parsed"][..],
        ),
        (
            &["status", "--redis-url", "http://u:hunter2@h"],
            &["the redis URL can't be parsed"],
        ),
        (
            &["verify", "--database-url", "hunter2"],
            &["the database URL can't be parsed"],
        ),
        (
            &[
                "verify",
                "--database-url",
                "postgres://u:hunter2@h/d?pgbouncer=true",
            ],
            &["pgbouncer is unknown"],
        ),
        (
            &[
                "verify",
                "--database-url",
                "postgres://u:hunter2@h/d?sslrootcert=/ca.pem",
            ],
            &["sslrootcert", "--tls-ca"],
        ),
        (
            &["status", "--redis-url-file", "/nowhere"],
            &["--redis-url-file", "/nowhere"],
        ),
        (
            &["verify", "--database-url-file", "/"],
            &["--database-url-file", "/"],
        ),
        (&["status", "--tls-ca", "/nowhere"], &["/nowhere"]),
        (&["status", "--tls-ca", "/dev/null"], &["certificate"]),
        (&["status", "--table", "a.b.c"], &["table"]),
        (&["status", "--timeout", "0s"], &["time-out"]),
        (&["status", "--ttl", "0s"], &["time to live"]),
    ] {
        let ran = run(tool(&world, arguments), 4).says(words);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn a_mark_that_is_none_is_corrupt_and_a_warm_up_mends_it() {
    let world = World::new();
    world
        .foreign()
        .run(&format!("SET {} nonsense", keys::COMPLETE_KEY));
    run(tool(&world, &["status"]), 5).says(&["mark"]);
    run(tool(&world, &["warm", "--wait", "10s"]), 0);
    run(tool(&world, &["status"]), 0);
}

#[test]
fn output_that_can_not_be_written_is_no_success() {
    let world = World::with_rows(&["a.py".to_owned()]);
    run(tool(&world, &["warm"]), 0);
    for arguments in ["get a.py", "ls", "status --json", "completions bash"] {
        let script = format!("exec {} {arguments} >/dev/full", crate::tool::BINARY);
        let mut shell = assert_cmd::Command::new("sh");
        shell
            .args(["-c", &script])
            .env("REDIS_URL", world.redis.url());
        run(shell, 4).says(&["standard output", "No space left"]);
    }
}

#[test]
fn an_error_that_can_not_be_written_keeps_its_exit_code() {
    let url = format!("redis://u:hunter2@127.0.0.1:{}/0", free_port());
    for (arguments, code) in [
        ("unheard-of", 2),
        (&*format!("status {url}"), 2),
        (&*format!("status --redis-url {url}"), 3),
    ] {
        let script = format!("exec {} {arguments} 2>/dev/full", crate::tool::BINARY);
        let mut shell = assert_cmd::Command::new("sh");
        shell.args(["-c", &script]);
        run(shell, code);
    }
}

#[test]
fn the_exit_codes_are_documented() {
    let help = run(bare(&["--help"]), 0);
    for code in [
        "0  fine",
        "1  ",
        "2  usage",
        "3  unavailable",
        "4  refused",
        "5  corrupt",
        "143",
    ] {
        assert!(help.out.contains(code), "{code}");
    }
    let page = include_str!("../../docs/tool.md");
    let (_, codes) = help.out.split_once("Exit codes:\n").unwrap();
    for line in codes.lines() {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        assert!(page.contains(&format!("| {code} | {meaning} |")), "{line}");
    }
    run(without_database(&World::new(), &["status", "--help"]), 0).mentions(&["--redis-url-file"]);
}
