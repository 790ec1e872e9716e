//! The synchronous facade: for an import hook, on an r2d2 pool of connections.
//!
//! [`ModuleReader`] is what a worker holds, [`ModuleWriter`] what a service holds, and `NearCache`
//! (feature `near-cache`) a copy in the process in front of a reader. Each has an example.
//!
//! It never starts a runtime and may be called from any thread. After a fork the child opens
//! connections of its own and leaves its parent's alone. Every call ends within its deadline: see
//! [failures](crate::guide::failures).
//!
//! Inside an async task it blocks the executor's thread: use [`nonblocking`](crate::nonblocking)
//! there.

// The layers, from above: `connections` takes a slot from `pool` (r2d2) or, in a forked
// child, from `slots`; a slot holds a `connection`, which parses replies from a `stream`, which is
// a `socket` with a deadline, encrypted or not. Why each layer is ours:
// docs/design/architecture.md.

/// Makes what `src/facade` says once for both facades synchronous. A macro and no trait, because
/// each facade's documentation must show its own signatures.
///
/// `@hit` is what memory may answer: without it, a hit of the near cache would build the future of
/// a miss, which costs more than the hit.
macro_rules! facade {
    (impl $type:ident { $(
        $(#[$attribute:meta])*
        pub async fn $name:ident(&$self:ident $(, $argument:ident: $of:ty)* $(,)?) -> $answer:ty {
            $(@hit $hit:expr =>)? $call:expr
        }
    )* }) => {
        impl $type { $(
            $(#[$attribute])*
            pub fn $name(&$self $(, $argument: $of)*) -> $answer {
                $(if let Some(hit) = $hit {
                    return Ok(hit);
                })?
                crate::blocking::run($call)
            }
        )* }
    };
    ($(
        $(#[$attribute:meta])*
        pub async fn $name:ident($($argument:ident: $of:ty),* $(,)?) -> $answer:ty {
            $call:expr
        }
    )*) => { $(
        $(#[$attribute])*
        pub fn $name($($argument: $of),*) -> $answer {
            crate::blocking::run($call)
        }
    )* };
}

/// An example for a type's documentation, as this facade has it.
macro_rules! example {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/blocking/examples/",
            $name,
            ".md"
        ))
    };
}

/// The client of a database that this facade takes.
#[cfg(feature = "postgres")]
macro_rules! postgres_client {
    () => {
        &mut postgres::Client
    };
}

/// What else there is to say of methods that take one.
#[cfg(feature = "postgres")]
macro_rules! panics_in_a_task {
    () => {
        "# Panics\n\nThe client panics inside an async task: use [`nonblocking`](crate::nonblocking) there."
    };
}

#[cfg(feature = "near-cache")]
mod block_on;
mod connection;
mod connections;
#[cfg(feature = "postgres")]
mod database;
mod deadline_thread;
#[allow(clippy::duplicate_mod, reason = "one text for both facades")]
#[path = "../facade/mod.rs"]
mod facade;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard_database;
#[cfg(feature = "near-cache")]
mod listener;
mod pool;
mod refresh_from;
#[cfg(feature = "near-cache")]
mod self_pipe;
mod slots;
mod socket;
mod stream;
mod with_pool;

#[cfg(all(feature = "near-cache", feature = "postgres"))]
pub use facade::Guard;
#[cfg(feature = "near-cache")]
pub use facade::NearCache;
pub use facade::{ModuleReader, ModuleWriter};
#[cfg(all(feature = "postgres", feature = "tls"))]
pub use facade::{connect_postgres, connect_postgres_by_sslmode};
pub use pool::{ConnectionManager, Slot};

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Takes core code over a blocking transport to its end: see
/// [`transport`](crate::client::transport).
fn run<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking transport never waits"),
    }
}
