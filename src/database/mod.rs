//! The database: how it is reached, and what its table says.

pub(crate) mod barrier;
pub(crate) mod row;
pub(crate) mod url;
pub(crate) mod workspace;
