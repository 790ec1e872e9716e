//! The protocol that keeps the copy right: which answer may be stored, and what each message of
//! Redis removes. Its rules and the reason for each: docs/design/near-cache.md.
//!
//! It does no IO, looks at no clock and starts no thread; time and messages are given to it. Every
//! method is one step, and steps of several threads may come in any order. A stripe's lock is held
//! for a step at most, and only the store's own lock is ever taken under it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::clock::Tick;
use super::counters::{Counters, NearCacheStats};
use super::index_delta::{IndexDelta, RELIST};
use super::promise::Promise;
use super::rule::{Rule, Rules};
use super::session::Session;
use super::store::{Entry, Key, Room, Store};
use super::value::{Cached, Found, INDEX_PATH, Read};
use crate::command::server_id::ServerId;
use crate::error::Error;
use crate::near::options::NearCacheOptions;
use crate::paths::index::PathIndex;

/// More stripes mean fewer paths that are taken for changed because a neighbour changed, and more
/// generations to copy before each bulk read.
const STRIPES: usize = 256;

/// The state of one near cache: session, entries, flights and generations.
pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    pub(crate) session: Session,
    pub(crate) counters: Counters,
    pub(crate) index_delta: IndexDelta,
    options: NearCacheOptions,
    pub(in crate::near) store: Store,
    hasher: RandomState,
    /// How many reads were begun.
    reads: AtomicU64,
    stripes: Box<[Mutex<Stripe>]>,
    /// For each stripe, how often one of its paths changed. Increased under the stripe's lock only,
    /// so an insert that has the lock and finds the old generation can't be overtaken.
    pub(super) generations: Box<[AtomicU64]>,
}

/// A share of the paths: the reads under way that others can join.
type Stripe = HashMap<Arc<str>, Arc<Flight>, RandomState>;

/// Which server answered which request, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) read: Read,
    pub(crate) server: Option<ServerId>,
    pub(crate) at: Tick,
}

/// What an answer is worth when it arrives.
#[derive(Clone, Copy)]
enum Worth {
    /// It may be served until a change is announced.
    Current,
    /// A change may have been missed since.
    Uncertain,
    /// A change was announced since.
    Outdated,
}

/// One read on behalf of all readers that miss the same path: they cost one GET together.
pub(crate) struct Flight {
    read: Read,
    pub(crate) landing: Promise<Landing>,
}

/// How a flight ended.
#[derive(Clone)]
pub(crate) enum Landing {
    Answered(Arc<Result<Cached, Error>>),
    /// The reader that sent the request was cancelled or panicked: one of its waiters is to ask.
    Abandoned,
}

/// What a read finds at first.
pub(crate) enum Lookup<'p> {
    /// The value is stored.
    Hit(Cached),
    /// Another reader has asked: wait for its flight to land.
    Joined(Arc<Flight>),
    /// Ask, then land the flight.
    Miss(Ticket<'p>),
    /// Ask; the answer can't be stored, because Redis is not followed.
    Bypass,
}

/// Held by the one reader that asks for all waiters. Dropped without an answer (the reader was
/// cancelled, or panicked), it lets a waiter ask instead.
pub(crate) struct Ticket<'p> {
    protocol: &'p Protocol,
    path: Arc<str>,
    flight: Arc<Flight>,
}

/// The generations before a read of many paths. A flight for each of them would be dear; these tell
/// afterwards which stripes changed meanwhile.
#[derive(Debug)]
pub(crate) struct Marks {
    epoch: u64,
    is_live: bool,
    generations: Box<[u64]>,
}

impl Protocol {
    pub(crate) fn new(options: NearCacheOptions, rules: Rules) -> Self {
        Self {
            rules,
            session: Session::new(options.staleness_bound, rules),
            counters: Counters::default(),
            index_delta: IndexDelta::default(),
            store: Store::new(&options),
            options,
            hasher: RandomState::default(),
            reads: AtomicU64::new(0),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            generations: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The hot path: a module, or that there is none, if that is cached and may be served.
    pub(crate) fn hit(&self, path: &str, now: Tick) -> Option<Found> {
        self.store.read(Key::Path(path), |entry| {
            if !self.is_valid(entry, now) {
                return None;
            }
            entry.visit();
            match &entry.cached {
                Cached::Module(module) => {
                    self.counters.module_hits.add_one();
                    Some(Some(Arc::clone(module)))
                }
                Cached::Absent => {
                    self.counters.absent_hits.add_one();
                    Some(None)
                }
                Cached::Index(..) | Cached::Negative(_) => None,
            }
        })
    }

    /// What is stored and may be served, without counting it as a hit.
    pub(crate) fn cached(&self, path: &str, now: Tick) -> Option<Cached> {
        self.store.read(Key::Path(path), |entry| {
            if !self.is_valid(entry, now) {
                return None;
            }
            entry.visit();
            Some(entry.cached.clone())
        })
    }

    /// Whether an entry may be served: of the running session, under the lease, and below its own
    /// age. The age is the backstop for changes that Redis never announces, such as SWAPDB.
    pub(super) fn is_valid(&self, entry: &Entry, now: Tick) -> bool {
        now < entry.expires && self.session.covers(entry.read.epoch, now)
    }

    /// A read that was no hit: joins the flight of another reader, or opens one. The flight is
    /// attached before the GET is sent, so that a change between the two detaches it.
    pub(crate) fn lookup(&self, path: &str, now: Tick) -> Lookup<'_> {
        let Some(epoch) = self.session.begin_read(now) else {
            return Lookup::Bypass;
        };
        let mut stripe = self.stripe(path);
        // A flight may have landed between the reader's hit, which took no lock, and this lock.
        if let Some(cached) = self.cached(path, now) {
            return Lookup::Hit(cached);
        }
        if let Some(flight) = stripe.get(path)
            && (flight.read.epoch == epoch || !self.rules.enforces(Rule::JoinInSession))
        {
            return Lookup::Joined(Arc::clone(flight));
        }
        let path: Arc<str> = path.into();
        let flight = Arc::new(Flight {
            read: self.begin_read(epoch),
            landing: Promise::new(),
        });
        stripe.insert(Arc::clone(&path), Arc::clone(&flight));
        Lookup::Miss(Ticket {
            protocol: self,
            path,
            flight,
        })
    }

    /// The generations of now. To be taken before paths are read: a change after this is noticed.
    pub(crate) fn marks(&self, now: Tick) -> Marks {
        // The epoch before the lease, as in `Session::begin_read`, and both before the generations.
        let epoch = self.session.epoch();
        let is_live = self.session.begin_read(now) == Some(epoch);
        let generations = self.generations.iter().map(|now| now.load(SeqCst));
        Marks {
            epoch,
            is_live,
            generations: generations.collect(),
        }
    }

    /// Numbers a request. To be called before each one that is sent after the marks were taken.
    pub(crate) fn begin_marked(&self, marks: &Marks) -> Read {
        self.begin_read(marks.epoch)
    }

    /// Numbers a request. Of two answers, the one that was asked for later is no older.
    fn begin_read(&self, epoch: u64) -> Read {
        let number = 1 + self.reads.fetch_add(1, SeqCst);
        Read { epoch, number }
    }

    /// Brings the marks up to date, and returns a function that tells of a path whether its stripe
    /// moved since. `None` if the session has changed: then anything may have.
    pub(crate) fn moved<'a>(
        &'a self,
        marks: &mut Marks,
    ) -> Option<impl Fn(&str) -> bool + use<'a>> {
        let generations = self.generations.iter().zip(&mut marks.generations);
        let moved: Vec<bool> = generations
            .map(|(now, mark)| {
                let generation = now.load(SeqCst);
                std::mem::replace(mark, generation) != generation
            })
            .collect();
        (marks.epoch == self.session.epoch()).then_some(move |path: &str| moved[self.index(path)])
    }

    /// Whether an answer of that server, asked for after the marks were taken, is of their session.
    pub(crate) fn accepts(&self, marks: &Marks, server: Option<ServerId>) -> bool {
        self.session.accepts(marks.epoch, server)
    }

    /// Stores what was read after the marks were taken, if it may be stored.
    pub(crate) fn insert_marked(
        &self,
        path: &str,
        cached: Cached,
        marks: &Marks,
        answer: &Answer,
        room: Room,
    ) {
        let has_room = room == Room::Make || self.has_room(path, &cached);
        let index = self.index(path);
        let _stripe = lock(&self.stripes[index]);
        let unmoved = self.generations[index].load(SeqCst) == marks.generations[index]
            || !self.rules.enforces(Rule::Generation);
        let worth = if !unmoved || !has_room {
            Worth::Outdated
        } else if marks.is_live && self.accepts(marks, answer.server) {
            Worth::Current
        } else {
            Worth::Uncertain
        };
        let is_stored = self.admit(&path.into(), cached, answer.read, worth, answer.at);
        if !is_stored && has_room && marks.is_live {
            self.counters.rejected.add(1);
        }
    }

    /// Whether a value can be stored without evicting another one.
    pub(crate) fn has_room(&self, path: &str, cached: &Cached) -> bool {
        self.store.has_room(path.len() + cached.bytes())
    }

    /// Whether an index of that size can be stored at all.
    pub(crate) fn admits(&self, index: &PathIndex) -> bool {
        self.store.admits(INDEX_PATH.len() + index.bytes())
    }

    /// Stores an answer, if it may be; the caller holds the lock of its stripe. True if it may be
    /// served from now on.
    ///
    /// An answer that may not still knows more than what was stored before it was asked for. So it
    /// replaces or removes that: otherwise `stale_if_error` would serve it in an outage.
    fn admit(&self, path: &Arc<str>, cached: Cached, read: Read, worth: Worth, now: Tick) -> bool {
        let number = |entry: &Entry| Some(entry.read.number);
        let known = self.store.read(Key::Path(path), number);
        if known > Some(read.number) {
            // What is stored was asked for later than this answer, so it is no older.
            return false;
        }
        let is_for_outages = self.options.stale_if_error.is_some() && !cached.is_index();
        match worth {
            Worth::Current => {
                self.insert(path, cached, read, read.epoch, now);
                return true;
            }
            _ if !self.rules.enforces(Rule::Learn) => {}
            // Stored under epoch 0, which is no session's: never a hit, only for an outage.
            Worth::Uncertain if is_for_outages => self.insert(path, cached, read, 0, now),
            _ if known.is_some() => _ = self.store.remove(path),
            _ => {}
        }
        false
    }

    /// Stores an answer under an epoch: that of its session, or 0 for outages only.
    fn insert(&self, path: &Arc<str>, cached: Cached, read: Read, epoch: u64, now: Tick) {
        let expires = now.plus(self.options.max_age);
        // An index that was brought up to date path by path is still as old as its last listing.
        let expires = match &cached {
            Cached::Index(_, listed) => expires.min(listed.plus(RELIST)),
            _ => expires,
        };
        let entry = Entry::new(path, cached, Read { epoch, ..read }, now, expires);
        let evicted = self.store.insert(entry);
        self.counters.evictions.add(evicted);
        // A flush after the check and before the insert did not find this entry. Its epoch keeps it
        // from being a hit; it must not be served in an outage either.
        if self.session.epoch() != read.epoch {
            self.store.remove(path);
        }
    }

    /// What was last known, for a caller that can't ask Redis: if `stale_if_error` is set, and the
    /// value was known to be current no longer ago than that.
    pub(crate) fn last_known(&self, path: &str, now: Tick) -> Option<Found> {
        let max_age = self.options.stale_if_error?;
        let found = self.store.read(Key::Path(path), |entry| {
            let known = self.session.known_until(entry.read.epoch);
            let known = known.map_or(entry.fetched, |known| {
                known.min(entry.expires).max(entry.fetched)
            });
            match &entry.cached {
                Cached::Module(_) | Cached::Absent if now.since(known) <= max_age => {
                    Some(entry.cached.clone().into_module())
                }
                _ => None,
            }
        })?;
        if found.is_some() {
            self.counters.stale_served.add(1);
        }
        Some(found)
    }

    /// Redis announced that this path changed, or a writer that this near cache observes changed
    /// it.
    pub(crate) fn invalidate(&self, path: &str) {
        let index = self.index(path);
        let mut stripe = lock(&self.stripes[index]);
        if self.rules.enforces(Rule::Remove) {
            self.store.remove(path);
        }
        // The generation moves after the entry is removed, never before. A snapshot takes no lock:
        // if it saw the new generation and then the old entry, it would take that for unchanged.
        self.generations[index].fetch_add(1, SeqCst);
        if self.rules.enforces(Rule::Detach) {
            // The read under way may have been answered before the change. Its own reader may be
            // told so, having asked before; a reader that asks from now on must not be.
            stripe.remove(path);
        }
    }

    /// Everything may have changed: a new epoch voids all entries at once. Purging them afterwards
    /// only frees the memory.
    pub(crate) fn flush(&self) {
        self.counters.flushes.add(1);
        self.session.flush();
        self.store.purge(self.session.epoch());
    }

    /// Redis has confirmed that it announces changes: see [`Session::begin`].
    pub(crate) fn begin(&self, server: ServerId, sent: Tick) {
        self.session.begin(server, sent);
        self.counters.sessions.add(1);
    }

    /// Redis is not followed any more, or could not be. True if it was.
    pub(crate) fn end(&self, why: &Error) -> bool {
        let was_live = self.session.end(why);
        // Otherwise the entries stay, unserved, for an outage.
        if self.options.stale_if_error.is_none() {
            self.store.purge(self.session.epoch() + 1);
        }
        was_live
    }

    pub(crate) fn stats(&self, now: Tick) -> NearCacheStats {
        let counters = &self.counters;
        let absent_hits = counters.absent_hits.get();
        NearCacheStats {
            hits: counters.module_hits.get() + absent_hits,
            absent_hits,
            misses: counters.misses.get(),
            joined: counters.joined.get(),
            bypasses: counters.bypasses.get(),
            rejected_inserts: counters.rejected.get(),
            stale_served: counters.stale_served.get(),
            invalidations: counters.invalidations.get(),
            flushes: counters.flushes.get(),
            evictions: counters.evictions.get(),
            modules: self.store.modules(),
            absent_paths: self.store.absent(),
            bytes: self.store.bytes(),
            live: self.session.is_live(now),
            since: self.session.since(),
            sessions: counters.sessions.get(),
            last_failure: self.session.last_failure(),
        }
    }

    /// The stripe of a path. Paths of one stripe share a generation: a change of one makes bulk
    /// answers for the others worthless, which costs a read and is never wrong.
    pub(super) fn index(&self, path: &str) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let hash = self.hasher.hash_one(path) as usize;
        hash % STRIPES
    }

    fn stripe(&self, path: &str) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[self.index(path)])
    }

    /// Whether this very flight is attached, not a later one for the same path: an overtaken answer
    /// must not land in its place.
    fn is_attached(&self, stripe: &Stripe, ticket: &Ticket<'_>) -> bool {
        let attached = stripe.get(&ticket.path);
        attached.is_some_and(|flight| {
            Arc::ptr_eq(flight, &ticket.flight) || !self.rules.enforces(Rule::UniqueFlight)
        })
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Marks {
    /// Whether Redis was followed.
    pub(crate) fn are_live(&self) -> bool {
        self.is_live
    }
}

impl Ticket<'_> {
    #[cfg(test)]
    pub(crate) fn is_of(&self, flight: &Arc<Flight>) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }

    /// Gives the answer to all waiters, and stores it if nothing changed meanwhile.
    pub(crate) fn land(self, answer: Result<(Cached, Option<ServerId>), Error>, now: Tick) {
        let answer = answer.map(|(cached, server)| {
            let (protocol, read) = (self.protocol, self.flight.read);
            let mut stripe = protocol.stripe(&self.path);
            let worth = if !protocol.is_attached(&stripe, &self) {
                Worth::Outdated
            } else if protocol.session.accepts(read.epoch, server) {
                Worth::Current
            } else {
                Worth::Uncertain
            };
            if !matches!(worth, Worth::Outdated) {
                stripe.remove(&self.path);
            }
            if !protocol.admit(&self.path, cached.clone(), read, worth, now) {
                protocol.counters.rejected.add(1);
            }
            cached
        });
        // Fulfilled before `self` is dropped, whose `Abandoned` then comes too late to count.
        self.flight
            .landing
            .fulfil(Landing::Answered(Arc::new(answer)));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut stripe = self.protocol.stripe(&self.path);
        if self.protocol.is_attached(&stripe, self) {
            stripe.remove(&self.path);
        }
        drop(stripe);
        self.flight.landing.fulfil(Landing::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::reply;
    use crate::error::Outage;
    use crate::module::CachedModule;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    fn joined(protocol: &Protocol) -> Arc<Flight> {
        match protocol.lookup("a.py", Tick::now()) {
            Lookup::Joined(flight) => flight,
            _ => panic!("there is no flight to join"),
        }
    }

    fn asking(protocol: &Protocol) -> Ticket<'_> {
        match protocol.lookup("a.py", Tick::now()) {
            Lookup::Miss(ticket) => ticket,
            _ => panic!("a flight is under way already"),
        }
    }

    #[test]
    fn when_the_one_who_asked_panics_one_of_those_who_wait_takes_over() {
        let protocol = Protocol::new(NearCacheOptions::default(), Rules::default());
        let server = ServerId::new(1);
        protocol.begin(server, Tick::now());
        let ticket = asking(&protocol);
        let flight = joined(&protocol);
        let mut waiting = pin!(flight.landing.wait());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        thread::scope(|scope| {
            let asking = scope.spawn(move || {
                let _ticket = ticket;
                panic!("on purpose");
            });
            asking.join().unwrap_err();
        });
        let landing = waiting.as_mut().poll(&mut context);
        assert!(matches!(landing, Poll::Ready(Landing::Abandoned)));
        // The first waiter asks, the others wait for its flight.
        let ticket = asking(&protocol);
        let flight = joined(&protocol);
        ticket.land(Ok((Cached::Absent, Some(server))), Tick::now());
        let mut waiting = pin!(flight.landing.wait());
        let landing = waiting.as_mut().poll(&mut context);
        assert!(matches!(landing, Poll::Ready(Landing::Answered(_))));
        assert_eq!(protocol.hit("a.py", Tick::now()), Some(None));
    }

    #[test]
    fn what_was_asked_for_later_is_not_covered_by_an_older_answer() {
        let protocol = Protocol::new(NearCacheOptions::default(), Rules::default());
        let (server, now) = (Some(ServerId::new(1)), Tick::now());
        protocol.begin(ServerId::new(1), now);
        let marks = protocol.marks(now);
        let [older, newer] = [1, 2].map(|_| Answer {
            read: protocol.begin_marked(&marks),
            server,
            at: now,
        });
        let module = CachedModule::new("a.py", "new").unwrap();
        let found = Cached::module(Some(module));
        let insert = |cached: &Cached, answer: &Answer| {
            protocol.insert_marked("a.py", cached.clone(), &marks, answer, Room::Make);
            protocol.hit("a.py", now).flatten().is_some()
        };
        assert!(insert(&found, &newer));
        // A write between the two is still to be announced.
        assert!(insert(&Cached::Absent, &older));
        assert_eq!(protocol.stats(now).rejected_inserts, 1);
        // The same request may have named the path twice.
        assert!(insert(&found, &newer));
        let ticket = {
            protocol.invalidate("a.py");
            asking(&protocol)
        };
        let marks = protocol.marks(now);
        let read = protocol.begin_marked(&marks);
        protocol.insert_marked(
            "a.py",
            found,
            &marks,
            &Answer {
                read,
                server,
                at: now,
            },
            Room::Make,
        );
        ticket.land(Ok((Cached::Absent, server)), now);
        assert!(protocol.hit("a.py", now).flatten().is_some());
    }

    #[test]
    fn what_a_flush_or_a_change_overtakes_is_not_known_in_an_outage() {
        let known = |overtake: fn(&Protocol)| {
            let options = NearCacheOptions::default().with_stale_if_error(Duration::from_secs(60));
            let protocol = Protocol::new(options, Rules::default());
            let now = Tick::now();
            protocol.begin(ServerId::new(1), now);
            let module =
                |content: &str| Cached::module(Some(CachedModule::new("a.py", content).unwrap()));
            let marks = protocol.marks(now);
            let [first, second] = [1, 2].map(|_| Answer {
                read: protocol.begin_marked(&marks),
                server: Some(ServerId::new(1)),
                at: now,
            });
            protocol.insert_marked("a.py", module("old"), &marks, &first, Room::Make);
            overtake(&protocol);
            protocol.insert_marked("a.py", module("new"), &marks, &second, Room::Make);
            let known = protocol.last_known("a.py", now).flatten();
            known.map(|module| module.content.clone())
        };
        assert_eq!(known(|_| {}).as_deref(), Some("new"));
        assert_eq!(known(Protocol::flush), None);
        assert_eq!(known(|protocol| protocol.invalidate("a.py")), None);
        assert_eq!(
            known(|protocol| _ = protocol.end(&reply::outage(Outage::Lost, None))).as_deref(),
            Some("new")
        );
    }
}
