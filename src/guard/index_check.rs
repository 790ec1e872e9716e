//! Finds what changed in the index alone: Redis announces that it did, and not what.

use std::time::{Duration, Instant};

use super::core::GuardIo;
use super::patrol::Patrol;
use crate::client::batch::BATCH_MODULES;
use crate::client::dedicated::send;
use crate::command::index::{Members, Size, Unlist};
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::near::coherence::index_delta::AskMembership;
use crate::sync::verdict::Verdict;

/// At most one part in so many of the time is spent on comparing all of it where no module seems to
/// be missing: each new one changes the index, and is hinted at by its name anyway.
const SHARE: u32 = 10;

/// How long there is between two of these at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How many paths one question asks for.
const ASKED: usize = 1_000;

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Looks at the index where it has changed, or where a comparison was put off until now. Answers
    /// whether it did, so that there may be hints.
    pub(super) async fn check_index(&mut self) -> Result<bool, Error> {
        if !self.versions.is_known() {
            return Ok(false);
        }
        let has_changed = self.core.inbox.take_index();
        if has_changed && self.hears() {
            // The last listing may be as old as a sweep, and knows nothing of what came since.
            self.poll().await?;
        }
        if has_changed && !self.find_unlisted().await? {
            self.compare_at = self.compare_at.or(Some(self.next_compare));
        }
        if self.compare_at.is_some_and(|at| Instant::now() >= at) {
            let begin = Instant::now();
            self.compare_index().await?;
            self.compare_at = None;
            self.next_compare = Instant::now() + (begin.elapsed() * SHARE).max(SHORTEST_PAUSE);
            return Ok(true);
        }
        Ok(has_changed)
    }

    /// Hints at the rows that the index does not name, where it has fewer members than there should
    /// be. Answers whether that explains what has changed.
    async fn find_unlisted(&mut self) -> Result<bool, Error> {
        self.connect_redis().await?;
        let config = self.config();
        let (connection, _) = self.servers();
        let size = send(connection, &Size, config).await?;
        let lacks = self.versions.len().saturating_sub(self.skipped + size);
        if lacks == 0 {
            return Ok(false);
        }
        // Whether they are in it is a shorter answer than what is.
        let paths: Vec<String> = self.versions.paths().map(str::to_owned).collect();
        let mut found = 0;
        for paths in paths.chunks(ASKED) {
            let (connection, _) = self.servers();
            let listed = send(connection, &AskMembership { paths }, config).await?;
            let unlisted = paths.iter().zip(listed).filter(|(_, listed)| !listed);
            let unlisted: Vec<String> = unlisted.map(|(path, _)| path.clone()).collect();
            found += unlisted.len();
            self.core.inbox.add(unlisted);
            if found >= lacks {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hints at the paths that the index has and the last listing has not, and the other way round.
    /// One that has come since the listing is looked at and found right.
    async fn compare_index(&mut self) -> Result<(), Error> {
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
