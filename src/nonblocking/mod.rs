//! The asynchronous facade: for services, on tokio.
//!
//! All calls share one multiplexed connection (bulk calls another, so that a large answer holds
//! up no lookup), made at the first use and made anew after a loss. Every call ends within its
//! deadline. Dropping a call's future gives up its answer, not necessarily its effect.
//!
//! Calls need a tokio runtime with its time and IO enabled, and panic without one; constructors
//! don't. A connection lives in the runtime that made it: when that has ended, the next call makes
//! a new one in its own.

mod connect;
#[cfg(feature = "postgres")]
mod database;
mod lane;
mod link;
mod reader;
mod writer;

#[cfg(all(feature = "postgres", feature = "tls"))]
pub use self::database::connect_postgres;
pub use self::reader::ModuleReader;
pub use self::writer::ModuleWriter;
