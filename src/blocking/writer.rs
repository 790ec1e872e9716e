//! Writing.

use super::connections::Pool;
#[cfg(feature = "postgres")]
use super::database::BlockingDatabase;
use super::places::ConnectionManager;
use super::reader::ModuleReader;
use super::run;
use crate::client::stats::Stats;
#[cfg(feature = "postgres")]
use crate::client::transport::Transport as _;
use crate::client::write;
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::database::workspace::Workspace;
use crate::error::Error;
use crate::module::CachedModule;
#[cfg(feature = "postgres")]
use crate::postgres;
use crate::sync::clear::clear;
use crate::sync::options::SyncOptions;
use crate::sync::publish::{Change, publish};
use crate::sync::publish_exact::publish_exact;
use crate::sync::refresh::refresh;
#[cfg(feature = "postgres")]
use crate::sync::repair::repair;
use crate::sync::report::{ClearReport, PublishReport, RefreshReport};
#[cfg(feature = "postgres")]
use crate::sync::report::{Drift, RepairReport, WarmReport};
use crate::sync::source::{Fetch, unread};
#[cfg(feature = "postgres")]
use crate::sync::verify::verify;
#[cfg(feature = "postgres")]
use crate::sync::warm::warm;

/// Writes, removes and moves modules: what a service holds.
///
/// ```no_run
/// use bifrost_module_cache::blocking::ModuleWriter;
/// use bifrost_module_cache::{CachedModule, Config};
///
/// # fn example() -> Result<(), bifrost_module_cache::Error> {
/// let writer = ModuleWriter::new(Config::new("redis://localhost:6379")?)?;
/// writer.set(&CachedModule::new("a.py", "x = 1\n")?)?; // with a database: `refresh`
/// writer.invalidate("b.py")?;
/// # Ok(())
/// # }
/// ```
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

    /// The same on an r2d2 pool of the caller's, for a service that brings sizes, lifetimes or an
    /// event handler: `builder` begins as `r2d2::Pool::builder()`.
    ///
    /// For processes that do not fork: the pool's threads wait in a way that a child inherits.
    ///
    /// The builder's `max_size` takes the place of [`Config::with_pool_size`]. Not used are its
    /// `connection_timeout` (see [`Config::with_pool_timeout`]) and `test_on_check_out` (an idle
    /// connection is looked at before it is used). What r2d2 makes ahead of time, by `min_idle`, are
    /// places: a [connection](super::Connection) is made by its first borrower.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bifrost_module_cache::blocking::ModuleWriter;
    /// use bifrost_module_cache::{Config, r2d2};
    ///
    /// let pool = r2d2::Pool::builder()
    ///     .max_size(16)
    ///     .max_lifetime(Some(Duration::from_secs(600)));
    /// let writer = ModuleWriter::with_pool(Config::from_env()?, pool)?;
    /// # drop(writer);
    /// # Ok::<(), bifrost_module_cache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// As r2d2, if `min_idle` is larger than `max_size`, or if no thread can be started.
    pub fn with_pool(
        config: Config,
        builder: r2d2::Builder<ConnectionManager>,
    ) -> Result<Self, Error> {
        Ok(Self {
            reader: ModuleReader::with_pool(config, builder)?,
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
        run(write::set(self.pool(), module))
    }

    /// Removes a module and its place in the index, both at once. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[doc(alias = "invalidate_module")]
    pub fn invalidate(&self, path: &str) -> Result<bool, Error> {
        run(write::invalidate(self.pool(), path))
    }

    /// Moves a module: removes `old_path` and caches `module`, so that no reader ever sees neither.
    ///
    /// A move to the same path is a [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
        run(write::rename(self.pool(), old_path, module))
    }

    /// Removes all modules, the index, and the mark of a complete cache, in bounded batches.
    ///
    /// Entries that the index does not name are found where SCAN is permitted; where it is not they
    /// stay, and [the report](ClearReport::scanned) says so.
    ///
    /// A module that others add meanwhile stays. A warm-up under way does not mark the cache: it
    /// begins again.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set); the batches before the failed one are removed.
    pub fn clear(&self) -> Result<ClearReport, Error> {
        run(clear(self.pool()))
    }

    /// Carries out many changes that readers see all at once; the same path twice: the last wins.
    ///
    /// One transaction holds at most 4 MiB of content (more for a single module), so that it does
    /// not hold the server up. A larger publication is cut into several, each seen at once.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), nothing being sent if one change can't be. After a failure in the
    /// middle the transactions before it have been carried out.
    pub fn publish(&self, changes: &[Change]) -> Result<PublishReport, Error> {
        run(publish(self.pool(), changes))
    }

    /// Makes the cache hold exactly these modules: skips equal ones, replaces differing ones,
    /// removes the rest, and marks the cache as complete. For workspaces without a database.
    ///
    /// The same path twice: the last wins. Seen at once in the bounds of
    /// [`publish`](Self::publish); beyond them the cache is not marked as complete until the end. One
    /// publisher at a time: two that run at once may leave a mixture of what they meant.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); [`Error::Empty`] for no modules;
    /// [`Error::TooManyRemovals`].
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
        run(publish_exact(self.pool(), modules, options))
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
    /// ```no_run
    /// # use bifrost_module_cache::{CachedModule, blocking::ModuleWriter};
    /// # fn select(_: &[String]) -> Result<Vec<(String, String)>, std::io::Error> { Ok(Vec::new()) }
    /// # fn example(writer: &ModuleWriter) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let fetch = |paths: Vec<String>| {
    ///     let rows = select(&paths)?; // SELECT path, content … WHERE path = ANY($1)
    ///     let modules = rows.into_iter().map(|(path, content)| CachedModule::new(path, content));
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(modules.collect::<Result<_, _>>()?)
    /// };
    /// writer.refresh_from(&["shared/halopsa.py"], fetch)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the error of `fetch`; otherwise as [`set`](Self::set). Paths before
    /// the failure may have been brought up to date; all may be refreshed again.
    pub fn refresh_from<E>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut source = Fetch(|paths| std::future::ready(fetch(paths).map_err(unread)));
        run(refresh(self.pool(), &mut source, paths))
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
    /// [`Error::Database`]; otherwise as [`refresh_from`](Self::refresh_from).
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
            refresh(self.pool(), &mut workspace, paths).await
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
    /// [`SyncOptions::with_allow_empty`] says that it is meant, and one that would remove more of
    /// the cache than [`SyncOptions::with_max_prune`] is refused. May be killed at any time and run
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], also for a standby, and for a Postgres before 13;
    /// [`Error::TooManyRemovals`]; otherwise as [`set`](Self::set).
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
        run(warm(self.pool(), BlockingDatabase(client), options))
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
        run(verify(self.pool(), BlockingDatabase(client), options))
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
        run(repair(self.pool(), BlockingDatabase(client), options))
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
