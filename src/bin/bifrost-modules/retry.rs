//! Waiting for servers that are not up yet: in a new deployment they start beside the init
//! container.

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::stderr::Stderr;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The least time of an attempt, also of the last one: enough to connect to a server that is up.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(200);

/// Tries until it works, `limit` has passed, or waiting won't help (a wrong password). Each attempt
/// is told how much time is left. Without a limit there is one attempt.
pub fn until_ready<T>(
    limit: Option<Duration>,
    stderr: &Stderr,
    mut attempt: impl FnMut(Duration) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(limit) = limit else {
        return attempt(Duration::MAX);
    };
    let start = Instant::now();
    let left = || limit.saturating_sub(start.elapsed());
    let mut pause = FIRST_PAUSE;
    loop {
        let last = left().is_zero();
        let failure = match attempt(left().max(SHORTEST_ATTEMPT)) {
            Err(failure) if failure.is_unavailable() => failure,
            result => return result,
        };
        // An attempt that used up the time was the last one, even if it did not begin as that.
        if last || left().is_zero() {
            let waited = start.elapsed().as_secs_f64();
            return Err(failure.at(&format!("gave up after {waited:.1} s")));
        }
        stderr.wait(&failure.message);
        thread::sleep(pause.min(left()));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
