//! The guard's loop: keeps both servers at hand, collects hints, has them looked at, and sleeps.
//!
//! Nothing here is taken for lost because a server is: what was hinted at stays in the inbox until
//! it has been looked at, and what could not be hinted at is found by the sweep that follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::beat;
use super::contention::Contention;
use super::grace::Grace;
use super::inbox::Inbox;
use super::listening::{Listening, Upkeep};
use super::options::GuardOptions;
use super::redis_feed::RedisFeed;
use super::stats::{DatabaseFeed, GuardStats, Record};
use super::sweep::Marking;
use super::trigger::{channel, count_triggers};
use super::versions::Versions;
use crate::client::Client;
use crate::client::dedicated;
use crate::config::Config;
use crate::database::changes::VersionBy;
use crate::database::workspace::{Database, Workspace};
use crate::diagnosis::guarded::GuardEntry;
use crate::error::Error;
use crate::keys::validate_path;
use crate::near::cache::SpawnListener;
use crate::random::random;

/// How long to wait before a server is tried again; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// How old a connection to Redis may be that is used again. It proved that it leads to the server
/// that holds the keys when it was made, and that may change.
const CONNECTION_AGE: Duration = Duration::from_secs(1);

/// At most one part in so many of the time is spent asking for versions, and for the index.
const SHARE: u32 = 50;

/// How often an unwatched Redis is tried: it refuses to announce changes, or is not there.
const UNFOLLOWED: Duration = Duration::from_secs(1);

/// How often a sign of life is given at least, where the database is not polled.
const BEAT: Duration = Duration::from_secs(5);

/// How long the loop sleeps at most: what it does in time is checked by hand nowhere else.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a facade gives a guard: connections to the database.
pub(crate) trait GuardIo {
    type Database: Database;
    /// A connection that listens, until it is dropped.
    type Listening;

    /// A connection, each of whose answers comes within `limit` or is an error.
    async fn connect(&self, limit: Duration) -> Result<Self::Database, Error>;

    /// Another connection, which listens to this channel and tells the inbox what it hears.
    async fn listen(
        &self,
        channel: &str,
        limit: Duration,
        inbox: &Arc<Inbox>,
    ) -> Result<Self::Listening, Error>;
}

/// What all clones of a guard share.
pub(crate) struct Core<T> {
    pub(super) client: Arc<Client<T>>,
    pub(super) options: GuardOptions,
    pub(super) inbox: Arc<Inbox>,
    pub(super) record: Record,
    runs: AtomicBool,
}

impl<T: SpawnListener> Core<T> {
    pub(crate) fn new(client: Arc<Client<T>>, options: GuardOptions) -> Result<Self, Error> {
        Ok(Self {
            client,
            options: options.checked()?,
            inbox: Arc::default(),
            record: Record::default(),
            runs: AtomicBool::new(false),
        })
    }

    pub(crate) fn stats(&self) -> GuardStats {
        self.record.stats(self.inbox.len())
    }

    pub(crate) fn stop(&self) {
        self.inbox.stop();
    }

    /// Guards until it is stopped.
    pub(crate) async fn run<Io: GuardIo>(&self, io: &Io) -> Result<(), Error> {
        if self.runs.swap(true, SeqCst) {
            return Err(Error::invalid_config(
                "this guard runs already: make another one",
            ));
        }
        // Dropped with the future that was given up, too.
        let _runs = Running(self);
        self.record.lock().running = true;
        let mut patrol = Patrol::start(self, io)?;
        while !self.inbox.is_stopped() {
            self.record.lock().active = Some(SystemTime::now());
            if let Err(error) = patrol.step().await {
                patrol.failed(error)?;
            }
            let sleep = patrol.sleep();
            let news = self.inbox.news();
            self.client.transport.within(sleep, news).await;
        }
        patrol.farewell().await;
        Ok(())
    }
}

/// A guard that runs, until this is dropped.
struct Running<'a, T>(&'a Core<T>);

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let mut record = self.0.record.lock();
        (record.running, record.since) = (false, None);
        (record.redis_up, record.database_up) = (false, false);
        drop(record);
        self.0.inbox.clear();
        self.0.runs.store(false, SeqCst);
    }
}

/// One run of a guard.
pub(super) struct Patrol<'a, T: SpawnListener, Io: GuardIo> {
    pub(super) core: &'a Core<T>,
    io: &'a Io,
    id: String,
    feed: RedisFeed,
    /// Redis, for the guard alone, and when it was connected to.
    connection: Option<(T::Dedicated, Instant)>,
    pub(super) workspace: Option<Workspace<Io::Database>>,
    listening: Option<Listening<Io::Listening>>,
    pub(super) versions: Versions,
    version_by: VersionBy,
    pub(super) contention: Contention,
    pub(super) grace: Grace,
    pub(super) marking: Option<Marking>,
    redis: Retry,
    database: Retry,
    listen: Retry,
    next_poll: Instant,
    polls: Pace,
    pub(super) next_index: Instant,
    pub(super) next_sweep: Instant,
    next_beat: Instant,
    is_sweeping: bool,
    /// Since when Redis is not followed, and whether that has been said.
    unfollowed: Option<(Instant, bool)>,
    /// Whether it has guarded once: from then on, no error ends it.
    has_begun: bool,
    /// What was last said of the rows that can't be cached.
    pub(super) skipped: usize,
}

impl<'a, T: SpawnListener, Io: GuardIo> Patrol<'a, T, Io> {
    fn start(core: &'a Core<T>, io: &'a Io) -> Result<Self, Error> {
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
            contention: Contention::default(),
            grace: Grace::default(),
            marking: None,
            redis: Retry::new(now),
            database: Retry::new(now),
            listen: Retry::new(now),
            next_poll: now,
            polls: Pace::default(),
            next_index: now,
            next_sweep: now,
            next_beat: now,
            is_sweeping: false,
            unfollowed: Some((now, false)),
            has_begun: false,
            skipped: 0,
        })
    }

    pub(super) fn config(&self) -> &'a Config {
        self.core.client.config()
    }

    /// All that is due now.
    async fn step(&mut self) -> Result<(), Error> {
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
        if self.core.inbox.take_everything() || Instant::now() >= self.next_sweep {
            self.is_sweeping = true;
            let swept = self.sweep().await;
            self.is_sweeping = false;
            if let Err(error) = swept {
                self.core.inbox.everything();
                return Err(error);
            }
            self.guarding();
        }
        self.serve().await?;
        self.finish_mark().await?;
        self.beat().await
    }

    /// What must not wait for the end of a sweep: changed rows, hints, and signs of life.
    pub(super) async fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.upkeep().await?;
            self.beat().await?;
            let (now, standby) = (Instant::now(), self.core.options.standby);
            // A sweep looks at the index itself.
            let may_look = !self.is_sweeping && self.versions.is_known();
            if may_look && now >= self.next_index && self.core.inbox.take_index() {
                self.check_index().await?;
            }
            let latest = now.checked_sub(standby).unwrap_or(now);
            let hints = self.core.inbox.take(super::check::BATCH, latest, now);
            if hints.is_empty() || self.core.inbox.is_stopped() {
                return Ok(());
            }
            self.check(hints).await?;
            self.redis.worked();
            self.core.record.lock().active = Some(SystemTime::now());
        }
    }

    /// Keeps the feed of the database.
    async fn upkeep(&mut self) -> Result<(), Error> {
        self.keep_listening().await?;
        if Instant::now() >= self.next_poll {
            self.poll().await?;
        }
        Ok(())
    }

    /// Notes whether Redis is followed, and says so where that has changed.
    fn look_at_redis(&mut self) {
        let (is_up, now) = (self.feed.is_live(), Instant::now());
        self.core.record.lock().redis_up = is_up;
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
            self.redis.next = now + UNFOLLOWED;
            let mut record = self.core.record.lock();
            (record.since, record.failures) = (None, record.failures + 1);
        }
        // A session that begins anew at once is no loss to tell of.
        if !was_said && now >= since + UNFOLLOWED {
            self.unfollowed = Some((since, true));
            let why = self
                .feed
                .failure()
                .unwrap_or_else(|| "no answer yet".into());
            log::warn!(
                "The guard can't follow Redis: it collects what changes in the database, and compares everything from time to time if it can: {why}"
            );
            self.core.record.lock().last_failure = Some(why);
        }
    }

    /// Whether Redis is followed, or may be tried all the same: where it does not announce changes,
    /// the sweeps still mend.
    fn may_use_redis(&self) -> bool {
        let now = Instant::now();
        let waited = self.unfollowed.map_or(now, |(since, _)| since + UNFOLLOWED);
        now >= self.redis.next && now >= waited
    }

    /// A connection to Redis that leads to the server which holds the keys.
    pub(super) async fn connect_redis(&mut self) -> Result<(), Error> {
        let is_old = |(_, made): &(_, Instant)| made.elapsed() > CONNECTION_AGE;
        if self.connection.as_ref().is_none_or(is_old) {
            self.connection = None;
            let connection = dedicated::open(&self.core.client).await?;
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
        let workspace = Workspace::open(database, self.config()).await?;
        let server = workspace.server.clone();
        let is_back = self.database.worked();
        self.workspace = Some(workspace);
        self.core.record.lock().database_up = true;
        if is_back || !self.has_begun {
            log::info!("The guard reads the workspace from {server}");
        }
        // What changed meanwhile is found by comparing with what was seen before.
        self.next_poll = Instant::now();
        self.listen = Retry::new(Instant::now());
        Ok(true)
    }

    /// Asks which rows changed, and puts them into the inbox. Answers them, too.
    pub(super) async fn poll(&mut self) -> Result<Vec<String>, Error> {
        let begin = Instant::now();
        let mut changed = Vec::new();
        let result = self.list_versions(&mut changed).await;
        let was_known = self.versions.is_known();
        if result.is_ok() {
            let gone = self.versions.end();
            changed.extend(gone);
        }
        if was_known {
            changed.retain(|path| validate_path(path).is_ok());
            self.core.inbox.add(changed.iter().cloned());
        } else {
            // Before the first listing came to its end nothing is a change. The sweep compares all.
            changed.clear();
        }
        result?;
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
        Ok(changed)
    }

    async fn list_versions(&mut self, changed: &mut Vec<String>) -> Result<(), Error> {
        let config = self.core.client.config();
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
            match workspace.versions(*version_by, config, &mut row).await {
                Err(error) if *version_by == VersionBy::Transaction && !error.is_transient() => {
                    log::info!(
                        "The guard compares contents to find changed rows: the workspace has no xmin (a view?), or this user may not read it"
                    );
                    *version_by = VersionBy::Content;
                }
                result => return result,
            }
        }
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
    fn hears(&self) -> bool {
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
        if listening.came_back(&echoes) {
            self.core.record.lock().database_feed = DatabaseFeed::Listen;
            log::info!("The guard is told by triggers which rows change");
            // What changed before it heard is found by asking once more.
            self.poll().await?;
            return Ok(());
        }
        match listening.upkeep(now) {
            Upkeep::Nothing => {}
            Upkeep::Send(payload) => {
                let channel = channel(&self.config().workspace_table);
                let workspace = self.workspace.as_mut().expect("it was connected to");
                workspace.notify(&channel, &payload).await?;
            }
            Upkeep::GiveUp => {
                let why =
                    "notifications do not come through, as behind PgBouncer in transaction mode";
                self.stop_listening(why, self.core.options.sweep);
            }
        }
        Ok(())
    }

    async fn begin_listening(&mut self) -> Result<(), Error> {
        let config = self.config();
        let workspace = self.workspace.as_mut().expect("it was connected to");
        let triggers = workspace.count(&count_triggers(config)?).await?;
        if triggers < 4 {
            let why =
                "the triggers are not there: `bifrost-modules guard --print-trigger` prints them";
            self.stop_listening(why, self.core.options.sweep);
            return Ok(());
        }
        let (limit, inbox) = (self.core.options.answer_timeout, &self.core.inbox);
        let channel = channel(&config.workspace_table);
        match self.io.listen(&channel, limit, inbox).await {
            Ok(connection) => {
                // What an earlier connection told is no news of this one.
                inbox.take_deaf();
                self.listening = Some(Listening::new(connection, Instant::now()));
            }
            Err(error) => self.stop_listening(&error.to_string(), FIRST_DELAY),
        }
        Ok(())
    }

    /// Polls instead, and listens again later.
    fn stop_listening(&mut self, why: &str, delay: Duration) {
        self.listening = None;
        let is_first = self.listen.failed(delay);
        let mut record = self.core.record.lock();
        let before = std::mem::take(&mut record.database_feed);
        drop(record);
        if is_first || before == DatabaseFeed::Listen {
            log::warn!("The guard asks for changed rows instead of being told: {why}");
        }
        self.next_poll = Instant::now();
    }

    /// It has both servers and has compared everything.
    fn guarding(&mut self) {
        self.redis.worked();
        let mut record = self.core.record.lock();
        if record.since.is_none() && record.redis_up {
            record.since = Some(SystemTime::now());
            drop(record);
            if !std::mem::replace(&mut self.has_begun, true) {
                log::info!("The guard keeps the cache equal to the database from now on");
            }
        }
        self.has_begun = true;
    }

    /// Gives a sign of life, if it is time to and there is reason to.
    async fn beat(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now < self.next_beat || self.workspace.is_none() || !self.feed.is_live() {
            return Ok(());
        }
        let record = self.core.record.lock();
        let Some(since) = record.since else {
            return Ok(());
        };
        let interval = match record.database_feed {
            DatabaseFeed::Poll => record.poll_interval.max(LONGEST_SLEEP),
            DatabaseFeed::Listen => BEAT,
        };
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let entry = GuardEntry {
            id: self.id.clone(),
            since: seconds(since),
            checked: seconds(SystemTime::now()),
            feed: record.database_feed.to_string(),
            pending: self.core.inbox.len() as u64,
            withheld: record.withheld as u64,
            standby_ms: u64::try_from(self.core.options.standby.as_millis()).unwrap_or(u64::MAX),
        };
        drop(record);
        self.next_beat = now + interval;
        self.connect_redis().await?;
        let config = self.config();
        let (connection, _) = self.servers();
        beat::beat(connection, &entry, interval, config).await?;
        let settled = self.contention.forget(now);
        for path in settled {
            log::info!("The guard sees nobody write {path:?} wrongly any more");
        }
        self.core.record.lock().contended = self.contention.count();
        Ok(())
    }

    /// Takes an error for what it is: a server that is gone for a while.
    ///
    /// # Errors
    ///
    /// What waiting does not mend, before the guard has ever guarded: an operator is there then.
    fn failed(&mut self, error: Error) -> Result<(), Error> {
        if !self.has_begun && !error.is_transient() {
            return Err(error);
        }
        let mut record = self.core.record.lock();
        record.failures += 1;
        record.last_failure = Some(error.to_string());
        record.since = None;
        self.marking = None;
        if error.is_database() {
            record.database_up = false;
            drop(record);
            self.workspace = None;
            self.listening = None;
            self.core.record.lock().database_feed = DatabaseFeed::Poll;
            if self.database.failed(FIRST_DELAY) {
                log::warn!(
                    "The guard lost the database: it collects what changes in Redis, and waits: {error}"
                );
            }
        } else {
            drop(record);
            // The sweep that makes it guard again.
            self.core.inbox.everything();
            if self.redis.failed(FIRST_DELAY) {
                log::warn!("The guard could not use Redis, and tries again: {error}");
            }
        }
        // An answer may be under way on it.
        self.connection = None;
        Ok(())
    }

    /// How long there is nothing to do, unless something comes.
    fn sleep(&self) -> Duration {
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now);
        let mut sleep = LONGEST_SLEEP;
        if self.workspace.is_none() {
            return sleep.min(until(self.database.next));
        }
        sleep = sleep
            .min(until(self.next_poll))
            .min(until(self.next_beat.max(now)));
        if self.core.options.listen {
            let listening = self.listening.as_ref().map(Listening::due);
            sleep = sleep.min(until(listening.unwrap_or(self.listen.next)));
        }
        if let Some(due) = self.core.inbox.next_due(self.core.options.standby) {
            sleep = sleep.min(until(due));
        }
        sleep = sleep.min(until(self.next_sweep));
        if self.core.inbox.has_index() {
            sleep = sleep.min(until(self.next_index));
        }
        if !self.may_use_redis() {
            sleep = sleep.max(until(self.redis.next)).max(FIRST_DELAY / 2);
        }
        // A deadline that is past and could not be met must not make the loop spin.
        sleep.max(Duration::from_millis(1))
    }

    /// Takes the sign of life away, if that can be done at once.
    async fn farewell(&mut self) {
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

/// When something that failed is tried again.
#[derive(Debug)]
struct Retry {
    next: Instant,
    failures: u32,
}

impl Retry {
    fn new(now: Instant) -> Self {
        Self {
            next: now,
            failures: 0,
        }
    }

    /// Waits for at least `first`, longer with each failure; answers whether it is the first.
    fn failed(&mut self, first: Duration) -> bool {
        let delay = first.max((FIRST_DELAY * (1 << self.failures.min(8))).min(LAST_DELAY));
        // So that a fleet of guards does not come back at once.
        let jittered = delay * u32::try_from(75 + random() % 25).unwrap_or(100) / 100;
        self.next = Instant::now() + jittered;
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// It works; answers whether it had failed before.
    fn worked(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

/// How long something takes when nothing is in its way: the shortest of the last few times. One
/// that a busy machine held up says nothing about the next.
#[derive(Debug, Default)]
struct Pace {
    last: [Option<Duration>; 8],
    at: usize,
}

impl Pace {
    fn took(&mut self, duration: Duration) -> Duration {
        self.last[self.at] = Some(duration);
        self.at = (self.at + 1) % self.last.len();
        self.last
            .iter()
            .flatten()
            .min()
            .copied()
            .unwrap_or(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_waits_longer_and_is_told_once() {
        let mut retry = Retry::new(Instant::now());
        let mut delays = Vec::new();
        for n in 0..8 {
            assert_eq!(retry.failed(FIRST_DELAY), n == 0);
            delays.push(retry.next - Instant::now());
        }
        assert!(
            delays[0] <= FIRST_DELAY && delays[7] > LAST_DELAY / 2,
            "{delays:?}"
        );
        assert!(delays.iter().all(|delay| *delay <= LAST_DELAY));
        assert!(retry.worked() && !retry.worked());
        assert!(retry.failed(FIRST_DELAY), "the first again");
    }

    #[test]
    fn one_slow_time_says_nothing() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        assert_eq!(pace.took(ms(5)), ms(5));
        assert_eq!(pace.took(ms(500)), ms(5));
        for _ in 0..8 {
            pace.took(ms(50));
        }
        assert_eq!(pace.took(ms(60)), ms(50));
    }
}
