//! What the system does without a time-out, bounded by a deadline: a thread does it, and the caller
//! waits no longer than that.

use std::io;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread may take to start. In a child that was forked while its parent started one, it
/// never does.
const BIRTH: Duration = Duration::from_millis(100);

/// How many threads may wait at the same time for what the system does without a time-out. With a
/// silent name server each takes half a minute, and each call would add one.
const MOST: u32 = 64;

static UNDER_WAY: UnderWay = UnderWay(AtomicU64::new(0));

/// How many threads are under way, and in which process (the upper half): a forked child inherits
/// the number, but none of its parent's threads.
struct UnderWay(AtomicU64);

impl UnderWay {
    fn count(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        let ours = u64::from(process::id()) << 32;
        let change = |before: u64| {
            let count = before.checked_sub(ours).map(u32::try_from);
            change(count.and_then(Result::ok).unwrap_or_default()).map(|now| ours | u64::from(now))
        };
        self.0.fetch_update(Relaxed, Relaxed, change).is_ok()
    }

    /// Counts one that begins, unless there are too many.
    fn begin(&'static self) -> io::Result<Permit> {
        let has_room = self.count(|count| (count < MOST).then_some(count + 1));
        has_room
            .then(|| Permit(self))
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

/// One of those under way, until it is dropped.
struct Permit(&'static UnderWay);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count(|count| count.checked_sub(1));
    }
}

/// For what the system does without a time-out (resolving a name, connecting to a Unix socket): a
/// thread does it, and the caller waits until the deadline. A thread that comes too late ends by
/// itself.
///
/// Where no thread starts, as in a child that was forked while its parent started one, the caller
/// does the work itself, without a limit: better than to fail every call of such a child.
pub(super) fn within<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    within_of(&UNDER_WAY, deadline, work)
}

fn within_of<T: Send + 'static>(
    under_way: &'static UnderWay,
    deadline: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // Released by the thread when it ends, not by the caller when it gives up: what counts is how
    // many threads there are.
    let permit = under_way.begin()?;
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    // Behind an `Option` that the first of the two takes: the thread, or after `BIRTH` the caller.
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (sender, receiver) = mpsc::sync_channel(1);
    let theirs = Arc::clone(&work);
    let thread = move || {
        if let Some(work) = take(&theirs) {
            // Without a receiver: the caller has reached its deadline.
            let _ = sender.send(work());
        }
    };
    thread::Builder::new()
        .name("bifrost-connect".to_owned())
        .spawn(thread)?;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut done = receiver.recv_timeout(left().min(BIRTH));
    if done.is_err() {
        if let Some(work) = take(&work).filter(|_| !left().is_zero()) {
            return work();
        }
        done = receiver.recv_timeout(left());
    }
    done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::RwLock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_hangs_is_bounded_by_number() {
        static UNDER_WAY: UnderWay = UnderWay(AtomicU64::new(0));
        // As a forked child finds it.
        let parent = u64::from(process::id() - 1) << 32;
        UNDER_WAY.0.store(parent | u64::from(MOST), Relaxed);
        let gate = Arc::new(RwLock::new(()));
        let hanging = gate.write().unwrap();
        let begun = Arc::new(AtomicU64::new(0));
        let hang = || {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            let wait = move || {
                begun.fetch_add(1, Relaxed);
                drop(gate.read());
                Ok(())
            };
            within_of(&UNDER_WAY, Instant::now() + MS, wait)
        };
        // Threads may be born late.
        while begun.load(Relaxed) < u64::from(MOST) {
            assert_eq!(hang().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        for _ in 0..MOST {
            assert_eq!(hang().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.load(Relaxed), u64::from(MOST));
        drop(hanging);
        while UNDER_WAY.0.load(Relaxed) != u64::from(process::id()) << 32 {
            thread::sleep(MS);
        }
        let later = Instant::now() + Duration::from_secs(60);
        within_of(&UNDER_WAY, later, || Ok(())).unwrap();
    }
}
