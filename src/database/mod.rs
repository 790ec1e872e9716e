//! The database: how it is reached, and what its table says.

#[cfg(feature = "postgres")]
pub(crate) mod barrier;
pub(crate) mod row;
#[cfg(feature = "postgres")]
pub(crate) mod url;
#[cfg(feature = "postgres")]
pub(crate) mod workspace;
