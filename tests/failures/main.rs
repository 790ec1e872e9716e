//! What a call comes to when the network, a server or its memory fails.

mod breaker;
#[cfg(feature = "near-cache")]
mod cluster;
mod failover;
#[cfg(feature = "postgres")]
mod fault_matrix;
#[cfg(feature = "near-cache")]
mod load;
#[cfg(feature = "postgres")]
mod memory_pressure;
mod outage;
#[cfg(feature = "near-cache")]
mod sentinel;
#[path = "../support/mod.rs"]
mod support;
#[cfg(all(feature = "postgres", feature = "tls"))]
mod tls;
