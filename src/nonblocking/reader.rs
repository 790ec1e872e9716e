//! Reading.

use std::collections::HashSet;
use std::sync::Arc;

use super::lane::Lanes;
use crate::transport::Transport as _;
use crate::{CachedModule, Config, Error, Explanation, Stats, Status, consistency, operations};

/// Reads modules, and has no method that changes Redis: what a worker holds.
///
/// Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct ModuleReader {
    pub(super) lanes: Arc<Lanes>,
}

impl ModuleReader {
    /// A reader that connects when it is first used. May be called outside a runtime.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self {
            lanes: Arc::new(Lanes::new(config.checked()?)),
        })
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
    pub async fn get_many(
        &self,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Option<CachedModule>>, Error> {
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

    /// Whether the cache is known to be complete. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn status(&self) -> Result<Status, Error> {
        consistency::status(&*self.lanes).await
    }

    /// Why the module at `path` is absent. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn explain(&self, path: &str) -> Result<Explanation, Error> {
        consistency::explain(&*self.lanes, path).await
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lanes.monitor().stats(self.lanes.in_use())
    }
}
