//! The inventory: which paths the database and the cache have, and how their modules compare.
//!
//! It is taken once for each call, before anything is written. Both the limit on removals and the
//! report need all paths, not those of one batch.

use std::collections::HashSet;
use std::time::Instant;

use super::compare::{Cached, Inspect, Verdict, cacheable};
use super::endpoints::Endpoints;
use super::options::{Stage, SyncOptions};
use super::report::Drift;
use super::scan::{CachedPaths, cached_paths};
use super::source::Source as _;
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::config::Config;
use crate::database::workspace::{Database, Listing, Paths, Workspace, collect};
use crate::error::Error;
use crate::module::CachedModule;

/// How often what was mended is compared and mended again. Two or three passes were enough in all
/// measured rounds; a writer that never rests must not hold a warm-up for ever.
pub(crate) const PASSES: usize = 5;

/// All paths of the database and of the cache, as they were when the call began.
pub(crate) struct Inventory {
    pub(crate) listing: Listing,
    pub(super) cached: CachedPaths,
    /// What is cached and has no row.
    pub(super) surplus: Vec<String>,
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
        // The cache first, the table second: a module that a writer commits and then caches
        // meanwhile is in the listing, and not taken for a cached path without a row.
        let cached = cached_paths(connection, config).await?;
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
    pub(super) fn is_empty_unasked(&self, options: &SyncOptions<'_>) -> bool {
        let has_surplus = !self.surplus.is_empty() || !self.cached.bad.is_empty();
        self.listing.modules == 0 && has_surplus && !options.allows_empty()
    }

    /// Compares all rows with their entries, then what is cached without a row.
    pub(super) async fn compare<Conn: DedicatedConnection, D: Database>(
        &self,
        connection: &mut Conn,
        workspace: &mut Workspace<D>,
        config: &Config,
        options: &mut SyncOptions<'_>,
    ) -> Result<Comparison, Error> {
        if self.listing.not_modules > 0 {
            log::warn!(
                "The workspace has {} rows and no module: their entity_type is not 'module', or they have no content",
                self.listing.not_modules
            );
        }
        let total = self.listing.modules + self.surplus.len();
        let mut progress = options.counted(Stage::Compare, total);
        let listed = self.listing.batches.iter();
        let listed = listed.map(|batch| Paths::Listed(batch));
        let mut comparison = compare(connection, workspace, listed, config, &mut progress).await?;
        let mut gone = comparison.has_rowless();
        let surplus =
            compare_any(connection, workspace, &self.surplus, config, &mut progress).await?;
        comparison.drift.extend(surplus.drift);
        // A row that has gone since the listing may have moved to a path that was not on it. So
        // look for new paths as long as rows go: the new path must be known, and so be written,
        // before the old one is removed.
        let mut known: HashSet<String> = self.listing.batches.iter().flatten().cloned().collect();
        for _ in 0..PASSES {
            if !gone {
                break;
            }
            let listed = workspace.list(config).await?.batches.into_iter().flatten();
            let news: Vec<String> = listed.filter(|path| known.insert(path.clone())).collect();
            let news = compare_any(connection, workspace, &news, config, &mut |_| {}).await?;
            gone = news.has_rowless();
            comparison.drift.extend(news.drift);
        }
        Ok(comparison)
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

impl Verdict {
    /// True where a row is not what a reader gets.
    pub(super) fn is_wrong(self) -> bool {
        matches!(self, Self::Missing | Self::Stale | Self::Corrupt)
    }
}

#[derive(Default)]
pub(crate) struct Comparison {
    pub(super) drift: Vec<(String, Verdict)>,
    /// When the first entry that is right expires, if any does: the mark of a complete cache must
    /// not outlive it.
    pub(super) expires: Option<Instant>,
}

impl Comparison {
    /// Whether some path lost its row since it was listed.
    fn has_rowless(&self) -> bool {
        let rowless = |verdict| matches!(verdict, Verdict::Ghost | Verdict::IndexOnly);
        self.drift.iter().any(|(_, verdict)| rowless(*verdict))
    }

    fn add(
        &mut self,
        batch: &[String],
        cached: &[Cached],
        rows: &[CachedModule],
        asked: Instant,
        config: &Config,
    ) {
        let (rows, _) = cacheable(rows, batch, config);
        for (path, cached) in batch.iter().zip(cached) {
            let row = rows.get(path.as_str()).copied();
            match cached.compare(row, config, path) {
                Verdict::Right => {
                    let expires = cached.ttl.filter(|_| row.is_some()).map(|ttl| asked + ttl);
                    self.expires = self.expires.into_iter().chain(expires).min();
                }
                verdict => self.drift.push((path.clone(), verdict)),
            }
        }
    }
}

/// Compares without a WATCH, so that comparing never aborts and needs no retry. What looks
/// different is looked at again under a WATCH before it is written.
pub(crate) async fn compare<Conn: DedicatedConnection, D: Database>(
    connection: &mut Conn,
    workspace: &mut Workspace<D>,
    batches: impl Iterator<Item = Paths<'_>>,
    config: &Config,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Comparison, Error> {
    let mut comparison = Comparison::default();
    for paths in batches {
        // The query is sent before Redis is asked: Postgres prepares its answer while Redis
        // gives its own.
        let rows = workspace.start(paths).await?;
        let batch = paths.as_slice();
        let asked = Instant::now();
        let cached = send(connection, &Inspect::of(batch), config).await?;
        let rows = collect(rows).await?.modules;
        comparison.add(batch, &cached, &rows, asked, config);
        progress(batch.len());
    }
    Ok(comparison)
}

/// The same for paths whose sizes are not known.
///
/// The values of paths without a row are not fetched. They will be removed whatever they hold, and
/// no table bounds their size: 200 foreign values could be any number of bytes.
pub(crate) async fn compare_any<Conn: DedicatedConnection, D: Database>(
    connection: &mut Conn,
    workspace: &mut Workspace<D>,
    paths: &[String],
    config: &Config,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Comparison, Error> {
    let mut all = Comparison::default();
    for paths in paths.chunks(BATCH_MODULES) {
        let (listing, rowless) = workspace.list_these(paths, config).await?;
        let batches = listing.batches.iter().map(|batch| Paths::Any(batch));
        let more = compare(connection, workspace, batches, config, progress).await?;
        all.drift.extend(more.drift);
        all.expires = all.expires.into_iter().chain(more.expires).min();
        if !rowless.is_empty() {
            let inspect = Inspect {
                values: false,
                ..Inspect::of(&rowless)
            };
            let cached = send(connection, &inspect, config).await?;
            all.add(&rowless, &cached, &[], Instant::now(), config);
            progress(rowless.len());
        }
    }
    Ok(all)
}
