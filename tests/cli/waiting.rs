//! `warm --wait`: servers that come late, or never, and signals meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Proxy, RedisServer, free_port};
use crate::tool::{Ran, World, bare, postgres_with_one_module, run, signal, spawn, tool};

/// Much less than it was told to wait, or than a server that says nothing is given elsewhere; the
/// machine may be slow.
const IN_TIME: Duration = Duration::from_secs(15);

#[test]
fn started_before_either_server_it_succeeds_once_both_are_up() {
    let (redis, postgres) = (RedisServer::start(), postgres_with_one_module());
    for redis_is_first in [true, false] {
        redis.kill();
        postgres.kill();
        let (redis_url, database_url) = (redis.url(), postgres.url());
        let variables = [("REDIS_URL", &*redis_url), ("DATABASE_URL", &database_url)];
        let start = Instant::now();
        let mut child = spawn(&["warm", "--wait", "60s"], &variables);
        thread::sleep(Duration::from_millis(300));
        let both: [&dyn Fn(); 2] = [&|| redis.restart(), &|| postgres.restart()];
        let [first, second] = if redis_is_first {
            both
        } else {
            [both[1], both[0]]
        };
        first();
        thread::sleep(Duration::from_millis(300));
        assert!(
            child.try_wait().unwrap().is_none(),
            "one server is not enough"
        );
        second();
        let ran = Ran::new(&child.wait_with_output().unwrap(), start.elapsed()).expect(0);
        // Nothing but the report: it waits silently where there is no terminal.
        assert!(ran.err.is_empty(), "{ran:?}");
        let mut status = bare(&["status"]);
        status.env("REDIS_URL", &redis_url);
        run(status, 0);
    }
}

#[test]
fn it_gives_up_with_one_clear_line_when_they_never_come() {
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let urls = [
        format!("redis://:hunter2@127.0.0.1:{}/0", ports[0]),
        format!("postgres://u:hunter2@127.0.0.1:{}/x", ports[1]),
    ];
    let warm = |wait: &[&str], redis: &str, database: &str| {
        let mut command = bare(&[&["warm"], wait].concat());
        command
            .env("REDIS_URL", redis)
            .env("DATABASE_URL", database);
        let ran = run(command, 3);
        assert!(
            !ran.err.contains("hunter2") && ran.out.is_empty(),
            "{ran:?}"
        );
        ran
    };
    let ran = warm(&["--wait", "1500ms"], &urls[0], &urls[1]);
    assert!(ran.took >= Duration::from_millis(1_500), "{ran:?}");
    assert!(ran.took < IN_TIME, "{ran:?}");
    ran.says(&["gave up after ", &ports[0], &ports[1]]);
    // Without being told to wait it does not.
    let ran = warm(&[], &urls[0], &urls[1]);
    assert!(
        ran.took < IN_TIME && !ran.err.contains("gave up"),
        "{ran:?}"
    );
    ran.says(&[&ports[0], &ports[1]]);

    let world = World::new();
    let ran = warm(&["--wait", "300ms"], &urls[0], &world.postgres.url());
    assert!(!ran.err.contains(&ports[1]), "{ran:?}");
    ran.says(&["gave up", &ports[0], "is unavailable"]);
    let ran = warm(&["--wait", "300ms"], &world.redis.url(), &urls[1]);
    assert!(!ran.err.contains(&ports[0]), "{ran:?}");
    ran.says(&[
        "gave up",
        &ports[1],
        "the database could not be connected to",
    ]);
    let nowhere = "redis://no-such-host.invalid:6379/0";
    warm(&["--wait", "300ms"], nowhere, &urls[1]).says(&["no-such-host.invalid:6379"]);
}

#[test]
fn servers_that_accept_and_say_nothing_are_given_up_in_time() {
    let world = World::with_rows(&["a.py".to_owned()]);
    world.redis.freeze();
    let ran = run(tool(&world, &["warm", "--wait", "1s"]), 3);
    assert!(ran.took < IN_TIME, "{ran:?}");
    ran.says(&["gave up after ", "redis", "did not answer in time"]);
    world.redis.thaw();
    world.postgres.freeze();
    let ran = run(tool(&world, &["warm", "--wait", "1s"]), 3);
    assert!(ran.took < IN_TIME, "{ran:?}");
    ran.says(&["gave up after ", "did not accept the connection in time"]);
    world.postgres.thaw();
    run(tool(&world, &["warm"]), 0);
}

#[test]
fn what_waiting_does_not_mend_is_said_at_once() {
    let world = World::new();
    world.foreign().run("CONFIG SET requirepass right");
    let warm = |redis: &str, database: &str| {
        let mut command = bare(&["warm", "--wait", "60s"]);
        command
            .env("REDIS_URL", redis)
            .env("DATABASE_URL", database);
        let ran = run(command, 4);
        assert!(ran.took < IN_TIME, "{ran:?}");
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
        ran
    };
    let wrong = world.redis.url_as("default", "hunter2");
    let right = world.redis.url_as("default", "right");
    warm(&wrong, &world.postgres.url()).says(&["refused the command with", "WRONGPASS"]);
    let other_database = world.postgres.url().replace("/postgres", "/nowhere");
    warm(&right, &other_database).says(&["nowhere", "does not exist"]);
    // Also where the other server may still come.
    let later = format!("redis://127.0.0.1:{}/0", free_port());
    warm(&later, &other_database).says(&["does not exist"]);
    let later = format!("postgres://127.0.0.1:{}/x", free_port());
    warm(&wrong, &later).says(&["WRONGPASS"]);
    world.table().run("DROP TABLE workspace_files");
    warm(&right, &world.postgres.url()).says(&["workspace_files", "does not exist"]);
    world.postgres.create_workspace("workspace_files");
}

#[test]
fn a_server_that_goes_again_during_the_warm_up_is_waited_for() {
    let world = World::with_rows(&crate::support::numbered(450));
    let proxy = Proxy::start(world.postgres.port());
    // Enough to connect and to read some rows, and then no more.
    proxy.cut_one_reply_after(20_000);
    let mut command = tool(&world, &["warm", "--wait", "60s", "--quiet"]);
    command.env("DATABASE_URL", proxy.postgres_url());
    run(command, 0);
    assert!(proxy.connections() > 1, "nothing was cut");
    assert!(world.status().is_warm());
}

#[test]
fn a_database_that_never_answers_is_given_up() {
    let world = World::with_rows(&["a.py".to_owned()]);
    world.foreign().set("a.py", "old");
    let mut migration = world.table();
    migration.run("BEGIN; LOCK TABLE workspace_files");
    let given_up = |arguments: &[&str]| {
        let ran = run(
            tool(&world, &[arguments, &["--timeout", "500ms"]].concat()),
            3,
        );
        assert!(ran.took < IN_TIME, "{ran:?}");
        ran.mentions(&["127.0.0.1", "did not answer in time", "--timeout"])
    };
    thread::scope(|scope| {
        scope.spawn(|| given_up(&["diff", "a.py"]));
        scope.spawn(|| given_up(&["explain", "a"]).mentions(&["workers get it"]));
    });
    migration.run("ROLLBACK");
    run(tool(&world, &["diff", "a.py"]), 1);
}

#[test]
fn a_warm_up_waits_for_a_lock_for_as_long_as_it_was_told() {
    let world = World::with_rows(&["a.py".to_owned()]);
    let mut migration = world.table();
    migration.run("BEGIN; LOCK TABLE workspace_files");
    let wait = ["warm", "--wait", "1500ms", "--timeout", "500ms"];
    let ran = run(tool(&world, &wait), 3);
    assert!(ran.took < IN_TIME, "{ran:?}");
    let ran = ran.says(&["gave up after ", "no progress for 1s", "lock"]);
    let (_, waited) = ran.err.split_once("gave up after ").unwrap();
    let waited: f64 = waited.split(' ').next().unwrap().parse().unwrap();
    assert!(
        waited >= 1.4 && waited <= ran.took.as_secs_f64() + 0.1,
        "{ran:?}"
    );
    migration.run("ROLLBACK");
    run(tool(&world, &wait), 0);
}

#[test]
fn a_signal_ends_the_waiting_at_once() {
    let port = free_port();
    let (redis, database) = (
        format!("redis://127.0.0.1:{port}/0"),
        format!("postgres://127.0.0.1:{port}/x"),
    );
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let variables = [("REDIS_URL", &*redis), ("DATABASE_URL", &database)];
        let child = spawn(&["warm", "--wait", "60s"], &variables);
        thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        signal(&child, name);
        let ran = Ran::new(&child.wait_with_output().unwrap(), start.elapsed()).expect(code);
        assert!(ran.took < IN_TIME, "{ran:?}");
        ran.says(&["stopped by SIG", name, "run it again"]);
    }
}
