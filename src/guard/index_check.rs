//! Finds what changed in the index alone: Redis announces that it did, and not what.

use std::time::{Duration, Instant};

use super::core::GuardIo;
use super::patrol::Patrol;
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated::send;
use crate::command::index::{Members, Unlist};
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::sync::verdict::Verdict;

/// At most one part in so many of the time is spent on it: each module that is new changes the
/// index, and is hinted at by its name anyway.
const SHARE: u32 = 10;

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Hints at all paths that the index has and the last listing has not, and the other way round.
    /// One that has come since the listing is looked at and found right.
    pub(super) async fn check_index(&mut self) -> Result<(), Error> {
        let begin = Instant::now();
        self.connect_redis().await?;
        let config = self.config();
        let (connection, _) = self.servers();
        let index = send(connection, &Members, config).await?;
        self.unlist(&index.bad).await?;
        let has_row = |path: &&String| self.versions.has(path);
        let surplus = index.paths.iter().filter(|path| !has_row(path)).cloned();
        self.core.inbox.add(surplus);
        let listed = |path: &&str| index.paths.contains(*path);
        let missing = self.versions.paths().filter(|path| !listed(path));
        self.core.inbox.add(missing.map(str::to_owned));
        self.next_index = Instant::now() + (begin.elapsed() * SHARE).min(Duration::from_secs(5));
        Ok(())
    }

    /// Takes members out of the index that can't be paths.
    pub(super) async fn unlist(&mut self, bad: &[Vec<u8>]) -> Result<(), Error> {
        let (begin, config) = (Instant::now(), self.config());
        for members in bad.chunks(BATCH_MODULES) {
            let (connection, _) = self.servers();
            send(connection, &Unlist { members }, config).await?;
            let count = members.len();
            self.core.record.all_right(Verdict::IndexOnly, count, begin);
        }
        Ok(())
    }
}
