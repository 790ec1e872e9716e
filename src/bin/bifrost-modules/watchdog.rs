//! Watches over work that asks the database, which may never answer: a table is locked, a server
//! frozen.
//!
//! Its client has no time-out. One that is set in the session (`statement_timeout`) would, behind
//! `PgBouncer`, stay with a session that other clients use. So the work runs in a thread, and this
//! one waits for its reports.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use bifrost_module_cache::sync::Progress;

/// The end of a channel on which work reports that it goes on.
pub struct Reports<T>(Sender<Report<T>>);

enum Report<T> {
    Progress(Progress),
    Done(T),
}

impl<T> Reports<T> {
    pub fn progress(&self, progress: Progress) {
        // Without a receiver: the watchdog has given the work up already.
        let _ = self.0.send(Report::Progress(progress));
    }
}

/// The result of `work`, or for how long it reported nothing: at most `first` until its first
/// report, and `limit` from then on.
///
/// Work that is given up is left behind in its thread, which can't be stopped. That is harmless:
/// all that writes to Redis may stop at any moment, or go on beside other writers.
pub fn within<T: Send + 'static>(
    first: Duration,
    limit: Duration,
    mut show: impl FnMut(Progress),
    work: impl FnOnce(Reports<T>) -> T + Send + 'static,
) -> Result<T, Duration> {
    let mut watchdog = first;
    let (sender, reports) = mpsc::channel();
    let worker = thread::spawn(move || {
        let done = work(Reports(sender.clone()));
        let _ = sender.send(Report::Done(done));
    });
    loop {
        match reports.recv_timeout(watchdog) {
            Ok(Report::Progress(progress)) => {
                watchdog = limit;
                show(progress);
            }
            Ok(Report::Done(done)) => return Ok(done),
            Err(RecvTimeoutError::Timeout) => return Err(watchdog),
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(panicked) = worker.join() {
                    panic::resume_unwind(panicked);
                }
                return Err(Duration::ZERO);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_given_up_and_an_answer_is_not() {
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(60));
        let sleep = |_| thread::sleep(Duration::from_millis(200));
        let silent = |first| within(first, long, |_| {}, sleep);
        assert_eq!(silent(short), Err(short));
        assert_eq!(silent(long), Ok(()));
    }

    #[test]
    #[should_panic(expected = "of the work")]
    fn a_panic_is_passed_on() {
        let _ = within(
            Duration::from_secs(60),
            Duration::from_secs(60),
            |_| {},
            |_: Reports<()>| panic!("of the work"),
        );
    }
}
