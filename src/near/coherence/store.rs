//! What is cached, within its bounds. Reading takes no lock, so a forked child may read what it
//! inherited: there are many small lists, and each is copied to be changed.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::clock::Tick;
use super::value::{Cached, Read};
use crate::near::options::NearCacheOptions;

/// What keeping one thing takes beside its strings. Measured under a million absent paths of 30
/// bytes, where it counts most.
const OVERHEAD: usize = 256;

/// The share of the bytes that absent paths may take.
const ABSENT_SHARE: usize = 8;

/// So many lists that each is short: all of it is copied when something comes or goes. Few where
/// the model plays, which makes a store for each game.
const LISTS: usize = if cfg!(test) { 8 } else { 1024 };

/// Under what something is cached. A path and a name may be spelled alike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Path(&'a str),
    Name(&'a str),
}

/// Something cached.
pub(crate) struct Entry {
    /// The path, or the name that is not found.
    path: Arc<str>,
    pub(crate) cached: Cached,
    /// How it was asked for.
    pub(crate) read: Read,
    pub(crate) fetched: Tick,
    pub(crate) expires: Tick,
    /// Asked for since it came or was last considered for eviction.
    visited: AtomicBool,
    /// Its place in the queue.
    turn: AtomicU64,
    cost: usize,
}

impl Entry {
    pub(crate) fn new(
        path: &Arc<str>,
        cached: Cached,
        read: Read,
        fetched: Tick,
        expires: Tick,
    ) -> Self {
        Self {
            cost: OVERHEAD + path.len() + cached.bytes(),
            path: Arc::clone(path),
            cached,
            read,
            fetched,
            expires,
            visited: AtomicBool::new(false),
            turn: AtomicU64::new(0),
        }
    }

    /// Threads that hit the same entry must not write to it each time.
    pub(crate) fn visit(&self) {
        if !self.visited.load(Relaxed) {
            self.visited.store(true, Relaxed);
        }
    }

    fn key(&self) -> Key<'_> {
        match self.cached {
            Cached::Negative(_) => Key::Name(&self.path),
            Cached::Module(_) | Cached::Absent | Cached::Index(..) => Key::Path(&self.path),
        }
    }
}

/// Some of the entries, in the order of their keys' hashes.
type List = Vec<(u64, Arc<Entry>)>;

pub(crate) struct Store {
    hasher: RandomState,
    lists: Box<[ArcSwap<List>]>,
    max_bytes: usize,
    max_absent: usize,
    max_absent_bytes: usize,
    books: Mutex<Books>,
}

/// All that is cached, by what it is. Lists are changed under the lock of these.
#[derive(Default)]
struct Books {
    modules: Queue,
    /// Absent paths, and names that are not found.
    absent: Queue,
    /// Never given up for something else.
    index: Queue,
}

/// In the order of their coming, or of their second chance.
#[derive(Default)]
struct Queue {
    entries: BTreeMap<u64, Arc<Entry>>,
    turns: u64,
    bytes: usize,
}

impl Store {
    pub(crate) fn new(options: &NearCacheOptions) -> Self {
        Self {
            hasher: RandomState::default(),
            lists: (0..LISTS).map(|_| ArcSwap::default()).collect(),
            max_bytes: options.max_bytes,
            max_absent: options.max_absent_paths,
            max_absent_bytes: options.max_bytes / ABSENT_SHARE,
            books: Mutex::default(),
        }
    }

    /// Looks at what is cached.
    pub(crate) fn read<R>(
        &self,
        key: Key<'_>,
        look: impl FnOnce(&Entry) -> Option<R>,
    ) -> Option<R> {
        let (hash, list) = self.locate(key);
        let list = list.load();
        let place = search(&list, hash, key).ok()?;
        look(&list[place].1)
    }

    /// Keeps something, unless it is too large, and gives up as much else as the bounds demand:
    /// how many that were.
    pub(crate) fn insert(&self, entry: Entry) -> usize {
        let mut books = self.lock();
        if entry.cost > self.max_bytes / 2 {
            self.replace(&mut books, entry.key(), None);
            return 0;
        }
        let entry = Arc::new(entry);
        self.replace(&mut books, entry.key(), Some(&entry));
        books.queue(&entry).push(entry);
        self.trim(&mut books)
    }

    /// Whether something of that size finds a place without anything being given up for it.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + OVERHEAD + bytes <= self.max_bytes
    }

    /// Whether something of that size can be cached at all.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        OVERHEAD + bytes <= self.max_bytes / 2
    }

    pub(crate) fn remove(&self, path: &str) -> bool {
        self.replace(&mut self.lock(), Key::Path(path), None)
    }

    /// Gives up all that is of an earlier session.
    pub(crate) fn purge(&self, epoch: u64) {
        let mut books = self.lock();
        for list in &self.lists {
            let old = list.load();
            let is_old = |(_, entry): &&(u64, Arc<Entry>)| entry.read.epoch < epoch;
            if old.iter().any(|slot| is_old(&slot)) {
                let cached = old.iter().filter(|slot| !is_old(slot)).cloned();
                list.store(Arc::new(cached.collect()));
                old.iter()
                    .filter(is_old)
                    .for_each(|(_, entry)| books.queue(entry).remove(entry));
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    pub(crate) fn modules(&self) -> usize {
        self.lock().modules.entries.len()
    }

    pub(crate) fn absent(&self) -> usize {
        self.lock().absent.entries.len()
    }

    fn locate(&self, key: Key<'_>) -> (u64, &ArcSwap<List>) {
        let (Key::Path(text) | Key::Name(text)) = key;
        let hash = self.hasher.hash_one(text);
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let list = hash as usize % LISTS;
        (hash, &self.lists[list])
    }

    /// Puts something, or nothing, where something was cached or nothing: true if there was.
    fn replace(&self, books: &mut Books, key: Key<'_>, new: Option<&Arc<Entry>>) -> bool {
        let (hash, list) = self.locate(key);
        let old = list.load();
        let found = search(&old, hash, key);
        let (Ok(place) | Err(place)) = found;
        let rest = place + usize::from(found.is_ok());
        if found.is_ok() || new.is_some() {
            let mut copy =
                Vec::with_capacity(place + usize::from(new.is_some()) + old.len() - rest);
            copy.extend_from_slice(&old[..place]);
            copy.extend(new.map(|entry| (hash, Arc::clone(entry))));
            copy.extend_from_slice(&old[rest..]);
            list.store(Arc::new(copy));
        }
        old[place..rest]
            .iter()
            .for_each(|(_, entry)| books.queue(entry).remove(entry));
        found.is_ok()
    }

    fn trim(&self, books: &mut Books) -> usize {
        let mut evicted = 0;
        while let Some(entry) = self.next_to_go(books) {
            self.replace(books, entry.key(), None);
            evicted += 1;
        }
        evicted
    }

    /// What the bounds demand to be given up next.
    fn next_to_go(&self, books: &mut Books) -> Option<Arc<Entry>> {
        let absent = &books.absent;
        if absent.entries.len() > self.max_absent || absent.bytes > self.max_absent_bytes {
            books.absent.next()
        } else if books.bytes() > self.max_bytes {
            books.modules.next().or_else(|| books.absent.next())
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is, or else where it would be.
fn search(list: &List, hash: u64, key: Key<'_>) -> Result<usize, usize> {
    let first = list.partition_point(|(other, _)| *other < hash);
    let mut alike = list[first..].iter().take_while(|(other, _)| *other == hash);
    let place = alike.position(|(_, entry)| entry.key() == key);
    place.map(|place| first + place).ok_or(first)
}

impl Books {
    fn queue(&mut self, entry: &Entry) -> &mut Queue {
        match entry.cached {
            Cached::Module(_) => &mut self.modules,
            Cached::Absent | Cached::Negative(_) => &mut self.absent,
            Cached::Index(..) => &mut self.index,
        }
    }

    fn bytes(&self) -> usize {
        self.modules.bytes + self.absent.bytes + self.index.bytes
    }
}

impl Queue {
    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.cost;
        entry.turn.store(self.turns, Relaxed);
        self.entries.insert(self.turns, entry);
        self.turns += 1;
    }

    fn remove(&mut self, entry: &Entry) {
        if self.entries.remove(&entry.turn.load(Relaxed)).is_some() {
            self.bytes -= entry.cost;
        }
    }

    /// The first that was not asked for; those before it were, and have a second chance.
    fn next(&mut self) -> Option<Arc<Entry>> {
        loop {
            let entry = Arc::clone(self.entries.first_key_value()?.1);
            if !entry.visited.swap(false, Relaxed) {
                return Some(entry);
            }
            self.remove(&entry);
            self.push(entry);
        }
    }
}

/// Whether something may be given up for what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Make,
    Find,
}
