//! On a terminal, and elsewhere.

use std::fs;

use assert_cmd::Command;

use crate::support::numbered;
use crate::tool::{BINARY, LIMIT, World, bare, run, tool};

/// Runs the tool on a terminal of its own, and gives all that this terminal got.
fn on_a_terminal(world: &World, arguments: &str, variables: &[(&str, &str)], code: i32) -> String {
    let mut script = Command::new("script");
    script
        .args(["-qec", &format!("{BINARY} {arguments}"), "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "xterm-256color")
        .env("REDIS_URL", world.redis.url())
        .env("DATABASE_URL", world.postgres.url())
        .envs(variables.iter().copied())
        .timeout(LIMIT);
    run(script, code).out
}

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const ESCAPE: char = '\u{1b}';

#[test]
fn a_terminal_gets_colours_and_progress() {
    let world = World::with_rows(&numbered(450));
    let cold = on_a_terminal(&world, "status", &[], 1);
    assert!(cold.contains("\u{1b}[1m\u{1b}[31mcold"), "{cold:?}");
    let warm = on_a_terminal(&world, "warm", &[], 0);
    assert!(
        warm.contains("loading") || warm.contains("comparing"),
        "{warm:?}"
    );
    assert!(warm.contains(&format!("{GREEN}warm")), "{warm:?}");
    let without = on_a_terminal(&world, "warm", &[("NO_COLOR", "1")], 0);
    assert!(
        !without.contains(GREEN) && !without.contains(RED),
        "{without:?}"
    );
    let quiet = on_a_terminal(&world, "warm --quiet", &[], 0);
    assert!(quiet.is_empty(), "{quiet:?}");
    let dumb = on_a_terminal(&world, "warm", &[("TERM", "dumb"), ("NO_COLOR", "1")], 0);
    assert!(!dumb.contains(ESCAPE), "{dumb:?}");
}

#[test]
fn a_terminal_sees_what_is_waited_for() {
    let world = World::new();
    let url = format!("redis://127.0.0.1:{}/0", crate::support::free_port());
    let seen = on_a_terminal(&world, "warm --wait 1s", &[("REDIS_URL", &url)], 3);
    assert!(seen.contains("waiting: redis 127.0.0.1:"), "{seen:?}");
    assert!(seen.contains("gave up after "), "{seen:?}");
}

#[test]
fn a_pipe_or_a_file_gets_neither() {
    let world = World::with_rows(&numbered(450));
    for (arguments, code) in [
        (&["status"][..], 1),
        (&["verify"], 1),
        (&["warm"], 0),
        (&["ls"], 0),
        (&["explain", "m/000.py"], 0),
        (&["get", "never.py"], 1),
        (&["--help"], 0),
        (&["never"], 2),
    ] {
        let ran = run(tool(&world, arguments), code);
        assert!(
            !ran.out.contains(ESCAPE) && !ran.err.contains(ESCAPE),
            "{ran:?}"
        );
        assert!(!ran.err.contains("loading"), "{ran:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{BINARY} ls >{}", file.display())])
        .env("REDIS_URL", world.redis.url());
    run(shell, 0);
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 450);
}

#[test]
fn a_source_can_not_command_a_terminal_unless_it_is_asked_for() {
    let world = World::new();
    let odd = "\u{1b}]0;owned\u{7}";
    world.table().put("a.py", odd);
    world
        .table()
        .run("UPDATE workspace_files SET content_hash = E'\\x1b[2J'");
    run(tool(&world, &["warm"]), 0);
    for arguments in ["ls", "explain a.py", "diff a.py", "verify"] {
        world.table().put("a.py", odd);
        let seen = on_a_terminal(&world, arguments, &[], 0);
        assert!(
            !seen.contains("\u{1b}]0") && !seen.contains("\u{1b}[2J"),
            "{seen:?}"
        );
    }
    world.table().put("a.py", "1");
    let seen = on_a_terminal(&world, "diff a.py", &[], 1);
    assert!(
        seen.contains("\\u{1b}]0;owned") && !seen.contains("\u{1b}]0"),
        "{seen:?}"
    );
}

#[test]
fn help_starts_in_no_time() {
    // The build of a test is slower than what is installed; the promise is 20 ms for that.
    let fastest = (0..5)
        .map(|_| run(bare(&["--help"]), 0).took)
        .min()
        .unwrap();
    assert!(fastest.as_millis() < 200, "{fastest:?}");
}
