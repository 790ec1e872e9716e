//! The near cache.

mod cache;
mod failover;
mod faults;
mod orders;
mod resolution;
#[path = "../support/mod.rs"]
mod support;
