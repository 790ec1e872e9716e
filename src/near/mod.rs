//! The near cache: an in-process copy in front of a reader, kept coherent by Redis.
//!
//! [`protocol`] keeps the copy right and [`tracker`] says what to tell Redis and what its messages
//! mean; both are pure. [`follow`] and [`cache`] drive them over the connections of a facade.

mod announced;
mod cache;
mod clock;
mod counters;
mod follow;
mod foreign;
mod hooks;
mod index;
mod kept;
mod life;
mod message;
#[cfg(test)]
mod model;
mod options;
mod promise;
mod protocol;
mod resolve;
mod rule;
mod session;
mod snapshot;
mod store;
mod tracker;

pub use counters::NearCacheStats;
pub use hooks::Invalidation;
pub use options::NearCacheOptions;
pub use snapshot::Snapshot;

pub(crate) use cache::{Listen, Near};
pub(crate) use follow::{Feed, Follow, follow};
pub(crate) use life::{Life, Listening};
