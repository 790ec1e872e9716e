//! The synchronous facade: for an import hook, on a pool of connections.
//!
//! It never starts a runtime and may be called from any thread. After a fork the child opens
//! connections of its own and leaves its parent's alone.
//!
//! Inside an async task it blocks the executor's thread: use [`nonblocking`](crate::nonblocking)
//! there.

mod pool;
mod wire;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use self::pool::Pool;
use crate::{CachedModule, Config, Error, operations};

/// Takes core code over a blocking transport to its end: see [`transport`](crate::transport).
fn run<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking transport never waits"),
    }
}

/// Reads modules, and has no method that changes Redis: what a worker holds.
///
/// Cheap to clone; clones share one pool.
#[derive(Debug, Clone)]
pub struct ModuleReader {
    pool: Arc<Pool>,
}

impl ModuleReader {
    /// A reader that connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { pool: Arc::new(Pool::new(config.checked()?)?) })
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
    pub fn get(&self, path: &str) -> Result<Option<CachedModule>, Error> {
        run(operations::get(&*self.pool, path))
    }

    /// The modules at `paths`, in their order. One round trip; none for no paths.
    ///
    /// A key that holds another type than a string counts as absent here, because MGET says so.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); one bad path or one corrupt entry fails the call and is named.
    pub fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<CachedModule>>, Error> {
        run(operations::get_many(&*self.pool, paths))
    }

    /// All cached paths. A member of the index that can't be a path is skipped and logged.
    ///
    /// A path may be named here and its module be absent: see the README.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Busy`] or [`Error::Refused`]; never an empty set instead.
    #[doc(alias("get_all_module_paths", "get_module_index_sync"))]
    pub fn paths(&self) -> Result<HashSet<String>, Error> {
        run(operations::paths(&*self.pool))
    }
}

/// Writes, removes and moves modules: what a service holds.
///
/// Cheap to clone; clones and their [`reader`](Self::reader) share one pool.
#[derive(Debug, Clone)]
pub struct ModuleWriter {
    reader: ModuleReader,
}

impl ModuleWriter {
    /// A writer that connects when it is first used.
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
    pub fn set(&self, module: &CachedModule) -> Result<(), Error> {
        run(operations::set(self.pool(), module))
    }

    /// Removes a module and its place in the index, both at once. It need not exist.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[doc(alias = "invalidate_module")]
    pub fn invalidate(&self, path: &str) -> Result<(), Error> {
        run(operations::invalidate(self.pool(), path))
    }

    /// Moves a module: removes `old_path` and caches `module`, so that no reader ever sees neither.
    ///
    /// A move to the same path is a [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
        run(operations::rename(self.pool(), old_path, module))
    }

    /// Removes all modules that the index names, and the index, in bounded batches. Returns how
    /// many modules there were.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set); the batches before the failed one are removed.
    pub fn clear(&self) -> Result<u64, Error> {
        run(operations::clear(self.pool()))
    }

    fn pool(&self) -> &Pool {
        &self.reader.pool
    }
}
