//! What a near cache takes and tells: its options and counters, what an invalidation hook is told,
//! and the snapshots that it gives out.
//!
//! The near caches themselves are `blocking::NearCache` and `nonblocking::NearCache`. They take a
//! [`NearCacheOptions`], tell [`NearCacheStats`], call hooks with an [`Invalidation`], and give out
//! a [`Snapshot`].
//!
//! How to use one: [the near cache](crate::guide::near_cache). Why it can't go stale, rule by rule:
//! [its design](crate::guide::design::near_cache).

// `coherence` keeps the copy right and is pure. `listener` feeds it with what Redis announces,
// `cache`, `resolve`, `paths` and `snapshot` with what readers ask, both over the connections of a
// facade. An `instance` is all of that in one process: a forked child has its own.

pub(crate) mod cache;
pub(crate) mod coherence;
pub(crate) mod hooks;
pub(crate) mod instance;
pub(crate) mod listener;
pub(crate) mod options;
mod paths;
mod resolve;
pub(crate) mod snapshot;

pub use coherence::counters::NearCacheStats;
pub use hooks::Invalidation;
pub use options::NearCacheOptions;
pub use snapshot::Snapshot;
