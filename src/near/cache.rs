//! What a near cache offers, over the connections of either facade.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::coherence::clock::Tick;
use super::coherence::counters::NearCacheStats;
use super::coherence::protocol::{Answer, Landing, Lookup, Marks};
use super::coherence::rule::{Rule, Rules};
use super::coherence::store::Room;
use super::coherence::value::{Found, INDEX_PATH, Kept};
use super::hooks::{Invalidation, Registry};
use super::instance::{Life, Listening};
use super::options::NearCacheOptions;
use crate::client::read;
use crate::client::transport::{Budget, Transport};
use crate::client::write_observers::Tied;
use crate::command::reply;
use crate::command::request::Class;
use crate::command::server_id::ServerId;
use crate::error::{Error, Outage};
use crate::keys::validate_path;

/// How many modules one request of a prefetch or a snapshot asks for.
pub(super) const BULK_PATHS: usize = 500;

/// How long what follows Redis may take to come to life.
const BIRTH: Duration = Duration::from_secs(1);

const NO_THREAD: &str = "nothing comes to life here that could follow it; a child that was forked \
                         in a bad moment must be handed a snapshot";

/// Connections over which Redis can be followed.
pub(crate) trait Listen: Transport + Send + Sync + 'static {
    /// Starts to follow Redis for this life. No IO in this thread.
    fn listen(self: &Arc<Self>, life: &Arc<Life>) -> Result<Box<dyn Listening>, Error>;
}

pub(crate) struct Near<T: Listen> {
    pub(super) transport: Arc<T>,
    options: NearCacheOptions,
    registry: Arc<Registry>,
    pub(super) rules: Rules,
    first: Arc<Life>,
}

impl<T: Listen> Near<T> {
    pub(crate) fn new(transport: Arc<T>, options: NearCacheOptions) -> Result<Self, Error> {
        Self::with_rules(transport, options, Rules::default())
    }

    pub(super) fn with_rules(
        transport: Arc<T>,
        options: NearCacheOptions,
        rules: Rules,
    ) -> Result<Self, Error> {
        let options = options.checked()?;
        transport.identify_servers();
        let registry = Arc::default();
        let near = Self {
            first: Arc::new(Life::new(&options, &registry, rules)),
            transport,
            options,
            registry,
            rules,
        };
        near.first
            .ensure_listening(|life| near.transport.listen(life))?;
        Ok(near)
    }

    /// The newest life that is known of, without asking whose it is: that costs more than a hit.
    pub(super) fn life(&self) -> &Arc<Life> {
        let mut life = &self.first;
        while let Some(child) = life.child() {
            life = child;
        }
        life
    }

    /// The life of this process: a forked child turns away from the one that it inherited.
    fn adopted_life(&self) -> &Arc<Life> {
        let life = self.life();
        if life.is_ours() {
            return life;
        }
        life.child_or_init(|| Life::new(&self.options, &self.registry, self.rules))
    }

    /// The life of this process, which follows Redis if it can: without that, reads are slower.
    pub(super) fn own_life(&self) -> &Arc<Life> {
        let life = self.adopted_life();
        if let Err(error) = self.start(life) {
            log::debug!("The near cache reads through: {error}");
        }
        life
    }

    fn start(&self, life: &Arc<Life>) -> Result<(), Error> {
        let failed = |error| reply::io_error(error, Outage::Connect);
        life.hooks.start().map_err(failed)?;
        life.ensure_listening(|life| self.transport.listen(life))
    }

    /// The hot path.
    pub(crate) fn hit(&self, path: &str) -> Option<Found> {
        self.life().protocol.hit(path, Tick::now())
    }

    /// What is left to do where there is no [`hit`](Self::hit).
    pub(crate) async fn ask(&self, path: &str) -> Result<Found, Error> {
        validate_path(path)?;
        let life = self.own_life();
        let counters = &life.protocol.counters;
        let budget = Budget::new(self.transport.config(), Class::Lookup);
        let (how, kept) = self.look_up(life, path, budget).await;
        match how {
            How::Hit => match &kept {
                Ok(Kept::Absent) => counters.absent_hits.add_one(),
                _ => counters.module_hits.add_one(),
            },
            How::Miss => counters.misses.add(1),
            How::Joined => {
                counters.misses.add(1);
                counters.joined.add(1);
            }
            How::Bypass => counters.bypasses.add(1),
        }
        match kept {
            Ok(kept) => Ok(kept.into_module()),
            Err(error) => last_known(life, path, error),
        }
    }

    /// What is kept, or else what one of all who want to know it is told.
    pub(super) async fn look_up(
        &self,
        life: &Life,
        path: &str,
        budget: Budget,
    ) -> (How, Result<Kept, Error>) {
        loop {
            match life.protocol.lookup(path, Tick::now()) {
                Lookup::Hit(kept) => return (How::Hit, Ok(kept)),
                Lookup::Bypass => {
                    let marks = life.protocol.marks(Tick::now());
                    let read = life.protocol.begin_marked(&marks);
                    let answer = self.read_one(life, path, budget).await;
                    let learn = |(kept, server): (Kept, Option<ServerId>)| {
                        let at = Tick::now();
                        let answer = Answer { read, server, at };
                        let protocol = &life.protocol;
                        protocol.insert_marked(path, kept.clone(), &marks, &answer, Room::Make);
                        kept
                    };
                    return (How::Bypass, answer.map(learn));
                }
                Lookup::Miss(ticket) => {
                    let answer = self.read_one(life, path, budget).await;
                    let kept = match &answer {
                        Ok((kept, _)) => Ok(kept.clone()),
                        Err(error) => Err(error.copied()),
                    };
                    ticket.land(answer, Tick::now());
                    return (How::Miss, kept);
                }
                Lookup::Joined(flight) => {
                    let landing = flight.landing.wait();
                    match self.transport.within(budget.left(), landing).await {
                        None => return (How::Joined, Err(reply::timed_out())),
                        Some(Landing::Abandoned) => {}
                        Some(Landing::Answered(answer)) => match &*answer {
                            Ok(kept) => return (How::Joined, Ok(kept.clone())),
                            // The caller who asked may have had less time than this one.
                            Err(error) if timed_out(error) && !budget.left().is_zero() => {}
                            Err(error) => return (How::Joined, Err(error.copied())),
                        },
                    }
                }
            }
        }
    }

    pub(crate) async fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Found>, Error> {
        let mut modules: Vec<_> = paths.iter().map(|path| self.hit(path.as_ref())).collect();
        let missing: Vec<&str> = paths
            .iter()
            .zip(&modules)
            .filter(|(_, module)| module.is_none())
            .map(|(path, _)| path.as_ref())
            .collect();
        missing.iter().try_for_each(|path| validate_path(path))?;
        if !missing.is_empty() {
            let life = self.own_life();
            let marks = life.protocol.marks(Tick::now());
            let counters = &life.protocol.counters;
            let counter = if marks.are_live() {
                &counters.misses
            } else {
                &counters.bypasses
            };
            counter.add(missing.len());
            let budget = self.bulk_budget();
            let mut found = match self.read(life, &marks, &missing, budget, Room::Make).await {
                Ok(found) => found,
                Err(error) => missing
                    .iter()
                    .map(|path| last_known(life, path, error.copied()))
                    .map(|module| module.map(Kept::from))
                    .collect(),
            }
            .into_iter();
            for module in modules.iter_mut().filter(|module| module.is_none()) {
                *module = found.next().transpose()?.map(Kept::into_module);
            }
        }
        Ok(modules.into_iter().flatten().collect())
    }

    /// What one request of a call may take that reads much.
    pub(super) fn bulk_budget(&self) -> Budget {
        Budget::new(self.transport.config(), Class::Bulk)
    }

    async fn read_one(
        &self,
        life: &Life,
        path: &str,
        budget: Budget,
    ) -> Result<(Kept, Option<ServerId>), Error> {
        if path == INDEX_PATH {
            return self.ask_index(life, budget).await;
        }
        let (module, server) = read::get_from(&*self.transport, path, budget).await?;
        self.hear_from(life, server);
        Ok((Kept::module(module), server))
    }

    /// Sees who answered. If it is not the server that is followed, the connections go as well as the
    /// session: only where the address leads now can both meet again.
    pub(super) fn hear_from(&self, life: &Life, server: Option<ServerId>) {
        if life.protocol.session.suspects(server) {
            self.transport.part();
            life.wake();
        }
    }

    /// Reads paths at once, with one request, and keeps what may be kept.
    pub(super) async fn read(
        &self,
        life: &Life,
        marks: &Marks,
        paths: &[&str],
        budget: Budget,
        room: Room,
    ) -> Result<Vec<Result<Kept, Error>>, Error> {
        let read = life.protocol.begin_marked(marks);
        let (entries, server) = read::get_each_from(&*self.transport, paths, budget).await?;
        self.hear_from(life, server);
        let at = Tick::now();
        let answer = Answer { read, server, at };
        let entries = paths.iter().zip(entries);
        Ok(entries
            .map(|(path, entry)| {
                let kept = Kept::module(entry?);
                life.protocol
                    .insert_marked(path, kept.clone(), marks, &answer, room);
                Ok(kept)
            })
            .collect())
    }

    /// Loads modules while there is room; how many are kept now.
    pub(crate) async fn prefetch(&self, paths: Option<&[&str]>) -> Result<usize, Error> {
        let life = self.own_life();
        self.until_live(life).await?;
        let index;
        let all: Vec<&str> = if let Some(paths) = paths {
            paths.iter().try_for_each(|path| validate_path(path))?;
            paths.to_vec()
        } else {
            index = self.paths().await?;
            index.iter().map(String::as_str).collect()
        };
        let protocol = &life.protocol;
        let mut missing = all.clone();
        missing.retain(|path| protocol.kept(path, Tick::now()).is_none());
        for chunk in missing.chunks(BULK_PATHS) {
            let marks = protocol.marks(Tick::now());
            let budget = self.bulk_budget();
            let read = self.read(life, &marks, chunk, budget, Room::Find).await?;
            // What is hot already is worth more than what may become so.
            let mut kept = chunk.iter().zip(&read);
            if kept.any(|(path, kept)| {
                let kept = kept.as_ref();
                kept.is_ok_and(|kept| !protocol.has_room(path, kept))
            }) {
                break;
            }
        }
        let kept = all
            .iter()
            .filter_map(|path| protocol.kept(path, Tick::now()));
        Ok(kept.filter(|kept| matches!(kept, Kept::Module(_))).count())
    }

    /// Waits until Redis is followed.
    pub(super) async fn until_live(&self, life: &Life) -> Result<(), Error> {
        let deadline = Tick::now().plus(self.transport.config().bulk_deadline);
        while let Some(arrival) = life.protocol.session.arrival(Tick::now())? {
            let has_begun = life.has_begun.load(SeqCst);
            let limit = deadline.since(Tick::now());
            let limit = if has_begun { limit } else { limit.min(BIRTH) };
            if self.transport.within(limit, arrival.wait()).await.is_some() {
                continue;
            }
            if !life.has_begun.load(SeqCst) {
                let why = io::Error::other(NO_THREAD);
                return Err(reply::outage(Outage::Connect, Some(why)));
            }
            if has_begun {
                return Err(reply::timed_out());
            }
        }
        Ok(())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.life().protocol.session.is_live(Tick::now())
    }

    pub(crate) fn stats(&self) -> NearCacheStats {
        // Takes a lock.
        self.adopted_life().protocol.stats(Tick::now())
    }

    pub(crate) fn on_invalidate(
        &self,
        hook: impl Fn(&Invalidation) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.registry.add(hook);
        self.start(self.adopted_life())
    }

    /// To be tied to a writer's connections.
    pub(crate) fn tie_to(self: &Arc<Self>, writer: &T) {
        let weak: Weak<dyn Tied> = Arc::downgrade(&(Arc::clone(self) as Arc<dyn Tied>));
        writer.ties().add(&weak);
    }
}

fn timed_out(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable {
            cause: Outage::TimedOut,
            ..
        }
    )
}

/// How a lookup was answered.
pub(super) enum How {
    Hit,
    Miss,
    Joined,
    Bypass,
}

/// What was known before an outage, where that is wanted.
pub(super) fn last_known(life: &Life, path: &str, error: Error) -> Result<Found, Error> {
    if !error.is_unavailable() {
        return Err(error);
    }
    // That there was none is no reason to hide an outage.
    let module = life.protocol.last_known(path, Tick::now()).flatten();
    module.map(Some).ok_or(error)
}

impl<T: Listen> Tied for Near<T> {
    fn wrote(&self, paths: &[String]) {
        if self.rules.keep(Rule::LocalWrite) {
            self.transport.listings().void(Instant::now());
            let protocol = &self.adopted_life().protocol;
            protocol.announcements.add(paths, Tick::now());
            for path in paths.iter().map(String::as_str).chain([INDEX_PATH]) {
                protocol.invalidate(path);
            }
        }
    }

    fn wrote_everything(&self) {
        if self.rules.keep(Rule::LocalWrite) {
            self.transport.listings().void(Instant::now());
            self.adopted_life().protocol.flush();
        }
    }
}

impl<T: Listen> Drop for Near<T> {
    fn drop(&mut self) {
        let life = Arc::clone(self.life());
        if life.is_ours() {
            life.stop();
        }
        if !self.first.is_ours() {
            // Its locks may be held by threads that this process does not have.
            mem::forget(Arc::clone(&self.first));
            // And with it goes our own life, its child.
            if life.is_ours() {
                life.protocol.store.purge(u64::MAX);
            }
        }
    }
}
