//! The database: how it is reached, what its table says, and when all open transactions have ended.
//!
//! The core knows it through the traits [`Database`](workspace::Database) and
//! [`Rows`](workspace::Rows), so that it is written once for the two Postgres clients.

#[cfg(feature = "postgres")]
pub(crate) mod barrier;
#[cfg(all(feature = "postgres", feature = "near-cache"))]
pub(crate) mod changes;
pub(crate) mod row;
#[cfg(feature = "postgres")]
pub(crate) mod url;
#[cfg(feature = "postgres")]
pub(crate) mod workspace;
