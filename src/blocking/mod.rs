//! The synchronous facade: for an import hook, on a pool of connections.
//!
//! It never starts a runtime and may be called from any thread. After a fork the child opens
//! connections of its own and leaves its parent's alone.
//!
//! Inside an async task it blocks the executor's thread: use [`nonblocking`](crate::nonblocking)
//! there.

mod channel;
#[cfg(feature = "postgres")]
mod database;
mod pool;
mod socket;
mod wire;

#[cfg(all(feature = "postgres", feature = "tls"))]
pub use self::database::connect_postgres;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "postgres")]
use self::database::BlockingDatabase;
use self::pool::Pool;
use crate::consistency::{self, Fetch};
use crate::transport::Transport as _;
#[cfg(feature = "postgres")]
use crate::workspace::Workspace;
use crate::{
    CachedModule, Change, Config, Error, Explanation, PublishReport, RefreshReport, Stats, Status,
    SyncOptions, operations,
};
#[cfg(feature = "postgres")]
use crate::{Drift, RepairReport, WarmReport, postgres};

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
        Ok(Self {
            pool: Arc::new(Pool::new(config.checked()?)),
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

    /// Whether the cache is known to be complete. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn status(&self) -> Result<Status, Error> {
        run(consistency::status(&*self.pool))
    }

    /// Why the module at `path` is absent. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn explain(&self, path: &str) -> Result<Explanation, Error> {
        run(consistency::explain(&*self.pool, path))
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.pool.monitor().stats(self.pool.in_use())
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
        Ok(Self {
            reader: ModuleReader::new(config)?,
        })
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

    /// Carries out many changes that readers see all at once; the same path twice: the last wins.
    ///
    /// One transaction holds at most 4 MiB of content (more for a single module), so that it does
    /// not hold the server up. A larger publication is cut into several, each seen at once:
    /// [`PublishReport::batches`] tells.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), nothing being sent if one change can't be. After a failure in the
    /// middle the transactions before it have been carried out.
    pub fn publish(&self, changes: &[Change]) -> Result<PublishReport, Error> {
        run(consistency::publish(self.pool(), changes))
    }

    /// Makes the cache hold exactly these modules: skips equal ones, replaces differing ones,
    /// removes the rest, and marks the cache as complete. For workspaces without a database.
    ///
    /// The same path twice: the last wins. Seen at once in the bounds of
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); [`Error::Empty`] for no modules.
    pub fn publish_exact(&self, modules: &[CachedModule]) -> Result<PublishReport, Error> {
        self.publish_exact_with(modules, SyncOptions::default())
    }

    /// [`publish_exact`](Self::publish_exact) with options.
    ///
    /// # Errors
    ///
    /// As [`publish_exact`](Self::publish_exact), except that no modules may be allowed.
    pub fn publish_exact_with(
        &self,
        modules: &[CachedModule],
        options: SyncOptions<'_>,
    ) -> Result<PublishReport, Error> {
        run(consistency::publish_exact(self.pool(), modules, options))
    }

    /// Brings paths to what `fetch` says now: modules that it returns are written, paths that it
    /// leaves out are invalidated. For services whose modules are reached through a client of
    /// their own; with Postgres use `refresh`.
    ///
    /// `fetch` is given at most 200 paths and may be called again for some of them. What it reads
    /// must be committed, and read when it is called, not before. Call this *after* your commit.
    ///
    /// Whoever writes a path between `fetch` and our write wins, and the path is fetched again;
    /// so the order in which two services get here does not matter. A path that stays contended
    /// is reported as [`unsettled`](RefreshReport::unsettled).
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the error of `fetch`; otherwise as [`set`](Self::set). Paths before
    /// the failure may have been brought up to date; all may be refreshed again.
    pub fn refresh_with<E>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut source = Fetch(|paths| std::future::ready(fetch(paths)));
        run(consistency::refresh(self.pool(), &mut source, paths))
    }

    /// Brings paths to what the database says now: written, or invalidated where the row is gone.
    /// This, not [`set`](Self::set), is what a service with a database calls, after its commit.
    ///
    /// `set` writes what its caller knows. Of two services that save the same path, the one that
    /// committed first may write last, and the cache stays old. This reads after it began to watch
    /// the key, so it can only ever write what is newest, or give way to whoever does. It takes a
    /// client, not a transaction: inside one it would see what is not committed, or no longer
    /// current.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]; otherwise as [`refresh_with`](Self::refresh_with).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn refresh(
        &self,
        client: &mut postgres::Client,
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error> {
        run(async {
            let mut workspace =
                Workspace::open(BlockingDatabase(client), self.pool().config()).await?;
            consistency::refresh(self.pool(), &mut workspace, paths).await
        })
    }

    /// Loads all modules of the database into the cache, removes what has no row, and compares:
    /// what an init container calls.
    ///
    /// Writes only what differs, and gives way to whoever writes meanwhile. In the end waits, for
    /// at most 5 s each time, for transactions that were open, and compares again, because their
    /// writers may have come first; if they last longer the report says that the result is
    /// [unverified](WarmReport::unverified). Marks the cache as complete.
    ///
    /// An empty workspace removes nothing unless
    /// [`SyncOptions::with_allow_empty`] says that it is meant. May be killed at any time and run
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], also for a standby, and for a Postgres before 13; otherwise as
    /// [`set`](Self::set).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[doc(alias = "warm_cache_from_db")]
    #[cfg(feature = "postgres")]
    pub fn warm_from_db(&self, client: &mut postgres::Client) -> Result<WarmReport, Error> {
        self.warm_from_db_with(client, SyncOptions::default())
    }

    /// [`warm_from_db`](Self::warm_from_db) with options.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn warm_from_db_with(
        &self,
        client: &mut postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error> {
        run(consistency::warm(
            self.pool(),
            BlockingDatabase(client),
            options,
        ))
    }

    /// Compares all rows, entries and the index, and writes nothing. What differs is looked at a
    /// second time after the transactions of that moment have ended, or 5 s.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn verify(&self, client: &mut postgres::Client) -> Result<Drift, Error> {
        self.verify_with(client, SyncOptions::default())
    }

    /// [`verify`](Self::verify) with options.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn verify_with(
        &self,
        client: &mut postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error> {
        run(consistency::verify(
            self.pool(),
            BlockingDatabase(client),
            options,
        ))
    }

    /// Mends exactly what [`verify`](Self::verify) finds, and gives way to whoever writes
    /// meanwhile. Does not mark the cache as complete.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn repair(&self, client: &mut postgres::Client) -> Result<RepairReport, Error> {
        self.repair_with(client, SyncOptions::default())
    }

    /// [`repair`](Self::repair) with options.
    ///
    /// # Errors
    ///
    /// As [`repair`](Self::repair).
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn repair_with(
        &self,
        client: &mut postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error> {
        run(consistency::repair(
            self.pool(),
            BlockingDatabase(client),
            options,
        ))
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.reader.stats()
    }

    fn pool(&self) -> &Pool {
        &self.reader.pool
    }
}
