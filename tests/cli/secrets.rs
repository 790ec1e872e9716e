//! Where URLs come from, and that their passwords go nowhere else.

use std::fs;

use crate::support::free_port;
use crate::tool::{Ran, World, bare, run, signal, spawn, tool};

const SECRET: &str = "hunter2";

#[track_caller]
fn silent(ran: Ran) -> Ran {
    assert!(
        !ran.out.contains(SECRET) && !ran.err.contains(SECRET),
        "{ran:?}"
    );
    ran
}

#[test]
fn no_help_shows_what_the_environment_holds() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("redis://:{SECRET}@127.0.0.1:1/0")).unwrap();
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["warm", "--help"],
        &["status", "-h"],
        &["explain", "--help"],
        &["--version"],
        &["completions", "bash"],
    ] {
        let mut command = bare(arguments);
        command.env("REDIS_URL", format!("redis://:{SECRET}@h"));
        command.env("DATABASE_URL", format!("postgres://u:{SECRET}@h/d"));
        command.env("REDIS_URL_FILE", file.path());
        silent(run(command, 0));
    }
}

#[test]
fn an_argument_goes_before_a_variable_and_a_file_serves_as_well() {
    let world = World::with_rows(&["a.py".to_owned()]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let redis = file("redis", format!("{}\n", world.redis.url()));
    let database = file("database", format!("  {}\r\n\n", world.postgres.url()));
    let wrong = format!("redis://:{SECRET}@127.0.0.1:{}/0", free_port());
    let with_files = [
        "verify",
        "--redis-url-file",
        &redis,
        "--database-url-file",
        &database,
    ];
    let mut command = bare(&with_files);
    command
        .env("REDIS_URL", &wrong)
        .env("DATABASE_URL", "nonsense");
    run(command, 1);
    let mut command = bare(&["verify"]);
    command
        .env("REDIS_URL_FILE", &redis)
        .env("DATABASE_URL_FILE", &database);
    run(command, 1);
    let mut command = bare(&["status", "--redis-url", &world.redis.url()]);
    command.env("REDIS_URL_FILE", "/nowhere");
    run(command, 1);

    // Two that contradict each other are a mistake.
    let both = ["status", "--redis-url", &wrong, "--redis-url-file", &redis];
    silent(run(bare(&both), 2)).says(&["--redis-url and --redis-url-file"]);
    let mut command = bare(&["status"]);
    command
        .env("REDIS_URL", &wrong)
        .env("REDIS_URL_FILE", &redis);
    silent(run(command, 2)).says(&["REDIS_URL and REDIS_URL_FILE"]);
    // An empty variable says nothing beside another, and is a mistake by itself.
    for (url, file) in [("", &*redis), (&*world.redis.url(), "")] {
        let mut command = bare(&["status"]);
        command.env("REDIS_URL", url).env("REDIS_URL_FILE", file);
        run(command, 1);
    }
    let mut command = bare(&["status"]);
    command.env("REDIS_URL", "");
    run(command, 4).says(&["can't be parsed"]);
}

#[test]
fn no_error_shows_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("url");
    fs::write(&bad, format!("redis://:{SECRET}@127.0.0.1:port")).unwrap();
    let bad = bad.to_str().unwrap();
    let redis = format!("redis://user:{SECRET}@127.0.0.1:{}/0", free_port());
    let database = format!("postgres://user:{SECRET}@127.0.0.1:{}/x", free_port());
    for (arguments, code) in [
        (&["status", "--redis-url", &redis][..], 3),
        (
            &["warm", "--redis-url", &redis, "--database-url", &database],
            3,
        ),
        (
            &[
                "explain",
                "a.py",
                "--redis-url",
                &redis,
                "--database-url",
                &database,
            ],
            3,
        ),
        (&["status", "--redis-url-file", bad], 4),
        (&["verify", "--database-url-file", bad], 4),
        // In the wrong place.
        (&[&redis, "status"], 2),
        (&["status", &redis], 2),
        (&["status", "--redis-ulr", &redis], 2),
        (&["warm", "--wait", &redis], 2),
        (&["warm", "--timeout", &database], 2),
        (&["ls", "a", &format!("-- {redis}")], 2),
        (&["status", &format!("user:{SECRET}@host")], 2),
        (&["watch", "a", &format!("PASSWORD={SECRET}")], 2),
        (&["status", "--redis-url-file", &redis], 4),
        (&["verify", "--database-url-file", &database], 4),
        (&["status", "--tls-ca", &redis], 4),
        (&["publish", &redis], 4),
        (&["get", &redis], 2),
        (&["explain", &redis], 2),
        (&["rm", &redis], 2),
        (&["mv", "a.py", &redis], 2),
    ] {
        silent(run(bare(arguments), code));
    }
    // A path is cut short in a message, and then its URL has no end.
    let long = format!("redis://user:{SECRET}{}@host", "x".repeat(200));
    silent(run(bare(&["get", &long]), 2)).says(&["invalid module path"]);
    for (variable, command) in [("REDIS_URL", "status"), ("DATABASE_URL", "verify")] {
        let file = format!("{variable}_FILE");
        let mut command = bare(&[command]);
        command.env(&file, &redis);
        silent(run(command, 4)).says(&[&file, "is a URL and no file", variable]);
    }
}

#[test]
fn what_the_server_is_asked_for_does_not_show_a_password_either() {
    let world = World::with_rows(&["a.py".to_owned()]);
    let login = format!("user:{SECRET}@host");
    run(tool(&world, &["warm"]), 0);
    for arguments in [
        &["ls", &login][..],
        &["get", &login],
        &["diff", &login],
        &["mv", "nowhere.py", &login],
    ] {
        silent(run(tool(&world, arguments), 1));
    }
}

#[test]
fn the_process_list_shows_what_the_user_put_there_and_no_more() {
    let port = free_port();
    let redis = format!("redis://:{SECRET}@127.0.0.1:{port}/0");
    let database = format!("postgres://u:{SECRET}@127.0.0.1:{port}/x");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &redis).unwrap();
    let arguments = [
        "warm",
        "--wait",
        "60s",
        "--redis-url-file",
        file.path().to_str().unwrap(),
    ];
    let child = spawn(&arguments, &[("DATABASE_URL", &database)]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let line = String::from_utf8(line).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    // Not every kernel has that file.
    let children = fs::read_to_string(children).unwrap_or_default();
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert!(line.contains("warm") && !line.contains(SECRET), "{line}");
    assert!(children.is_empty(), "it started {children}");
    silent(Ran::new(&output, std::time::Duration::ZERO));
}
