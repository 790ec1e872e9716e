//! What the table says of one path.

use std::fmt;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::module::CachedModule;

/// What the database has at a path: `row` of a [`Diagnosis`](crate::diagnosis::Diagnosis).
///
/// As JSON: its `state`, and of a module the bytes of its content and its hash, never the content.
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

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "no row",
            Self::Deleted => "a row that is marked as deleted",
            Self::NotAModule => "a row of another kind, or without content",
            Self::TooLarge => "a module that is larger than the limit",
            Self::Module(_) => "a module",
        })
    }
}

impl Serialize for RowState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (state, module) = match self {
            Self::Absent => ("absent", None),
            Self::Deleted => ("deleted", None),
            Self::NotAModule => ("not_a_module", None),
            Self::TooLarge => ("too_large", None),
            Self::Module(module) => ("module", Some(module)),
        };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("state", state)?;
        map.serialize_entry("bytes", &module.map(|module| module.content.len()))?;
        map.serialize_entry("hash", &module.map(|module| &module.hash))?;
        map.end()
    }
}

/// A row, and how many seconds ago it was changed by the database's own clock: ours may differ.
#[cfg(feature = "postgres")]
pub(crate) struct Row {
    pub(crate) state: RowState,
    pub(crate) age: Option<f64>,
}
