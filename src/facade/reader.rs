//! Reading, in both facades: a type without a method that changes Redis, which is the
//! specification's "workers never invalidate", enforced by the compiler.

use std::collections::HashSet;
use std::sync::Arc;

use super::connections::Connections;
#[cfg(feature = "postgres")]
use super::database::with;
use crate::client::Client;
use crate::client::read;
use crate::client::stats::Stats;
use crate::config::Config;
use crate::diagnosis::Diagnosis;
#[cfg(feature = "postgres")]
use crate::diagnosis::diagnose::{diagnose, diagnose_name};
use crate::diagnosis::explain::{explain, explain_name};
use crate::diagnosis::status::{Status, status};
use crate::error::Error;
use crate::module::CachedModule;
use crate::resolution::{Resolution, resolve};

/// Reads modules, and has no method that changes Redis: what a worker holds. Its Redis user needs
/// no permission to write: see [security](crate::guide::security).
///
#[doc = example!("reader")]
///
/// Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct ModuleReader {
    pub(crate) client: Arc<Client<Connections>>,
}

impl ModuleReader {
    /// A reader that connects when it is first used.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let config = Arc::new(config.checked()?);
        let connections = Connections::new(Arc::clone(&config));
        Ok(Self {
            client: Arc::new(Client::new(config, connections)),
        })
    }

    /// What has been done so far, by all clones and the writer or reader that shares their
    /// connections. No IO.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.client.stats()
    }
}

facade! { impl ModuleReader {
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
    pub async fn get(&self, path: &str) -> Result<Option<CachedModule>, Error> {
        read::get(&self.client, path)
    }

    /// The modules at `paths`, in their order. One round trip; none for no paths.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); one bad path or one corrupt entry fails the call and is named.
    pub async fn get_many(
        &self,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Option<CachedModule>>, Error> {
        read::get_many(&self.client, paths)
    }

    /// All cached paths. A member of the index that can't be a path is skipped and logged.
    ///
    /// A path may be named here and its module be absent: its value has expired or was evicted, or
    /// a foreign writer is between its two commands.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Busy`] or [`Error::Refused`]; never an empty set instead.
    #[doc(alias("get_all_module_paths", "get_module_index_sync"))]
    pub async fn paths(&self) -> Result<HashSet<String>, Error> {
        read::paths(&self.client)
    }

    /// What a module's name, such as `shared.halopsa`, stands for. One round trip; none for what
    /// can't be a path.
    ///
    /// The answer is Python's for the same files on a disk: a package hides a module, and a module
    /// hides a namespace. Names are taken to the letter, so that `my-mod` is one too. What the
    /// cache can hold and no disk, such as `a` beside `a/b.py`, counts each for itself.
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
    pub async fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        resolve::resolve(&self.client, name)
    }

    /// What these names stand for, in their order. One round trip, as [`resolve`](Self::resolve).
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve); one corrupt entry fails the call and is named.
    pub async fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
        resolve::resolve_many(&self.client, names)
    }

    /// Whether the cache is known to be complete, and what tells how well Redis keeps it. One round
    /// trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn status(&self) -> Result<Status, Error> {
        status(&self.client)
    }

    /// Why the module at `path` is absent, as far as Redis alone can tell. One round trip.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), except that a corrupt entry is a
    /// [`Cause`](crate::diagnosis::Cause).
    pub async fn explain(&self, path: &str) -> Result<Diagnosis, Error> {
        explain(&self.client, path)
    }

    /// Why a name is not found, as far as Redis alone can tell: for the message of an
    /// `ImportError`, in up to two round trips. It looks at the parents, too.
    ///
    /// # Errors
    ///
    /// As [`explain`](Self::explain), but for [`Error::InvalidPath`]: no path can have such a name.
    pub async fn explain_name(&self, name: &str) -> Result<Diagnosis, Error> {
        explain_name(&self.client, name)
    }

    /// Why the module at `path` is absent or old: what the cache holds beside what the database
    /// says. What looks wrong is looked at a second time after the transactions of that moment
    /// have ended, or 5 s.
    ///
    /// # Errors
    ///
    /// As [`explain`](Self::explain); and [`Error::Database`].
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn diagnose(
        &self,
        client: postgres_client!(),
        path: &str,
    ) -> Result<Diagnosis, Error> {
        with(client, |database| diagnose(&self.client, database, path))
    }

    /// Why a name is not found, or stands for something old: as [`diagnose`](Self::diagnose), for
    /// the path or the parent that is to blame.
    ///
    /// # Errors
    ///
    /// As [`explain_name`](Self::explain_name); and [`Error::Database`].
    ///
    #[doc = panics_in_a_task!()]
    #[cfg(feature = "postgres")]
    pub async fn diagnose_name(
        &self,
        client: postgres_client!(),
        name: &str,
    ) -> Result<Diagnosis, Error> {
        with(client, |database| diagnose_name(&self.client, database, name))
    }
} }
