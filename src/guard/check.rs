//! Looks at paths that were hinted at, and mends what differs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::core::GuardIo;
use super::grace::Waited;
use super::inbox::Hint;
use super::patrol::Patrol;
use super::permitted::Permitted;
use crate::client::dedicated::send;
use crate::command::index::Size;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::sync::compare::compare_any;
use crate::sync::reconcile::reconcile;
use crate::sync::verdict::Verdict;

/// How many paths are looked at together.
pub(super) const BATCH: usize = 200;

/// How long a path rests that others kept writing while it was being mended.
const UNSETTLED: Duration = Duration::from_millis(100);

type Drift = Vec<(String, Verdict)>;

/// Whether the path has no row, so that mending would remove it.
fn is_removal(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Ghost | Verdict::IndexOnly)
}

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Looks at these paths. What could not be looked at goes back into the inbox.
    pub(super) async fn check(&mut self, hints: Vec<Hint>) -> Result<(), Error> {
        let arrived: HashMap<String, Instant> = hints
            .into_iter()
            .map(|hint| (hint.path, hint.arrived))
            .collect();
        let result = self.check_now(&arrived).await;
        if result.is_err() {
            self.put_back(arrived.keys().cloned(), &arrived, Instant::now());
        }
        result
    }

    async fn check_now(&mut self, arrived: &HashMap<String, Instant>) -> Result<(), Error> {
        let paths: Vec<String> = arrived.keys().cloned().collect();
        self.core.record.lock().checked += paths.len() as u64;
        self.connect_redis().await?;
        let drift = self.compare(&paths).await?;
        if drift.is_empty() {
            return Ok(());
        }
        let drift = self.without_those_under_way(drift).await?;
        let drift = self.without_contended(drift, arrived);
        let (mut drift, removals) = self.with_removals(drift).await?;
        drift.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.mend(drift, removals, arrived).await
    }

    async fn compare(&mut self, paths: &[String]) -> Result<Drift, Error> {
        let config = self.config();
        let (connection, workspace) = self.servers();
        let compared = compare_any(connection, workspace, paths, config, &mut |_| {}).await?;
        Ok(compared.drift)
    }

    /// Waits for transactions that are open, and compares again what they may have committed.
    async fn without_those_under_way(&mut self, drift: Drift) -> Result<Drift, Error> {
        let (config, grace) = (self.config(), self.core.options.grace);
        let transport = &self.core.client.transport;
        let workspace = self.workspace.as_mut().expect("it was connected to");
        let waited = self.grace.wait(transport, workspace, grace, config).await?;
        if waited == Waited::ForNobody {
            return Ok(drift);
        }
        let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
        let mut drift = self.compare(&paths).await?;
        // Written again meanwhile, maybe by a transaction that began later: looked at anew.
        drift.retain(|(path, _)| !self.core.inbox.has(path));
        Ok(drift)
    }

    /// Leaves those alone for a while that are mended again and again.
    fn without_contended(&self, mut drift: Drift, arrived: &HashMap<String, Instant>) -> Drift {
        let now = Instant::now();
        drift.retain(|(path, _)| match self.contention.held_until(path, now) {
            Some(until) => {
                self.put_back([path.clone()], arrived, until);
                false
            }
            None => true,
        });
        drift
    }

    /// Takes out what may not be removed, and adds what a removed path may have moved to: it is to
    /// be written first. Answers what may be removed, too.
    async fn with_removals(&mut self, mut drift: Drift) -> Result<(Drift, HashSet<String>), Error> {
        let removals = |drift: &Drift| -> HashSet<String> {
            let gone = drift.iter().filter(|(_, verdict)| is_removal(*verdict));
            gone.map(|(path, _)| path.clone()).collect()
        };
        let count = removals(&drift).len();
        if count == 0 {
            return Ok((drift, HashSet::new()));
        }
        let mut news = self.poll().await?;
        if !self.may_remove(count).await? {
            drift.retain(|(_, verdict)| !is_removal(*verdict));
            return Ok((drift, HashSet::new()));
        }
        news.retain(|path| self.versions.has(path));
        let came = self.compare(&news).await?;
        let known: HashSet<String> = drift.iter().map(|(path, _)| path.clone()).collect();
        let came = came
            .into_iter()
            .filter(|(path, verdict)| *verdict == Verdict::Missing && !known.contains(path));
        drift.extend(came);
        let removals = removals(&drift);
        Ok((drift, removals))
    }

    /// Whether so many cached modules may be removed, as far as the last listing tells. Says where
    /// that changes.
    pub(super) async fn may_remove(&mut self, count: usize) -> Result<bool, Error> {
        let (config, rows) = (self.config(), self.versions.len());
        let options = self.core.options.removals();
        let (connection, _) = self.servers();
        let cached = send(connection, &Size, config).await?.max(count);
        // All that has no row, and not only what is looked at now: one after the other, all of it
        // would go.
        let surplus = count.max(cached.saturating_sub(rows));
        let is_empty = rows == 0 && !options.allows_empty();
        let may = !is_empty && options.check_removals(surplus, cached).is_ok();
        let withheld = if may { 0 } else { surplus };
        let before = std::mem::replace(&mut self.core.record.lock().withheld, withheld);
        if !may && before == 0 {
            log::warn!(
                "The guard removes nothing: {surplus} of the {cached} cached modules have no row, and the workspace has {rows}; if it is the right one, allow that with --max-prune or --allow-empty"
            );
        } else if may && before > 0 {
            log::info!("The guard removes again what has no row");
        }
        Ok(may)
    }

    async fn mend(
        &mut self,
        drift: Drift,
        removals: HashSet<String>,
        arrived: &HashMap<String, Instant>,
    ) -> Result<(), Error> {
        if drift.is_empty() {
            return Ok(());
        }
        let core = self.core;
        let paths: Vec<String> = drift.iter().map(|(path, _)| path.clone()).collect();
        // Near caches of this process that observe the writer.
        let _observed = core.client.observers.writing(|| paths.clone());
        let (connection, workspace) = self.servers();
        let mut source = Permitted {
            workspace,
            removals,
            was_overtaken: false,
        };
        let mended = reconcile(&core.client, connection, &mut source, paths, &mut |_| {}).await;
        let was_overtaken = source.was_overtaken;
        let report = match mended {
            Ok(report) => report,
            Err(_) if was_overtaken => {
                // A WATCH may be left on it.
                self.drop_connection();
                let paths = drift.into_iter().map(|(path, _)| path);
                self.put_back(paths, arrived, Instant::now() + UNSETTLED);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let unsettled: HashSet<&String> = report.unsettled.iter().collect();
        let now = Instant::now();
        for (path, verdict) in &drift {
            if unsettled.contains(path) {
                continue;
            }
            let hinted = arrived.get(path).copied().unwrap_or(now);
            core.record.lock().right(*verdict, hinted);
            if self.contention.mended(path, now) {
                core.record.lock().contended = self.contention.count();
                log::warn!(
                    "The guard mends {path:?} again and again, and less often from now on: somebody writes it otherwise than the database has it"
                );
            }
        }
        self.put_back(report.unsettled, arrived, now + UNSETTLED);
        Ok(())
    }

    fn put_back(
        &self,
        paths: impl IntoIterator<Item = String>,
        arrived: &HashMap<String, Instant>,
        not_before: Instant,
    ) {
        for path in paths {
            let arrived = arrived.get(&path).copied().unwrap_or_else(Instant::now);
            self.core.inbox.put_back(Hint { path, arrived }, not_before);
        }
    }
}
