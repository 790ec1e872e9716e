//! The asynchronous facade: for services, on tokio.
//!
//! [`ModuleWriter`] is what a service holds, [`ModuleReader`] what only reads, and `NearCache`
//! (feature `near-cache`) a copy in the process in front of a reader. Each has an example.
//!
//! All calls share one multiplexed connection (bulk calls another, so that a large answer holds up
//! no lookup), made at the first use and made anew after a loss. Every call ends within its
//! deadline: see [failures](crate::guide::failures). Dropping a call's future gives up its answer,
//! not necessarily its effect: a write that was given up may come after a later one.
//!
//! Calls need a tokio runtime with its time and IO enabled, and panic without one; constructors of
//! readers and writers don't. A connection lives in the runtime that made it: when that has ended,
//! the next call makes a new one in its own.

/// Makes what `src/facade` says once for both facades asynchronous. A macro and no trait, because
/// each facade's documentation must show its own signatures.
///
/// `@hit` is what memory may answer: see the same macro in `blocking`.
macro_rules! facade {
    (impl $type:ident { $(
        $(#[$attribute:meta])*
        pub async fn $name:ident(&$self:ident $(, $argument:ident: $of:ty)* $(,)?) -> $answer:ty {
            $(@hit $hit:expr =>)? $call:expr
        }
    )* }) => {
        impl $type { $(
            $(#[$attribute])*
            pub async fn $name(&$self $(, $argument: $of)*) -> $answer {
                $(if let Some(hit) = $hit {
                    return Ok(hit);
                })?
                $call.await
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
        pub async fn $name($($argument: $of),*) -> $answer {
            $call.await
        }
    )* };
}

/// An example for a type's documentation, as this facade has it.
macro_rules! example {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/nonblocking/examples/",
            $name,
            ".md"
        ))
    };
}

/// The client of a database that this facade takes.
#[cfg(feature = "postgres")]
macro_rules! postgres_client {
    () => {
        &tokio_postgres::Client
    };
}

/// What else there is to say of methods that take one: nothing.
#[cfg(feature = "postgres")]
macro_rules! panics_in_a_task {
    () => {
        ""
    };
}

mod connect;
mod connection;
mod connections;
#[cfg(feature = "postgres")]
mod database;
#[allow(clippy::duplicate_mod, reason = "one text for both facades")]
#[path = "../facade/mod.rs"]
mod facade;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard_database;
#[cfg(feature = "near-cache")]
mod listener;
mod refresh_from;

#[cfg(all(feature = "near-cache", feature = "postgres"))]
pub use facade::Guard;
#[cfg(feature = "near-cache")]
pub use facade::NearCache;
pub use facade::{ModuleReader, ModuleWriter};
#[cfg(all(feature = "postgres", feature = "tls"))]
pub use facade::{connect_postgres, connect_postgres_by_sslmode};
