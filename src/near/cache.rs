//! What a near cache offers, over the connections of either facade.
//!
//! A hit is answered from memory. A miss asks Redis once for all readers that want the same, and
//! stores the answer if [`Protocol`](super::coherence::protocol::Protocol) lets it. Where Redis is
//! not followed, reads go through and nothing is served from memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use std::{io, mem};

use super::coherence::clock::Tick;
use super::coherence::counters::NearCacheStats;
use super::coherence::protocol::{Answer, Landing, Lookup, Marks};
use super::coherence::rule::{Rule, Rules};
use super::coherence::store::Room;
use super::coherence::value::{Cached, Found, INDEX_PATH};
use super::hooks::{Invalidation, Registry};
use super::instance::{Instance, ListenerHandle};
use super::options::NearCacheOptions;
use crate::client::Client;
use crate::client::read;
use crate::client::transport::{Budget, Transport};
use crate::client::write_observers::WriteObserver;
use crate::command::reply;
use crate::command::request::Class;
use crate::command::server_id::ServerId;
use crate::diagnosis::Diagnosis;
use crate::diagnosis::explain::explain_name;
use crate::error::{Error, Outage};
use crate::keys::validate_path;

/// How many modules one request of a prefetch or a snapshot asks for. One request for all would
/// hold up Redis, which answers one MGET in one go.
pub(super) const BULK_PATHS: usize = 500;

/// How long the listener's thread or task may take to start. In a child that was forked in a bad
/// moment it never does, and a caller that waits for it must be told.
const BIRTH: Duration = Duration::from_secs(1);

const NO_THREAD: &str = "no thread starts here that could follow it; a child that was forked \
                         in a bad moment must be handed a snapshot";

/// Connections of a facade that can also start a listener.
pub(crate) trait SpawnListener: Transport + Send + Sync + 'static {
    /// Starts a listener for this instance. Does no IO in the calling thread.
    fn spawn_listener(&self, instance: &Arc<Instance>) -> Result<Box<dyn ListenerHandle>, Error>;
}

/// A near cache, over the connections of either facade. Its state is in [`Instance`], one for each
/// process.
pub(crate) struct Near<T: SpawnListener> {
    pub(super) client: Arc<Client<T>>,
    options: NearCacheOptions,
    registry: Arc<Registry>,
    pub(super) rules: Rules,
    /// The instance of the process that made it. Those of forked children hang on it, as its
    /// `child`.
    first: Arc<Instance>,
}

impl<T: SpawnListener> Near<T> {
    pub(crate) fn new(client: Arc<Client<T>>, options: NearCacheOptions) -> Result<Self, Error> {
        Self::with_rules(client, options, Rules::default())
    }

    pub(super) fn with_rules(
        client: Arc<Client<T>>,
        options: NearCacheOptions,
        rules: Rules,
    ) -> Result<Self, Error> {
        let options = options.checked()?;
        // From now on each new connection learns which server it leads to, at the cost of one more
        // command when it is made: only answers of the server that is followed may be stored.
        client.transport.identify_servers();
        let registry = Arc::default();
        let near = Self {
            first: Arc::new(Instance::new(&options, &registry, client.config(), rules)),
            client,
            options,
            registry,
            rules,
        };
        near.first
            .ensure_listener(|instance| near.client.transport.spawn_listener(instance))?;
        Ok(near)
    }

    /// The newest instance that is known of. It may still be that of the parent process: asking for
    /// the process id takes 115 ns, more than a hit. The lease lapses by the clock, so in a child a
    /// hit of an inherited instance is no older than the bound either.
    pub(super) fn instance(&self) -> &Arc<Instance> {
        let mut instance = &self.first;
        while let Some(child) = instance.child() {
            instance = child;
        }
        instance
    }

    /// The instance of this process: a forked child turns away from the one that it inherited.
    /// Every path that takes a lock goes through here.
    fn adopted_instance(&self) -> &Arc<Instance> {
        let instance = self.instance();
        if instance.is_ours() {
            return instance;
        }
        let config = self.client.config();
        instance.child_or_init(|| Instance::new(&self.options, &self.registry, config, self.rules))
    }

    /// The instance of this process, with a listener if one can be started. That it can't is no
    /// error: reads are slower without one, and not wrong.
    pub(super) fn own_instance(&self) -> &Arc<Instance> {
        let instance = self.adopted_instance();
        if let Err(error) = self.start(instance) {
            log::debug!("The near cache reads through: {error}");
        }
        instance
    }

    /// Starts the threads of this instance, unless they run. Called where a read misses, so that a
    /// runtime which ended, or a fork, is noticed there.
    fn start(&self, instance: &Arc<Instance>) -> Result<(), Error> {
        let failed = |error| reply::io_error(error, Outage::Connect);
        instance.hooks.start().map_err(failed)?;
        instance.ensure_listener(|instance| self.client.transport.spawn_listener(instance))
    }

    /// The hot path: no lock, no process id, no validation of the path. What is not a valid path is
    /// never stored, so it is no hit.
    pub(crate) fn hit(&self, path: &str) -> Option<Found> {
        self.instance().protocol.hit(path, Tick::now())
    }

    /// What is left to do where there is no [`hit`](Self::hit). On the heap, because in
    /// `nonblocking` a hit would otherwise carry all of its state along.
    pub(crate) fn ask(&self, path: &str) -> Pin<Box<impl Future<Output = Result<Found, Error>>>> {
        Box::pin(self.ask_redis(path))
    }

    async fn ask_redis(&self, path: &str) -> Result<Found, Error> {
        validate_path(path)?;
        let instance = self.own_instance();
        let counters = &instance.protocol.counters;
        let budget = Budget::new(self.client.config(), Class::Lookup);
        let (how, cached) = self.look_up(instance, path, budget).await;
        match how {
            How::Hit => match &cached {
                Ok(Cached::Absent) => counters.absent_hits.add_one(),
                _ => counters.module_hits.add_one(),
            },
            How::Miss => counters.misses.add(1),
            How::Joined => {
                counters.misses.add(1);
                counters.joined.add(1);
            }
            How::Bypass => counters.bypasses.add(1),
        }
        match cached {
            Ok(cached) => Ok(cached.into_module()),
            Err(error) => last_known(instance, path, error),
        }
    }

    /// What is stored, or else what Redis tells one reader on behalf of all that want the same.
    pub(super) async fn look_up(
        &self,
        instance: &Instance,
        path: &str,
        budget: Budget,
    ) -> (How, Result<Cached, Error>) {
        loop {
            match instance.protocol.lookup(path, Tick::now()) {
                Lookup::Hit(cached) => return (How::Hit, Ok(cached)),
                Lookup::Bypass => {
                    // Nothing that is read now may be served from memory, but it replaces what an
                    // earlier session left: `stale_if_error` would otherwise bring that back in an
                    // outage.
                    let marks = instance.protocol.marks(Tick::now());
                    let read = instance.protocol.begin_marked(&marks);
                    let answer = self.read_one(instance, path, budget).await;
                    let learn = |(cached, server): (Cached, Option<ServerId>)| {
                        let at = Tick::now();
                        let answer = Answer { read, server, at };
                        let protocol = &instance.protocol;
                        protocol.insert_marked(path, cached.clone(), &marks, &answer, Room::Make);
                        cached
                    };
                    return (How::Bypass, answer.map(learn));
                }
                Lookup::Miss(ticket) => {
                    let answer = self.read_one(instance, path, budget).await;
                    let cached = match &answer {
                        Ok((cached, _)) => Ok(cached.clone()),
                        Err(error) => Err(error.copied()),
                    };
                    ticket.land(answer, Tick::now());
                    return (How::Miss, cached);
                }
                Lookup::Joined(flight) => {
                    let landing = flight.landing.wait();
                    match self.client.transport.within(budget.left(), landing).await {
                        None => return (How::Joined, Err(reply::timed_out())),
                        // The reader that asked was cancelled or panicked: look again, and ask.
                        Some(Landing::Abandoned) => {}
                        Some(Landing::Answered(answer)) => match &*answer {
                            Ok(cached) => return (How::Joined, Ok(cached.clone())),
                            // The reader that asked may have had less time left than this one,
                            // whose budget permits another attempt.
                            Err(error) if timed_out(error) && !budget.left().is_zero() => {}
                            Err(error) => return (How::Joined, Err(error.copied())),
                        },
                    }
                }
            }
        }
    }

    /// Hits first, then one request for all misses.
    pub(crate) async fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Found>, Error> {
        let mut modules: Vec<_> = paths.iter().map(|path| self.hit(path.as_ref())).collect();
        let missing: Vec<&str> = paths
            .iter()
            .zip(&modules)
            .filter(|(_, module)| module.is_none())
            .map(|(path, _)| path.as_ref())
            .collect();
        // Only misses are validated: what is stored has a valid path.
        missing.iter().try_for_each(|path| validate_path(path))?;
        if !missing.is_empty() {
            let instance = self.own_instance();
            let marks = instance.protocol.marks(Tick::now());
            let counters = &instance.protocol.counters;
            // Counted here, because a bulk read opens no flights and joins none.
            let counter = if marks.are_live() {
                &counters.misses
            } else {
                &counters.bypasses
            };
            counter.add(missing.len());
            let budget = self.bulk_budget();
            let mut found = match self
                .read(instance, &marks, &missing, budget, Room::Make)
                .await
            {
                Ok(found) => found,
                Err(error) => missing
                    .iter()
                    .map(|path| last_known(instance, path, error.copied()))
                    .map(|module| module.map(Cached::from))
                    .collect(),
            }
            .into_iter();
            for module in modules.iter_mut().filter(|module| module.is_none()) {
                *module = found.next().transpose()?.map(Cached::into_module);
            }
        }
        Ok(modules.into_iter().flatten().collect())
    }

    /// The time for one request of a call that reads much.
    pub(super) fn bulk_budget(&self) -> Budget {
        Budget::new(self.client.config(), Class::Bulk)
    }

    /// Asks Redis for one path, or for the index, which readers that miss it join like a path.
    async fn read_one(
        &self,
        instance: &Instance,
        path: &str,
        budget: Budget,
    ) -> Result<(Cached, Option<ServerId>), Error> {
        if path == INDEX_PATH {
            return self.ask_index(instance, budget).await;
        }
        let (module, server) = read::get_from(&*self.client, path, budget).await?;
        self.check_server(instance, server);
        Ok((Cached::module(module), server))
    }

    /// Checks which server answered. If it is not the followed one, the shared connections are
    /// dropped as well as the session. Ending the session alone never brought the two together: the
    /// listener and the readers must both connect anew to where the address leads now.
    pub(super) fn check_server(&self, instance: &Instance, server: Option<ServerId>) {
        if instance.protocol.session.suspects(server) {
            self.client.transport.reconnect();
            instance.wake();
        }
    }

    /// Reads paths with one request, and stores what may be stored. A corrupt entry is an error of
    /// its own and does not hide the others.
    pub(super) async fn read(
        &self,
        instance: &Instance,
        marks: &Marks,
        paths: &[&str],
        budget: Budget,
        room: Room,
    ) -> Result<Vec<Result<Cached, Error>>, Error> {
        let read = instance.protocol.begin_marked(marks);
        let (entries, server) = read::get_each_from(&*self.client, paths, budget).await?;
        self.check_server(instance, server);
        let at = Tick::now();
        let answer = Answer { read, server, at };
        let entries = paths.iter().zip(entries);
        Ok(entries
            .map(|(path, entry)| {
                let cached = Cached::module(entry?);
                instance
                    .protocol
                    .insert_marked(path, cached.clone(), marks, &answer, room);
                Ok(cached)
            })
            .collect())
    }

    /// Loads all modules while there is room; returns how many are stored now.
    pub(crate) async fn prefetch(&self) -> Result<usize, Error> {
        self.until_live(self.own_instance()).await?;
        let index = self.paths().await?;
        let paths: Vec<&str> = index.iter().map(String::as_str).collect();
        self.prefetch_paths(&paths).await
    }

    /// The same for these.
    pub(crate) async fn prefetch_paths(&self, paths: &[impl AsRef<str>]) -> Result<usize, Error> {
        let instance = self.own_instance();
        self.until_live(instance).await?;
        let all: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        all.iter().try_for_each(|path| validate_path(path))?;
        let protocol = &instance.protocol;
        let mut missing = all.clone();
        // What is stored already needs no request, and `cached` marks it as asked for: it stays.
        missing.retain(|path| protocol.cached(path, Tick::now()).is_none());
        for chunk in missing.chunks(BULK_PATHS) {
            let marks = protocol.marks(Tick::now());
            let budget = self.bulk_budget();
            let read = self
                .read(instance, &marks, chunk, budget, Room::Find)
                .await?;
            // The memory is full. What is stored was asked for, and is worth more than what may be
            // asked for later, so nothing is evicted for a prefetch.
            let mut cached = chunk.iter().zip(&read);
            if cached.any(|(path, cached)| {
                let cached = cached.as_ref();
                cached.is_ok_and(|cached| !protocol.has_room(path, cached))
            }) {
                break;
            }
        }
        let cached = all
            .iter()
            .filter_map(|path| protocol.cached(path, Tick::now()));
        Ok(cached
            .filter(|cached| matches!(cached, Cached::Module(_)))
            .count())
    }

    /// Waits until Redis is followed, at most for the time of a bulk call.
    pub(super) async fn until_live(&self, instance: &Instance) -> Result<(), Error> {
        let deadline = Tick::now().plus(self.client.config().bulk_deadline);
        while let Some(arrival) = instance.protocol.session.arrival(Tick::now())? {
            // A listener that has not begun within `BIRTH` never will, see `Instance::has_begun`.
            let has_begun = instance.has_begun.load(SeqCst);
            let limit = deadline.since(Tick::now());
            let limit = if has_begun { limit } else { limit.min(BIRTH) };
            if self
                .client
                .transport
                .within(limit, arrival.wait())
                .await
                .is_some()
            {
                continue;
            }
            if !instance.has_begun.load(SeqCst) {
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
        self.instance().protocol.session.is_live(Tick::now())
    }

    pub(crate) fn stats(&self) -> NearCacheStats {
        // Not of an inherited instance: counting the entries takes its lock.
        self.adopted_instance().protocol.stats(Tick::now())
    }

    pub(crate) fn on_invalidate(
        &self,
        hook: impl Fn(&Invalidation) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.registry.add(hook);
        self.start(self.adopted_instance())
    }

    pub(crate) async fn explain_name(&self, name: &str) -> Result<Diagnosis, Error> {
        explain_name(&self.client, name).await
    }

    /// From now on this near cache observes the writer over these connections. The writer holds a
    /// weak reference: it must not keep the near cache and its thread alive.
    pub(crate) fn tie_to(self: &Arc<Self>, writer: &Client<T>) {
        let this: Arc<dyn WriteObserver> = Arc::clone(self) as _;
        writer.observers.add(&Arc::downgrade(&this));
    }
}

/// True if the reader that asked ran out of time, which says nothing about a reader that has more.
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

/// The last known module instead of an error, if the error is an outage and `stale_if_error` is
/// set.
pub(super) fn last_known(instance: &Instance, path: &str, error: Error) -> Result<Found, Error> {
    if !error.is_unavailable() {
        return Err(error);
    }
    // That a module was absent says nothing about now: an outage must not become an absence.
    let module = instance.protocol.last_known(path, Tick::now()).flatten();
    module.map(Some).ok_or(error)
}

impl<T: SpawnListener> WriteObserver for Near<T> {
    /// Removes what an observed writer wrote, as the listener will when Redis announces it. A read
    /// that began before the write ended can't bring the old value back: the generation has moved.
    fn wrote(&self, paths: &[String]) {
        if self.rules.enforces(Rule::LocalWrite) {
            self.client.listings.void(Instant::now());
            let protocol = &self.adopted_instance().protocol;
            // Before the paths are invalidated, see `IndexDelta::add`.
            protocol.index_delta.add(paths, Tick::now());
            // The index, too: Redis announces its change on another connection, maybe after the
            // writer's return.
            for path in paths.iter().map(String::as_str).chain([INDEX_PATH]) {
                protocol.invalidate(path);
            }
        }
    }

    /// A warm-up or `clear` names no paths: everything may have changed.
    fn wrote_everything(&self) {
        if self.rules.enforces(Rule::LocalWrite) {
            self.client.listings.void(Instant::now());
            self.adopted_instance().protocol.flush();
        }
    }
}

impl<T: SpawnListener> Drop for Near<T> {
    fn drop(&mut self) {
        let instance = Arc::clone(self.instance());
        if instance.is_ours() {
            instance.stop();
        }
        if !self.first.is_ours() {
            // In a forked child. Dropping the inherited instance would take locks that threads may
            // hold which this process does not have, so it is leaked.
            mem::forget(Arc::clone(&self.first));
            // Our own instance hangs on the leaked one, and would be leaked with all its modules.
            if instance.is_ours() {
                instance.protocol.store.purge(u64::MAX);
            }
        }
    }
}
