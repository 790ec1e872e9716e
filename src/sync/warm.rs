//! Loads all modules of the database into the cache.

use std::collections::HashSet;
use std::time::Instant;

use super::compare::{Cached, Inspect, Verdict, cacheable};
use super::mark::Completion;
use super::options::{Stage, SyncOptions};
use super::reconcile::Write;
use super::repair::check;
use super::report::{DryRun, Endpoints, Unverified, WarmReport};
use super::source::Source as _;
use super::survey::Survey;
use super::verify::verify;
use crate::client::Client;
use crate::client::dedicated;
use crate::client::dedicated::{begin, finish, send};
use crate::client::transport::{DedicatedConnection, Transport};
use crate::config::Config;
use crate::database::workspace::{Database, Listing, Paths, Workspace, collect};
use crate::error::Error;
use crate::module::CachedModule;

/// How often a warm-up whose work was flushed away starts again.
const ROUNDS: usize = 3;

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
        let survey = Survey::take(&mut connections[0], &mut workspace, config).await?;
        survey.check_removals(&options)?;
        let completion = Completion::begin(&mut connections[0], config).await?;
        report.unchanged = 0;
        load(
            config,
            &mut connections,
            &mut workspace,
            survey.listing,
            &mut options,
            &mut report,
        )
        .await?;
        report.load_elapsed = round.elapsed();

        let checked = check(client, &mut connections[0], &mut workspace, &mut options).await?;
        let modules = checked.survey.listing.modules;
        report.skipped = checked.survey.listing.skipped;
        report.not_modules = checked.survey.listing.not_modules;
        // What was found, the first of it; what is written from now on lives for longer.
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

        // An unsettled or unwanted cache is not complete.
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
        report.unverified = Some(Unverified::Flushed);
        report.modules = 0;
    }
    report.elapsed = start.elapsed();
    log::info!("Warmed module cache with {} modules", report.modules);
    Ok(report)
}

/// Writes what differs, batch by batch: each watched before its rows are read, so that no row
/// that is older than a watched key's next value is written over it.
///
/// Two connections take turns: while Redis takes in one batch, Postgres prepares the next.
async fn load<Conn: DedicatedConnection, D: Database>(
    config: &Config,
    connections: &mut [Conn; 2],
    workspace: &mut Workspace<D>,
    listing: Listing,
    options: &mut SyncOptions<'_>,
    report: &mut WarmReport,
) -> Result<(), Error> {
    let mut pending: Option<Plan> = None;
    let mut done = 0;
    let [mut this, mut other] = {
        let [a, b] = connections;
        [a, b]
    };
    for batch in listing.batches {
        let cached = send(this, &Inspect::watching(&batch), config).await?;
        let rows = workspace.start(Paths::Listed(&batch)).await?;
        if let Some(plan) = &pending {
            begin(other, &plan.write(), config).await?;
        }
        let rows = collect(rows).await?.modules;
        if let Some(plan) = pending.take() {
            plan.finish(other, config, report).await?;
        }
        done += batch.len();
        pending = Plan::new(&batch, &cached, rows, config, report);
        options.report(Stage::Load, done, listing.modules);
        std::mem::swap(&mut this, &mut other);
    }
    if let Some(plan) = pending {
        begin(other, &plan.write(), config).await?;
        plan.finish(other, config, report).await?;
    }
    Ok(())
}

/// What one batch writes.
struct Plan(Vec<CachedModule>);

impl Plan {
    /// `None` if all is right. Removes nothing, even where a row has gone since it was listed: it
    /// may have moved to a path that was not, and must be written there first.
    fn new(
        batch: &[String],
        cached: &[Cached],
        mut rows: Vec<CachedModule>,
        config: &Config,
        report: &mut WarmReport,
    ) -> Option<Self> {
        let mut wrong = HashSet::new();
        let (by_path, _) = cacheable(&rows, batch, config);
        for (path, cached) in batch.iter().zip(cached) {
            let row = by_path.get(path.as_str()).copied();
            match (cached.compare(row, config, path), row) {
                (_, None) => {}
                (Verdict::Right, Some(_)) => report.unchanged += 1,
                (_, Some(_)) => {
                    wrong.insert(path);
                }
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

    /// Brings the answer to what was begun. What was aborted is mended after the comparison.
    async fn finish<Conn: DedicatedConnection>(
        self,
        connection: &mut Conn,
        config: &Config,
        report: &mut WarmReport,
    ) -> Result<(), Error> {
        let write = self.write();
        if finish(connection, &write, config).await? {
            report.written += write.put.len();
            report.bytes += write.bytes();
            write.log();
        } else {
            report.retried += write.put.len();
        }
        Ok(())
    }
}
