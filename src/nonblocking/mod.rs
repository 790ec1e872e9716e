//! The asynchronous facade: for services, on tokio.
//!
//! All calls share one multiplexed connection (bulk calls another, so that a large answer holds
//! up no lookup), made at the first use and made anew after a loss. Every call ends within its
//! deadline. Dropping a call's future gives up its answer, not necessarily its effect: a write that was
//! given up may come after a later one.
//!
//! Calls need a tokio runtime with its time and IO enabled, and panic without one; constructors
//! don't. A connection lives in the runtime that made it: when that has ended, the next call makes
//! a new one in its own.

mod connect;
mod connection;
mod connections;
#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "near-cache")]
mod listener;
#[cfg(feature = "near-cache")]
mod near;
mod reader;
mod writer;

#[cfg(feature = "near-cache")]
pub use crate::near::options::NearCacheOptions;
#[cfg(all(feature = "postgres", feature = "tls"))]
pub use database::{connect_postgres, connect_postgres_by_sslmode};
#[cfg(feature = "near-cache")]
pub use near::NearCache;
pub use reader::ModuleReader;
pub use writer::ModuleWriter;
