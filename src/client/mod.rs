//! A call to Redis, from its first attempt to its answer, whatever carries it.
//!
//! [`transport`] is what a facade brings. [`call`] decides what is let through, retried and counted;
//! [`read`] and [`write`] are what both facades offer. Why: `docs/design/architecture.md`.

pub(crate) mod batch;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod dedicated;
pub(crate) mod read;
pub(crate) mod stats;
pub(crate) mod transport;
pub(crate) mod write;
pub(crate) mod write_observers;
