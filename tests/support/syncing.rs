//! What keeps the cache in step with a database, over both facades.

use std::error::Error as StdError;
use std::future::ready;

use bifrost_module_cache::diagnosis::Diagnosis;
use bifrost_module_cache::sync::{
    Drift, Progress, PublishReport, RefreshReport, RepairReport, Stage, SyncOptions, WarmReport,
};
use bifrost_module_cache::{CachedModule, Error, blocking, nonblocking};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::facade::{Writer, block_on};

/// The rest of `ModuleWriter`.
pub trait Syncing: Writer<Client: Send> {
    fn refresh(
        &self,
        client: &mut Self::Client,
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error>;
    fn refresh_from<E: Into<Box<dyn StdError + Send + Sync>>>(
        &self,
        paths: &[impl AsRef<str>],
        fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error>;
    fn warm_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error>;
    fn verify_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error>;
    fn repair_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error>;
    fn publish_exact_with(
        &self,
        modules: &[CachedModule],
        options: SyncOptions<'_>,
    ) -> Result<PublishReport, Error>;
    /// Of the reader.
    fn diagnose(&self, client: &mut Self::Client, path: &str) -> Result<Diagnosis, Error>;
}

impl Syncing for blocking::ModuleWriter {
    fn refresh(
        &self,
        client: &mut Self::Client,
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error> {
        self.refresh(client, paths)
    }

    fn refresh_from<E: Into<Box<dyn StdError + Send + Sync>>>(
        &self,
        paths: &[impl AsRef<str>],
        fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error> {
        self.refresh_from(paths, fetch)
    }

    fn warm_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error> {
        self.warm_from_db_with(client, options)
    }

    fn verify_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error> {
        self.verify_with(client, options)
    }

    fn repair_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error> {
        self.repair_with(client, options)
    }

    fn publish_exact_with(
        &self,
        modules: &[CachedModule],
        options: SyncOptions<'_>,
    ) -> Result<PublishReport, Error> {
        self.publish_exact_with(modules, options)
    }

    fn diagnose(&self, client: &mut Self::Client, path: &str) -> Result<Diagnosis, Error> {
        self.reader().diagnose(client, path)
    }
}

impl Syncing for nonblocking::ModuleWriter {
    fn refresh(
        &self,
        client: &mut Self::Client,
        paths: &[impl AsRef<str>],
    ) -> Result<RefreshReport, Error> {
        block_on(self.refresh(client, paths))
    }

    fn refresh_from<E: Into<Box<dyn StdError + Send + Sync>>>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error> {
        block_on(self.refresh_from(paths, |paths| ready(outside(|| fetch(paths)))))
    }

    fn warm_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<WarmReport, Error> {
        block_on(self.warm_from_db_with(client, options))
    }

    fn verify_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<Drift, Error> {
        block_on(self.verify_with(client, options))
    }

    fn repair_with(
        &self,
        client: &mut Self::Client,
        options: SyncOptions<'_>,
    ) -> Result<RepairReport, Error> {
        block_on(self.repair_with(client, options))
    }

    fn publish_exact_with(
        &self,
        modules: &[CachedModule],
        options: SyncOptions<'_>,
    ) -> Result<PublishReport, Error> {
        block_on(self.publish_exact_with(modules, options))
    }

    fn diagnose(&self, client: &mut Self::Client, path: &str) -> Result<Diagnosis, Error> {
        block_on(self.reader().diagnose(client, path))
    }
}

/// Calls `hook` with every progress event, in the middle of the work: the next step waits for it.
pub fn at_each<'a>(mut hook: impl FnMut(Progress) + Send + 'a) -> SyncOptions<'a> {
    SyncOptions::default().with_progress(move |progress| outside(|| hook(progress)))
}

/// Calls `hook` once, when a stage has come to its end for the first time: after `Load` the last
/// batch is watched and read, but not written; after `Compare` nothing is mended; after `Mend` the
/// first pass is written, but not compared again.
pub fn after<'a>(stage: Stage, hook: impl FnOnce() + Send + 'a) -> SyncOptions<'a> {
    let mut hook = Some(hook);
    at_each(move |progress| {
        if progress.stage == stage && progress.done == progress.total {
            hook.take().into_iter().for_each(|hook| hook());
        }
    })
}

/// Lets `f` use what waits, such as the synchronous Postgres client or another call of
/// `nonblocking`, even inside a task.
fn outside<T>(f: impl FnOnce() -> T) -> T {
    if Handle::try_current().is_ok() {
        block_in_place(f)
    } else {
        f()
    }
}
