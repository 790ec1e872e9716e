//! Looks at everything, from time to time and after every gap: what differs is hinted at, so there
//! is one way of mending. Between two batches, hints that came meanwhile have their turn.

use std::time::Instant;

use super::core::GuardIo;
use super::grace::Waited;
use super::marking::Marking;
use super::patrol::Patrol;
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated;
use crate::database::workspace::Paths;
use crate::diagnosis::status::status;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::sync::compare::compare;
use crate::sync::inventory::Inventory;
use crate::sync::mark::Completion;
use crate::sync::options::SyncOptions;
use crate::sync::report::WarmReport;
use crate::sync::verdict::Verdict;
use crate::sync::warm::{Replace, load};

/// From so many missing modules on they are loaded as by a warm-up, which is faster than mending.
const MANY: usize = 200;

/// Every so many sweeps the keys are looked through.
const SCAN_EVERY: u32 = 10;

/// So many batches are loaded before hints have their turn.
const LOADED: usize = 10;

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Looks at everything. The mark of a complete cache is written where it is missing or of
    /// another reign, as after a flush.
    ///
    /// Keys that the index does not name are looked for after a gap, and else with every tenth sweep:
    /// while Redis is followed they are announced, and among millions of other keys SCAN takes its
    /// time.
    pub(super) async fn sweep(&mut self, after_a_gap: bool) -> Result<(), Error> {
        let core = self.core;
        let config = self.config();
        let earlier = self.marking.take().map(|marking| marking.completion);
        self.spare = earlier.or(self.spare.take());
        let scans = after_a_gap || !self.has_begun || self.since_scan >= SCAN_EVERY;
        self.since_scan = if scans { 1 } else { self.since_scan + 1 };
        self.next_sweep = Instant::now() + core.options.sweep;
        core.inbox.take_index();
        self.baseline.added = 0;
        self.check_triggers().await?;
        // Before anything is compared: what changes from now on is a change.
        self.poll().await?;
        self.connect_redis().await?;
        let (connection, workspace) = self.servers();
        let inventory = Inventory::take_with(connection, workspace, scans, config).await?;
        workspace.is_quiet = true;
        self.say_skipped(inventory.listing.skipped);

        let may_remove =
            inventory.surplus.is_empty() || self.may_remove(inventory.surplus.len(), false).await?;
        if may_remove {
            self.all_may_be_removed().await?;
        }
        // A mark that can't be read is replaced.
        let is_warm = match status(&core.client).await {
            Ok(status) => status.is_warm(),
            Err(error) if error.is_corrupt() => false,
            Err(error) => return Err(error),
        };
        self.baseline.is_cold = !is_warm;
        let is_empty = inventory.is_empty_unasked(&core.options.removals());
        let wants_mark = !is_warm && may_remove && !is_empty;
        if wants_mark && self.spare.is_none() {
            // The token comes before the first write: a flush from now on takes it along.
            let (connection, _) = self.servers();
            self.spare = Some(Completion::begin(connection, config).await?);
        }
        let batches = inventory.listing.batches;
        let rows = batches.iter().flatten();
        let missing = rows
            .filter(|path| !inventory.cached.paths.contains(*path))
            .count();
        if missing >= MANY {
            self.load(&batches).await?;
        }

        let (grace, transport) = (core.options.grace, &core.client.transport);
        let workspace = self.workspace.as_mut().expect("it was connected to");
        let waited = self.grace.wait(transport, workspace, grace).await?;
        let mut expires: Option<Instant> = None;
        for batch in &batches {
            self.connect_redis().await?;
            let (connection, workspace) = self.servers();
            let paths = [Paths::Listed(batch)].into_iter();
            let compared = compare(connection, workspace, paths, config, &mut |_| {}).await?;
            expires = expires.into_iter().chain(compared.expires).min();
            core.inbox
                .add(compared.drift.into_iter().map(|(path, _)| path));
            self.serve().await?;
            if core.inbox.is_stopped() {
                return Ok(());
            }
        }
        if may_remove {
            for surplus in inventory.surplus.chunks(BATCH_MODULES) {
                core.inbox.add(surplus.iter().cloned());
                self.serve().await?;
            }
        }
        self.connect_redis().await?;
        self.unlist(&inventory.cached.bad).await?;
        core.record.swept();
        // With a time to live of our own, what is written from now on lives for all of it.
        let latest = config.ttl.map(|ttl| Instant::now() + ttl);
        let completion = wants_mark.then(|| self.spare.take()).flatten();
        self.marking = completion.map(|completion| Marking {
            completion,
            modules: inventory.listing.modules,
            verified: waited != Waited::InVain,
            expires: expires.into_iter().chain(latest).min(),
        });
        Ok(())
    }

    /// Brings what is missing, and replaces nothing: that is left to `check`.
    async fn load(&mut self, batches: &[Vec<String>]) -> Result<(), Error> {
        let (config, client) = (self.config(), &self.core.client);
        let (mut options, begin) = (SyncOptions::default(), Instant::now());
        // Near caches of this process that observe the writer.
        let _observed = client.observers.writing_everything();
        let modules = batches.iter().map(Vec::len).sum();
        let connection = self.connection.as_mut().expect("it was connected to");
        let noted = self
            .baseline
            .before_adding(&mut connection.0, modules, config);
        noted.await?;
        for batches in batches.chunks(LOADED) {
            // Dedicated ones, because WATCH belongs to a connection; two, because `load` alternates.
            let mut connections = [
                dedicated::open(client).await?,
                dedicated::open(client).await?,
            ];
            let mut report = WarmReport::default();
            let workspace = self.workspace.as_mut().expect("it was connected to");
            load(
                config,
                &mut connections,
                workspace,
                batches.to_vec(),
                Replace::Nothing,
                &mut options,
                &mut report,
            )
            .await?;
            self.core
                .record
                .all_right(Verdict::Missing, report.written, begin);
            self.baseline.added(report.written);
            self.serve().await?;
            if self.core.inbox.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Marks the cache as complete, once all that the sweep found has been mended. Where something
    /// is contended or not removed, it is not complete.
    pub(super) async fn finish_mark(&mut self) -> Result<(), Error> {
        let core = self.core;
        if self.marking.is_none() || core.inbox.len() > 0 || core.record.lock().withheld > 0 {
            return Ok(());
        }
        let Some(marking) = self.marking.take() else {
            return Ok(());
        };
        self.connect_redis().await?;
        let config = self.config();
        let (connection, _) = self.servers();
        let Marking {
            completion,
            modules,
            verified,
            expires,
        } = marking;
        let finished = completion.finish(connection, modules, verified, expires, config);
        if finished.await? {
            core.record.lock().completed += 1;
            self.baseline.is_cold = false;
            log::info!("The guard marked the cache as complete, with {modules} modules");
        } else {
            // The data was flushed meanwhile: all begins anew.
            core.inbox.everything();
        }
        Ok(())
    }

    /// Says how many rows can't be cached, where that has changed.
    fn say_skipped(&mut self, skipped: usize) {
        let before = std::mem::replace(&mut self.skipped, skipped);
        if before != skipped {
            log::warn!("The workspace has {skipped} rows that can't be cached");
        }
    }
}
