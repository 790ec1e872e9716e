//! Compares the whole cache with the database, and mends what differs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::inspect::{Inspect, Verdict, cacheable};
use super::report::{Drift, RefreshReport, RepairReport, Unverified};
use super::settle::{send, settle};
use super::survey::{CachedPaths, cached_paths};
use super::{BATCH_MODULES, Stage, SyncOptions};
use crate::commands::Unlist;
use crate::transport::{Link, Transport};
use crate::workspace::{Database, Listing, Paths, Workspace, collect};
use crate::{Config, Error, call};

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
        drift = compare(
            &mut link,
            &mut workspace,
            &unlisted(&paths),
            config,
            &mut |_| {},
        )
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
    })
}

/// All paths there are to compare.
pub(crate) struct Survey {
    pub(crate) listing: Listing,
    cached: CachedPaths,
    /// What is cached and has no row.
    surplus: Vec<String>,
}

impl Survey {
    async fn take<L: Link, D: Database>(
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
        })
    }

    async fn compare<L: Link, D: Database>(
        &self,
        link: &mut L,
        workspace: &mut Workspace<D>,
        config: &Config,
        options: &mut SyncOptions<'_>,
    ) -> Result<Comparison, Error> {
        let total = self.listing.modules + self.surplus.len();
        let mut done = 0;
        let mut progress = |batch: usize| {
            done += batch;
            options.report(Stage::Compare, done, total);
        };
        let listed: Vec<Paths> = self
            .listing
            .batches
            .iter()
            .map(|batch| Paths::Listed(batch))
            .collect();
        let mut comparison = compare(link, workspace, &listed, config, &mut progress).await?;
        let mut gone = comparison.has_rowless();
        let surplus = unlisted(&self.surplus);
        let surplus = compare(link, workspace, &surplus, config, &mut progress).await?;
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
            let news = compare(link, workspace, &unlisted(&news), config, &mut |_| {}).await?;
            gone = news.has_rowless();
            comparison.drift.extend(news.drift);
        }
        Ok(comparison)
    }

    fn report(&self, drift: Vec<(String, Verdict)>) -> Drift {
        let mut report = Drift {
            modules: self.listing.modules,
            skipped: self.listing.skipped,
            bad_members: self.cached.bad.len(),
            scanned: self.cached.scanned,
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
        let has_surplus = !survey.surplus.is_empty() || !survey.cached.bad.is_empty();
        if survey.listing.modules == 0 && has_surplus && !options.allow_empty {
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
        for pass in 0.. {
            if drift.is_empty() {
                break;
            }
            if pass == PASSES {
                report.unsettled = drift.iter().map(|(path, _)| path.clone()).collect();
                let wrong = drift
                    .iter()
                    .filter(|(_, verdict)| verdict.is_wrong())
                    .count();
                return Ok(Mended {
                    report,
                    wrong,
                    unverified: Some(Unverified::Contended),
                    scanned,
                });
            }
            let total = drift.len();
            let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
            let settled = settle(transport, link, workspace, paths.clone()).await?;
            // What is unsettled is compared again below, with all that was mended.
            report.add(RefreshReport {
                unsettled: Vec::new(),
                ..settled
            });
            options.report(Stage::Mend, total, total);
            // A transaction that outlived one barrier need not be waited for again.
            barrier_held =
                barrier_held && barrier(transport, workspace, options.barrier_timeout()).await?;
            drift = compare(link, workspace, &unlisted(&paths), config, &mut |_| {})
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
}

/// Compares without a watch: what looks different is looked at again under one before it is
/// touched.
async fn compare<L: Link, D: Database>(
    link: &mut L,
    workspace: &mut Workspace<D>,
    batches: &[Paths<'_>],
    config: &Config,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Comparison, Error> {
    let mut comparison = Comparison {
        drift: Vec::new(),
        expires: None,
    };
    for &paths in batches {
        // Postgres prepares its answer while Redis gives its own.
        let rows = workspace.start(paths).await?;
        let batch = paths.as_slice();
        let now = Instant::now();
        let cached = send(
            link,
            &Inspect {
                paths: batch,
                watch: false,
            },
            config,
        )
        .await?;
        let rows = collect(rows).await?;
        let (rows, _) = cacheable(&rows, batch, config);
        for (path, cached) in batch.iter().zip(cached) {
            let row = rows.get(path.as_str()).copied();
            match cached.compare(row, config, path) {
                Verdict::Right => {
                    let expires = cached.ttl.filter(|_| row.is_some()).map(|ttl| now + ttl);
                    comparison.expires = comparison.expires.into_iter().chain(expires).min();
                }
                verdict => comparison.drift.push((path.clone(), verdict)),
            }
        }
        progress(batch.len());
    }
    Ok(comparison)
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

fn unlisted(paths: &[String]) -> Vec<Paths<'_>> {
    paths.chunks(BATCH_MODULES).map(Paths::Any).collect()
}
