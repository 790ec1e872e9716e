//! What takes minutes: `make soak`. Two seconds of it are an ordinary test.

#[cfg(feature = "postgres")]
mod convergence;
#[cfg(feature = "near-cache")]
mod fleet;
#[cfg(feature = "postgres")]
mod guard_bounds;
#[cfg(feature = "near-cache")]
mod near;
#[path = "../support/mod.rs"]
mod support;
