//! What is stored, within its bounds.
//!
//! Reading takes no lock, so a forked child may read what it inherited, and a hit allocates
//! nothing. Hence many short lists behind `arc-swap`, each of which is copied to be changed. A
//! concurrent map such as papaya is faster, but its reclamation takes a process-wide lock when a
//! thread is born, which a child may inherit locked. The measurements: docs/design/near-cache.md.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::clock::Tick;
use super::value::{Cached, Read};
use crate::near::options::NearCacheOptions;

/// How many bytes one entry takes beside its strings. Measured under a million absent paths of 30
/// bytes, where it counts most.
const OVERHEAD: usize = 256;

/// Absent paths may take one part in so many of the bytes: names that are not ours are without end,
/// and must not evict modules.
const ABSENT_SHARE: usize = 8;

/// So many lists that each is short, because a change copies a whole list. Few in tests, where the
/// model makes a store for each game.
const LISTS: usize = if cfg!(test) { 8 } else { 1024 };

/// The key of an entry. A path and a name may be spelled alike (`b.py`), and are two entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Path(&'a str),
    Name(&'a str),
}

/// One stored value, and what decides whether it may be served.
pub(crate) struct Entry {
    /// The path, or the name that is not found.
    path: Arc<str>,
    pub(crate) cached: Cached,
    /// The request that brought it: its epoch decides whether the entry may be served, its number
    /// whether another answer is newer.
    pub(crate) read: Read,
    pub(crate) fetched: Tick,
    pub(crate) expires: Tick,
    /// Whether it was asked for since it came or was last considered for eviction: the flag of
    /// the CLOCK policy.
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

    /// Marks the entry as asked for. Writes only once between two sweeps: a write at each hit would
    /// make threads that read the same entry wait for each other's cache line.
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

/// Some of the entries, in the order of their keys' hashes, for a binary search.
type List = Vec<(u64, Arc<Entry>)>;

/// The entries, within their bounds.
pub(crate) struct Store {
    hasher: RandomState,
    lists: Box<[ArcSwap<List>]>,
    max_bytes: usize,
    max_absent: usize,
    max_absent_bytes: usize,
    books: Mutex<Books>,
}

/// The queues of all entries, by kind. Lists are changed only under the lock of these, so a reader
/// never sees half a change and two writers never lose one.
#[derive(Default)]
struct Books {
    modules: Queue,
    /// Absent paths, and names that are not found.
    absent: Queue,
    /// Never evicted: every name would have to be asked for again.
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

    /// Looks at the entry of a key. `look` runs on the entry itself: no clone, and no lock.
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

    /// Stores an entry and evicts as many others as the bounds demand; returns how many. One that
    /// is larger than half of all is not stored, and replaces an older one by nothing.
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

    /// Whether a value of that size fits without an eviction.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + OVERHEAD + bytes <= self.max_bytes
    }

    /// Whether a value of that size can be stored at all.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        OVERHEAD + bytes <= self.max_bytes / 2
    }

    /// Removes the entry of a path. A negative answer for a name that is spelled so stays: it has
    /// its own evidence.
    pub(crate) fn remove(&self, path: &str) -> bool {
        self.replace(&mut self.lock(), Key::Path(path), None)
    }

    /// Removes all entries of an earlier epoch. They can't be served any more; this frees their
    /// memory.
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

    /// The hash of a key and the list that it belongs to.
    fn locate(&self, key: Key<'_>) -> (u64, &ArcSwap<List>) {
        let (Key::Path(text) | Key::Name(text)) = key;
        let hash = self.hasher.hash_one(text);
        #[allow(clippy::cast_possible_truncation, reason = "the lowest bits count")]
        let list = hash as usize % LISTS;
        (hash, &self.lists[list])
    }

    /// Replaces the entry of a key by a new one, or by none. True if there was one.
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

    /// Evicts until all bounds hold; returns how many entries that took.
    fn trim(&self, books: &mut Books) -> usize {
        let mut evicted = 0;
        while let Some(entry) = self.next_to_go(books) {
            self.replace(books, entry.key(), None);
            evicted += 1;
        }
        evicted
    }

    /// The entry that the bounds demand to evict next, if any. Absent paths pay for absent paths
    /// first, so that names which are not ours never push out a module.
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

/// Where the key is in the list, or else where it would be. Hashes may collide, so keys are
/// compared among those of the same hash.
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
    /// Adds an entry at the end. Its turn is written into the entry, so that it is found without a
    /// search when it goes.
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

    /// The first entry that was not asked for. Those before it were, and go to the end of the queue
    /// as a second chance: CLOCK.
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

/// Whether other entries may be evicted for what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes: a caller asked for it.
    Make,
    /// No: it was loaded in advance, and what is stored already has been asked for.
    Find,
}
