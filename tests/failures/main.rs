//! What a call comes to when the network, a server or its memory fails.

mod breaker;
mod failover;
#[cfg(feature = "postgres")]
mod fault_matrix;
#[cfg(feature = "postgres")]
mod memory_pressure;
mod outage;
#[path = "../support/mod.rs"]
mod support;
#[cfg(all(feature = "postgres", feature = "tls"))]
mod tls;
