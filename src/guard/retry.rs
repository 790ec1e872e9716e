//! When what failed is tried again, and how long what works takes.

use std::time::{Duration, Instant};

use crate::random::random;

/// How long to wait before a server is tried again; it doubles.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// When something that failed is tried again.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) next: Instant,
    failures: u32,
}

impl Retry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            failures: 0,
        }
    }

    /// Waits for at least `first`, longer with each failure; answers whether it is the first.
    pub(super) fn failed(&mut self, first: Duration) -> bool {
        let delay = first.max((FIRST_DELAY * (1 << self.failures.min(8))).min(LAST_DELAY));
        // So that a fleet of guards does not come back at once.
        let jittered = delay * u32::try_from(75 + random() % 25).unwrap_or(100) / 100;
        self.next = Instant::now() + jittered;
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// It works; answers whether it had failed before.
    pub(super) fn worked(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

/// So many times tell how long something takes.
const ENOUGH: usize = 4;

/// How long something takes when nothing is in its way: the shortest of the last few times. One
/// that a busy machine held up says nothing about the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: [Option<Duration>; 8],
    at: usize,
}

impl Pace {
    /// Zero until there have been enough.
    pub(super) fn took(&mut self, duration: Duration) -> Duration {
        self.last[self.at] = Some(duration);
        self.at = (self.at + 1) % self.last.len();
        let shortest = self.last.iter().flatten().min().copied();
        let are_enough = self.last.iter().flatten().count() >= ENOUGH;
        shortest.filter(|_| are_enough).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_waits_longer_and_is_told_once() {
        let mut retry = Retry::new(Instant::now());
        let mut delays = Vec::new();
        for n in 0..8 {
            assert_eq!(retry.failed(FIRST_DELAY), n == 0);
            delays.push(retry.next - Instant::now());
        }
        assert!(
            delays[0] <= FIRST_DELAY && delays[7] > LAST_DELAY / 2,
            "{delays:?}"
        );
        assert!(delays.iter().all(|delay| *delay <= LAST_DELAY));
        assert!(retry.worked() && !retry.worked());
        assert!(retry.failed(FIRST_DELAY), "the first again");
    }

    #[test]
    fn one_slow_time_says_nothing() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        for _ in 1..ENOUGH {
            assert_eq!(pace.took(ms(500)), ms(0), "it can't be told yet");
        }
        assert_eq!(pace.took(ms(5)), ms(5));
        assert_eq!(pace.took(ms(500)), ms(5));
        for _ in 0..8 {
            pace.took(ms(50));
        }
        assert_eq!(pace.took(ms(60)), ms(50));
    }
}
