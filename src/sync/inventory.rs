//! The inventory: which paths the database and the cache have.
//!
//! It is taken once for each call, before anything is written. Both the limit on removals and the
//! report need all paths, not those of one batch.

use std::collections::HashSet;

use super::endpoints::Endpoints;
use super::options::SyncOptions;
use super::report::Drift;
use super::scan::{CachedPaths, cached_paths};
use super::source::Source as _;
use super::verdict::Verdict;
use crate::client::transport::DedicatedConnection;
use crate::config::Config;
use crate::database::workspace::{Database, ModuleList, Workspace};
use crate::error::Error;

/// All paths of the database and of the cache, as they were when the call began.
pub(crate) struct Inventory {
    pub(crate) listing: ModuleList,
    pub(crate) cached: CachedPaths,
    /// What is cached and has no row.
    pub(crate) surplus: Vec<String>,
    servers: Endpoints,
}

impl Inventory {
    /// Lists cache and database. Paths alone, without contents: 10,000 of them are commonly less
    /// than one batch.
    pub(crate) async fn take<Conn: DedicatedConnection, D: Database>(
        connection: &mut Conn,
        workspace: &mut Workspace<D>,
        config: &Config,
    ) -> Result<Self, Error> {
        Self::take_with(connection, workspace, true, config).await
    }

    /// The same; keys that the index does not name are left out unless it `scans` for them.
    pub(crate) async fn take_with<Conn: DedicatedConnection, D: Database>(
        connection: &mut Conn,
        workspace: &mut Workspace<D>,
        scans: bool,
        config: &Config,
    ) -> Result<Self, Error> {
        // The cache first, the table second: a module that a writer commits and then caches
        // meanwhile is in the listing, and not taken for a cached path without a row.
        let cached = cached_paths(connection, scans, config).await?;
        let listing = workspace.list(config).await?;
        let rows: HashSet<&String> = listing.batches.iter().flatten().collect();
        let surplus = cached
            .paths
            .iter()
            .filter(|path| !rows.contains(path))
            .cloned()
            .collect();
        Ok(Self {
            listing,
            cached,
            surplus,
            servers: Endpoints::new(config, workspace.server()),
        })
    }

    /// Refuses to remove too many of the cached modules.
    pub(crate) fn check_removals(&self, options: &SyncOptions<'_>) -> Result<(), Error> {
        if self.is_empty_unasked(options) {
            // Not an error: `mend` removes nothing then, and reports `EmptyWorkspace`.
            return Ok(());
        }
        options.check_removals(self.surplus.len(), self.cached.paths.len())
    }

    /// Whether all would be removed though the caller did not say that this is meant. An empty
    /// table is more often the wrong database, or a restore under way, than an empty workspace.
    pub(crate) fn is_empty_unasked(&self, options: &SyncOptions<'_>) -> bool {
        let has_surplus = !self.surplus.is_empty() || !self.cached.bad.is_empty();
        self.listing.modules == 0 && has_surplus && !options.allows_empty()
    }

    pub(super) fn report(&self, drift: Vec<(String, Verdict)>) -> Drift {
        let mut report = Drift {
            modules: self.listing.modules,
            skipped: self.listing.skipped,
            not_modules: self.listing.not_modules,
            bad_members: self.cached.bad.len(),
            scanned: self.cached.scanned,
            servers: self.servers.clone(),
            ..Drift::default()
        };
        for (path, verdict) in drift {
            match verdict {
                Verdict::Right => continue,
                Verdict::Missing => &mut report.missing,
                Verdict::Stale => &mut report.stale,
                Verdict::Corrupt => &mut report.corrupt,
                Verdict::Ghost => &mut report.ghost,
                Verdict::IndexOnly => &mut report.index_only,
                Verdict::KeyOnly => &mut report.key_only,
                Verdict::Expiring => &mut report.expiring,
            }
            .push(path);
        }
        for list in [
            &mut report.missing,
            &mut report.stale,
            &mut report.corrupt,
            &mut report.ghost,
            &mut report.index_only,
            &mut report.key_only,
            &mut report.expiring,
        ] {
            // So that two reports can be compared, and a test can name what it expects.
            list.sort_unstable();
        }
        report
    }
}
