//! Looks at paths that were hinted at, and mends what differs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::core::GuardIo;
use super::grace::Waited;
use super::inbox::Hint;
use super::patrol::Patrol;
use super::permitted::Permitted;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::sync::compare::{Comparison, compare_any};
use crate::sync::reconcile::reconcile;
use crate::sync::verdict::Verdict;

/// How many paths are looked at together.
const BATCH: usize = 200;

/// How long a path rests that others kept writing while it was being mended.
const UNSETTLED: Duration = Duration::from_millis(100);

/// How long a path waits for which Redis had no memory.
const STARVED: Duration = Duration::from_secs(1);

/// For how much longer than the grace a path may be written again and again before it is mended all
/// the same.
const RESTLESS: Duration = Duration::from_secs(1);

/// What differs.
struct Drift {
    paths: Vec<(String, Verdict)>,
    /// What identifies the entry that was found wrong.
    entries: HashMap<String, u64>,
}

impl Drift {
    fn retain(&mut self, mut keep: impl FnMut(&str, Verdict) -> bool) {
        self.paths.retain(|(path, verdict)| keep(path, *verdict));
    }

    /// Without an identity where there was no value to be known by.
    fn of(comparison: Comparison) -> Self {
        let Comparison {
            drift: paths,
            mut entries,
            ..
        } = comparison;
        for (path, verdict) in &paths {
            // Their values were not asked for.
            if matches!(verdict, Verdict::Ghost | Verdict::IndexOnly) {
                entries.remove(path);
            }
        }
        Self { paths, entries }
    }
}

/// When each path that is looked at was first hinted at.
type Arrived = HashMap<String, Instant>;

/// What came of a batch.
#[derive(Default)]
struct Checked {
    /// What has no row and is to be removed.
    gone: Vec<(String, Verdict)>,
    /// Redis had no memory for the rest, which waits.
    starved: Option<Error>,
}

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Looks at these paths. What could not be looked at goes back into the inbox.
    ///
    /// Nothing is removed before all others have been looked at: one of them may be where a module
    /// has moved to, and is to be written first.
    pub(super) async fn check(&mut self, hints: Vec<Hint>) -> Result<(), Error> {
        let hints = hints.into_iter().map(|hint| (hint.path, hint.arrived));
        let arrived: Arrived = hints.collect();
        let paths: Vec<String> = arrived.keys().cloned().collect();
        if !self.is_sweeping {
            self.baseline.added = 0;
        }
        let mut gone = Vec::new();
        let mut starved = None;
        for (at, batch) in paths.chunks(BATCH).enumerate() {
            let mut checked = self.check_batch(batch, &arrived).await;
            if checked.is_ok() && self.core.inbox.is_stopped() {
                break;
            }
            if let Err(error) = self.beat().await {
                checked = checked.and(Err(error));
            }
            match checked {
                Ok(more) => {
                    gone.extend(more.gone);
                    starved = starved.or(more.starved);
                }
                Err(error) => {
                    let rest = paths[at * BATCH..].iter().cloned();
                    let gone = gone.into_iter().map(|(path, _)| path);
                    self.put_back(rest.chain(gone), &arrived, Instant::now());
                    return Err(error);
                }
            }
        }
        if gone.is_empty() {
            return starved.map_or(Ok(()), Err);
        }
        let paths: Vec<String> = gone.iter().map(|(path, _)| path.clone()).collect();
        let removed = self.remove(gone, &arrived).await;
        if removed.is_err() {
            self.put_back(paths, &arrived, Instant::now());
        }
        removed.and(starved.map_or(Ok(()), Err))
    }

    /// Mends what has a row.
    async fn check_batch(&mut self, batch: &[String], arrived: &Arrived) -> Result<Checked, Error> {
        self.core.record.looked_at(batch.len());
        self.connect_redis().await?;
        let drift = self.compare(batch).await?;
        if drift.paths.is_empty() {
            return Ok(Checked::default());
        }
        let drift = self.without_those_under_way(drift, arrived).await?;
        let mut drift = self.without_contended(drift, arrived);
        let mut gone = Vec::new();
        drift.retain(|path, verdict| {
            let is_gone = matches!(verdict, Verdict::Ghost | Verdict::IndexOnly);
            if is_gone {
                gone.push((path.to_owned(), verdict));
            }
            !is_gone
        });
        let wrong: Vec<String> = drift.paths.iter().map(|(path, _)| path.clone()).collect();
        let starved = match self.mend(drift, &HashSet::new(), arrived).await {
            // What is to be removed makes room.
            Err(error) if error.is_out_of_memory() => {
                self.drop_connection();
                self.put_back(wrong, arrived, Instant::now() + STARVED);
                Some(error)
            }
            mended => mended.map(|()| None)?,
        };
        Ok(Checked { gone, starved })
    }

    async fn compare(&mut self, paths: &[String]) -> Result<Drift, Error> {
        let config = self.config();
        let (connection, workspace) = self.servers();
        let compared = compare_any(connection, workspace, paths, config, &mut |_| {}).await?;
        Ok(Drift::of(compared))
    }

    /// Waits for transactions that are open, and compares again what they may have committed.
    async fn without_those_under_way(
        &mut self,
        drift: Drift,
        arrived: &Arrived,
    ) -> Result<Drift, Error> {
        let grace = self.core.options.grace;
        let transport = &self.core.client.transport;
        let workspace = self.workspace.as_mut().expect("it was connected to");
        let waited = self.grace.wait(transport, workspace, grace).await?;
        if waited == Waited::ForNobody {
            return Ok(drift);
        }
        let paths: Vec<String> = drift.paths.into_iter().map(|(path, _)| path).collect();
        let before = drift.entries;
        let mut drift = self.compare(&paths).await?;
        // Written again meanwhile, maybe by a transaction that began later: looked at anew, though
        // not for ever.
        let now = drift.entries.clone();
        drift.retain(|path, _| {
            let is_restless = arrived[path].elapsed() > grace + RESTLESS;
            let is_written = before.get(path) != now.get(path) || self.core.inbox.has(path);
            if is_written && !is_restless {
                self.put_back([path.to_owned()], arrived, Instant::now());
            }
            is_restless || !is_written
        });
        Ok(drift)
    }

    /// Leaves those alone for a while that are overwritten again and again.
    fn without_contended(&self, mut drift: Drift, arrived: &Arrived) -> Drift {
        let now = Instant::now();
        drift.retain(|path, _| match self.contention.held_until(path, now) {
            Some(until) => {
                self.put_back([path.to_owned()], arrived, until);
                false
            }
            None => true,
        });
        drift
    }

    /// Removes what has no row, after all that it may have moved to has been written, and unless it
    /// is too much.
    async fn remove(
        &mut self,
        gone: Vec<(String, Verdict)>,
        arrived: &Arrived,
    ) -> Result<(), Error> {
        // A listing that lacks a path has brought the one that it moved to, in the same moment. Of
        // a path that it has, the row went later, and where to is to be heard.
        let mut is_stale = false;
        if gone.iter().any(|(path, _)| self.versions.has(path)) {
            is_stale = self.hears() && self.hear_out().await?;
            if !is_stale {
                self.poll().await?;
            }
        }
        self.connect_redis().await?;
        let mut waiting = self.core.inbox.paths();
        // What was heard of and has come since the last listing is not known to have a row.
        waiting.retain(|path| is_stale || self.versions.has(path));
        for batch in waiting.chunks(BATCH) {
            let mut missing = self.compare(batch).await?;
            missing.retain(|_, verdict| verdict == Verdict::Missing);
            self.mend(missing, &HashSet::new(), arrived).await?;
        }
        if is_stale {
            for (path, _) in &gone {
                self.versions.remove(path);
            }
        }
        // Written again since it was looked at, maybe by a transaction that is about to commit.
        let grace = self.core.options.grace;
        let mut gone = gone;
        gone.retain(|(path, _)| {
            let arrived = arrived.get(path);
            let is_restless = arrived.is_none_or(|at| at.elapsed() > grace + RESTLESS);
            is_restless || !self.core.inbox.has(path)
        });
        if gone.is_empty() {
            return Ok(());
        }
        if !self.may_remove(gone.len(), is_stale).await? {
            return Ok(());
        }
        for batch in gone.chunks(BATCH) {
            let removals = batch.iter().map(|(path, _)| path.clone()).collect();
            let drift = Drift {
                paths: batch.to_vec(),
                entries: HashMap::new(),
            };
            self.mend(drift, &removals, arrived).await?;
        }
        Ok(())
    }

    async fn mend(
        &mut self,
        drift: Drift,
        removals: &HashSet<String>,
        arrived: &Arrived,
    ) -> Result<(), Error> {
        let Drift {
            paths: drift,
            entries,
        } = drift;
        if drift.is_empty() {
            return Ok(());
        }
        let core = self.core;
        let paths: Vec<String> = drift.iter().map(|(path, _)| path.clone()).collect();
        // Near caches of this process that observe the writer.
        let _observed = core.client.observers.writing(|| paths.clone());
        let is_missing = |(_, verdict): &&(String, Verdict)| *verdict == Verdict::Missing;
        let missing = drift.iter().filter(is_missing).count();
        let connection = self.connection.as_mut().expect("it was connected to");
        let noted = self
            .baseline
            .before_adding(&mut connection.0, missing, core.client.config());
        noted.await?;
        let (connection, workspace) = self.servers();
        let mut source = Permitted::new(workspace, removals, &entries);
        let mended = reconcile(&core.client, connection, &mut source, paths, &mut |_| {}).await;
        let Permitted {
            is_refused,
            overtaken,
            read,
            ..
        } = source;
        let report = match mended {
            Ok(report) => report,
            Err(_) if is_refused => {
                // A WATCH may be left on it.
                self.drop_connection();
                self.connect_redis().await?;
                let paths = drift.into_iter().map(|(path, _)| path);
                self.put_back(paths, arrived, Instant::now() + UNSETTLED);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let unsettled: HashSet<&String> = report.unsettled.iter().chain(&overtaken).collect();
        let now = Instant::now();
        for (path, verdict) in &drift {
            if unsettled.contains(path) {
                continue;
            }
            let hinted = arrived.get(path).copied().unwrap_or(now);
            core.record.lock().right(*verdict, hinted);
            if *verdict == Verdict::Missing {
                self.baseline.added(1);
            }
            let written = read.get(path).copied().unwrap_or_default();
            if self.contention.mended(path, written, now) {
                core.record.lock().contended = self.contention.count();
                log::warn!(
                    "The guard mends {path:?} again and again, and less often from now on: somebody writes it otherwise than the database has it"
                );
            }
        }
        self.put_back(report.unsettled, arrived, now + UNSETTLED);
        self.put_back(overtaken, arrived, now);
        Ok(())
    }

    fn put_back(
        &self,
        paths: impl IntoIterator<Item = String>,
        arrived: &Arrived,
        not_before: Instant,
    ) {
        for path in paths {
            let arrived = arrived.get(&path).copied().unwrap_or_else(Instant::now);
            self.core.inbox.put_back(Hint { path, arrived }, not_before);
        }
    }
}
