//! The synchronous facade: for an import hook, on an r2d2 pool of connections.
//!
//! It never starts a runtime and may be called from any thread. After a fork the child opens
//! connections of its own and leaves its parent's alone.
//!
//! Inside an async task it blocks the executor's thread: use [`nonblocking`](crate::nonblocking)
//! there.

#[cfg(feature = "near-cache")]
mod bell;
mod channel;
#[cfg(feature = "postgres")]
mod database;
#[cfg(feature = "near-cache")]
mod feed;
#[cfg(feature = "near-cache")]
mod near;
#[cfg(feature = "near-cache")]
mod park;
mod places;
mod pool;
mod reader;
mod slots;
mod socket;
mod wire;
mod writer;

#[cfg(all(feature = "postgres", feature = "tls"))]
pub use self::database::{connect_postgres, connect_postgres_by_sslmode};
#[cfg(feature = "near-cache")]
pub use self::near::NearCache;
pub use self::places::{Connection, ConnectionManager};
pub use self::reader::ModuleReader;
pub use self::writer::ModuleWriter;
#[cfg(feature = "near-cache")]
pub use crate::near::NearCacheOptions;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Takes core code over a blocking transport to its end: see [`transport`](crate::transport).
fn run<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking transport never waits"),
    }
}
