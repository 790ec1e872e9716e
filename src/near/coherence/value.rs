//! What can be cached under a path.

use std::sync::Arc;

use super::clock::Tick;
use crate::module::CachedModule;
use crate::paths::index::PathIndex;

/// A module, or Redis's word that there is none.
pub(crate) type Found = Option<Arc<CachedModule>>;

#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Module(Arc<CachedModule>),
    /// Redis said that there is nothing.
    Absent,
    /// All cached paths, and when they were asked for: cached under [`INDEX_PATH`], which can't be a
    /// module's.
    Index(Arc<PathIndex>, Tick),
    /// A name is not found: cached under the name, whatever is cached under the path so spelled.
    Negative(Box<Evidence>),
}

impl From<Found> for Cached {
    fn from(module: Found) -> Self {
        module.map_or(Self::Absent, Self::Module)
    }
}

/// Where the index is cached: what follows the prefix of its key.
pub(crate) const INDEX_PATH: &str = "index";

impl Cached {
    pub(crate) fn module(module: Option<CachedModule>) -> Self {
        module.map(Arc::new).into()
    }

    /// The module, if that is what is cached.
    pub(crate) fn into_module(self) -> Found {
        match self {
            Self::Module(module) => Some(module),
            Self::Absent | Self::Index(..) | Self::Negative(_) => None,
        }
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(self, Self::Index(..))
    }

    /// What it takes beside its place.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Module(module) => {
                let CachedModule {
                    content,
                    path,
                    hash,
                } = &**module;
                // Three strings of their own, and what counts the references to them.
                content.capacity() + path.capacity() + hash.capacity() + 136
            }
            Self::Absent => 0,
            Self::Negative(_) => size_of::<Evidence>() + 16,
            Self::Index(index, _) => index.bytes(),
        }
    }
}

/// Why a name is not found: nothing of what was looked at had changed since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// The stripes of the two paths and of the index, and their generations before the look.
    pub(super) looks: [(usize, u64); 3],
}

/// One request: in which session it was sent, and its number among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}
