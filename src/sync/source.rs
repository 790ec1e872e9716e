//! Where the truth about modules is read: the database, or a function of the caller.
//!
//! [`reconcile`](super::reconcile) knows only this trait, so `refresh` and `refresh_from` run the
//! same protocol.

use crate::client::batch::{BATCH_MODULES, Fetched};
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::database::workspace::{Database, Paths, Workspace, collect};
use crate::error::{Error, Source as Cause};
use crate::module::CachedModule;

/// In which batches paths are reconciled.
#[derive(Default)]
pub(crate) struct Plan {
    /// Paths that have a module.
    pub(crate) batches: Vec<Vec<String>>,
    /// Paths that had none when the plan was made: their turn comes last, because what was moved
    /// must be written under its new path before the old one is removed.
    pub(crate) rowless: Vec<Vec<String>>,
}

/// Where the truth about modules is read.
pub(crate) trait Source {
    /// Which database that is, if it is one.
    fn server(&self) -> Option<&str> {
        None
    }

    /// Cuts paths into batches, before any key is watched. So it may look at sizes, but never at
    /// content: a row read now could be older than what a watched key holds later.
    async fn plan(&mut self, paths: Vec<String>, _: &Config) -> Result<Plan, Error> {
        Ok(Plan {
            batches: paths.chunks(BATCH_MODULES).map(<[_]>::to_vec).collect(),
            ..Plan::default()
        })
    }

    /// What the entry must still be when it is watched, by its identity, so that it may be written.
    /// Only a guard expects anything.
    fn expected(&self, _path: &str) -> Option<u64> {
        None
    }

    /// The entry is another one by now: it is left alone.
    fn overtaken(&mut self, _path: String) {}

    /// The current modules of these paths; a path that has none is left out.
    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error>;
}

/// A source that is a caller's own function.
pub(crate) struct Fetch<F>(pub(crate) F);

impl<F, Answer> Source for Fetch<F>
where
    F: FnMut(Vec<String>) -> Answer,
    Answer: Future<Output = Result<Vec<CachedModule>, Error>>,
{
    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error> {
        let modules = (self.0)(paths.to_vec()).await?;
        Ok(Fetched {
            modules,
            too_large: 0,
        })
    }
}

/// What a caller's own function failed with.
///
/// Its callers convert before the core sees the error: of a future that is held across an await,
/// the compiler forgets that a `Box<dyn Error>` lives for ever, and with it that it is an `E`.
pub(crate) fn unread(error: impl Into<Cause>) -> Error {
    Error::Database {
        server: String::new(),
        reason: "the modules could not be read from their source",
        transient: false,
        source: Some(error.into()),
    }
}

#[cfg(feature = "postgres")]
impl<D: Database> Source for Workspace<D> {
    fn server(&self) -> Option<&str> {
        Some(&self.server)
    }

    async fn plan(&mut self, paths: Vec<String>, config: &Config) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        // The usual `refresh`, of one path: asking for its size first would be a second round trip
        // to the database, and one module always fits a transaction.
        if paths.len() == 1 {
            plan.batches.push(paths);
            return Ok(plan);
        }
        for paths in paths.chunks(BATCH_MODULES) {
            let (listing, others) = self.list_these(paths, config).await?;
            plan.batches.extend(listing.batches);
            plan.rowless
                .extend(Some(others).filter(|paths| !paths.is_empty()));
        }
        Ok(plan)
    }

    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error> {
        collect(self.start(Paths::Any(paths)).await?).await
    }
}
