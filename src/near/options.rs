//! Every setting of the near cache, its unit and its default.

use std::time::Duration;

use crate::error::Error;

/// How much a near cache stores, and how old it may be: an argument of `NearCache::new`, which
/// refuses what can't be used.
///
/// ```
/// use std::time::Duration;
/// use bifrost_module_cache::near::NearCacheOptions;
///
/// let options = NearCacheOptions::default()
///     .with_max_bytes(256 * 1024 * 1024)
///     .with_stale_if_error(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct NearCacheOptions {
    pub(crate) max_bytes: usize,
    pub(crate) max_absent_paths: usize,
    pub(crate) staleness_bound: Duration,
    pub(crate) max_age: Duration,
    pub(crate) stale_if_error: Option<Duration>,
}

impl Default for NearCacheOptions {
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024 * 1024,
            max_absent_paths: 10_000,
            staleness_bound: Duration::from_secs(2),
            max_age: Duration::from_secs(300),
            stale_if_error: None,
        }
    }
}

impl NearCacheOptions {
    /// How many bytes all that is cached may take: sources, paths, the index, and 256 bytes for
    /// each entry. Default 64 MiB.
    ///
    /// What was not asked for since it came, or since it was last considered, goes first, the
    /// oldest before the newer ones (the CLOCK policy). What is larger than half of this is never
    /// cached; for an index so large, names are resolved with one as old as a reader's: see
    /// [`with_index_max_age`](crate::config::Config::with_index_max_age). Modules that are handed
    /// out, or in a [`Snapshot`](crate::near::snapshot::Snapshot), live on and are not counted.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many paths are remembered to be absent, names that are not found included. Default
    /// 10,000; they also take at most an eighth of the bytes.
    ///
    /// A name that is not ours takes three: its two paths and itself. Each path is asked for once
    /// instead of always.
    #[must_use]
    pub fn with_max_absent_paths(mut self, paths: usize) -> Self {
        self.max_absent_paths = paths;
        self
    }

    /// How old an answer may be at most when the network goes silent, to some milliseconds.
    /// Default 2 s; at least 100 ms.
    ///
    /// Otherwise an answer is as old as the way of a message from Redis: 160 µs at the 99th
    /// percentile, on one machine. Redis is asked for a heartbeat four times in this time. While
    /// the whole machine is suspended, no time passes.
    #[must_use]
    pub fn with_staleness_bound(mut self, bound: Duration) -> Self {
        self.staleness_bound = bound;
        self
    }

    /// How long something is cached without being asked for anew. Default 5 minutes.
    ///
    /// A backstop for changes that Redis never announces: SWAPDB is one.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Serves a module during an outage if it was known to be current at most so long ago. Off by
    /// default: an outage is an error.
    ///
    /// Only for [`Error::Unavailable`], and only modules: that a path was absent says nothing about
    /// now. What was invalidated is never served again.
    #[must_use]
    pub fn with_stale_if_error(mut self, age: Duration) -> Self {
        self.stale_if_error = Some(age);
        self
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        // Below that, the coarse clock's imprecision of some milliseconds and an ordinary delay of
        // a heartbeat would end sessions that nothing is wrong with.
        if self.staleness_bound < Duration::from_millis(100) {
            return Err(Error::invalid_config(
                "the staleness bound of a near cache must be at least 100 ms",
            ));
        }
        Ok(self)
    }
}
