//! The near cache, in both facades.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::connections::Connections;
use super::reader::ModuleReader;
use super::writer::ModuleWriter;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::module::CachedModule;
use crate::near::cache::Near;
use crate::near::coherence::counters::NearCacheStats;
use crate::near::hooks::Invalidation;
use crate::near::options::NearCacheOptions;
use crate::near::snapshot::Snapshot;
use crate::resolution::Resolution;

/// An in-process copy in front of a [`ModuleReader`]. Redis announces every change on a connection
/// of its own, which a thread (a task in `nonblocking`) follows, and what changed is asked for
/// anew.
///
/// * Nothing is stale for ever: when a change has been announced, or the connection is lost, the
///   old value is gone.
/// * Nothing is staler than [a bound](NearCacheOptions::with_staleness_bound), even if the network
///   goes silent.
/// * A [tied](Self::tie) writer sees what it wrote.
/// * An outage is an error, never an absence.
///
/// Where Redis can't be followed (before version 6, behind a proxy, where an ACL forbids it)
/// [`is_live`](Self::is_live) is false, one warning is logged, and reads ask Redis: slower, never
/// wrong.
///
#[doc = example!("near")]
///
/// Cheap to clone; clones share everything. When the last one is dropped, the thread or task ends.
///
/// A forked child serves what it inherited for as long as the staleness bound, then starts afresh;
/// or it reads through for ever, if it was forked while another thread began or ended, because then
/// it can start none. A [`Snapshot`] is the way for forked children. If the runtime ends in which a
/// near cache of `nonblocking` was made, the next call that has to ask Redis starts a task in its
/// own.
#[derive(Clone)]
pub struct NearCache {
    near: Arc<Near<Connections>>,
}

impl NearCache {
    /// A near cache in front of `reader`. Starts to follow Redis in a thread or task of its own;
    /// until that has succeeded, reads ask Redis.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an option that can't be used, and in `nonblocking` outside a
    /// tokio runtime; [`Error::Unavailable`] if no thread can be started.
    pub fn new(reader: ModuleReader, options: NearCacheOptions) -> Result<Self, Error> {
        Near::new(reader.client, options).map(|near| Self {
            near: Arc::new(near),
        })
    }

    /// From now on, what `writer` and its clones write is seen here when the writing call returns,
    /// whether it succeeds or not.
    pub fn tie(&self, writer: &ModuleWriter) {
        self.near.tie_to(writer.client());
    }

    /// Calls `hook` whenever modules may have changed, so that a worker can drop what it loaded.
    /// What is told is an [`Invalidation`], which has an example.
    ///
    /// Hooks run one after the other on a thread of their own and hold nothing up. If they fall
    /// behind, changes become one [`Invalidation::Everything`]. When one is called, asking this
    /// cache brings what is new. A hook that holds the near cache itself keeps it alive.
    ///
    /// A forked child inherits the hooks, but no thread: they are called once the child has asked
    /// for something that is not cached, or has added a hook itself.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if no thread can be started, and in `nonblocking`
    /// [`Error::InvalidConfig`] outside a tokio runtime. The hook stays all the same, and is called
    /// once a later call has started what was missing: don't add it again.
    pub fn on_invalidate(
        &self,
        hook: impl Fn(&Invalidation) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.near.on_invalidate(hook)
    }

    /// Whether Redis is followed now. While it is not, reads ask Redis.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.near.is_live()
    }

    /// What has been done so far, and what is cached. No IO.
    #[must_use]
    pub fn stats(&self) -> NearCacheStats {
        self.near.stats()
    }
}

facade! { impl NearCache {
    /// The module at `path`, or `None` if there is none. No IO if it is cached; otherwise one round
    /// trip for all callers that ask for it at the same time.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::get`].
    #[doc(alias("get_module", "get_module_sync"))]
    pub async fn get(&self, path: &str) -> Result<Option<Arc<CachedModule>>, Error> {
        @hit self.near.hit(path) => self.near.ask(path)
    }

    /// The modules at `paths`, in their order. One round trip for all that are not cached.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::get_many`].
    pub async fn get_many(
        &self,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Option<Arc<CachedModule>>>, Error> {
        self.near.get_many(paths)
    }

    /// What a module's name stands for, as [`ModuleReader::resolve`], and never older than what is
    /// cached here: a module or a directory is found, or gone, when its change has been announced.
    /// No IO if all that it takes is cached; otherwise one round trip, and one for the index.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::resolve`].
    pub async fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        @hit self.near.resolved(name) => self.near.resolve(name)
    }

    /// What these names stand for, in their order. One round trip for all modules that are not
    /// cached, and one for the index.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::resolve_many`].
    pub async fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
        self.near.resolve_many(names)
    }

    /// All cached paths, as [`ModuleReader::paths`].
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::paths`].
    #[doc(alias("get_all_module_paths", "get_module_index_sync"))]
    pub async fn paths(&self) -> Result<Arc<HashSet<String>>, Error> {
        self.near.paths()
    }

    /// Loads the whole workspace, 500 modules a round trip, while there is room. Waits until Redis
    /// is followed. Returns how many modules are cached now.
    ///
    /// A module that is corrupt is left out: a caller that asks for it is told.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::get_many`]; [`Error::Refused`] where Redis can't be followed.
    pub async fn prefetch(&self) -> Result<usize, Error> {
        self.near.prefetch()
    }

    /// The same for these paths.
    ///
    /// # Errors
    ///
    /// As [`prefetch`](Self::prefetch).
    pub async fn prefetch_paths(&self, paths: &[impl AsRef<str>]) -> Result<usize, Error> {
        self.near.prefetch_paths(paths)
    }

    /// All modules that the index names, as they were at one moment. Two short round trips if they
    /// are cached.
    ///
    /// # Errors
    ///
    /// As [`prefetch`](Self::prefetch); [`Error::Unavailable`] also if modules changed faster than
    /// they could be read.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.near.snapshot()
    }

    /// The modules at `paths`, as they were at one moment.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot); [`Error::InvalidPath`].
    pub async fn snapshot_of(&self, paths: &[impl AsRef<str>]) -> Result<Snapshot, Error> {
        self.near.snapshot_of(paths)
    }

    /// Why a name is not found, as [`ModuleReader::explain_name`]: it asks Redis, whatever is
    /// cached here.
    ///
    /// # Errors
    ///
    /// As [`ModuleReader::explain_name`].
    pub async fn explain_name(&self, name: &str) -> Result<Diagnosis, Error> {
        self.near.explain_name(name)
    }
} }

impl fmt::Debug for NearCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { near } = self;
        f.debug_struct("NearCache")
            .field("stats", &near.stats())
            .finish_non_exhaustive()
    }
}
