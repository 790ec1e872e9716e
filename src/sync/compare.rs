//! Compares rows with entries, batch by batch, and writes nothing.

use std::collections::HashSet;
use std::time::Instant;

#[cfg(feature = "near-cache")]
use super::inspect::identity;
use super::inspect::{Cached, Inspect};
use super::inventory::Inventory;
use super::options::{Stage, SyncOptions};
use super::verdict::{Verdict, cacheable};
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::config::Config;
use crate::database::workspace::{Database, Paths, Workspace, collect};
use crate::error::Error;
use crate::module::CachedModule;

/// How often what was mended is compared and mended again. Two or three passes were enough in all
/// measured rounds; a writer that never rests must not hold a warm-up for ever.
pub(crate) const PASSES: usize = 5;

#[derive(Default)]
pub(crate) struct Comparison {
    pub(crate) drift: Vec<(String, Verdict)>,
    /// What identifies the entry of each path that differs.
    #[cfg(feature = "near-cache")]
    pub(crate) entries: std::collections::HashMap<String, u64>,
    /// When the first entry that is right expires, if any does: the mark of a complete cache must
    /// not outlive it.
    pub(crate) expires: Option<Instant>,
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
                verdict => {
                    #[cfg(feature = "near-cache")]
                    self.entries
                        .insert(path.clone(), identity(cached.value.as_deref()));
                    self.drift.push((path.clone(), verdict));
                }
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
        #[cfg(feature = "near-cache")]
        all.entries.extend(more.entries);
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

/// Compares all rows with their entries, then what is cached without a row.
pub(super) async fn compare_all<Conn: DedicatedConnection, D: Database>(
    inventory: &Inventory,
    connection: &mut Conn,
    workspace: &mut Workspace<D>,
    config: &Config,
    options: &mut SyncOptions<'_>,
) -> Result<Comparison, Error> {
    if inventory.listing.not_modules > 0 {
        log::warn!(
            "The workspace has {} rows and no module: their entity_type is not 'module', or they have no content",
            inventory.listing.not_modules
        );
    }
    let total = inventory.listing.modules + inventory.surplus.len();
    let mut progress = options.counted(Stage::Compare, total);
    let listed = inventory.listing.batches.iter();
    let listed = listed.map(|batch| Paths::Listed(batch));
    let mut comparison = compare(connection, workspace, listed, config, &mut progress).await?;
    let mut gone = comparison.has_rowless();
    let surplus = compare_any(
        connection,
        workspace,
        &inventory.surplus,
        config,
        &mut progress,
    )
    .await?;
    comparison.drift.extend(surplus.drift);
    // A row that has gone since the listing may have moved to a path that was not on it. So
    // look for new paths as long as rows go: the new path must be known, and so be written,
    // before the old one is removed.
    let mut known: HashSet<String> = inventory
        .listing
        .batches
        .iter()
        .flatten()
        .cloned()
        .collect();
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
