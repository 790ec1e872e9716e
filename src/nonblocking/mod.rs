//! The asynchronous facade: for services, on tokio.
//!
//! All calls share one multiplexed connection (bulk calls another, so that a large answer holds
//! up no lookup), made at the first use and made anew after a loss. Every call ends within its
//! deadline. Dropping a call's future gives up its answer, not necessarily its effect.
//!
//! Calls need a tokio runtime with its time and IO enabled, and panic without one; constructors
//! don't. A connection lives in the runtime that made it: when that has ended, the next call makes
//! a new one in its own.

mod lane;

use std::collections::HashSet;
use std::sync::Arc;

use self::lane::Lanes;
use crate::{CachedModule, Config, Error, operations};

/// Reads modules, and has no method that changes Redis: what a worker holds.
///
/// Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct ModuleReader {
    lanes: Arc<Lanes>,
}

impl ModuleReader {
    /// A reader that connects when it is first used. May be called outside a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { lanes: Arc::new(Lanes::new(config.checked()?)?) })
    }

    /// The module at `path`, or `None` if Redis says that there is none. One round trip.
    ///
    /// An empty stored value is absent, as in the specification.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] before anything is sent; [`Error::Unavailable`], [`Error::Busy`] or
    /// [`Error::Refused`] if Redis did not say; [`Error::Corrupt`] if what is stored is not this
    /// module.
    #[doc(alias("get_module", "get_module_sync"))]
    pub async fn get(&self, path: &str) -> Result<Option<CachedModule>, Error> {
        operations::get(&*self.lanes, path).await
    }

    /// The modules at `paths`, in their order. One round trip; none for no paths.
    ///
    /// A key that holds another type than a string counts as absent here, because MGET says so.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); one bad path or one corrupt entry fails the call and is named.
    pub async fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<CachedModule>>, Error> {
        operations::get_many(&*self.lanes, paths).await
    }

    /// All cached paths. A member of the index that can't be a path is skipped and logged.
    ///
    /// A path may be named here and its module be absent: see the README.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Busy`] or [`Error::Refused`]; never an empty set instead.
    #[doc(alias("get_all_module_paths", "get_module_index_sync"))]
    pub async fn paths(&self) -> Result<HashSet<String>, Error> {
        operations::paths(&*self.lanes).await
    }
}

/// Writes, removes and moves modules: what a service holds.
///
/// Cheap to clone; clones and their [`reader`](Self::reader) share their connections.
#[derive(Debug, Clone)]
pub struct ModuleWriter {
    reader: ModuleReader,
}

impl ModuleWriter {
    /// A writer that connects when it is first used. May be called outside a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { reader: ModuleReader::new(config)? })
    }

    /// A reader over the same connections.
    #[must_use]
    pub fn reader(&self) -> &ModuleReader {
        &self.reader
    }

    /// Caches a module and names it in the index, both at once.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] or [`Error::TooLarge`] before anything is sent; then
    /// [`Error::Unavailable`], which says if the write
    /// [may have been applied](Error::may_have_been_applied), [`Error::Busy`] or
    /// [`Error::Refused`].
    #[doc(alias = "set_module")]
    pub async fn set(&self, module: &CachedModule) -> Result<(), Error> {
        operations::set(self.lanes(), module).await
    }

    /// Removes a module and its place in the index, both at once. It need not exist.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[doc(alias = "invalidate_module")]
    pub async fn invalidate(&self, path: &str) -> Result<(), Error> {
        operations::invalidate(self.lanes(), path).await
    }

    /// Moves a module: removes `old_path` and caches `module`, so that no reader ever sees neither.
    ///
    /// A move to the same path is a [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub async fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
        operations::rename(self.lanes(), old_path, module).await
    }

    /// Removes all modules that the index names, and the index, in bounded batches. Returns how
    /// many modules there were.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set); the batches before the failed one are removed.
    pub async fn clear(&self) -> Result<u64, Error> {
        operations::clear(self.lanes()).await
    }

    fn lanes(&self) -> &Lanes {
        &self.reader.lanes
    }
}
