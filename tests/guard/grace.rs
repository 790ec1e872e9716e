//! A writer that writes to Redis before it commits is not fought with.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Guard, Guarding, StopOnDrop, World, numbered, on_both_facades};
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    what_is_set_before_the_commit_is_not_undone
    without_a_grace_it_is_undone
    a_late_commit_is_seen
    a_transaction_that_stays_open_holds_nothing_up_for_long
    a_transaction_that_only_reads_another_table_is_not_waited_for
}

/// How a transaction and a SET come about that belong together.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// It changes the row, then SET, then the commit.
    UpdateFirst,
    /// It reads the row, then SET, then it changes the row and commits: a session of an ORM, which
    /// holds changes back until the commit.
    ReadFirst,
}

/// For how long a transaction stays open after its SET: in it, a guard without a grace has all the
/// time that it needs.
const OPEN: Duration = Duration::from_millis(40);

/// Answers in how many of these trials the entry went back to what it was.
fn undone<F: Guarding>(grace: Duration, orders: &[Order], trials: usize) -> usize {
    let paths = numbered(20);
    let world = World::<F>::with_rows(&paths);
    let options = GuardOptions::default().with_grace(grace);
    let guard = Guard::start(&world, options.with_poll(Duration::from_millis(50)));
    guard.wait_until_it_rests();
    let mut table = world.table();
    let mut undone = 0;
    for (trial, order) in (0..trials).flat_map(|trial| orders.iter().map(move |it| (trial, it))) {
        let path = &paths[trial % paths.len()];
        let mut foreign = world.foreign();
        let before = foreign.content(path).unwrap();
        let new = format!("{trial} {order:?}");
        let update = format!("UPDATE workspace_files SET content = '{new}' WHERE path = '{path}'");
        let mut transaction = table.0.transaction().unwrap();
        match order {
            Order::UpdateFirst => transaction.batch_execute(&update).unwrap(),
            Order::ReadFirst => {
                let read = format!("SELECT content FROM workspace_files WHERE path = '{path}'");
                transaction.batch_execute(&read).unwrap();
            }
        }
        let committed = AtomicBool::new(false);
        let went_back = thread::scope(|scope| {
            let (world, committed) = (&world, &committed);
            let stop = StopOnDrop(committed);
            foreign.set(path, &new);
            let reader = scope.spawn(move || {
                let mut foreign = world.foreign();
                let mut went_back = false;
                while !committed.load(SeqCst) {
                    went_back |= foreign.content(path).as_ref() == Some(&before);
                }
                went_back
            });
            thread::sleep(OPEN);
            if matches!(order, Order::ReadFirst) {
                transaction.batch_execute(&update).unwrap();
            }
            transaction.commit().unwrap();
            drop(stop);
            reader.join().unwrap()
        });
        undone += usize::from(went_back);
        foreign.wait_for(path, Some(&new));
    }
    undone
}

const BOTH: [Order; 2] = [Order::UpdateFirst, Order::ReadFirst];

fn what_is_set_before_the_commit_is_not_undone<F: Guarding>() {
    // Longer than the test's transactions are held up on the busiest of machines.
    let grace = Duration::from_secs(20);
    assert_eq!(undone::<F>(grace, &BOTH, 10), 0);
}

fn without_a_grace_it_is_undone<F: Guarding>() {
    let undone = undone::<F>(Duration::ZERO, &BOTH, 10);
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
    transaction.commit().unwrap();
    foreign.wait_for("m/000.py", Some("late"));
    assert_eq!(guard.stats().sweeps, 1);
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
