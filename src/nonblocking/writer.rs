//! Writing.

use super::connections::Lanes;
#[cfg(feature = "postgres")]
use super::database::with;
use super::reader::ModuleReader;
use crate::client::stats::Stats;
#[cfg(feature = "postgres")]
use crate::client::transport::Transport as _;
use crate::client::write;
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::database::workspace::Workspace;
use crate::error::Error;
use crate::module::CachedModule;
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
#[cfg(feature = "postgres")]
use crate::tokio_postgres;

/// Writes, removes and moves modules: what a service holds.
///
/// ```no_run
/// use bifrost_module_cache::nonblocking::ModuleWriter;
/// use bifrost_module_cache::{CachedModule, Config};
///
/// # async fn example() -> Result<(), bifrost_module_cache::Error> {
/// let writer = ModuleWriter::new(Config::new("redis://localhost:6379")?)?;
/// writer.set(&CachedModule::new("a.py", "x = 1\n")?).await?; // with a database: `refresh`
/// writer.invalidate("b.py").await?;
/// # Ok(())
/// # }
/// ```
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
    pub async fn set(&self, module: &CachedModule) -> Result<(), Error> {
        write::set(self.lanes(), module).await
    }

    /// Removes a module and its place in the index, both at once. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[doc(alias = "invalidate_module")]
    pub async fn invalidate(&self, path: &str) -> Result<bool, Error> {
        write::invalidate(self.lanes(), path).await
    }

    /// Moves a module: removes `old_path` and caches `module`, so that no reader ever sees neither.
    ///
    /// A move to the same path is a [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub async fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
        write::rename(self.lanes(), old_path, module).await
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
    pub async fn clear(&self) -> Result<ClearReport, Error> {
        clear(self.lanes()).await
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
    pub async fn publish(&self, changes: &[Change]) -> Result<PublishReport, Error> {
        publish(self.lanes(), changes).await
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
    pub async fn publish_exact(&self, modules: &[CachedModule]) -> Result<PublishReport, Error> {
        self.publish_exact_with(modules, SyncOptions::default())
            .await
    }

    /// [`publish_exact`](Self::publish_exact) with options.
    ///
    /// # Errors
    ///
    /// As [`publish_exact`](Self::publish_exact), except that no modules may be allowed.
    pub async fn publish_exact_with(
        &self,
        modules: &[CachedModule],
        options: SyncOptions<'_>,
    ) -> Result<PublishReport, Error> {
        publish_exact(self.lanes(), modules, options).await
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
    /// # use bifrost_module_cache::{CachedModule, nonblocking::ModuleWriter};
    /// # async fn select(_: &[String]) -> Result<Vec<(String, String)>, std::io::Error> { Ok(Vec::new()) }
    /// # async fn example(writer: ModuleWriter) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let fetch = |paths: Vec<String>| async move {
    ///     let rows = select(&paths).await?; // SELECT path, content … WHERE path = ANY($1)
    ///     let modules = rows.into_iter().map(|(path, content)| CachedModule::new(path, content));
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(modules.collect::<Result<_, _>>()?)
    /// };
    /// writer.refresh_from(&["shared/halopsa.py"], fetch).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the error of `fetch`; otherwise as [`set`](Self::set). Paths before
    /// the failure may have been brought up to date; all may be refreshed again.
    pub async fn refresh_from<E, Answer>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Answer,
    ) -> Result<RefreshReport, Error>
    where
        Answer: Future<Output = Result<Vec<CachedModule>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut source = Fetch(|paths| {
            let answer = fetch(paths);
            async { answer.await.map_err(unread) }
        });
        refresh(self.lanes(), &mut source, paths).await
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
    #[cfg(feature = "postgres")]
    pub async fn refresh(
        &self,
        client: &tokio_postgres::Client,
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error> {
        with(client, |database| async {
            let mut workspace = Workspace::open(database, self.lanes().config()).await?;
            refresh(self.lanes(), &mut workspace, paths).await
        })
        .await
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
    #[doc(alias = "warm_cache_from_db")]
    #[cfg(feature = "postgres")]
    pub async fn warm_from_db(&self, client: &tokio_postgres::Client) -> Result<WarmReport, Error> {
        self.warm_from_db_with(client, SyncOptions::default()).await
    }

    /// [`warm_from_db`](Self::warm_from_db) with options.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    #[cfg(feature = "postgres")]
    pub async fn warm_from_db_with(
        &self,
        client: &tokio_postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error> {
        with(client, |database| warm(self.lanes(), database, options)).await
    }

    /// Compares all rows, entries and the index, and writes nothing. What differs is looked at a
    /// second time after the transactions of that moment have ended, or 5 s.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    #[cfg(feature = "postgres")]
    pub async fn verify(&self, client: &tokio_postgres::Client) -> Result<Drift, Error> {
        self.verify_with(client, SyncOptions::default()).await
    }

    /// [`verify`](Self::verify) with options.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    #[cfg(feature = "postgres")]
    pub async fn verify_with(
        &self,
        client: &tokio_postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error> {
        with(client, |database| verify(self.lanes(), database, options)).await
    }

    /// Mends exactly what [`verify`](Self::verify) finds, and gives way to whoever writes
    /// meanwhile. Does not mark the cache as complete.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    #[cfg(feature = "postgres")]
    pub async fn repair(&self, client: &tokio_postgres::Client) -> Result<RepairReport, Error> {
        self.repair_with(client, SyncOptions::default()).await
    }

    /// [`repair`](Self::repair) with options.
    ///
    /// # Errors
    ///
    /// As [`repair`](Self::repair).
    #[cfg(feature = "postgres")]
    pub async fn repair_with(
        &self,
        client: &tokio_postgres::Client,
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error> {
        with(client, |database| repair(self.lanes(), database, options)).await
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.reader.stats()
    }

    fn lanes(&self) -> &Lanes {
        &self.reader.lanes
    }
}
