//! What keeps the cache in step with the database, whatever others do meanwhile.

mod consistency;
mod convergence;
mod diagnose;
mod interleavings;
mod killed;
mod pgbouncer;
mod places;
#[path = "../support/mod.rs"]
mod support;
mod warm_up;
