//! Writing, in both facades.

use super::connections::Connections;
#[cfg(feature = "postgres")]
use super::database::with;
use super::reader::ModuleReader;
use crate::client::Client;
use crate::client::stats::Stats;
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
#[cfg(feature = "postgres")]
use crate::sync::refresh::refresh;
#[cfg(feature = "postgres")]
use crate::sync::repair::repair;
use crate::sync::report::{ClearReport, PublishReport};
#[cfg(feature = "postgres")]
use crate::sync::report::{Drift, RefreshReport, RepairReport, WarmReport};
#[cfg(feature = "postgres")]
use crate::sync::verify::verify;
#[cfg(feature = "postgres")]
use crate::sync::warm::warm;

/// Writes, removes and moves modules: what a service holds.
///
#[doc = example!("writer")]
///
/// Cheap to clone; clones and their [`reader`](Self::reader) share their connections.
#[derive(Debug, Clone)]
pub struct ModuleWriter {
    pub(crate) reader: ModuleReader,
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

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.reader.stats()
    }

    pub(crate) fn client(&self) -> &Client<Connections> {
        &self.reader.client
    }
}

facade! { impl ModuleWriter {
    /// Caches a module and names it in the index, both at once.
    ///
    /// It writes what its caller knows. Of two services that save the same path, the one that
    /// committed first may write last: with a database call `refresh` instead.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] or [`Error::TooLarge`] before anything is sent; then
    /// [`Error::Unavailable`], which says if the write
    /// [may have been applied](Error::may_have_been_applied), [`Error::Busy`] or
    /// [`Error::Refused`].
    #[doc(alias = "set_module")]
    pub async fn set(&self, module: &CachedModule) -> Result<(), Error> {
        write::set(self.client(), module)
    }

    /// Removes a module and its place in the index, both at once. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[doc(alias = "invalidate_module")]
    pub async fn invalidate(&self, path: &str) -> Result<bool, Error> {
        write::invalidate(self.client(), path)
    }

    /// Moves a module: removes `old_path` and caches `module`, so that no reader ever sees neither.
    ///
    /// A move to the same path is a [`set`](Self::set).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub async fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
        write::rename(self.client(), old_path, module)
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
        publish(self.client(), changes)
    }

    /// Makes the cache hold exactly these modules: skips equal ones, replaces differing ones,
    /// removes the rest, and marks the cache as complete. For workspaces without a database.
    ///
    /// The same path twice: the last wins. Seen at once in the bounds of
    /// [`publish`](Self::publish); beyond them the cache is not marked as complete until the end.
    /// One publisher at a time: two that run at once may leave a mixture of what they meant.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish); [`Error::Empty`] for no modules;
    /// [`Error::TooManyRemovals`].
    pub async fn publish_exact(&self, modules: &[CachedModule]) -> Result<PublishReport, Error> {
        publish_exact(self.client(), modules, SyncOptions::default())
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
        publish_exact(self.client(), modules, options)
    }

    /// Removes all modules, the index, and the mark of a complete cache, in bounded batches.
    ///
    /// Entries that the index does not name are found where SCAN is permitted; where it is not they
    /// stay, and [the report](ClearReport::scanned) says so.
    ///
    /// A module that another writer adds meanwhile stays. A warm-up under way does not mark the
    /// cache: it begins again.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set); the batches before the failed one are removed.
    pub async fn clear(&self) -> Result<ClearReport, Error> {
        clear(self.client())
    }

    /// Brings paths to what the database says now: written, or invalidated where the row is gone.
    /// This, not [`set`](Self::set), is what a service with a database calls, after its commit.
    ///
    /// `set` writes what its caller knows. Of two services that save the same path, the one that
    /// committed first may write last, and the cache stays old. This reads the row after it began
    /// to WATCH the key, so it can only ever write what is newest, or give way to the writer that
    /// does. It takes a client, not a transaction: inside one it would see rows that are not
    /// committed, or an old snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]; otherwise as [`refresh_from`](Self::refresh_from).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn refresh(
        &self,
        client: postgres_client!(),
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error> {
        with(client, |database| async {
            let mut workspace = Workspace::open(database, self.client().config()).await?;
            refresh(self.client(), &mut workspace, paths).await
        })
    }

    /// Loads all modules of the database into the cache, removes what has no row, and compares:
    /// what an init container calls.
    ///
    /// Writes only what differs, and gives way to services that write meanwhile. In the end waits,
    /// for at most 5 s each time, for transactions that were open, and compares again, because
    /// their writers may have come first; if they last longer the report says that the result is
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
    #[doc = panics_in_a_task!()]
    #[doc(alias = "warm_cache_from_db")]
    #[cfg(feature = "postgres")]
    pub async fn warm_from_db(&self, client: postgres_client!()) -> Result<WarmReport, Error> {
        with(client, |database| warm(self.client(), database, SyncOptions::default()))
    }

    /// [`warm_from_db`](Self::warm_from_db) with options.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn warm_from_db_with(
        &self,
        client: postgres_client!(),
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error> {
        with(client, |database| warm(self.client(), database, options))
    }

    /// Compares all rows, entries and the index, and writes nothing. What differs is looked at a
    /// second time after the transactions of that moment have ended, or 5 s.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn verify(&self, client: postgres_client!()) -> Result<Drift, Error> {
        with(client, |database| verify(self.client(), database, SyncOptions::default()))
    }

    /// [`verify`](Self::verify) with options.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn verify_with(
        &self,
        client: postgres_client!(),
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error> {
        with(client, |database| verify(self.client(), database, options))
    }

    /// Mends exactly what [`verify`](Self::verify) finds, and gives way to services that write
    /// meanwhile. Does not mark the cache as complete.
    ///
    /// # Errors
    ///
    /// As [`warm_from_db`](Self::warm_from_db).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn repair(&self, client: postgres_client!()) -> Result<RepairReport, Error> {
        with(client, |database| repair(self.client(), database, SyncOptions::default()))
    }

    /// [`repair`](Self::repair) with options.
    ///
    /// # Errors
    ///
    /// As [`repair`](Self::repair).
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn repair_with(
        &self,
        client: postgres_client!(),
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error> {
        with(client, |database| repair(self.client(), database, options))
    }
} }
