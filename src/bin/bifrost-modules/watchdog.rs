//! Waiting for work that asks the database, which may never answer: a table is locked, a server
//! frozen. Its client knows no time-out, and one that is set in the session would, behind
//! `PgBouncer`, stay with a session that others use.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use bifrost_module_cache::sync::Progress;

/// Where work says that it goes on.
pub struct Signs<T>(Sender<Sign<T>>);

enum Sign<T> {
    Progress(Progress),
    Done(T),
}

impl<T> Signs<T> {
    pub fn progress(&self, progress: Progress) {
        // Nobody may wait any more.
        let _ = self.0.send(Sign::Progress(progress));
    }
}

/// What `work` comes to, or for how long nothing was heard of it: `first` at the beginning, and
/// `limit` from then on. Then it is left behind in its thread: like all that writes to Redis, it may
/// stop at any moment, or go on beside others.
pub fn within<T: Send + 'static>(
    first: Duration,
    limit: Duration,
    mut show: impl FnMut(Progress),
    work: impl FnOnce(Signs<T>) -> T + Send + 'static,
) -> Result<T, Duration> {
    let mut watchdog = first;
    let (sender, signs) = mpsc::channel();
    let worker = thread::spawn(move || {
        let done = work(Signs(sender.clone()));
        let _ = sender.send(Sign::Done(done));
    });
    loop {
        match signs.recv_timeout(watchdog) {
            Ok(Sign::Progress(progress)) => {
                watchdog = limit;
                show(progress);
            }
            Ok(Sign::Done(done)) => return Ok(done),
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
            |_: Signs<()>| panic!("of the work"),
        );
    }
}
