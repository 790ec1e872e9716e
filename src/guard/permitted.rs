//! The database as what is mended from, with a say in what may be removed.
//!
//! A path is removed where its row is gone. That may also be because the whole table is: so the
//! guard decides beforehand which paths may be removed, and a row that goes between that and the
//! removal ends the attempt instead.

use std::collections::HashSet;

use crate::client::batch::Fetched;
use crate::config::Config;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;
use crate::sync::source::{Plan, Source};

pub(super) struct Permitted<'a, D> {
    pub(super) workspace: &'a mut Workspace<D>,
    /// Which paths may be removed.
    pub(super) removals: HashSet<String>,
    /// Whether another path would have been removed: then an error ended it.
    pub(super) was_overtaken: bool,
}

impl<D: Database> Source for Permitted<'_, D> {
    async fn plan(&mut self, paths: Vec<String>, config: &Config) -> Result<Plan, Error> {
        self.workspace.plan(paths, config).await
    }

    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error> {
        let fetched = self.workspace.fetch(paths).await?;
        let rows: HashSet<&String> = fetched.modules.iter().map(|row| &row.path).collect();
        let is_gone = |path: &&String| !rows.contains(path);
        let mut gone = paths.iter().filter(is_gone);
        if gone.any(|path| !self.removals.contains(path)) {
            self.was_overtaken = true;
            return Err(Error::Database {
                server: String::new(),
                reason: "a row went while its module was being mended",
                transient: true,
                source: None,
            });
        }
        Ok(fetched)
    }
}
