//! The guard keeps the cache equal to the database though others write to it as they like: in the
//! wrong order, twice, or not at all.
//!
//! The guards themselves are `blocking::Guard` and `nonblocking::Guard`, and the tool's
//! `bifrost-modules guard`. They take [`GuardOptions`] and tell [`GuardStats`].
//!
//! How to run one: [the guard](crate::guide::guard). Why it neither fights with writers nor misses
//! a change: [its design](crate::guide::design::guard).

// Hints come from two feeds: what Redis announces (`redis_feed`) and which rows change
// (`database_feed`, by asking or by being told). An `inbox` collects them. `patrol` takes them out
// in batches, to `check`, which compares, waits for writers under way (`grace`) and mends; from time
// to time it lets `sweep` look at everything. A hint is never taken for the truth: a lost or false
// one costs time only.

mod baseline;
mod beat;
mod check;
mod contention;
pub(crate) mod core;
mod database_feed;
mod grace;
pub(crate) mod inbox;
mod index_check;
pub(crate) mod listening;
mod marking;
pub(crate) mod options;
mod patrol;
mod permitted;
mod redis_feed;
mod removals;
mod retry;
pub(crate) mod run;
pub(crate) mod stats;
mod sweep;
pub(crate) mod trigger;
mod versions;

pub use options::GuardOptions;
pub use stats::{DatabaseFeed, GuardStats, Histogram, Mended};
pub use trigger::trigger_sql;
