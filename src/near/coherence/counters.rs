//! Counts what the near cache does, without the threads that hit it getting in each other's way.
//!
//! One counter that all threads increase moves its cache line from processor to processor: it cost
//! the second thread its whole gain. So the counters of hits are striped.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::client::stats::Counter;
use crate::prometheus::{Exposition, float};
use crate::rfc3339;

/// What a near cache has done since it was made, and what it holds; all clones together. Returned
/// by `NearCache::stats`.
///
/// Each read of a module, of one path in `get_many` too, is a hit, a miss or a bypass; a name is a
/// read of each path that is looked at. What a prefetch or a snapshot reads is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NearCacheStats {
    /// Reads answered from memory.
    pub hits: u64,
    /// Hits that said "absent". Also counted in `hits`.
    pub absent_hits: u64,
    /// Reads that asked Redis, or waited for one that did, so that the answer could be cached.
    pub misses: u64,
    /// Misses that waited for the answer to another reader's request. Also counted in `misses`.
    pub joined: u64,
    /// Reads that asked Redis and cached nothing, because it was not followed at that moment.
    pub bypasses: u64,
    /// Answers that were not cached: the path changed, or the connection was lost, while they were
    /// under way.
    pub rejected_inserts: u64,
    /// Reads that failed and were answered with the last known module:
    /// [`with_stale_if_error`](crate::near::options::NearCacheOptions::with_stale_if_error).
    pub stale_served: u64,
    /// Paths that Redis announced as changed, the index included.
    pub invalidations: u64,
    /// How often everything was given up: Redis was flushed, or a writer that this near cache
    /// observes changed everything.
    pub flushes: u64,
    /// Modules and absent paths given up to keep within the bounds.
    pub evictions: u64,
    /// Modules held now.
    pub modules: usize,
    /// Paths and names remembered to be absent now.
    pub absent_paths: usize,
    /// What all that is held takes, in bytes.
    pub bytes: usize,
    /// Whether Redis is followed now. While it is not, reads ask Redis.
    pub live: bool,
    /// Since when it is, or is not.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub since: SystemTime,
    /// How often following Redis began.
    pub sessions: u64,
    /// Why Redis is not followed, or was not when that was last tried.
    pub last_failure: Option<String>,
}

impl NearCacheStats {
    /// All reads of modules: hits, misses and bypasses.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.hits + self.misses + self.bypasses
    }

    /// Writes all of them but the last failure as text that Prometheus scrapes, as
    /// [`Stats::write_prometheus`](crate::client::stats::Stats::write_prometheus) does. Their names
    /// begin with `bifrost_near_cache_` and are listed in
    /// [metrics](crate::guide::metrics#nearcachestats).
    ///
    /// # Errors
    ///
    /// As there; the labels that these metrics have themselves are `result` and `state`.
    pub fn write_prometheus(
        &self,
        out: &mut impl fmt::Write,
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let mut to = Exposition::new(out, labels);
        self.write_counters(&mut to)?;
        self.write_gauges(&mut to)
    }

    fn write_counters(&self, to: &mut Exposition<'_, impl fmt::Write>) -> fmt::Result {
        to.counters(
            "bifrost_near_cache_reads_total",
            "Reads of modules: answered from memory, by Redis, or by Redis without being cached.",
            "result",
            &[
                ("hit", self.hits),
                ("miss", self.misses),
                ("bypass", self.bypasses),
            ],
        )?;
        for (name, help, value) in [
            (
                "bifrost_near_cache_absent_hits_total",
                "Hits that said absent.",
                self.absent_hits,
            ),
            (
                "bifrost_near_cache_joined_total",
                "Misses that waited for the answer to another reader's request.",
                self.joined,
            ),
            (
                "bifrost_near_cache_rejected_inserts_total",
                "Answers that were not cached, because the path changed meanwhile.",
                self.rejected_inserts,
            ),
            (
                "bifrost_near_cache_stale_served_total",
                "Reads that failed and were answered with the last known module.",
                self.stale_served,
            ),
            (
                "bifrost_near_cache_invalidations_total",
                "Paths that Redis announced as changed.",
                self.invalidations,
            ),
            (
                "bifrost_near_cache_flushes_total",
                "How often everything was given up.",
                self.flushes,
            ),
            (
                "bifrost_near_cache_evictions_total",
                "Modules and absent paths given up to keep within the bounds.",
                self.evictions,
            ),
            (
                "bifrost_near_cache_sessions_total",
                "How often following Redis began.",
                self.sessions,
            ),
        ] {
            to.counter(name, help, value)?;
        }
        Ok(())
    }

    fn write_gauges(&self, to: &mut Exposition<'_, impl fmt::Write>) -> fmt::Result {
        let is = |state| f64::from(u8::from(self.live == state));
        to.gauges(
            "bifrost_near_cache_state",
            "1 for the state in which it is: live while Redis is followed.",
            "state",
            &[("live", is(true)), ("lost", is(false))],
        )?;
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        for (name, help, value) in [
            (
                "bifrost_near_cache_modules",
                "Modules held now.",
                float(self.modules),
            ),
            (
                "bifrost_near_cache_absent_paths",
                "Paths and names remembered to be absent now.",
                float(self.absent_paths),
            ),
            (
                "bifrost_near_cache_bytes",
                "What all that is held takes, in bytes.",
                float(self.bytes),
            ),
            (
                "bifrost_near_cache_state_since_timestamp_seconds",
                "Since when it is in its state, in seconds since 1970.",
                since.as_secs_f64(),
            ),
        ] {
            to.gauge(name, help, value)?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) module_hits: Striped,
    pub(crate) absent_hits: Striped,
    pub(crate) misses: Counter,
    pub(crate) joined: Counter,
    pub(crate) bypasses: Counter,
    pub(crate) rejected: Counter,
    pub(crate) stale_served: Counter,
    pub(crate) invalidations: Counter,
    pub(crate) flushes: Counter,
    pub(crate) evictions: Counter,
    pub(crate) sessions: Counter,
}

/// One for each bit of [`OWNED`], and one that all threads share that own none.
const STRIPES: usize = 33;

/// Which stripes belong to a thread that lives. A forked child inherits the bits of threads that it
/// does not have: those stripes stay unused there.
static OWNED: AtomicU32 = AtomicU32::new(0);

/// A counter that several threads increase at once. A thread that owns a stripe adds to it without
/// an atomic addition, which would cost a hit a sixth of its time.
pub(crate) struct Striped([Line; STRIPES]);

/// Two cache lines of 64 bytes, because some processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// The stripe of a thread, for as long as the thread lives.
struct Stripe(usize);

impl Stripe {
    /// A stripe that no living thread owns, or the shared one: threads come and go, and a stripe
    /// must not have two owners, whose additions would overwrite each other.
    fn claim() -> Self {
        let free = |owned: u32| (owned != u32::MAX).then(|| owned | (owned + 1));
        // Acquire: what the last owner added is seen before this thread adds to it.
        let claimed = OWNED.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        Self(claimed.map_or(STRIPES - 1, |owned| owned.trailing_ones() as usize))
    }

    fn is_shared(&self) -> bool {
        self.0 == STRIPES - 1
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        if !self.is_shared() {
            OWNED.fetch_and(!(1 << self.0), Ordering::AcqRel);
        }
    }
}

impl Default for Striped {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Line::default()))
    }
}

impl Striped {
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        thread_local! {
            static STRIPE: Stripe = Stripe::claim();
        }
        let added = STRIPE.try_with(|stripe| {
            let line = &self.0[stripe.0].0;
            if stripe.is_shared() {
                line.fetch_add(count, Ordering::Relaxed);
            } else {
                line.store(line.load(Ordering::Relaxed) + count, Ordering::Relaxed);
            }
        });
        // A thread that is ending may have destroyed its thread-locals already.
        if added.is_err() {
            self.0[STRIPES - 1].0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sum. Counts that other threads add meanwhile may be in it or not.
    pub(crate) fn get(&self) -> u64 {
        let lines = self.0.iter().map(|line| line.0.load(Ordering::Relaxed));
        lines.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::tests::check;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn each_statistic_is_a_metric() {
        let stats = NearCacheStats {
            hits: 1,
            absent_hits: 2,
            misses: 3,
            joined: 4,
            bypasses: 5,
            rejected_inserts: 6,
            stale_served: 7,
            invalidations: 8,
            flushes: 9,
            evictions: 10,
            modules: 11,
            absent_paths: 12,
            bytes: 13,
            live: true,
            since: UNIX_EPOCH + Duration::from_millis(1_500),
            sessions: 14,
            last_failure: Some("not shown".to_owned()),
        };
        let mut page = String::new();
        stats.write_prometheus(&mut page, &[]).unwrap();
        check(&page);
        let series: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = r#"
reads_total{result="hit"} 1
reads_total{result="miss"} 3
reads_total{result="bypass"} 5
absent_hits_total 2
joined_total 4
rejected_inserts_total 6
stale_served_total 7
invalidations_total 8
flushes_total 9
evictions_total 10
sessions_total 14
state{state="live"} 1
state{state="lost"} 0
modules 11
absent_paths 12
bytes 13
state_since_timestamp_seconds 1.5"#;
        let expected = expected.replace('\n', "\nbifrost_near_cache_");
        assert_eq!(format!("\n{}", series.join("\n")), expected);
    }

    #[test]
    fn nothing_is_lost_by_more_threads_than_stripes_that_come_and_go() {
        const THREADS: usize = 2 * STRIPES;
        const EACH: u64 = 2_000;
        let (counter, start) = (Striped::default(), Barrier::new(THREADS));
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..EACH {
                            counter.add_one();
                        }
                    });
                }
            });
        }
        assert_eq!(counter.get(), 3 * EACH * THREADS as u64);
    }
}
