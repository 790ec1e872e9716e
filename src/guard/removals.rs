//! How much may be removed. To mend a wrong entry is harmless: it becomes the row. To remove one is
//! not: a wrong database looks like a mass deletion.

use super::core::GuardIo;
use super::patrol::Patrol;
use crate::client::dedicated::send;
use crate::command::index::Size;
use crate::error::Error;
use crate::near::cache::SpawnListener;

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Whether so many cached modules may be removed, as far as the last listing tells: another one is
    /// asked for before the answer is no, if that one `is_stale`. Says where the answer changes.
    pub(super) async fn may_remove(&mut self, count: usize, is_stale: bool) -> Result<bool, Error> {
        let mut refused = self.refusal(count).await?;
        if is_stale && refused.is_some() {
            self.poll().await?;
            refused = self.refusal(count).await?;
        }
        let was_withheld = self.core.record.lock().withheld > 0;
        let Some((error, surplus)) = refused else {
            self.all_may_be_removed();
            if was_withheld {
                log::info!("The guard removes again what has no row");
            }
            return Ok(true);
        };
        if !self.has_begun {
            // Nothing has been written yet, and there is somebody to be told.
            return Err(error);
        }
        self.core.record.lock().withheld = surplus;
        if !was_withheld {
            log::warn!(
                "The guard removes nothing: {surplus} cached modules have no row, and the workspace has {}; if it is the right one, allow that with --max-prune or --allow-empty",
                self.versions.len()
            );
        }
        Ok(false)
    }

    /// Why so many may not be removed, and how many are without a row.
    async fn refusal(&mut self, count: usize) -> Result<Option<(Error, usize)>, Error> {
        let (config, rows) = (self.config(), self.versions.len());
        let options = self.core.options.removals();
        self.connect_redis().await?;
        let (connection, _) = self.servers();
        let cached = send(connection, &Size, config).await?.max(count);
        // All that has no row, and not only what is looked at now: one after the other, all of it
        // would go.
        let surplus = count.max(cached.saturating_sub(rows));
        // Measured by what was cached before the guard brought what is new, and when they became too
        // many: with the wrong database, it would make the share smaller by its own writes.
        let others = cached.saturating_sub(self.baseline.added).max(count);
        let others = others.min(*self.baseline.too_many_of.get_or_insert(others));
        if rows == 0 && !options.allows_empty() {
            return Ok(Some((Error::Empty, surplus)));
        }
        let refused = options.check_removals(surplus, others).err();
        Ok(refused.map(|error| (error, surplus)))
    }

    /// Nothing is withheld any more.
    pub(super) fn all_may_be_removed(&mut self) {
        self.baseline.too_many_of = None;
        self.core.record.lock().withheld = 0;
    }
}
