//! The guard's loop: keeps both servers at hand, collects hints, has them looked at, and sleeps.
//!
//! Nothing here is taken for lost because a server is: what was hinted at stays in the inbox until
//! it has been looked at, and what could not be hinted at is found by the sweep that follows.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::baseline::Baseline;
use super::beat;
use super::contention::Contention;
use super::core::{Core, GuardIo};
use super::grace::Grace;
use super::listening::Listening;
use super::marking::Marking;
use super::redis_feed::{Identify, RedisFeed};
use super::retry::{FIRST_DELAY, Pace, Retry};
use super::stats::DatabaseFeed;
use super::versions::Versions;
use crate::client::dedicated;
use crate::config::Config;
use crate::database::changes::VersionBy;
use crate::database::workspace::Workspace;
use crate::diagnosis::guarded::GuardEntry;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::random::random;
use crate::sync::mark::Completion;

/// How old a connection to Redis may be that is used again. It proved that it leads to the server
/// that holds the keys when it was made, and that may change.
const CONNECTION_AGE: Duration = Duration::from_secs(1);

/// How long Redis must announce nothing before that is said and Redis is used all the same: it may
/// refuse to announce changes, and then the sweeps still mend.
const UNFOLLOWED: Duration = Duration::from_secs(1);

/// How often a sign of life is given where the database is not asked.
const BEAT: Duration = Duration::from_secs(5);

/// How long the loop sleeps at least, unless something comes.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How long the loop sleeps at most: it looks whether Redis is still followed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// One run of a guard.
#[allow(clippy::struct_excessive_bools, reason = "none follows from another")]
pub(super) struct Patrol<'a, T: SpawnListener, Io: GuardIo> {
    pub(super) core: &'a Core<T>,
    pub(super) io: &'a Io,
    id: String,
    feed: RedisFeed,
    /// Redis, for the guard alone, and when it was connected to.
    pub(super) connection: Option<(T::Dedicated, Instant)>,
    pub(super) workspace: Option<Workspace<Io::Database>>,
    pub(super) listening: Option<Listening<Io::Listening>>,
    pub(super) versions: Versions,
    pub(super) version_by: VersionBy,
    /// Up to which transaction the rows have been seen, on this connection.
    pub(super) seen_until: Option<u64>,
    pub(super) contention: Contention,
    pub(super) grace: Grace,
    pub(super) marking: Option<Marking>,
    redis: Retry,
    pub(super) database: Retry,
    pub(super) listen: Retry,
    /// Why it is not told by triggers, as was last said.
    pub(super) deaf_because: Option<String>,
    pub(super) next_poll: Instant,
    pub(super) polls: Pace,
    /// When the index may be compared again, and when that is wanted.
    pub(super) next_compare: Instant,
    pub(super) compare_at: Option<Instant>,
    pub(super) next_sweep: Instant,
    /// Before when no other one begins, whatever happened.
    sweep_pause: Instant,
    /// How many there were since the keys were looked through for those that the index lacks.
    pub(super) since_scan: u32,
    /// A token that was placed for a mark which could not be written.
    pub(super) spare: Option<Completion>,
    /// When the database last told what changed.
    pub(super) heard: SystemTime,
    next_beat: Instant,
    pub(super) is_sweeping: bool,
    pub(super) baseline: Baseline,
    /// Since when Redis is not followed, and whether that has been said.
    unfollowed: Option<(Instant, bool)>,
    /// Whether it has compared everything once: from then on, no error ends it.
    pub(super) has_begun: bool,
    /// Whether it could not give its last sign of life.
    is_unseen: bool,
    /// Whether it has guarded once, which takes Redis's announcements, too.
    has_guarded: bool,
    /// What was last said of the rows that can't be cached.
    pub(super) skipped: usize,
}

impl<'a, T: SpawnListener, Io: GuardIo> Patrol<'a, T, Io> {
    pub(super) fn start(core: &'a Core<T>, io: &'a Io) -> Result<Self, Error> {
        let now = Instant::now();
        core.inbox.everything();
        core.record.lock().poll_interval = core.options.poll;
        Ok(Self {
            core,
            io,
            id: format!("{:016x}", random()),
            feed: RedisFeed::start(&core.client, &core.inbox)?,
            connection: None,
            workspace: None,
            listening: None,
            versions: Versions::default(),
            version_by: VersionBy::default(),
            seen_until: None,
            contention: Contention::default(),
            grace: Grace::default(),
            marking: None,
            redis: Retry::new(now),
            database: Retry::new(now),
            listen: Retry::new(now),
            deaf_because: None,
            next_poll: now,
            polls: Pace::default(),
            next_compare: now,
            compare_at: None,
            next_sweep: now,
            sweep_pause: now,
            since_scan: 0,
            spare: None,
            heard: SystemTime::now(),
            next_beat: now,
            is_sweeping: false,
            baseline: Baseline::default(),
            unfollowed: Some((now, false)),
            has_begun: false,
            is_unseen: false,
            has_guarded: false,
            skipped: 0,
        })
    }

    pub(super) fn config(&self) -> &'a Config {
        self.core.client.config()
    }

    /// All that is due now.
    pub(super) async fn step(&mut self) -> Result<(), Error> {
        self.feed.ensure(&self.core.client)?;
        self.look_at_redis();
        if self.workspace.is_none() && !self.connect_database().await? {
            return Ok(());
        }
        self.upkeep().await?;
        if !self.may_use_redis() {
            return Ok(());
        }
        // Each time, because the sweep that everything waits for takes hints along.
        let begin = Instant::now();
        let is_time = begin >= self.next_sweep;
        if is_time || (begin >= self.sweep_pause && self.core.inbox.has_everything()) {
            let after_a_gap = self.core.inbox.take_everything();
            self.is_sweeping = true;
            let swept = self.sweep(after_a_gap).await;
            self.is_sweeping = false;
            // Whatever asks for sweeps, it gets half of the time.
            self.sweep_pause = Instant::now() + begin.elapsed();
            if let Err(error) = swept {
                self.core.inbox.everything();
                return Err(error);
            }
            if !self.core.inbox.is_stopped() {
                self.guarding();
            }
        }
        self.serve().await?;
        self.finish_mark().await?;
        self.beat().await
    }

    /// What must not wait for the end of a sweep: changed rows, hints, and signs of life.
    pub(super) async fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.core.record.lock().active = Some(SystemTime::now());
            self.upkeep().await?;
            self.beat().await?;
            let (now, standby) = (Instant::now(), self.core.options.standby);
            let latest = now.checked_sub(standby).unwrap_or(now);
            let hints = self.core.inbox.take(latest, now);
            if self.core.inbox.is_stopped() {
                return Ok(());
            }
            if hints.is_empty() {
                // The index comes last: what changed it was mostly hinted at by its name. A sweep
                // looks at it itself.
                if self.is_sweeping || !self.check_index().await? {
                    return Ok(());
                }
                continue;
            }
            self.check(hints).await?;
        }
    }

    /// Notes whether Redis is followed, and says so where that has changed.
    fn look_at_redis(&mut self) {
        let (is_up, now) = (self.feed.is_live(), Instant::now());
        {
            // Together: nobody may see that it guards without Redis.
            let mut record = self.core.record.lock();
            record.redis_up = is_up;
            record.since = record.since.filter(|_| is_up);
        }
        if is_up {
            if self.unfollowed.take().is_some() {
                log::info!("The guard follows Redis");
                self.redis = Retry::new(now);
            }
            return;
        }
        let (since, was_said) = *self.unfollowed.get_or_insert((now, false));
        if since == now {
            self.connection = None;
            // It may be of another reign.
            self.spare = None;
            self.redis.next = now + UNFOLLOWED;
            self.core.record.lock().failures += 1;
        }
        // A session that begins anew at once is no loss to tell of.
        if !was_said && now >= since + UNFOLLOWED {
            self.unfollowed = Some((since, true));
            let why = self
                .feed
                .failure()
                .unwrap_or_else(|| "no answer yet".into());
            log::warn!(
                "The guard can't follow Redis at {}: it collects what changes in the database, and compares everything from time to time if it can: {why}",
                self.config().redis_address()
            );
            self.core.record.lock().last_failure = Some(why);
        }
    }

    /// From when on Redis may be used: it is followed, or may be tried all the same, because where it
    /// does not announce changes the sweeps still mend.
    fn redis_due(&self) -> Instant {
        let unfollowed = self.unfollowed.map(|(since, _)| since + UNFOLLOWED);
        unfollowed.map_or(self.redis.next, |due| due.max(self.redis.next))
    }

    fn may_use_redis(&self) -> bool {
        Instant::now() >= self.redis_due()
    }

    /// A connection to Redis that leads to the server which holds the keys.
    pub(super) async fn connect_redis(&mut self) -> Result<(), Error> {
        let is_old = |(_, made): &(_, Instant)| made.elapsed() > CONNECTION_AGE;
        if self.connection.as_ref().is_none_or(is_old) {
            self.connection = None;
            let mut connection = dedicated::open(&self.core.client).await?;
            let server = dedicated::send(&mut connection, &Identify, self.config()).await?;
            if self.feed.suspects(server) {
                // The shared connections may be as old as the feed's.
                self.core.client.transport.reconnect();
            }
            self.connection = Some((connection, Instant::now()));
        }
        Ok(())
    }

    /// Both servers, which have been connected to.
    pub(super) fn servers(&mut self) -> (&mut T::Dedicated, &mut Workspace<Io::Database>) {
        let connection = self.connection.as_mut().expect("it was connected to");
        let workspace = self.workspace.as_mut().expect("it was connected to");
        (&mut connection.0, workspace)
    }

    /// Nothing can be sent over it any more: an answer may be under way.
    pub(super) fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// Whether there is a database now.
    async fn connect_database(&mut self) -> Result<bool, Error> {
        if Instant::now() < self.database.next {
            return Ok(false);
        }
        let options = &self.core.options;
        let database = self.io.connect(options.answer_timeout).await?;
        let mut workspace = Workspace::open(database, self.config()).await?;
        // What can't be cached was said of before.
        workspace.is_quiet = self.has_begun;
        self.workspace = Some(workspace);
        // What changed meanwhile is found by comparing with what was seen before.
        self.next_poll = Instant::now();
        self.listen = Retry::new(Instant::now());
        // It may be another server, whose transactions have other ids.
        (self.version_by, self.seen_until) = (VersionBy::default(), None);
        Ok(true)
    }

    /// It has both servers and has compared everything.
    fn guarding(&mut self) {
        self.redis.worked();
        // Not as it was when the step began: connecting may have taken longer than following.
        self.look_at_redis();
        let mut record = self.core.record.lock();
        if record.since.is_none() && record.redis_up {
            record.since = Some(SystemTime::now());
            drop(record);
            if !std::mem::replace(&mut self.has_guarded, true) {
                log::info!("The guard keeps the cache equal to the database from now on");
            }
        }
        self.has_begun = true;
    }

    /// Gives a sign of life, if it is time to and there is reason to.
    pub(super) async fn beat(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.next_beat || self.workspace.is_none() || !self.feed.is_live() {
            return Ok(());
        }
        let Some((entry, interval)) = self.sign_of_life() else {
            return Ok(());
        };
        self.next_beat = now + interval;
        self.connect_redis().await?;
        let config = self.config();
        let (connection, _) = self.servers();
        match beat::beat(connection, &entry, interval, config).await {
            // It guards all the same, unseen: Redis is full, or this user may not write the key.
            Err(error) if error.is_refused() => {
                if !std::mem::replace(&mut self.is_unseen, true) {
                    log::warn!(
                        "The guard can't give a sign of life: {}",
                        error.with_sources()
                    );
                }
            }
            given => {
                given?;
                self.is_unseen = false;
            }
        }
        for path in self.contention.forget(now) {
            log::info!("The guard sees nobody write {path:?} wrongly any more");
        }
        self.core.record.lock().contended = self.contention.count();
        Ok(())
    }

    /// What the guard says of itself, and how often; `None` while it does not guard.
    fn sign_of_life(&self) -> Option<(GuardEntry, Duration)> {
        let record = self.core.record.lock();
        let since = record.since?;
        let interval = match record.database_feed {
            DatabaseFeed::Poll => record.poll_interval.max(LONGEST_SLEEP),
            DatabaseFeed::Listen => BEAT,
        };
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let entry = GuardEntry {
            id: self.id.clone(),
            since: seconds(since),
            checked: seconds(self.heard),
            feed: record.database_feed.to_string(),
            pending: self.core.inbox.len() as u64,
            withheld: record.withheld as u64,
            standby_ms: u64::try_from(self.core.options.standby.as_millis()).unwrap_or(u64::MAX),
        };
        Some((entry, interval))
    }

    /// Takes an error for what it is: a server that is gone for a while.
    ///
    /// # Errors
    ///
    /// What waiting does not mend, before the guard has ever guarded: an operator is there then.
    pub(super) fn failed(&mut self, error: Error) -> Result<(), Error> {
        if !self.has_begun && !error.is_transient() {
            return Err(error);
        }
        let mut record = self.core.record.lock();
        record.failures += 1;
        let why = error.with_sources();
        record.last_failure = Some(why.clone());
        if error.is_out_of_memory() {
            drop(record);
            self.connection = None;
            // Nothing went unseen: what could not be written waits.
            if self.redis.failed(FIRST_DELAY) {
                log::warn!("Redis is full, and the guard can't mend what is missing: {why}");
            }
            return Ok(());
        }
        record.since = None;
        self.spare = self
            .marking
            .take()
            .map(|marking| marking.completion)
            .or(self.spare.take());
        // The end of a gap is a comparison of everything.
        self.core.inbox.everything();
        if error.is_database() {
            record.database_up = false;
            drop(record);
            self.workspace = None;
            self.listening = None;
            self.core.record.lock().database_feed = DatabaseFeed::Poll;
            if self.database.failed(FIRST_DELAY) {
                log::warn!(
                    "The guard lost the database: it collects what changes in Redis, and waits: {why}"
                );
            }
        } else {
            drop(record);
            if self.redis.failed(FIRST_DELAY) {
                log::warn!("The guard could not use Redis, and tries again: {why}");
            }
        }
        // An answer may be under way on it.
        self.connection = None;
        Ok(())
    }

    /// How long there is nothing to do, unless something comes.
    pub(super) fn sleep(&self) -> Duration {
        let (now, inbox) = (Instant::now(), &self.core.inbox);
        let until = |at: Instant| at.saturating_duration_since(now);
        if self.workspace.is_none() {
            return LONGEST_SLEEP.min(until(self.database.next));
        }
        let mut due = vec![self.next_poll];
        if self.core.options.listen {
            let listening = self.listening.as_ref().map(Listening::due);
            due.push(listening.unwrap_or(self.listen.next));
        }
        if self.may_use_redis() {
            due.push(self.next_sweep);
            // It may have come while the loop waited for something else, and was woken for that.
            due.extend(inbox.has_everything().then_some(self.sweep_pause));
            due.extend(inbox.has_index().then_some(now));
            due.extend(inbox.next_due(self.core.options.standby));
            due.extend(self.compare_at);
            due.extend(self.sign_of_life().map(|_| self.next_beat));
        } else {
            due.push(self.redis_due());
        }
        let next = due.into_iter().map(until).min().unwrap_or_default();
        // What is due and could not be done must not make the loop spin.
        next.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }

    /// Takes the sign of life away, if that can be done at once.
    pub(super) async fn farewell(&mut self) {
        let config = self.config();
        if self.feed.is_live() && self.connect_redis().await.is_ok() {
            let connection = self.connection.as_mut().expect("it was connected to");
            if let Err(error) = beat::end(&mut connection.0, &self.id, config).await {
                log::debug!("The guard's sign of life stays until it expires: {error}");
            }
        }
        log::info!("The guard ended");
    }
}
