//! Names, and the paths that they stand for. Nothing here knows of Redis.

pub(crate) mod index;
pub(crate) mod listing;
pub(crate) mod name;
