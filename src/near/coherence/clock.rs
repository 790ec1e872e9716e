//! Time as the near cache sees it: coarse, and so cheap that every hit can look at it.

use std::time::Duration;

use coarsetime::Instant;

/// A moment of the system's monotonic clock, to some milliseconds, in 1/2³² s. It goes on without
/// any thread of ours: a forked child, which has none, sees a lease lapse all the same. A flag that
/// the listener clears would stay set in the child for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) fn now() -> Self {
        // Not `now()`, which also writes to memory that all threads share: it would slow down each
        // thread that hits. The coarse clock takes 5 ns, where the exact one took half of a hit.
        Self(Instant::now_without_cache_update().as_ticks())
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(ticks(duration)))
    }

    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(ticks(duration)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let nanos = (u128::from(self.0.saturating_sub(earlier.0)) * 1_000_000_000) >> 32;
        Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
    }

    /// For an atomic: a lease is read at each hit, without a lock.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

fn ticks(duration: Duration) -> u64 {
    let ticks = (duration.as_nanos() << 32) / 1_000_000_000;
    ticks.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_come_back_as_they_were_added() {
        let start = Tick::now();
        for millis in [0, 1, 250, 2_000, 3_600_000] {
            let duration = Duration::from_millis(millis);
            let error = duration.abs_diff(start.plus(duration).since(start));
            assert!(error < Duration::from_micros(1), "{duration:?}");
        }
        assert_eq!(
            start.since(start.plus(Duration::from_secs(1))),
            Duration::ZERO
        );
        assert!(start.plus(Duration::MAX) > start);
    }
}
