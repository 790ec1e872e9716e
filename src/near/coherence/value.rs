//! What can be stored under a path or a name.

use std::sync::Arc;

use super::clock::Tick;
use crate::module::CachedModule;
use crate::paths::index::PathIndex;

/// A module, or `None` if Redis said that there is none.
pub(crate) type Found = Option<Arc<CachedModule>>;

#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Module(Arc<CachedModule>),
    /// Redis said that there is nothing.
    Absent,
    /// All paths of Redis's index, and when the whole of it was asked for. Stored under
    /// [`INDEX_PATH`], which can't be a module's path.
    Index(Arc<PathIndex>, Tick),
    /// A negative answer for a name, stored under the name. The name may be spelled like a path
    /// (`b.py` is one), so [`Key`](super::store::Key) tells names and paths apart.
    Negative(Box<Evidence>),
}

impl From<Found> for Cached {
    fn from(module: Found) -> Self {
        module.map_or(Self::Absent, Self::Module)
    }
}

/// Where the index is stored: what follows the prefix in its Redis key, because that is how Redis
/// announces it.
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

    /// How many bytes it takes, beside the overhead of every entry.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Module(module) => {
                let CachedModule {
                    content,
                    path,
                    hash,
                } = &**module;
                // Beside the text: three strings' own fields, and the reference counts of the
                // `Arc`.
                content.capacity() + path.capacity() + hash.capacity() + 136
            }
            Self::Absent => 0,
            Self::Negative(_) => size_of::<Evidence>() + 16,
            Self::Index(index, _) => index.bytes(),
        }
    }
}

/// Why a name is not found: as long as none of these generations moves, none of the three has
/// changed.
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
