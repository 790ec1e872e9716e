//! Compares everything behind a barrier and mends what differs, until nothing does: the
//! verification of docs/design/consistency.md, which `repair` and the warm-up share.

use std::time::Instant;

use super::compare::{Comparison, PASSES, compare_all, compare_any};
use super::eviction::Evictions;
use super::inventory::Inventory;
use super::options::{Stage, SyncOptions};
use super::reconcile::reconcile;
use super::report::{DryRun, RefreshReport, RepairReport, Unverified};
use super::verdict::Verdict;
use super::verify::verify;
use crate::client::Client;
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated;
use crate::client::dedicated::send;
use crate::client::transport::Transport;
use crate::command::index::Unlist;
use crate::database::barrier::barrier;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;

/// Finds drift behind a barrier and mends it. A dry run is a `verify`, which writes nothing.
pub(crate) async fn repair<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<RepairReport, Error> {
    if options.dry_run {
        let drift = verify(client, database, options).await?;
        return Ok(RepairReport {
            dry_run: Some(DryRun::of(&drift)),
            unverified: Some(Unverified::DryRun),
            drift,
            ..RepairReport::default()
        });
    }
    // Until it is dropped, at the latest when this call is cancelled: near caches that observe this
    // writer must not serve what it may have changed.
    let _observed = client.observers.writing_everything();
    let config = client.config();
    let mut connection = dedicated::open(client).await?;
    let mut workspace = Workspace::open(database, config).await?;
    let checked = check(client, &mut connection, &mut workspace, &mut options).await?;
    let drift = checked.inventory.report(checked.drift.clone());
    let mended = checked
        .mend(client, &mut connection, &mut workspace, &mut options)
        .await?;
    Ok(RepairReport {
        drift,
        written: mended.report.written,
        removed: mended.report.removed,
        retried: mended.report.retried,
        unsettled: mended.report.unsettled,
        unverified: mended.unverified,
        dry_run: None,
    })
}

/// Everything compared once, behind a barrier.
pub(crate) struct Checked {
    pub(crate) inventory: Inventory,
    pub(crate) drift: Vec<(String, Verdict)>,
    /// When the first entry expires, if any does.
    pub(crate) expires: Option<Instant>,
    barrier_held: bool,
}

/// Waits for the barrier first: what a transaction that was open has written to Redis early is
/// compared with what it committed.
pub(crate) async fn check<T: Transport, D: Database>(
    client: &Client<T>,
    connection: &mut T::Dedicated,
    workspace: &mut Workspace<D>,
    options: &mut SyncOptions<'_>,
) -> Result<Checked, Error> {
    let config = client.config();
    let barrier_held = barrier(client, workspace, options.barrier_timeout()).await?;
    let inventory = Inventory::take(connection, workspace, config).await?;
    inventory.check_removals(options)?;
    let Comparison { drift, expires, .. } =
        compare_all(&inventory, connection, workspace, config, options).await?;
    Ok(Checked {
        inventory,
        drift,
        expires,
        barrier_held,
    })
}

/// What mending did, and whether the cache equals the database now.
pub(crate) struct Mended {
    pub(crate) report: RefreshReport,
    /// Rows whose entries are not right all the same.
    pub(crate) wrong: usize,
    pub(crate) unverified: Option<Unverified>,
    pub(crate) scanned: bool,
}

impl Checked {
    /// Mends, waits, and compares again what was mended, until a pass finds nothing.
    ///
    /// Comparing again once is not enough: where a writer sets before it commits, mending
    /// overwrites its entry with the old row, and only its commit shows that. With one pass, 1 to 4
    /// of 40 to 100 measured rounds ended wrong; with this, none of 180.
    pub(crate) async fn mend<T: Transport, D: Database>(
        self,
        client: &Client<T>,
        connection: &mut T::Dedicated,
        workspace: &mut Workspace<D>,
        options: &mut SyncOptions<'_>,
    ) -> Result<Mended, Error> {
        let config = client.config();
        let Self {
            inventory,
            mut drift,
            expires: _,
            mut barrier_held,
        } = self;
        let mut report = RefreshReport::default();
        let scanned = inventory.cached.scanned;
        if inventory.is_empty_unasked(options) {
            log::warn!(
                "The workspace has no module and the module cache has some: nothing is removed"
            );
            let unverified = Some(Unverified::EmptyWorkspace);
            return Ok(Mended {
                report,
                wrong: 0,
                unverified,
                scanned,
            });
        }
        // They have no key and no row, so there is nothing to compare: just take them out of the
        // index.
        for members in inventory.cached.bad.chunks(BATCH_MODULES) {
            send(connection, &Unlist { members }, config).await?;
        }
        let mut evictions = Evictions::default();
        for pass in 0.. {
            if drift.is_empty() {
                break;
            }
            let evicts = evictions
                .have_taken(connection, &drift, pass > 0, config)
                .await?;
            // Going on would not help. What still differs is reported path by path.
            if evicts || pass == PASSES {
                report.unsettled = drift.iter().map(|(path, _)| path.clone()).collect();
                let wrong = drift
                    .iter()
                    .filter(|(_, verdict)| verdict.is_wrong())
                    .count();
                let why = if evicts {
                    Unverified::Evicted
                } else {
                    Unverified::Contended
                };
                return Ok(Mended {
                    report,
                    wrong,
                    unverified: Some(why),
                    scanned,
                });
            }
            let total = drift.len();
            let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
            let reconciled = {
                let mut progress = options.counted(Stage::Mend, total);
                reconcile(client, connection, workspace, paths.clone(), &mut progress).await?
            };
            // What is unsettled is not reported yet: it is compared again below, with all that
            // was mended, and may have become right.
            report.add(RefreshReport {
                unsettled: Vec::new(),
                ..reconciled
            });
            // A transaction that outlived one barrier makes the result unverified whatever comes
            // later, so it is not waited for again, five times 5 s.
            barrier_held =
                barrier_held && barrier(client, workspace, options.barrier_timeout()).await?;
            // Repeats the last progress: a tool that watches it learns that work goes on.
            let mut alive = |_| options.report(Stage::Mend, total, total);
            drift = compare_any(connection, workspace, &paths, config, &mut alive)
                .await?
                .drift;
        }
        let unverified = (!barrier_held).then_some(Unverified::OpenTransaction);
        Ok(Mended {
            report,
            wrong: 0,
            unverified,
            scanned,
        })
    }
}
