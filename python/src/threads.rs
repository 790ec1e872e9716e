//! The threads of the crate: CPython warns at a fork while any other thread lives, and asks the system
//! at that moment.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long one may take to end when it was told to: it waits for nothing any more.
const LONGEST: Duration = Duration::from_millis(500);

const POOL: &str = "bifrost-pool-0";

/// How many near caches are open, each of which has a thread. A forked child inherits the number and
/// not the threads: it waits for less.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A near cache was opened, and [`closed`] will be called for it.
pub fn opened() {
    OPEN.fetch_add(1, Ordering::Relaxed);
}

/// A near cache that was opened is dropped, without a wait.
pub fn forgotten() {
    OPEN.fetch_sub(1, Ordering::Relaxed);
}

/// Drops a near cache that was opened, and waits for its threads to be gone.
pub fn closed<T>(near: T) {
    // Its pool has one too. Others may have pools of their own.
    let pools = count(&[POOL]);
    drop(near);
    let others = OPEN.fetch_sub(1, Ordering::Relaxed) - 1;
    wait_until(|| {
        let has_ended = pools == 0 || count(&[POOL]) < pools;
        has_ended && count(&["bifrost-near", "bifrost-connect"]) <= others
    });
}

/// Waits for a thread that was joined: the system may know it for a moment longer.
pub fn joined(name: &str) {
    wait_until(|| count(&[name]) == 0);
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LONGEST;
    while !condition() && Instant::now() < end {
        thread::sleep(Duration::from_micros(100));
    }
}

/// How many threads have one of these names; 0 where the system does not tell.
fn count(names: &[&str]) -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let found = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    found
        .filter(|name| names.contains(&name.trim_end()))
        .count()
}
