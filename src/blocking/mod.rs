//! The synchronous facade: for an import hook, on an r2d2 pool of connections.
//!
//! It never starts a runtime and may be called from any thread. After a fork the child opens
//! connections of its own and leaves its parent's alone.
//!
//! Inside an async task it blocks the executor's thread: use [`nonblocking`](crate::nonblocking)
//! there.

#[cfg(feature = "near-cache")]
mod block_on;
mod connection;
mod connections;
#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "near-cache")]
mod listener;
#[cfg(feature = "near-cache")]
mod near;
mod places;
mod reader;
#[cfg(feature = "near-cache")]
mod self_pipe;
mod slots;
mod socket;
mod stream;
mod writer;

#[cfg(feature = "near-cache")]
pub use crate::near::options::NearCacheOptions;
#[cfg(all(feature = "postgres", feature = "tls"))]
pub use database::{connect_postgres, connect_postgres_by_sslmode};
#[cfg(feature = "near-cache")]
pub use near::NearCache;
pub use places::{Connection, ConnectionManager};
pub use reader::ModuleReader;
pub use writer::ModuleWriter;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Takes core code over a blocking transport to its end: see [`transport`](crate::client::transport).
fn run<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking transport never waits"),
    }
}
