//! The protocol that keeps the copy right: who may insert what, and what each message of Redis
//! removes.
//!
//! It does no IO, looks at no clock and starts no thread; time and messages are given to it. Every
//! method is one step, and steps of several threads may come in any order. A stripe's lock is held
//! for a step at most, and only the store's own lock is ever taken under it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use super::announced::{Announcements, RELIST};
use super::clock::Tick;
use super::counters::{Counters, NearCacheStats};
use super::kept::{Found, INDEX_PATH, Kept};
use super::options::NearCacheOptions;
use super::promise::Promise;
use super::rule::{Rule, Rules};
use super::session::Session;
use super::store::{Entry, Key, Store};
use crate::Error;
use crate::identity::ServerId;
use crate::resolution::PathIndex;

const STRIPES: usize = 256;

pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    pub(crate) session: Session,
    pub(crate) counters: Counters,
    pub(crate) announcements: Announcements,
    options: NearCacheOptions,
    pub(super) store: Store,
    hasher: RandomState,
    stripes: Box<[Mutex<Stripe>]>,
    /// For each stripe, how often one of its paths changed. Only moved under its lock.
    pub(super) generations: Box<[AtomicU64]>,
}

/// A share of the paths: the reads under way that others can join.
type Stripe = HashMap<Arc<str>, Arc<Flight>, RandomState>;

/// One read for all who want to know the same.
pub(crate) struct Flight {
    epoch: u64,
    pub(crate) landing: Promise<Landing>,
}

/// How a flight ended.
#[derive(Clone)]
pub(crate) enum Landing {
    Answered(Arc<Result<Kept, Error>>),
    /// Whoever made it has gone: one of those who wait is to take over.
    Abandoned,
}

/// What a read finds at first.
pub(crate) enum Lookup<'p> {
    /// It is kept.
    Hit(Kept),
    /// Somebody has asked.
    Joined(Arc<Flight>),
    /// Ask, then land the flight.
    Miss(Ticket<'p>),
    /// Ask; the answer can't be kept.
    Bypass,
}

/// Of whoever asks for all: if it is dropped, another one takes over.
pub(crate) struct Ticket<'p> {
    protocol: &'p Protocol,
    path: Arc<str>,
    flight: Arc<Flight>,
}

/// Taken before a read of many paths, so that what changes meanwhile is known.
#[derive(Debug)]
pub(crate) struct Marks {
    epoch: u64,
    generations: Box<[u64]>,
}

impl Protocol {
    pub(crate) fn new(options: NearCacheOptions, rules: Rules) -> Self {
        Self {
            rules,
            session: Session::new(options.staleness_bound, rules),
            counters: Counters::default(),
            announcements: Announcements::default(),
            store: Store::new(&options),
            options,
            hasher: RandomState::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            generations: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The hot path: a module, or that there is none, if that is kept and may be served.
    pub(crate) fn hit(&self, path: &str, now: Tick) -> Option<Found> {
        self.store.read(Key::Path(path), |entry| {
            if !self.is_valid(entry, now) {
                return None;
            }
            entry.visit();
            match &entry.kept {
                Kept::Module(module) => {
                    self.counters.module_hits.add_one();
                    Some(Some(Arc::clone(module)))
                }
                Kept::Absent => {
                    self.counters.absent_hits.add_one();
                    Some(None)
                }
                Kept::Index(..) | Kept::Foreign(_) => None,
            }
        })
    }

    /// What is kept and may be served, without counting it.
    pub(crate) fn kept(&self, path: &str, now: Tick) -> Option<Kept> {
        self.store.read(Key::Path(path), |entry| {
            if !self.is_valid(entry, now) {
                return None;
            }
            entry.visit();
            Some(entry.kept.clone())
        })
    }

    pub(super) fn is_valid(&self, entry: &Entry, now: Tick) -> bool {
        now < entry.expires && self.session.covers(entry.epoch, now)
    }

    pub(crate) fn lookup(&self, path: &str, now: Tick) -> Lookup<'_> {
        let Some(epoch) = self.session.begin_read(now) else {
            return Lookup::Bypass;
        };
        let mut stripe = self.stripe(path);
        // A flight may have landed since the reader looked.
        if let Some(kept) = self.kept(path, now) {
            return Lookup::Hit(kept);
        }
        if let Some(flight) = stripe.get(path)
            && (flight.epoch == epoch || !self.rules.keep(Rule::JoinInSession))
        {
            return Lookup::Joined(Arc::clone(flight));
        }
        let path: Arc<str> = path.into();
        let flight = Arc::new(Flight {
            epoch,
            landing: Promise::new(),
        });
        stripe.insert(Arc::clone(&path), Arc::clone(&flight));
        Lookup::Miss(Ticket {
            protocol: self,
            path,
            flight,
        })
    }

    /// To be taken before paths are read; `None` if the answers can't be kept.
    pub(crate) fn marks(&self, now: Tick) -> Option<Marks> {
        let epoch = self.session.begin_read(now)?;
        let generations = self.generations.iter().map(|now| now.load(SeqCst));
        Some(Marks {
            epoch,
            generations: generations.collect(),
        })
    }

    /// Brings the marks up to date; tells for a path whether something was announced since that
    /// may concern it. `None` if the session is another one.
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

    /// Keeps what was read after the marks were taken.
    pub(crate) fn insert_marked(
        &self,
        path: &str,
        kept: Kept,
        marks: &Marks,
        server: Option<ServerId>,
        now: Tick,
    ) {
        let index = self.index(path);
        let _stripe = lock(&self.stripes[index]);
        let unmoved = self.generations[index].load(SeqCst) == marks.generations[index];
        if (unmoved || !self.rules.keep(Rule::Generation)) && self.accepts(marks, server) {
            self.keep(&path.into(), kept, marks.epoch, now);
        } else {
            self.counters.rejected.add(1);
        }
    }

    /// Whether something can be kept and nothing be given up for it.
    pub(crate) fn has_room(&self, path: &str, kept: &Kept) -> bool {
        self.store.has_room(path.len() + kept.bytes())
    }

    /// Whether an index of that size can be kept.
    pub(crate) fn admits(&self, index: &PathIndex) -> bool {
        self.store.admits(INDEX_PATH.len() + index.bytes())
    }

    fn keep(&self, path: &Arc<str>, kept: Kept, epoch: u64, now: Tick) {
        let expires = now.plus(self.options.max_age);
        // It may have been brought up to date, and is as old as its listing.
        let expires = match &kept {
            Kept::Index(_, listed) => expires.min(listed.plus(RELIST)),
            _ => expires,
        };
        let entry = Entry::new(path, kept, epoch, now, expires);
        let evicted = self.store.insert(entry);
        self.counters.evictions.add(evicted);
        // A flush between the two has not found it, and it is not to be known in an outage.
        if self.session.epoch() != epoch {
            self.store.remove(path);
        }
    }

    /// What was last known, while Redis can't be asked: if that is wanted, and it was known to be
    /// current not too long ago.
    pub(crate) fn last_known(&self, path: &str, now: Tick) -> Option<Found> {
        let max_age = self.options.stale_if_error?;
        let found = self.store.read(Key::Path(path), |entry| {
            let known = self.session.known_until(entry.epoch);
            let known = known.map_or(entry.fetched, |known| {
                known.min(entry.expires).max(entry.fetched)
            });
            match &entry.kept {
                Kept::Module(_) | Kept::Absent if now.since(known) <= max_age => {
                    Some(entry.kept.clone().into_module())
                }
                _ => None,
            }
        })?;
        if found.is_some() {
            self.counters.stale_served.add(1);
        }
        Some(found)
    }

    /// Redis announced that these changed, or a tied writer changed them.
    pub(crate) fn invalidate(&self, path: &str) {
        let index = self.index(path);
        let mut stripe = lock(&self.stripes[index]);
        self.generations[index].fetch_add(1, SeqCst);
        if self.rules.keep(Rule::Remove) {
            self.store.remove(path);
        }
        if self.rules.keep(Rule::Detach) {
            stripe.remove(path);
        }
    }

    /// Everything may have changed.
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

    pub(super) fn index(&self, path: &str) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let hash = self.hasher.hash_one(path) as usize;
        hash % STRIPES
    }

    fn stripe(&self, path: &str) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[self.index(path)])
    }

    fn is_attached(&self, stripe: &Stripe, ticket: &Ticket<'_>) -> bool {
        let attached = stripe.get(&ticket.path);
        attached.is_some_and(|flight| {
            Arc::ptr_eq(flight, &ticket.flight) || !self.rules.keep(Rule::UniqueFlight)
        })
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ticket<'_> {
    #[cfg(test)]
    pub(crate) fn is_of(&self, flight: &Arc<Flight>) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }

    /// Gives the answer to all who wait for it, and keeps it if nothing changed meanwhile.
    pub(crate) fn land(self, answer: Result<(Kept, Option<ServerId>), Error>, now: Tick) {
        let answer = answer.map(|(kept, server)| {
            let mut stripe = self.protocol.stripe(&self.path);
            if self.protocol.is_attached(&stripe, &self) {
                stripe.remove(&self.path);
                if self.protocol.session.accepts(self.flight.epoch, server) {
                    let epoch = self.flight.epoch;
                    self.protocol.keep(&self.path, kept.clone(), epoch, now);
                    return kept;
                }
            }
            self.protocol.counters.rejected.add(1);
            kept
        });
        // Before it is dropped: the first value counts.
        self.flight
            .landing
            .keep(Landing::Answered(Arc::new(answer)));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut stripe = self.protocol.stripe(&self.path);
        if self.protocol.is_attached(&stripe, self) {
            stripe.remove(&self.path);
        }
        drop(stripe);
        self.flight.landing.keep(Landing::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::thread;

    fn joined(protocol: &Protocol) -> Arc<Flight> {
        match protocol.lookup("a.py", Tick::now()) {
            Lookup::Joined(flight) => flight,
            _ => panic!("somebody asks already"),
        }
    }

    fn asking(protocol: &Protocol) -> Ticket<'_> {
        match protocol.lookup("a.py", Tick::now()) {
            Lookup::Miss(ticket) => ticket,
            _ => panic!("nobody asks"),
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
        // The first of those who wait asks, the others wait for that one.
        let ticket = asking(&protocol);
        let flight = joined(&protocol);
        ticket.land(Ok((Kept::Absent, Some(server))), Tick::now());
        let mut waiting = pin!(flight.landing.wait());
        let landing = waiting.as_mut().poll(&mut context);
        assert!(matches!(landing, Poll::Ready(Landing::Answered(_))));
        assert_eq!(protocol.hit("a.py", Tick::now()), Some(None));
    }
}
