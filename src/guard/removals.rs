//! How much may be removed. To mend a wrong entry is harmless: it becomes the row. To remove one is
//! not: a wrong database looks like a mass deletion.

use super::baseline::{Forget, Note, Noted};
use super::core::GuardIo;
use super::patrol::Patrol;
use crate::client::dedicated::send;
use crate::command::index::Size;
use crate::error::Error;
use crate::near::cache::SpawnListener;

/// Why so many may not be removed.
struct Refusal {
    error: Error,
    /// How many cached modules have no row.
    surplus: usize,
    /// By how many the share is measured.
    others: usize,
}

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Whether so many cached modules may be removed, as far as the last listing tells: another one is
    /// asked for before the answer is no, if that one `is_stale`. Says where the answer changes.
    pub(super) async fn may_remove(&mut self, count: usize, is_stale: bool) -> Result<bool, Error> {
        let mut refusal = self.refusal(count).await?;
        if is_stale && refusal.is_some() {
            self.poll().await?;
            refusal = self.refusal(count).await?;
        }
        let Some(Refusal {
            error,
            surplus,
            others,
        }) = refusal
        else {
            return Ok(true);
        };
        if !self.has_begun {
            // Nothing has been written yet, and there is somebody to be told.
            return Err(error);
        }
        let was_withheld = self.core.record.lock().withheld > 0;
        self.core.record.lock().withheld = surplus;
        if !was_withheld {
            log::warn!(
                "The guard removes nothing: {surplus} cached modules have no row, and the workspace has {}; if it is the right one, allow that with --max-prune or --allow-empty",
                self.versions.len()
            );
            // For all guards, and for the next start.
            let config = self.config();
            let note = Note {
                cached: others,
                lasts: true,
            };
            let (connection, _) = self.servers();
            send(connection, &note, config).await?;
        }
        Ok(false)
    }

    /// A sweep has found all that has no row, and that it may be removed.
    pub(super) async fn all_may_be_removed(&mut self) -> Result<(), Error> {
        let was_withheld = std::mem::take(&mut self.core.record.lock().withheld) > 0;
        if was_withheld {
            log::info!("The guard removes again what has no row");
        }
        let config = self.config();
        let (connection, _) = self.servers();
        // Another guard may have noted something a moment ago, before it brings what this one does
        // not know of yet: that goes by itself.
        let (_, lasts) = send(connection, &Noted, config).await?;
        if lasts {
            send(connection, &Forget, config).await?;
        }
        Ok(())
    }

    async fn refusal(&mut self, count: usize) -> Result<Option<Refusal>, Error> {
        let config = self.config();
        // Those that can't be cached are none that are.
        let rows = self.versions.len().saturating_sub(self.skipped);
        let options = self.core.options.removals();
        self.connect_redis().await?;
        let (connection, _) = self.servers();
        let cached = send(connection, &Size, config).await?.max(count);
        let (noted, _) = send(connection, &Noted, config).await?;
        // All that has no row, and not only what is looked at now: one after the other, all of it
        // would go.
        let surplus = count.max(cached.saturating_sub(rows));
        // Measured by what was cached before guards brought what is new: with the wrong database,
        // they would make the share smaller by their own writes.
        let others = cached.saturating_sub(self.baseline.added).max(count);
        let others = noted.map_or(others, |noted| others.min(noted));
        let error = if rows == 0 && !options.allows_empty() {
            Some(Error::Empty)
        } else {
            options.check_removals(surplus, others).err()
        };
        Ok(error.map(|error| Refusal {
            error,
            surplus,
            others,
        }))
    }
}
