//! The near cache.

mod cache;
mod failover;
mod faults;
mod orders;
mod places;
mod resolution;
#[path = "../support/mod.rs"]
mod support;
