//! The near cache: an in-process copy in front of a reader, kept coherent by Redis.
//!
//! [`coherence`] keeps the copy right and is pure. [`listener`] and [`cache`] drive it over the
//! connections of a facade. Why: `docs/design/near-cache.md`.

pub(crate) mod cache;
pub(crate) mod coherence;
pub(crate) mod hooks;
pub(crate) mod instance;
pub(crate) mod listener;
pub(crate) mod options;
mod paths;
mod resolve;
pub(crate) mod snapshot;
