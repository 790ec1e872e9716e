//! Counters for an operator. They are `Relaxed`: each is right by itself, and no two of them are
//! read at one moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::breaker::{Breaker, BreakerState};
use crate::error::Error;
use crate::prometheus::{Exposition, float};

/// What a reader or writer has done since it was made, all clones together: returned by their
/// `stats`. Counters only grow; a forked child goes on from its parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that needed Redis: reads and writes, also those that failed. The long ones (`refresh`,
    /// warm-up, `verify`, `repair`) report for themselves.
    pub calls: u64,
    /// Modules that Redis said are absent, and names that are not found.
    pub absent: u64,
    /// Calls that were tried a second time: reads without an answer, and what a server refused
    /// because another one holds the keys now.
    pub retries: u64,
    /// Calls that failed as [`Error::Unavailable`], the rejected ones included.
    pub unavailable: u64,
    /// Calls that the open breaker failed at once.
    pub rejected: u64,
    /// Calls that failed as [`Error::Busy`].
    pub busy: u64,
    /// Calls that failed as [`Error::Corrupt`].
    pub corrupt: u64,
    /// Calls that failed as [`Error::Refused`].
    pub refused: u64,
    /// Modules whose content did not match their hash, where
    /// [`Integrity`](crate::config::Integrity) is not off.
    pub mismatched: u64,
    /// Members of the index that could not be paths and were skipped.
    pub bad_members: u64,
    /// Whether the breaker lets calls through.
    pub breaker: BreakerState,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// Connections in use now (`blocking`), or calls in flight (`nonblocking`).
    pub in_use: usize,
}

impl Stats {
    /// Writes all of them as text that Prometheus scrapes (`text/plain; version=0.0.4`), with these
    /// labels on every series. Their names begin with `bifrost_module_cache_` and are listed in
    /// [metrics](crate::guide::metrics#stats).
    ///
    /// Only once a page: Prometheus permits no metric to be there twice, be it with other labels.
    ///
    /// ```
    /// # use bifrost_module_cache::Stats;
    /// # let stats = Stats::default(); // of a reader or writer: `reader.stats()`
    /// let mut page = String::new();
    /// stats.write_prometheus(&mut page, &[("service", "api")])?;
    /// assert!(page.contains("bifrost_module_cache_calls_total{service=\"api\"} 0\n"));
    /// # Ok::<(), std::fmt::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `out`; and if a label's name does not match `[a-zA-Z_][a-zA-Z0-9_]*`, begins with
    /// `__`, is there twice, or is `error` or `state`, which metrics here have themselves. Then the
    /// page is not complete. Values may be anything.
    pub fn write_prometheus(
        &self,
        out: &mut impl fmt::Write,
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let Self {
            calls,
            absent,
            retries,
            unavailable,
            rejected,
            busy,
            corrupt,
            refused,
            mismatched,
            bad_members,
            breaker,
            breaker_opened,
            in_use,
        } = *self;
        let mut to = Exposition::new(out, labels);
        to.counters(
            "bifrost_module_cache_errors_total",
            "Calls that failed, by error.",
            "error",
            &[
                ("unavailable", unavailable),
                ("busy", busy),
                ("corrupt", corrupt),
                ("refused", refused),
            ],
        )?;
        let is = |state| f64::from(u8::from(breaker == state));
        to.gauges(
            "bifrost_module_cache_breaker_state",
            "1 for the state in which the breaker is.",
            "state",
            &[
                ("closed", is(BreakerState::Closed)),
                ("open", is(BreakerState::Open)),
            ],
        )?;
        for (name, help, value) in [
            (
                "bifrost_module_cache_calls_total",
                "Calls that needed Redis, also those that failed.",
                calls,
            ),
            (
                "bifrost_module_cache_absent_total",
                "Modules that Redis said are absent, and names that are not found.",
                absent,
            ),
            (
                "bifrost_module_cache_retries_total",
                "Calls that were tried a second time.",
                retries,
            ),
            (
                "bifrost_module_cache_rejected_total",
                "Calls that the open breaker failed at once.",
                rejected,
            ),
            (
                "bifrost_module_cache_mismatched_total",
                "Modules whose content did not match their hash.",
                mismatched,
            ),
            (
                "bifrost_module_cache_bad_members_total",
                "Members of the index that could not be paths.",
                bad_members,
            ),
            (
                "bifrost_module_cache_breaker_opened_total",
                "How often the breaker opened.",
                breaker_opened,
            ),
        ] {
            to.counter(name, help, value)?;
        }
        to.gauge(
            "bifrost_module_cache_in_use",
            "Connections in use (blocking), or calls in flight (nonblocking).",
            float(in_use),
        )
    }
}

/// The counters and the breaker behind one set of connections.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    pub(crate) breaker: Breaker,
    pub(crate) calls: Counter,
    pub(crate) absent: Counter,
    pub(crate) retries: Counter,
    pub(crate) rejected: Counter,
    pub(crate) mismatched: Counter,
    pub(crate) bad_members: Counter,
    unavailable: Counter,
    busy: Counter,
    corrupt: Counter,
    refused: Counter,
    /// How often another server was found to hold the keys.
    moves: AtomicU64,
}

impl Monitor {
    /// True for one caller after each move.
    pub(crate) fn has_moved(&self, moves: u64) -> bool {
        let before = self.moves.load(Ordering::Relaxed);
        before != moves && self.moves.swap(moves, Ordering::Relaxed) != moves
    }

    pub(crate) fn failed(&self, error: &Error) {
        match error {
            Error::Unavailable { .. } => self.unavailable.add(1),
            Error::Busy { .. } => self.busy.add(1),
            Error::Corrupt { .. } => self.corrupt.add(1),
            Error::Refused { .. } => self.refused.add(1),
            _ => {}
        }
    }

    pub(crate) fn stats(&self, in_use: usize) -> Stats {
        Stats {
            calls: self.calls.get(),
            absent: self.absent.get(),
            retries: self.retries.get(),
            unavailable: self.unavailable.get(),
            rejected: self.rejected.get(),
            busy: self.busy.get(),
            corrupt: self.corrupt.get(),
            refused: self.refused.get(),
            mismatched: self.mismatched.get(),
            bad_members: self.bad_members.get(),
            breaker: self.breaker.state(),
            breaker_opened: self.breaker.opened(),
            in_use,
        }
    }
}

/// A counter for what a round trip goes with: one atomic is no cost beside it. Hits have striped
/// ones.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::tests::check;

    #[test]
    fn each_statistic_is_a_metric() {
        let stats = Stats {
            calls: 1,
            absent: 2,
            retries: 3,
            unavailable: 4,
            rejected: 5,
            busy: 6,
            corrupt: 7,
            refused: 8,
            mismatched: 9,
            bad_members: 10,
            breaker: BreakerState::Open,
            breaker_opened: 11,
            in_use: 12,
        };
        let mut page = String::new();
        stats.write_prometheus(&mut page, &[("a", "\"")]).unwrap();
        check(&page);
        let series: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = r#"
errors_total{a="\"",error="unavailable"} 4
errors_total{a="\"",error="busy"} 6
errors_total{a="\"",error="corrupt"} 7
errors_total{a="\"",error="refused"} 8
breaker_state{a="\"",state="closed"} 0
breaker_state{a="\"",state="open"} 1
calls_total{a="\""} 1
absent_total{a="\""} 2
retries_total{a="\""} 3
rejected_total{a="\""} 5
mismatched_total{a="\""} 9
bad_members_total{a="\""} 10
breaker_opened_total{a="\""} 11
in_use{a="\""} 12"#;
        let expected = expected.replace('\n', "\nbifrost_module_cache_");
        assert_eq!(format!("\n{}", series.join("\n")), expected);
    }

    #[test]
    fn labels_that_cannot_be_are_refused() {
        for name in ["error", "state", "a-b"] {
            let written = Stats::default().write_prometheus(&mut String::new(), &[(name, "x")]);
            assert!(written.is_err(), "{name}");
        }
    }
}
