//! A writer that writes to Redis before it commits, beside a guard.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bifrost_module_cache::guard::GuardOptions;

use super::StopOnDrop;
use super::guard::{Guard, Guarding};
use super::world::{World, numbered};

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

/// Answers in how many of these trials, of each order, the entry went back to what it was.
pub fn undone<F: Guarding>(grace: Duration, trials: usize) -> usize {
    let paths = numbered(20);
    let world = World::<F>::with_rows(&paths);
    let options = GuardOptions::default().with_grace(grace);
    let guard = Guard::start(&world, options.with_poll(Duration::from_millis(50)));
    guard.wait_until_it_rests();
    let mut table = world.table();
    let mut undone = 0;
    for (trial, order) in (0..trials).flat_map(|trial| BOTH.iter().map(move |it| (trial, it))) {
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
