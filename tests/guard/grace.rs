//! A writer that writes to Redis before it commits is not fought with.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::{
    Foreign, Gate, Guard, Guarding, LIMIT, World, Writer, connect, numbered, on_both_facades,
    patient, undone,
};
use bifrost_module_cache::guard::GuardOptions;
use bifrost_module_cache::postgres::{Client, NoTls};

on_both_facades! {
    what_is_set_before_the_commit_is_not_undone
    without_a_grace_it_is_undone
    what_is_set_again_before_it_is_mended_is_left_alone
    a_late_commit_is_seen
    a_transaction_that_stays_open_holds_nothing_up_for_long
    a_transaction_that_only_reads_another_table_is_not_waited_for
}

fn what_is_set_before_the_commit_is_not_undone<F: Guarding>() {
    // Longer than the test's transactions are held up on the busiest of machines.
    let grace = Duration::from_secs(20);
    assert_eq!(undone::<F>(grace, 10), 0);
}

fn without_a_grace_it_is_undone<F: Guarding>() {
    let undone = undone::<F>(Duration::ZERO, 10);
    assert!(undone > 0, "the test can't see what it looks for");
}

/// A cursor over the newest change would pass it by.
fn a_late_commit_is_seen<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let guard = Guard::start(
        &world,
        GuardOptions::default()
            .with_poll(Duration::from_millis(20))
            .with_sweep(Duration::from_secs(3_600)),
    );
    guard.wait_until_it_rests();
    let (mut late, mut soon, mut foreign) = (world.table(), world.table(), world.foreign());
    let mut transaction = late.0.transaction().unwrap();
    let update = "UPDATE workspace_files SET content = 'late' WHERE path = 'm/000.py'";
    transaction.batch_execute(update).unwrap();
    for n in 0..5 {
        let content = format!("soon {n}");
        soon.put("m/001.py", &content);
        foreign.wait_for("m/001.py", Some(&content));
    }
    let sweeps = guard.stats().sweeps;
    transaction.commit().unwrap();
    foreign.wait_for("m/000.py", Some("late"));
    assert_eq!(guard.stats().sweeps, sweeps);
}

fn a_transaction_that_stays_open_holds_nothing_up_for_long<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let grace = Duration::from_secs(2);
    let guard = Guard::start(&world, GuardOptions::default().with_grace(grace));
    guard.wait_for_the_mark(&world);
    let mut other = world.table();
    let mut report = other.0.transaction().unwrap();
    report
        .batch_execute("SELECT count(*) FROM workspace_files; SELECT pg_current_xact_id()")
        .unwrap();
    let mut foreign = world.foreign();
    let start = Instant::now();
    foreign.set("m/000.py", "wrong");
    foreign.wait_for("m/000.py", Some("m/000.py"));
    assert!(start.elapsed() >= grace / 2, "it was not waited for at all");
    // From then on it is known to take long. Ten times the grace would be 20 s, which is more than
    // what is waited for.
    let start = Instant::now();
    for n in 1..10 {
        let path = format!("m/00{n}.py");
        foreign.set(&path, "wrong");
        foreign.wait_for(&path, Some(&path));
    }
    assert!(
        start.elapsed() < 4 * grace,
        "it was waited for again and again"
    );
    report.rollback().unwrap();
}

/// With a grace that is longer than the test waits, only somebody who is not waited for can be
/// there.
fn a_transaction_that_only_reads_another_table_is_not_waited_for<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let grace = Duration::from_secs(60);
    let guard = Guard::start(&world, GuardOptions::default().with_grace(grace));
    guard.wait_for_the_mark(&world);
    let mut other = world.table();
    let mut report = other.0.transaction().unwrap();
    report
        .batch_execute("SELECT count(*) FROM pg_class")
        .unwrap();
    let mut foreign = world.foreign();
    foreign.set("m/000.py", "wrong");
    foreign.wait_for("m/000.py", Some("m/000.py"));
    report.rollback().unwrap();
}

/// An entry is wrong; while the guard is about to mend it, a service writes a newer one, and commits
/// a moment later.
fn what_is_set_again_before_it_is_mended_is_left_alone<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    let (redis, database) = (world.redis.url(), world.postgres.url());
    let is_armed = Arc::new(AtomicBool::new(false));
    let (sender, open) = mpsc::channel();
    let gate = {
        let (is_armed, sender) = (Arc::clone(&is_armed), Mutex::new(sender));
        // It has been compared, and is not watched yet.
        Gate::start(world.redis.port(), "\r\nWATCH\r\n", move || {
            if is_armed.swap(false, SeqCst) {
                let mut client = Client::connect(&database, NoTls).unwrap();
                let update = "BEGIN; UPDATE workspace_files SET content = 'newer' \
                              WHERE path = 'm/000.py'";
                client.batch_execute(update).unwrap();
                Foreign::new(connect(&redis)).set("m/000.py", "newer");
                sender.lock().unwrap().send(client).unwrap();
            }
        })
    };
    let writer = F::Writer::new(patient(&gate.url())).unwrap();
    // Longer than a machine of others stands still.
    let options = GuardOptions::default().with_grace(Duration::from_secs(60));
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    is_armed.store(true, SeqCst);
    let mut foreign = world.foreign();
    foreign.set("m/000.py", "wrong");
    let mut client = open.recv_timeout(LIMIT).unwrap();
    // What the guard does to it now, it would have done by the time that it has seen another one.
    for _ in 0..20 {
        assert_eq!(foreign.content("m/000.py").as_deref(), Some("newer"));
        std::thread::sleep(Duration::from_millis(10));
    }
    client.batch_execute("COMMIT").unwrap();
    foreign.wait_for("m/000.py", Some("newer"));
    guard.wait_until_it_rests();
    assert_eq!(guard.stats().mended.stale, 0, "{:?}", guard.stats());
}
