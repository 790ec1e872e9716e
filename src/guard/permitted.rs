//! The database as what is mended from, with a say in what may be removed.
//!
//! A path is removed where its row is gone. That may also be because the whole table is: so the
//! guard decides beforehand which paths may be removed, and a row that goes between that and the
//! removal ends the attempt instead. And an entry that was written since it was judged is left
//! alone: its writer may be about to commit.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::client::batch::Fetched;
use crate::config::Config;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;
use crate::module::CachedModule;
use crate::sync::source::{Plan, Source};

pub(super) struct Permitted<'a, D> {
    workspace: &'a mut Workspace<D>,
    /// Which paths may be removed.
    removals: &'a HashSet<String>,
    /// What each entry was when it was judged.
    entries: &'a HashMap<String, u64>,
    /// Which entries were another one when they were to be mended.
    pub(super) overtaken: Vec<String>,
    /// Whether another path would have been removed: then an error ended it.
    pub(super) is_refused: bool,
    /// A hash of each row as it was last read.
    pub(super) read: HashMap<String, u64>,
}

impl<'a, D> Permitted<'a, D> {
    pub(super) fn new(
        workspace: &'a mut Workspace<D>,
        removals: &'a HashSet<String>,
        entries: &'a HashMap<String, u64>,
    ) -> Self {
        Self {
            workspace,
            removals,
            entries,
            overtaken: Vec::new(),
            is_refused: false,
            read: HashMap::new(),
        }
    }
}

fn hash_of(row: &CachedModule) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&row.content, &row.hash).hash(&mut hasher);
    hasher.finish()
}

impl<D: Database> Source for Permitted<'_, D> {
    async fn plan(&mut self, paths: Vec<String>, config: &Config) -> Result<Plan, Error> {
        self.workspace.plan(paths, config).await
    }

    fn expected(&self, path: &str) -> Option<u64> {
        self.entries.get(path).copied()
    }

    fn overtaken(&mut self, path: String) {
        self.overtaken.push(path);
    }

    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error> {
        let fetched = self.workspace.fetch(paths).await?;
        for path in paths {
            self.read.remove(path);
        }
        let rows = fetched.modules.iter();
        self.read
            .extend(rows.map(|row| (row.path.clone(), hash_of(row))));
        let is_gone = |path: &&String| !self.read.contains_key(*path);
        let mut gone = paths.iter().filter(is_gone);
        if gone.any(|path| !self.removals.contains(path)) {
            self.is_refused = true;
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
