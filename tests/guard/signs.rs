//! What a guard tells of itself, and what it costs when nothing happens.

use std::thread;
use std::time::Duration;

use crate::support::{
    Guard, Guarding, LIMIT, Reader, World, Writer, numbered, on_both_facades, wait_until,
};
use bifrost_module_cache::diagnosis::Cause;
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    status_tells_of_a_guard_while_it_guards
    a_diagnosis_says_that_a_guard_mends_it
    an_idle_guard_asks_the_database_once_a_poll
    an_idle_guard_that_listens_asks_nothing_but_its_heartbeat
    a_large_workspace_is_asked_less_often
}

fn status_tells_of_a_guard_while_it_guards<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    assert_eq!(world.status().guard, None);
    let guard = Guard::start(&world, GuardOptions::default());
    wait_until("it is told", LIMIT, || world.status().guard.is_some());
    let status = world.status();
    let told = status.guard.clone().unwrap();
    assert_eq!((told.feed.as_str(), told.withheld), ("poll", 0));
    assert!(told.checked >= told.since);
    assert!(status.to_string().contains("; guarded since "), "{status}");
    // It is not told once the database is gone, though the guard lives.
    world.postgres.kill();
    wait_until("it is not told", LIMIT, || world.status().guard.is_none());
    world.postgres.restart();
    wait_until("it is told again", LIMIT, || world.status().guard.is_some());
    guard.stop().unwrap();
    assert_eq!(world.status().guard, None);
}

fn a_diagnosis_says_that_a_guard_mends_it<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    let reader = world.writer.reader();
    let remedy = |path: &str| reader.explain(path).unwrap().remedy();
    assert!(remedy("a.py").contains("bifrost-modules warm"));
    let guard = Guard::start(&world, GuardOptions::default());
    guard.wait_for_the_mark(&world);
    wait_until("it is told", LIMIT, || world.status().guard.is_some());
    let diagnosis = reader.explain("a.py").unwrap();
    assert_eq!(diagnosis.cause, Cause::NotCached);
    assert!(diagnosis.remedy().contains("spelling"), "{diagnosis}");
    // Nobody mends it while the database is away, and the sign of life is still there.
    world.postgres.freeze();
    world.foreign().run("DEL bifrost:module:m/000.py");
    let diagnosis = reader.explain("m/000.py").unwrap();
    assert_eq!(diagnosis.cause, Cause::ValueGone);
    assert!(diagnosis.remedy().contains("guard mends it"), "{diagnosis}");
    world.postgres.thaw();
    world.foreign().wait_for("m/000.py", Some("m/000.py"));
}

/// How many statements the database was sent while nothing happened for so long.
fn statements<F: Guarding>(world: &World<F>, idle: Duration) -> i64 {
    let mut table = world.table();
    // Each statement of a guard is a transaction of its own.
    let mut count = || {
        table.run("SELECT pg_stat_clear_snapshot()");
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        let row = table.0.query_one(sql, &[]).unwrap();
        row.get::<_, i64>(0)
    };
    // A backend tells its figures about once a second.
    thread::sleep(Duration::from_secs(2));
    let before = count();
    thread::sleep(idle);
    count() - before
}

fn an_idle_guard_asks_the_database_once_a_poll<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(100));
    let options = GuardOptions::default().with_sweep(Duration::from_secs(3_600));
    let guard = Guard::start(&world, options.with_poll(Duration::from_millis(500)));
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let gets = world.redis.calls("mget");
    let asked = statements(&world, Duration::from_secs(5));
    // Ten polls; what the test asks itself, and what was told late, beside them.
    assert!((5..=18).contains(&asked), "{asked} statements");
    assert_eq!(world.redis.calls("mget"), gets);
}

fn an_idle_guard_that_listens_asks_nothing_but_its_heartbeat<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(100));
    world.install_triggers();
    let guard = Guard::start(&world, GuardOptions::default().with_listen(true));
    guard.wait_until_it_listens();
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let asked = statements(&world, Duration::from_secs(5));
    assert!(asked <= 8, "{asked} statements");
}

/// Asking takes 2 % of the time at most, whatever was wanted.
fn a_large_workspace_is_asked_less_often<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5_000));
    let options = GuardOptions::default().with_poll(Duration::from_millis(10));
    let guard = Guard::<F>::begin(world.writer::<F>(), &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    let interval = guard.stats().poll_interval;
    assert!(interval > Duration::from_millis(20), "{interval:?}");
}
