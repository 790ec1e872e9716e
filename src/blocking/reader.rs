//! Reading.

use std::collections::HashSet;
use std::sync::Arc;

use super::connections::Pool;
use super::places::ConnectionManager;
use super::run;
use crate::client::read;
use crate::client::stats::Stats;
use crate::client::transport::Transport as _;
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::diagnosis::diagnose::diagnose;
use crate::diagnosis::explain::{Explanation, explain};
use crate::diagnosis::explain_name::{NameExplanation, explain_name};
use crate::diagnosis::status::{Status, status};
use crate::error::Error;
use crate::module::CachedModule;
use crate::resolution::{Resolution, resolve};

/// Reads modules, and has no method that changes Redis: what a worker holds.
///
/// ```no_run
/// use bifrost_module_cache::Config;
/// use bifrost_module_cache::blocking::ModuleReader;
///
/// # fn example() -> Result<(), bifrost_module_cache::Error> {
/// let reader = ModuleReader::new(Config::new("redis://localhost:6379")?)?;
/// if let Some(module) = reader.get("shared/halopsa.py")? {
///     println!("{} bytes", module.content.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone; clones share one pool.
#[derive(Debug, Clone)]
pub struct ModuleReader {
    pub(super) pool: Arc<Pool>,
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
    /// use bifrost_module_cache::blocking::ModuleReader;
    /// use bifrost_module_cache::{Config, r2d2};
    ///
    /// let pool = r2d2::Pool::builder()
    ///     .max_size(16)
    ///     .max_lifetime(Some(Duration::from_secs(600)));
    /// let reader = ModuleReader::with_pool(Config::from_env()?, pool)?;
    /// # drop(reader);
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
            pool: Arc::new(Pool::with(config.checked()?, builder)),
        })
    }

    /// The module at `path`, or `None` if Redis says that there is none. One round trip.
    ///
    /// An empty stored value is absent, as in the specification, and so is one of another type than
    /// a string, as MGET has it: [`explain`](Self::explain) tells.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`] before anything is sent; [`Error::Unavailable`], [`Error::Busy`] or
    /// [`Error::Refused`] if Redis did not say; [`Error::Corrupt`] if what is stored is not this
    /// module.
    #[doc(alias("get_module", "get_module_sync"))]
    pub fn get(&self, path: &str) -> Result<Option<CachedModule>, Error> {
        run(read::get(&*self.pool, path))
    }

    /// The modules at `paths`, in their order. One round trip; none for no paths.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); one bad path or one corrupt entry fails the call and is named.
    pub fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<CachedModule>>, Error> {
        run(read::get_many(&*self.pool, paths))
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
        run(read::paths(&*self.pool))
    }

    /// Whether the cache is known to be complete. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn status(&self) -> Result<Status, Error> {
        run(status(&*self.pool))
    }

    /// Why the module at `path` is absent. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn explain(&self, path: &str) -> Result<Explanation, Error> {
        run(explain(&*self.pool, path))
    }

    /// Why the module at `path` is absent or old: what the cache holds beside what the database
    /// says. What looks wrong is looked at a second time after the transactions of that moment
    /// have ended, or 5 s.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), except that a corrupt entry is a [`Cause`](crate::diagnosis::diagnose::Cause); and
    /// [`Error::Database`].
    ///
    /// # Panics
    ///
    /// The client panics inside an async task: use [`nonblocking`](crate::nonblocking) there.
    #[cfg(feature = "postgres")]
    pub fn diagnose(
        &self,
        client: &mut postgres::Client,
        path: &str,
    ) -> Result<crate::diagnosis::diagnose::Diagnosis, Error> {
        let database = super::database::BlockingDatabase(client);
        run(diagnose(&*self.pool, database, path))
    }

    /// What a module's name, such as `shared.halopsa`, stands for. One round trip; none for what
    /// can't be a path.
    ///
    /// The answer is Python's for the same files on a disk: a package hides a module, and a module
    /// hides a namespace. Names are taken to the letter, so that `my-mod` is one too. What the cache
    /// can hold and no disk, such as `a` beside `a/b.py`, counts each for itself.
    ///
    /// It answers for the name alone and trusts that the parents are packages, of which Python's
    /// import system makes sure before it asks a finder: in Python, `a.py` without `a/__init__.py`
    /// hides `a/b.py`.
    ///
    /// Modules and packages are those of this moment. For namespaces, the index may be as old as
    /// [`Config::with_index_max_age`] says: once in that time, one of the calls that need it brings
    /// it along for all clones.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), but for [`Error::InvalidPath`]: such a name is not found.
    pub fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        run(resolve::resolve(&*self.pool, name))
    }

    /// What these names stand for, in their order. One round trip, as [`resolve`](Self::resolve).
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve); one corrupt entry fails the call and is named.
    pub fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
        run(resolve::resolve_many(&*self.pool, names))
    }

    /// Why a name is not found: for a person, who waits for up to two round trips. It looks at the
    /// parents too.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn explain_name(&self, name: &str) -> Result<NameExplanation, Error> {
        run(explain_name(&*self.pool, name))
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.pool.monitor().stats(self.pool.in_use())
    }
}
