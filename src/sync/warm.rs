//! Loads all modules of the database into the cache, verifies it, and marks it as complete.
//!
//! Loading is fast and not quite exact; the verification behind it is what makes the result right.
//! The steps and their order: docs/design/consistency.md.

use std::collections::HashSet;
use std::time::Instant;

use super::endpoints::Endpoints;
use super::inspect::{Cached, Inspect};
use super::inventory::Inventory;
use super::mark::Completion;
use super::options::{Stage, SyncOptions};
use super::reconcile::Write;
use super::repair::check;
use super::report::{DryRun, Unverified, WarmReport};
use super::source::Source as _;
use super::verdict::{Verdict, cacheable};
use super::verify::verify;
use crate::client::Client;
use crate::client::dedicated;
use crate::client::dedicated::{begin, finish, send};
use crate::client::ending::Ending;
use crate::client::transport::{DedicatedConnection, Transport};
use crate::config::Config;
use crate::database::workspace::{Database, Paths, Workspace, collect};
use crate::error::Error;
use crate::module::CachedModule;

/// How often a warm-up whose work was flushed away starts again. Bounded, because a job that
/// flushes in a loop would keep it busy for ever.
const ROUNDS: usize = 3;

/// Loads, verifies and marks, in rounds: where the mark is refused because the data was flushed
/// meanwhile, all begins anew.
pub(crate) async fn warm<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<WarmReport, Error> {
    let start = Instant::now();
    if options.dry_run {
        let drift = verify(client, database, options).await?;
        let dry_run = DryRun::of(&drift);
        return Ok(WarmReport {
            // The modules that are right already: a dry run adds none.
            modules: drift.modules - dry_run.written.len().min(drift.modules),
            skipped: drift.skipped,
            not_modules: drift.not_modules,
            scanned: drift.scanned,
            elapsed: start.elapsed(),
            unverified: Some(Unverified::DryRun),
            dry_run: Some(dry_run),
            servers: drift.servers,
            ..WarmReport::default()
        });
    }
    let _observed = client.observers.writing_everything();
    let config = client.config();
    let mut workspace = Workspace::open(database, config).await?;
    // Dedicated ones, because WATCH belongs to a connection; two, because `load` alternates.
    let mut connections = [
        dedicated::open(client).await?,
        dedicated::open(client).await?,
    ];
    let mut report = WarmReport {
        servers: Endpoints::new(config, workspace.server()),
        ..WarmReport::default()
    };
    for _ in 0..ROUNDS {
        let round = Instant::now();
        let inventory = Inventory::take(&mut connections[0], &mut workspace, config).await?;
        inventory.check_removals(&options)?;
        // The token comes before the first write: a flush from now on takes it along, and the mark
        // is then refused.
        let completion = Completion::begin(&mut connections[0], config).await?;
        report.unchanged = 0;
        load(
            config,
            &mut connections,
            &mut workspace,
            inventory.listing.batches,
            Replace::All,
            &mut options,
            &mut report,
        )
        .await?;
        report.load_elapsed = round.elapsed();

        let checked = check(client, &mut connections[0], &mut workspace, &mut options).await?;
        let modules = checked.inventory.listing.modules;
        report.skipped = checked.inventory.listing.skipped;
        report.not_modules = checked.inventory.listing.not_modules;
        // When the first entry expires: the earliest that was found, or at the latest what is
        // written from now on, which lives for the full time.
        let expires = config
            .ttl
            .map(|ttl| Instant::now() + ttl)
            .map(|latest| checked.expires.map_or(latest, |first| first.min(latest)));
        let mended = checked
            .mend(client, &mut connections[0], &mut workspace, &mut options)
            .await?;
        report.modules = modules - mended.wrong.min(modules);
        report.written += mended.report.written;
        report.pruned += mended.report.removed;
        report.retried += mended.report.retried;
        report.bytes += mended.report.bytes;
        report.unsettled = mended.report.unsettled;
        report.unverified = mended.unverified;
        report.scanned = mended.scanned;

        // A cache that others kept changing, that Redis evicts, or that should perhaps be empty, is
        // not marked as complete. One behind a long transaction is, as unverified.
        if matches!(
            report.unverified,
            Some(Unverified::EmptyWorkspace | Unverified::Contended | Unverified::Evicted)
        ) {
            break;
        }
        report.complete = completion
            .finish(
                &mut connections[0],
                report.modules,
                report.verified(),
                expires,
                config,
            )
            .await?;
        if report.complete {
            break;
        }
        // Refused: the token or the generation has gone. This stays if it was the last round.
        report.unverified = Some(Unverified::Flushed);
        report.modules = 0;
    }
    report.elapsed = start.elapsed();
    log::info!("Warmed module cache with {} modules", report.modules);
    Ok(report)
}

/// Writes what differs, batch by batch. Each batch is watched before its rows are read: whatever
/// another writer caches after that aborts our EXEC, so an older row never covers it.
///
/// There are no placeholders here, which would double the writes of a cold warm-up. So a DEL of an
/// absent key goes unnoticed and may leave a ghost, which the verification removes.
///
/// Two connections take turns: while Redis takes in one batch, Postgres prepares the next.
pub(crate) async fn load<Conn: DedicatedConnection, D: Database>(
    config: &Config,
    connections: &mut [Conn; 2],
    workspace: &mut Workspace<D>,
    batches: Vec<Vec<String>>,
    replace: Replace,
    options: &mut SyncOptions<'_>,
    report: &mut WarmReport,
) -> Result<(), Error> {
    let mut pending: Option<Plan> = None;
    let mut done = 0;
    let total = batches.iter().map(Vec::len).sum();
    let [mut this, mut other] = {
        let [a, b] = connections;
        [a, b]
    };
    for batch in batches {
        let cached = send(this, &Inspect::watching(&batch), config).await?;
        let rows = workspace.start(Paths::Listed(&batch)).await?;
        let mut begun = None;
        if let Some(plan) = pending.take() {
            // Sent without waiting for the answer: Redis takes it in while Postgres sends this
            // batch's rows.
            let ending = begin(other, &plan.write(), config).await?;
            begun = Some((plan, ending));
        }
        let rows = collect(rows).await?.modules;
        if let Some((plan, ending)) = begun {
            plan.finish(other, ending, config, report).await?;
        }
        done += batch.len();
        pending = Plan::new(&batch, &cached, rows, replace, config, report);
        options.report(Stage::Load, done, total);
        std::mem::swap(&mut this, &mut other);
    }
    if let Some(plan) = pending {
        let ending = begin(other, &plan.write(), config).await?;
        plan.finish(other, ending, config, report).await?;
    }
    Ok(())
}

/// Which entries a load replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    /// All that differ from their rows.
    All,
    /// None: it only brings what is missing. What differs may be what a writer is about to commit.
    #[cfg(feature = "near-cache")]
    Nothing,
}

impl Replace {
    fn permits(self, verdict: Verdict) -> bool {
        match self {
            Self::All => verdict != Verdict::Right,
            #[cfg(feature = "near-cache")]
            Self::Nothing => verdict == Verdict::Missing,
        }
    }
}

/// What one batch writes: the modules that are missing or differ.
struct Plan(Vec<CachedModule>);

impl Plan {
    /// `None` if all is right. Removes nothing, even where a row has gone since it was listed: it
    /// may have moved to a path that was not listed, where it must be written first.
    fn new(
        batch: &[String],
        cached: &[Cached],
        mut rows: Vec<CachedModule>,
        replace: Replace,
        config: &Config,
        report: &mut WarmReport,
    ) -> Option<Self> {
        let mut wrong = HashSet::new();
        let (by_path, _) = cacheable(&rows, batch, config);
        for (path, cached) in batch.iter().zip(cached) {
            let row = by_path.get(path.as_str()).copied();
            match (cached.compare(row, config, path), row) {
                (Verdict::Right, Some(_)) => report.unchanged += 1,
                (verdict, Some(_)) if replace.permits(verdict) => {
                    wrong.insert(path);
                }
                _ => {}
            }
        }
        rows.retain(|row| wrong.contains(&row.path));
        (!rows.is_empty()).then_some(Self(rows))
    }

    fn write(&self) -> Write<'_> {
        Write {
            put: self.0.iter().collect(),
            remove: Vec::new(),
        }
    }

    /// Waits for the answer to what was begun. An aborted batch is not tried again here: the
    /// verification finds what differs, and mends it under a new WATCH.
    async fn finish<Conn: DedicatedConnection>(
        self,
        connection: &mut Conn,
        ending: Ending<'_>,
        config: &Config,
        report: &mut WarmReport,
    ) -> Result<(), Error> {
        let write = self.write();
        if finish(connection, &write, ending, config).await? {
            report.written += write.put.len();
            report.bytes += write.bytes();
            write.log();
        } else {
            report.retried += write.put.len();
        }
        Ok(())
    }
}
