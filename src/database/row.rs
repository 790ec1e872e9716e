//! What the table says of one path.

use crate::module::CachedModule;

/// What the database has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowState {
    /// No row.
    Absent,
    /// A row that is marked as deleted.
    Deleted,
    /// A row of another kind than a module, or without content.
    NotAModule,
    /// A module that is larger than the limit.
    TooLarge,
    /// A module, as it should be cached.
    Module(CachedModule),
}

/// A row as the database knows it, and how long ago it was changed, in seconds.
pub(crate) struct Row {
    pub(crate) state: RowState,
    pub(crate) age: Option<f64>,
}
