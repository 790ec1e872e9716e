//! Every setting of the guard, its unit and its default.

use std::time::Duration;

use crate::error::Error;
use crate::sync::options::SyncOptions;

/// How a guard looks and how it mends: an argument of `Guard::new`, which refuses what can't be
/// used.
///
/// ```
/// use std::time::Duration;
/// use bifrost_module_cache::guard::GuardOptions;
///
/// let options = GuardOptions::default()
///     .with_poll(Duration::from_millis(500))
///     .with_sweep(Duration::from_secs(300));
/// ```
#[derive(Debug, Clone)]
pub struct GuardOptions {
    pub(crate) poll: Duration,
    pub(crate) listen: bool,
    pub(crate) grace: Duration,
    pub(crate) sweep: Duration,
    pub(crate) standby: Duration,
    pub(crate) answer_timeout: Duration,
    max_prune: Option<f64>,
    allow_empty: bool,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            listen: false,
            grace: Duration::from_millis(250),
            sweep: Duration::from_secs(60),
            standby: Duration::ZERO,
            answer_timeout: Duration::from_secs(10),
            max_prune: None,
            allow_empty: false,
        }
    }
}

impl GuardOptions {
    /// How often the database is asked which rows changed. Default 1 s, at least 10 ms.
    ///
    /// In a large workspace it is asked less often, so that asking takes at most 2 % of the time:
    /// 10,000 rows take some 5 ms, so from some 40,000 on. [`GuardStats::poll_interval`] tells.
    ///
    /// [`GuardStats::poll_interval`]: super::stats::GuardStats::poll_interval
    #[must_use]
    pub fn with_poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// Whether to be told by triggers which rows changed, instead of asking. Default no.
    ///
    /// The triggers are yours to install: [`trigger_sql`](super::trigger::trigger_sql). Where
    /// notifications do not come through (behind `PgBouncer` in transaction mode), or there are no
    /// triggers yet, the guard finds out, says so and asks. Whether the triggers are there is
    /// looked at when it connects and with each sweep.
    #[must_use]
    pub fn with_listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// For how long an entry that differs from its row is left to a transaction that may be about
    /// to commit it, counted from when the transaction was first seen. Default 250 ms, at most a
    /// minute; zero for not at all.
    ///
    /// Without it, the guard would undo what a service writes to Redis before it commits.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How often everything is compared, whatever the hints say. Default 60 s, at least 1 s.
    #[must_use]
    pub fn with_sweep(mut self, interval: Duration) -> Self {
        self.sweep = interval;
        self
    }

    /// How much later than another guard this one looks at a change, so that it mostly finds it
    /// mended. Default zero; 1 s suits a second guard.
    ///
    /// Guards need no leader: what two of them write at the same time is right both times.
    #[must_use]
    pub fn with_standby(mut self, delay: Duration) -> Self {
        self.standby = delay;
        self
    }

    /// How long the database may take for an answer before its connection is given up. Default
    /// 10 s.
    #[must_use]
    pub fn with_answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Which share of the cached modules may be without a row and be removed: as
    /// [`SyncOptions::with_max_prune`]. Above it the guard says so and removes nothing more, until
    /// there are fewer; it goes on mending all else.
    #[must_use]
    pub fn with_max_prune(mut self, share: f64) -> Self {
        self.max_prune = Some(share);
        self
    }

    /// Whether a workspace without any module is meant: as [`SyncOptions::with_allow_empty`].
    /// Default no: the guard removes nothing then.
    #[must_use]
    pub fn with_allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// What is to be compared with what is to be removed.
    pub(crate) fn removals(&self) -> SyncOptions<'static> {
        let options = SyncOptions::default().with_allow_empty(self.allow_empty);
        match self.max_prune {
            Some(share) if !self.allow_empty => options.with_max_prune(share),
            _ => options,
        }
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        let refuse = |reason| Err(Error::invalid_config(reason));
        if self.poll < Duration::from_millis(10) {
            return refuse(
                "the guard must not ask the database more often than each 10 ms: see GuardOptions::with_poll",
            );
        }
        if self.sweep < Duration::from_secs(1) {
            return refuse(
                "the guard must not compare everything more often than each second: see GuardOptions::with_sweep",
            );
        }
        if self.grace > Duration::from_secs(60) {
            return refuse(
                "the guard's grace must be at most a minute: see GuardOptions::with_grace",
            );
        }
        if self.standby > Duration::from_secs(60) {
            return refuse(
                "the guard's standby must be at most a minute: see GuardOptions::with_standby",
            );
        }
        if self.answer_timeout < Duration::from_millis(100) {
            return refuse(
                "the database must have 100 ms for an answer to the guard: see GuardOptions::with_answer_timeout",
            );
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused() {
        let (ms, options) = (Duration::from_millis, GuardOptions::default);
        for bad in [
            options().with_poll(ms(9)),
            options().with_sweep(ms(999)),
            options().with_grace(ms(60_001)),
            options().with_standby(ms(60_001)),
            options().with_answer_timeout(ms(99)),
        ] {
            assert!(bad.checked().is_err());
        }
        assert!(options().with_grace(ms(0)).checked().is_ok());
    }

    #[test]
    fn removals_are_limited_as_those_of_a_warm_up() {
        let options = GuardOptions::default;
        let allows = |options: GuardOptions, removed| {
            let removals = options.removals();
            removals.check_removals(removed, 100).is_ok()
        };
        assert!(allows(options(), 50) && !allows(options(), 51));
        assert!(allows(options().with_max_prune(0.9), 90));
        assert!(!allows(options().with_max_prune(0.1), 11));
        let empty = options().with_max_prune(0.1).with_allow_empty(true);
        assert!(allows(empty.clone(), 100) && empty.removals().allows_empty());
    }
}
