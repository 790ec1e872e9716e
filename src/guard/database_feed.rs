//! Learns of changed rows, by asking or by being told, and puts them into the inbox.

use std::time::{Duration, Instant, SystemTime};

use super::core::GuardIo;
use super::listening::{ECHO_LIMIT, Listening, Upkeep, echo};
use super::patrol::Patrol;
use super::retry::FIRST_DELAY;
use super::stats::DatabaseFeed;
use super::trigger::{channel, has_all_triggers};
use crate::database::changes::VersionBy;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::random::random;

/// How long a connection that listens may take to be made, and when it is tried again: there may be
/// none to be had.
const LISTEN_LIMIT: Duration = Duration::from_secs(1);
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// At most one part in so many of the time is spent asking.
const SHARE: u32 = 50;

impl<T: SpawnListener, Io: GuardIo> Patrol<'_, T, Io> {
    /// Keeps the feed of the database.
    pub(super) async fn upkeep(&mut self) -> Result<(), Error> {
        self.keep_listening().await?;
        if Instant::now() >= self.next_poll {
            self.poll().await?;
        }
        Ok(())
    }

    /// Asks which rows changed, and puts them into the inbox.
    pub(super) async fn poll(&mut self) -> Result<(), Error> {
        let begin = Instant::now();
        let mut changed = Vec::new();
        let was_known = self.versions.is_known();
        let result = self.look_for_changes(&mut changed).await;
        // Before the first listing came to its end nothing is a change. The sweep compares all.
        if was_known {
            self.core.inbox.add(changed);
        }
        result?;
        self.database_works();
        let took = self.polls.took(begin.elapsed());
        let interval = self.core.options.poll.max(took * SHARE);
        self.set_poll_interval(interval);
        // Where triggers tell what changes, a listing is only needed from time to time.
        let pause = if self.hears() {
            self.core.options.sweep
        } else {
            interval
        };
        self.next_poll = begin + pause;
        self.core.record.lock().modules = self.versions.len();
        Ok(())
    }

    /// It answers, and says what it was asked for: connecting alone proves nothing.
    fn database_works(&mut self) {
        let is_back = self.database.worked();
        self.heard = SystemTime::now();
        let was_up = std::mem::replace(&mut self.core.record.lock().database_up, true);
        if (is_back || !was_up)
            && let Some(workspace) = &self.workspace
        {
            log::info!("The guard reads the workspace of {}", workspace.server);
        }
    }

    /// Asks for what was written since the last time, and for all rows where that is not enough.
    async fn look_for_changes(&mut self, changed: &mut Vec<String>) -> Result<(), Error> {
        let workspace = self.workspace.as_mut().expect("it was connected to");
        if let Some(since) = self.seen_until {
            let written = workspace.written_since(since).await?;
            for (path, version) in written.rows {
                if self.versions.row(&path, version) {
                    changed.push(path);
                }
            }
            self.seen_until = Some(written.until);
            // Behind a pooler it may be another server suddenly, where transactions were lost.
            if self.versions.len() == written.count && written.until >= since {
                return Ok(());
            }
        }
        // Before the listing: what is not visible in it was written by this one or a later one.
        let until = workspace.oldest_open_transaction().await?;
        self.list(changed).await?;
        let by_transaction = self.version_by == VersionBy::Transaction;
        self.seen_until = by_transaction.then_some(until);
        Ok(())
    }

    async fn list(&mut self, changed: &mut Vec<String>) -> Result<(), Error> {
        let Self {
            workspace,
            versions,
            version_by,
            ..
        } = self;
        let workspace = workspace.as_mut().expect("it was connected to");
        loop {
            versions.begin();
            let mut row = |path: &str, version| {
                if versions.row(path, version) {
                    changed.push(path.to_owned());
                }
            };
            match workspace.versions(*version_by, &mut row).await {
                Err(error) if *version_by == VersionBy::Transaction && error.is_no_column() => {
                    log::info!(
                        "The guard compares contents to find changed rows: the workspace has no xmin (a view?), or this user may not read it"
                    );
                    *version_by = VersionBy::Content;
                }
                result => break result?,
            }
        }
        changed.extend(versions.end());
        Ok(())
    }

    /// Waits until all that triggers have told so far has been heard: notifications come in the order
    /// of the commits, so our own comes after all of them. False where it does not come.
    pub(super) async fn hear_out(&mut self) -> Result<bool, Error> {
        let nonce = random();
        self.notify(&echo(nonce)).await?;
        let core = self.core;
        let end = Instant::now() + ECHO_LIMIT;
        while self.listening.is_some() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            core.client.transport.within(left, core.inbox.news()).await;
            let echoes = core.inbox.take_echoes();
            if let Some(listening) = &mut self.listening {
                listening.came_back(&echoes);
            }
            if echoes.contains(&nonce) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn notify(&mut self, payload: &str) -> Result<(), Error> {
        let channel = channel(&self.config().workspace_table);
        let workspace = self.workspace.as_mut().expect("it was connected to");
        workspace.notify(&channel, payload).await
    }

    fn set_poll_interval(&self, interval: Duration) {
        let mut record = self.core.record.lock();
        let before = std::mem::replace(&mut record.poll_interval, interval);
        drop(record);
        let (asked, set) = (self.core.options.poll, interval);
        // Said once in each direction, and not at each fluctuation.
        if set >= 2 * asked && before < 2 * asked {
            log::info!(
                "The workspace is large: the guard asks for changed rows every {:.1} s, not every {:.1} s, to be busy for 2 % of the time",
                set.as_secs_f64(),
                asked.as_secs_f64()
            );
        } else if set == asked && before >= 2 * asked {
            log::info!(
                "The guard asks for changed rows every {:.1} s again",
                asked.as_secs_f64()
            );
        }
    }

    /// Whether triggers tell what changes, as far as is known.
    pub(super) fn hears(&self) -> bool {
        let listening = self.listening.as_ref();
        listening.is_some_and(|listening| listening.is_proven)
    }

    /// Listens, where that is wanted, and finds out whether anything comes through.
    async fn keep_listening(&mut self) -> Result<(), Error> {
        if !self.core.options.listen {
            return Ok(());
        }
        let inbox = &self.core.inbox;
        let (is_deaf, echoes) = (inbox.take_deaf(), inbox.take_echoes());
        if is_deaf && self.listening.is_some() {
            self.stop_listening("the connection that listens was lost", FIRST_DELAY);
        }
        let now = Instant::now();
        if self.listening.is_none() && now >= self.listen.next {
            self.begin_listening().await?;
        }
        let Some(listening) = &mut self.listening else {
            return Ok(());
        };
        if !echoes.is_empty() {
            self.heard = SystemTime::now();
        }
        if listening.came_back(&echoes) {
            self.core.record.lock().database_feed = DatabaseFeed::Listen;
            self.deaf_because = None;
            log::info!("The guard is told by triggers which rows change");
            // What changed before it heard is found by asking once more.
            self.poll().await?;
            return Ok(());
        }
        match listening.upkeep(now) {
            Upkeep::Nothing => {}
            Upkeep::Send(nonce) => self.notify(&echo(nonce)).await?,
            Upkeep::GiveUp => {
                let why =
                    "notifications do not come through, as behind PgBouncer in transaction mode";
                self.stop_listening(why, self.core.options.sweep);
            }
        }
        Ok(())
    }

    async fn begin_listening(&mut self) -> Result<(), Error> {
        if !self.has_triggers().await? {
            return Ok(());
        }
        let config = self.config();
        // Not as long as for an answer: meanwhile nothing is mended.
        let limit = self.core.options.answer_timeout.min(LISTEN_LIMIT);
        let inbox = &self.core.inbox;
        let channel = channel(&config.workspace_table);
        match self.io.listen(&channel, limit, inbox).await {
            Ok(connection) => {
                // What an earlier connection told is no news of this one.
                inbox.take_deaf();
                self.listening = Some(Listening::new(connection, Instant::now()));
            }
            Err(error) => self.stop_listening(&error.with_sources(), LISTEN_AGAIN),
        }
        Ok(())
    }

    /// Whether those are still there who tell what changes.
    pub(super) async fn check_triggers(&mut self) -> Result<(), Error> {
        if self.listening.is_some() {
            self.has_triggers().await?;
        }
        Ok(())
    }

    /// Whether the triggers are there; listens no more where they are not.
    async fn has_triggers(&mut self) -> Result<bool, Error> {
        let statement = has_all_triggers(self.config())?;
        let workspace = self.workspace.as_mut().expect("it was connected to");
        let are_there = workspace.holds(&statement).await?;
        if !are_there {
            let why =
                "the triggers are not there: `bifrost-modules guard --print-trigger` prints them";
            self.stop_listening(why, self.core.options.sweep);
        }
        Ok(are_there)
    }

    /// Polls instead, and listens again later.
    fn stop_listening(&mut self, why: &str, delay: Duration) {
        self.listening = None;
        self.listen.failed(delay);
        // Once for each reason, and not at each attempt.
        let is_first = self.deaf_because.as_deref() != Some(why);
        self.deaf_because = Some(why.to_owned());
        let mut record = self.core.record.lock();
        let before = std::mem::take(&mut record.database_feed);
        drop(record);
        if is_first || before == DatabaseFeed::Listen {
            log::warn!("The guard asks for changed rows instead of being told: {why}");
        }
        self.next_poll = Instant::now();
    }
}
