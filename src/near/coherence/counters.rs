//! Counts what the near cache does, without the threads that hit it getting in each other's way.
//!
//! One counter that all threads increase moves its cache line from processor to processor: it cost
//! the second thread its whole gain. So the counters of hits are striped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use crate::client::stats::Counter;
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

/// As many as threads that commonly hit at the same time; more take memory for nothing.
const STRIPES: usize = 16;

/// A counter that several threads increase at once.
#[derive(Default)]
pub(crate) struct Striped([Line; STRIPES]);

/// Two cache lines of 64 bytes, because some processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Striped {
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        // A thread that is ending may have destroyed its thread-locals already.
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        self.0[stripe].0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum. Counts that other threads add meanwhile may be in it or not.
    pub(crate) fn get(&self) -> u64 {
        let lines = self.0.iter().map(|line| line.0.load(Ordering::Relaxed));
        lines.sum()
    }
}
