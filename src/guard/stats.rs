//! What a guard has done and how it is: counted here, and shown to Prometheus.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use crate::prometheus::Exposition;
use crate::rfc3339;
use crate::sync::verdict::Verdict;

/// Upper bounds of [`GuardStats::right_after`], in milliseconds.
const BOUNDS: [u32; 14] = [
    1, 3, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000,
];

/// How a guard learns which rows changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DatabaseFeed {
    /// It asks, from time to time.
    #[default]
    Poll,
    /// Triggers tell it.
    Listen,
}

impl fmt::Display for DatabaseFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll => "poll",
            Self::Listen => "listen",
        })
    }
}

/// What a guard has done since it was made, and how it is now; all clones together. Returned by
/// `Guard::stats`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GuardStats {
    /// Whether `run` runs.
    pub running: bool,
    /// When the loop last did something; older than some seconds if it hangs.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub active: SystemTime,
    /// Since when it guards, with both servers and without a gap; `None` if it does not now.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub since: Option<SystemTime>,
    /// Whether Redis is followed, so that what others write there is seen at once.
    pub redis_up: bool,
    /// Whether the database answers.
    pub database_up: bool,
    /// How it learns of changed rows now.
    pub database_feed: DatabaseFeed,
    /// How often it asks the database, where it does: as set, or longer in a large workspace.
    #[serde(rename = "poll_interval_seconds", serialize_with = "seconds")]
    pub poll_interval: Duration,
    /// How many modules the database has, as last seen.
    pub modules: usize,
    /// How many paths wait to be looked at.
    pub pending: usize,
    /// How many paths have been looked at.
    pub checked: u64,
    /// How many paths have been mended, by what was wrong.
    pub mended: Mended,
    /// How long it took from the first hint at a wrong entry until it was right.
    pub right_after: Histogram,
    /// How often everything has been compared.
    pub sweeps: u64,
    /// When everything was last compared, to the end.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub last_sweep: Option<SystemTime>,
    /// How often it marked the cache as complete.
    pub completed: u64,
    /// How many paths are contended: somebody writes them wrongly as often as they are mended, so
    /// they are mended less often.
    pub contended: usize,
    /// How many cached modules are without a row and are not removed, because they are too many.
    pub withheld: usize,
    /// How often a server or a connection failed it.
    pub failures: u64,
    /// How that was the last time.
    pub last_failure: Option<String>,
}

/// How many paths were mended, by what was wrong: [`GuardStats::mended`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Mended {
    /// The row had no entry.
    pub missing: u64,
    /// The entry said something else than its row.
    pub stale: u64,
    /// The entry could not be read.
    pub corrupt: u64,
    /// The entry had no row.
    pub ghost: u64,
    /// The index named a path without an entry and without a row, or what is no path.
    pub index_only: u64,
    /// The index did not name an entry.
    pub key_only: u64,
    /// The entry expired otherwise than the setting wants.
    pub expiring: u64,
}

impl Mended {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_verdict().iter().map(|(_, count)| count).sum()
    }

    fn by_verdict(&self) -> [(&'static str, u64); 7] {
        let Self {
            missing,
            stale,
            corrupt,
            ghost,
            index_only,
            key_only,
            expiring,
        } = *self;
        [
            ("missing", missing),
            ("stale", stale),
            ("corrupt", corrupt),
            ("ghost", ghost),
            ("index_only", index_only),
            ("key_only", key_only),
            ("expiring", expiring),
        ]
    }

    pub(super) fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Right => return,
            Verdict::Missing => &mut self.missing,
            Verdict::Stale => &mut self.stale,
            Verdict::Corrupt => &mut self.corrupt,
            Verdict::Ghost => &mut self.ghost,
            Verdict::IndexOnly => &mut self.index_only,
            Verdict::KeyOnly => &mut self.key_only,
            Verdict::Expiring => &mut self.expiring,
        } += 1;
    }
}

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// An upper bound in seconds, and how many took no longer; in ascending order. Those that took
    /// longer than the last one are in `count` alone.
    pub buckets: Vec<(f64, u64)>,
    /// How long all of them took together, in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

/// What is counted as the guard goes on.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) running: bool,
    pub(super) active: Option<SystemTime>,
    pub(super) since: Option<SystemTime>,
    pub(super) redis_up: bool,
    pub(super) database_up: bool,
    pub(super) database_feed: DatabaseFeed,
    pub(super) poll_interval: Duration,
    pub(super) modules: usize,
    pub(super) checked: u64,
    pub(super) mended: Mended,
    slower_than: [u64; BOUNDS.len()],
    sum: Duration,
    count: u64,
    pub(super) sweeps: u64,
    pub(super) last_sweep: Option<SystemTime>,
    pub(super) completed: u64,
    pub(super) contended: usize,
    pub(super) withheld: usize,
    pub(super) failures: u64,
    pub(super) last_failure: Option<String>,
}

/// The counts, which the loop changes and others read.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Counts>);

impl Record {
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A lock that is held across an await, even if it is dropped before, would keep a guard of
    // `nonblocking` from being spawned: hence these.

    /// The guard runs from now on.
    pub(super) fn begin(&self) {
        let mut counts = self.lock();
        (counts.running, counts.active) = (true, Some(SystemTime::now()));
    }

    /// The loop looks at so many paths.
    pub(super) fn looked_at(&self, paths: usize) {
        let mut counts = self.lock();
        counts.checked += paths as u64;
        counts.active = Some(SystemTime::now());
    }

    /// Everything has been compared.
    pub(super) fn swept(&self) {
        let mut counts = self.lock();
        counts.sweeps += 1;
        counts.last_sweep = Some(SystemTime::now());
    }

    /// So many paths are right now that were seen to be wrong at `seen`.
    pub(super) fn all_right(&self, verdict: Verdict, count: usize, seen: Instant) {
        let mut counts = self.lock();
        for _ in 0..count {
            counts.right(verdict, seen);
        }
    }

    pub(super) fn stats(&self, pending: usize) -> GuardStats {
        let counts = self.lock();
        let within = |slower: u64| counts.count - slower;
        let bounds = BOUNDS.map(|ms| f64::from(ms) / 1_000.0);
        let buckets = bounds.into_iter().zip(counts.slower_than.map(within));
        GuardStats {
            running: counts.running,
            active: counts.active.unwrap_or(SystemTime::UNIX_EPOCH),
            since: counts.since,
            redis_up: counts.redis_up,
            database_up: counts.database_up,
            database_feed: counts.database_feed,
            poll_interval: counts.poll_interval,
            modules: counts.modules,
            pending,
            checked: counts.checked,
            mended: counts.mended,
            right_after: Histogram {
                buckets: buckets.collect(),
                sum: counts.sum.as_secs_f64(),
                count: counts.count,
            },
            sweeps: counts.sweeps,
            last_sweep: counts.last_sweep,
            completed: counts.completed,
            contended: counts.contended,
            withheld: counts.withheld,
            failures: counts.failures,
            last_failure: counts.last_failure.clone(),
        }
    }
}

impl Counts {
    /// A path that was hinted at `arrived` is right now.
    pub(super) fn right(&mut self, verdict: Verdict, arrived: Instant) {
        self.mended.count(verdict);
        let took = arrived.elapsed();
        for (bound, slower) in BOUNDS.iter().zip(&mut self.slower_than) {
            *slower += u64::from(took > Duration::from_millis(u64::from(*bound)));
        }
        self.sum += took;
        self.count += 1;
    }
}

impl GuardStats {
    /// Writes these figures in the text format of Prometheus, each with these labels: what
    /// `bifrost-modules guard --metrics` serves. Their meaning: [metrics](crate::guide::metrics).
    ///
    /// # Errors
    ///
    /// What `out` fails with; a `String` never does.
    pub fn write_prometheus(
        &self,
        out: &mut impl fmt::Write,
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let up = |is_up| if is_up { 1.0 } else { 0.0 };
        let gauge = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let age = |at: SystemTime| at.elapsed().unwrap_or_default().as_secs_f64();
        let mut out = Exposition::new(out, labels);
        out.gauge(
            "bifrost_guard_active_age_seconds",
            "Seconds since the guard's loop last did something.",
            age(self.active),
        )?;
        out.gauge(
            "bifrost_guard_guarding",
            "1 while the guard guards, with both servers.",
            up(self.since.is_some()),
        )?;
        out.gauges(
            "bifrost_guard_feed_up",
            "1 while the feed of hints works.",
            "feed",
            &[
                ("redis", up(self.redis_up)),
                ("database", up(self.database_up)),
            ],
        )?;
        out.gauges(
            "bifrost_guard_database_feed",
            "1 for how the guard learns of changed rows.",
            "mode",
            &[
                ("poll", up(self.database_feed == DatabaseFeed::Poll)),
                ("listen", up(self.database_feed == DatabaseFeed::Listen)),
            ],
        )?;
        out.gauge(
            "bifrost_guard_poll_interval_seconds",
            "How often the database is asked which rows changed.",
            self.poll_interval.as_secs_f64(),
        )?;
        out.gauge(
            "bifrost_guard_modules",
            "Modules in the database.",
            gauge(self.modules),
        )?;
        out.gauge(
            "bifrost_guard_pending_paths",
            "Paths that wait to be looked at.",
            gauge(self.pending),
        )?;
        out.counter(
            "bifrost_guard_checked_paths_total",
            "Paths that were looked at.",
            self.checked,
        )?;
        out.counters(
            "bifrost_guard_mended_paths_total",
            "Paths that were mended, by what was wrong.",
            "verdict",
            &self.mended.by_verdict(),
        )?;
        out.histogram(
            "bifrost_guard_right_after_seconds",
            "From the first hint at a wrong entry until it was right.",
            &self.right_after.buckets,
            self.right_after.sum,
            self.right_after.count,
        )?;
        out.counter(
            "bifrost_guard_sweeps_total",
            "How often everything was compared.",
            self.sweeps,
        )?;
        out.gauge(
            "bifrost_guard_last_sweep_age_seconds",
            "Seconds since everything was last compared; NaN before the first time.",
            self.last_sweep.map_or(f64::NAN, age),
        )?;
        out.counter(
            "bifrost_guard_completed_total",
            "How often the cache was marked as complete.",
            self.completed,
        )?;
        out.gauge(
            "bifrost_guard_contended_paths",
            "Paths that somebody writes wrongly again and again.",
            gauge(self.contended),
        )?;
        out.gauge(
            "bifrost_guard_withheld_removals",
            "Cached modules without a row that are too many to be removed.",
            gauge(self.withheld),
        )?;
        out.counter(
            "bifrost_guard_failures_total",
            "How often a server or a connection failed the guard.",
            self.failures,
        )
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_path_counts_by_verdict_and_by_time() {
        let record = Record::default();
        let now = Instant::now();
        record.lock().right(Verdict::Stale, now);
        record.lock().right(
            Verdict::Ghost,
            now.checked_sub(Duration::from_secs(2)).unwrap(),
        );
        let stats = record.stats(3);
        assert_eq!((stats.mended.stale, stats.mended.ghost), (1, 1));
        assert_eq!((stats.mended.total(), stats.pending), (2, 3));
        let within = |seconds: f64| {
            let mut buckets = stats.right_after.buckets.iter();
            buckets.find(|(bound, _)| *bound >= seconds).unwrap().1
        };
        assert_eq!(
            (within(1.0), within(2.5), stats.right_after.count),
            (1, 2, 2)
        );
    }

    #[test]
    fn it_is_shown_to_prometheus() {
        let mut text = String::new();
        let stats = Record::default().stats(7);
        stats.write_prometheus(&mut text, &[("job", "x")]).unwrap();
        for line in [
            "bifrost_guard_pending_paths{job=\"x\"} 7",
            "bifrost_guard_mended_paths_total{job=\"x\",verdict=\"ghost\"} 0",
            "bifrost_guard_database_feed{job=\"x\",mode=\"poll\"} 1",
            "bifrost_guard_right_after_seconds_bucket{job=\"x\",le=\"+Inf\"} 0",
            "bifrost_guard_last_sweep_age_seconds{job=\"x\"} NaN",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} not in {text}");
        }
    }
}
