//! What both facades promise while all is well, beside what the other binaries are about.

#[cfg(feature = "postgres")]
mod acl;
mod contract;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod metrics;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod namespaces;
mod observe;
#[cfg(feature = "near-cache")]
mod pathfinder;
mod pool;
mod python;
mod refresh_from;
mod resolution;
#[path = "../support/mod.rs"]
mod support;
