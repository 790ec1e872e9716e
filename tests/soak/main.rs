//! What takes minutes: `make soak`. Two seconds of it are an ordinary test.

#[cfg(feature = "postgres")]
mod convergence;
#[cfg(feature = "near-cache")]
mod fleet;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard_bounds;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard_convergence;
#[cfg(feature = "near-cache")]
mod near;
#[path = "../support/mod.rs"]
mod support;
