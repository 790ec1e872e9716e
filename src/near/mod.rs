//! What a near cache takes and tells: its options and counters, what an invalidation hook hears, and
//! the snapshots that it gives out.
//!
//! The near caches themselves are `blocking::NearCache` and `nonblocking::NearCache`.

// `coherence` keeps the copy right and is pure. `listener` and `cache` drive it over the connections
// of a facade. Why: docs/design/near-cache.md.

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
