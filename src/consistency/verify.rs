//! Compares the whole cache with the database, and mends what differs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::eviction::Evictions;
use super::inspect::{Cached, Inspect, Verdict, cacheable};
use super::report::{Drift, DryRun, Endpoints, RefreshReport, RepairReport, Unverified};
use super::settle::{send, settle};
use super::survey::{CachedPaths, cached_paths};
use super::{BATCH_MODULES, Source as _, Stage, SyncOptions};
use crate::commands::Unlist;
use crate::transport::{Link, Transport};
use crate::workspace::{Database, Listing, Paths, Workspace, collect};
use crate::{CachedModule, Config, Error, call};

/// How often what was mended is compared and mended again.
const PASSES: usize = 5;

/// A barrier without end would be a hang.
const LONGEST_BARRIER: Duration = Duration::from_secs(24 * 3_600);

pub(crate) async fn verify<T: Transport, D: Database>(
    transport: &T,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<Drift, Error> {
    let config = transport.config();
    let mut link = call::dedicated(transport).await?;
    let mut workspace = Workspace::open(database, config).await?;
    let survey = Survey::take(&mut link, &mut workspace, config).await?;
    let mut drift = survey
        .compare(&mut link, &mut workspace, config, &mut options)
        .await?
        .drift;
    let mut held = true;
    if !drift.is_empty() {
        // A writer between its commit and its write looks like drift: a second look, once all of
        // that time are done, tells.
        held = barrier(transport, &mut workspace, options.barrier_timeout()).await?;
        let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
        let mut progress = options.counted(Stage::Compare, paths.len());
        drift = compare_any(&mut link, &mut workspace, &paths, config, &mut progress)
            .await?
            .drift;
    }
    let unsure = !held && !drift.is_empty();
    Ok(Drift {
        unverified: unsure.then_some(Unverified::OpenTransaction),
        ..survey.report(drift)
    })
}

pub(crate) async fn repair<T: Transport, D: Database>(
    transport: &T,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<RepairReport, Error> {
    if options.dry_run {
        let drift = verify(transport, database, options).await?;
        return Ok(RepairReport {
            dry_run: Some(DryRun::of(&drift)),
            unverified: Some(Unverified::DryRun),
            drift,
            ..RepairReport::default()
        });
    }
    let _tied = transport.ties().writing_everything();
    let config = transport.config();
    let mut link = call::dedicated(transport).await?;
    let mut workspace = Workspace::open(database, config).await?;
    let checked = check(transport, &mut link, &mut workspace, &mut options).await?;
    let drift = checked.survey.report(checked.drift.clone());
    let mended = checked
        .mend(transport, &mut link, &mut workspace, &mut options)
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

/// All paths there are to compare.
pub(crate) struct Survey {
    pub(crate) listing: Listing,
    cached: CachedPaths,
    /// What is cached and has no row.
    surplus: Vec<String>,
    servers: Endpoints,
}

impl Survey {
    pub(crate) async fn take<L: Link, D: Database>(
        link: &mut L,
        workspace: &mut Workspace<D>,
        config: &Config,
    ) -> Result<Self, Error> {
        let cached = cached_paths(link, config).await?;
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
            // Which has a report of its own.
            return Ok(());
        }
        options.check_removals(self.surplus.len(), self.cached.paths.len())
    }

    /// Whether all would be removed, and nobody said that this is meant.
    fn is_empty_unasked(&self, options: &SyncOptions<'_>) -> bool {
        let has_surplus = !self.surplus.is_empty() || !self.cached.bad.is_empty();
        self.listing.modules == 0 && has_surplus && !options.allows_empty()
    }

    async fn compare<L: Link, D: Database>(
        &self,
        link: &mut L,
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
        let mut comparison = compare(link, workspace, listed, config, &mut progress).await?;
        let mut gone = comparison.has_rowless();
        let surplus = compare_any(link, workspace, &self.surplus, config, &mut progress).await?;
        comparison.drift.extend(surplus.drift);
        // A row that has gone since the listing may have moved to a path that was not on it, and
        // that must be written before the old one is removed.
        let mut known: HashSet<String> = self.listing.batches.iter().flatten().cloned().collect();
        for _ in 0..PASSES {
            if !gone {
                break;
            }
            let listed = workspace.list(config).await?.batches.into_iter().flatten();
            let news: Vec<String> = listed.filter(|path| known.insert(path.clone())).collect();
            let news = compare_any(link, workspace, &news, config, &mut |_| {}).await?;
            gone = news.has_rowless();
            comparison.drift.extend(news.drift);
        }
        Ok(comparison)
    }

    fn report(&self, drift: Vec<(String, Verdict)>) -> Drift {
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
            list.sort_unstable();
        }
        report
    }
}

/// Everything compared once, behind a barrier.
pub(crate) struct Checked {
    pub(crate) survey: Survey,
    pub(crate) drift: Vec<(String, Verdict)>,
    /// When the first entry expires, if any does.
    pub(crate) expires: Option<Instant>,
    barrier_held: bool,
}

pub(crate) async fn check<T: Transport, D: Database>(
    transport: &T,
    link: &mut T::Link,
    workspace: &mut Workspace<D>,
    options: &mut SyncOptions<'_>,
) -> Result<Checked, Error> {
    let config = transport.config();
    let barrier_held = barrier(transport, workspace, options.barrier_timeout()).await?;
    let survey = Survey::take(link, workspace, config).await?;
    survey.check_removals(options)?;
    let Comparison { drift, expires } = survey.compare(link, workspace, config, options).await?;
    Ok(Checked {
        survey,
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
    /// Mends, waits, and compares again what was mended, until a pass finds nothing. Comparing
    /// once is not enough: a writer that sets before it commits is overwritten with the old row,
    /// and only its commit shows that.
    pub(crate) async fn mend<T: Transport, D: Database>(
        self,
        transport: &T,
        link: &mut T::Link,
        workspace: &mut Workspace<D>,
        options: &mut SyncOptions<'_>,
    ) -> Result<Mended, Error> {
        let config = transport.config();
        let Self {
            survey,
            mut drift,
            expires: _,
            mut barrier_held,
        } = self;
        let mut report = RefreshReport::default();
        let scanned = survey.cached.scanned;
        if survey.is_empty_unasked(options) {
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
        for members in survey.cached.bad.chunks(BATCH_MODULES) {
            send(link, &Unlist { members }, config).await?;
        }
        let mut evictions = Evictions::default();
        for pass in 0.. {
            if drift.is_empty() {
                break;
            }
            let evicts = evictions.have_taken(link, &drift, pass > 0, config).await?;
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
            let settled = {
                let mut progress = options.counted(Stage::Mend, total);
                settle(transport, link, workspace, paths.clone(), &mut progress).await?
            };
            // What is unsettled is compared again below, with all that was mended.
            report.add(RefreshReport {
                unsettled: Vec::new(),
                ..settled
            });
            // A transaction that outlived one barrier need not be waited for again.
            barrier_held =
                barrier_held && barrier(transport, workspace, options.barrier_timeout()).await?;
            let mut alive = |_| options.report(Stage::Mend, total, total);
            drift = compare_any(link, workspace, &paths, config, &mut alive)
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

impl Verdict {
    /// True where a row is not what a reader gets.
    fn is_wrong(self) -> bool {
        matches!(self, Self::Missing | Self::Stale | Self::Corrupt)
    }
}

#[derive(Default)]
struct Comparison {
    drift: Vec<(String, Verdict)>,
    /// When the first entry that is right expires, if any does.
    expires: Option<Instant>,
}

impl Comparison {
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

/// Compares without a watch: what looks different is looked at again under one before it is
/// touched.
async fn compare<L: Link, D: Database>(
    link: &mut L,
    workspace: &mut Workspace<D>,
    batches: impl Iterator<Item = Paths<'_>>,
    config: &Config,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Comparison, Error> {
    let mut comparison = Comparison::default();
    for paths in batches {
        // Postgres prepares its answer while Redis gives its own.
        let rows = workspace.start(paths).await?;
        let batch = paths.as_slice();
        let asked = Instant::now();
        let cached = send(link, &Inspect::of(batch), config).await?;
        let rows = collect(rows).await?.modules;
        comparison.add(batch, &cached, &rows, asked, config);
        progress(batch.len());
    }
    Ok(comparison)
}

/// The same of paths whose sizes are not known. The values of those without a row are not asked
/// for: nothing bounds them.
async fn compare_any<L: Link, D: Database>(
    link: &mut L,
    workspace: &mut Workspace<D>,
    paths: &[String],
    config: &Config,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Comparison, Error> {
    let mut all = Comparison::default();
    for paths in paths.chunks(BATCH_MODULES) {
        let (listing, rowless) = workspace.list_these(paths, config).await?;
        let batches = listing.batches.iter().map(|batch| Paths::Any(batch));
        let more = compare(link, workspace, batches, config, progress).await?;
        all.drift.extend(more.drift);
        all.expires = all.expires.into_iter().chain(more.expires).min();
        if !rowless.is_empty() {
            let inspect = Inspect {
                values: false,
                ..Inspect::of(&rowless)
            };
            let cached = send(link, &inspect, config).await?;
            all.add(&rowless, &cached, &[], Instant::now(), config);
            progress(rowless.len());
        }
    }
    Ok(all)
}

/// Waits until every transaction that has an id by now has ended; `false` if one did not in time.
pub(crate) async fn barrier<T: Transport, D: Database>(
    transport: &T,
    workspace: &mut Workspace<D>,
    timeout: Duration,
) -> Result<bool, Error> {
    let deadline = Instant::now() + timeout.min(LONGEST_BARRIER);
    let current = workspace.current_transaction().await?;
    let mut pause = Duration::from_millis(2);
    loop {
        if workspace.oldest_open_transaction().await? > current {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        transport.pause(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
