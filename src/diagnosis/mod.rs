//! Whether the cache is complete, and why a module or a name is missing or old.

#[cfg(feature = "postgres")]
pub(crate) mod diagnose;
pub(crate) mod explain;
pub(crate) mod explain_name;
pub(crate) mod status;
