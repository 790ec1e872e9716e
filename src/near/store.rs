//! What is kept, within its bounds. Reading takes no lock.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use papaya::{Guard, HashMap, HashMapRef, LocalGuard};

use super::clock::Tick;
use super::kept::Kept;
use super::options::NearCacheOptions;

/// What keeping one thing takes beside its strings. Measured under a million absent paths of 30
/// bytes, where it counts most: 135 bytes in small pieces, 27 in the queue, 18 to 36 in the map,
/// which is between a quarter and half full, as much again while that is tidied up, and a tenth
/// for the gaps that the allocator leaves.
const OVERHEAD: usize = 256;

/// The share of the bytes that absent paths may take.
const ABSENT_SHARE: usize = 8;

/// Something kept.
pub(crate) struct Entry {
    pub(crate) kept: Kept,
    /// The session in which it was asked for.
    pub(crate) epoch: u64,
    pub(crate) fetched: Tick,
    pub(crate) expires: Tick,
    /// Asked for since it came or was last considered for eviction.
    visited: AtomicBool,
    cost: usize,
    /// Tells it from what was kept under the same path before and after.
    id: u64,
}

impl Entry {
    pub(crate) fn new(kept: Kept, epoch: u64, fetched: Tick, expires: Tick) -> Self {
        Self {
            kept,
            epoch,
            fetched,
            expires,
            visited: AtomicBool::new(false),
            cost: 0,
            id: 0,
        }
    }

    /// Threads that hit the same entry must not write to it each time.
    pub(crate) fn visit(&self) {
        if !self.visited.load(Relaxed) {
            self.visited.store(true, Relaxed);
        }
    }
}

pub(crate) struct View<'s>(HashMapRef<'s, Arc<str>, Entry, RandomState, LocalGuard<'s>>);

impl View<'_> {
    pub(crate) fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }
}

pub(crate) struct Store {
    map: HashMap<Arc<str>, Entry, RandomState>,
    max_bytes: usize,
    max_absent: usize,
    max_absent_bytes: usize,
    bytes: AtomicUsize,
    absent_bytes: AtomicUsize,
    modules: AtomicUsize,
    absent: AtomicUsize,
    next_id: AtomicU64,
    queues: Mutex<Queues>,
}

/// In the order of their coming, or of their second chance. What was removed meanwhile is still
/// named here, until it is met or there is too much of it.
#[derive(Default)]
struct Queues {
    modules: Queue,
    absent: Queue,
}

type Queue = VecDeque<(Arc<str>, u64)>;

impl Store {
    pub(crate) fn new(options: &NearCacheOptions) -> Self {
        // What is removed is to be freed at once, not with the next thirty.
        let collector = seize::Collector::new().batch_size(1);
        Self {
            map: HashMap::builder()
                .hasher(RandomState::default())
                .collector(collector)
                .build(),
            max_bytes: options.max_bytes,
            max_absent: options.max_absent_paths,
            max_absent_bytes: options.max_bytes / ABSENT_SHARE,
            bytes: AtomicUsize::new(0),
            absent_bytes: AtomicUsize::new(0),
            modules: AtomicUsize::new(0),
            absent: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            queues: Mutex::default(),
        }
    }

    /// What is kept, to look at several things.
    pub(crate) fn view(&self) -> View<'_> {
        View(self.map.pin())
    }

    /// Looks at what is kept.
    pub(crate) fn read<R>(&self, path: &str, look: impl FnOnce(&Entry) -> Option<R>) -> Option<R> {
        look(self.map.pin().get(path)?)
    }

    /// Keeps something, unless it is too large, and gives up as much else as the bounds demand:
    /// how many that were.
    pub(crate) fn insert(&self, path: &Arc<str>, mut entry: Entry) -> usize {
        entry.cost = OVERHEAD + path.len() + entry.kept.bytes();
        entry.id = self.next_id.fetch_add(1, Relaxed);
        let guard = self.map.guard();
        if entry.cost > self.max_bytes / 2 {
            self.remove(path);
            return 0;
        }
        let id = entry.id;
        let is_absent = matches!(entry.kept, Kept::Absent | Kept::Foreign(_));
        let is_module = matches!(entry.kept, Kept::Module(_));
        self.hold(&entry);
        if let Some(old) = self.map.insert(Arc::clone(path), entry, &guard) {
            self.release(old);
        }
        let mut queues = self.lock();
        if is_absent {
            push(&mut queues.absent, path, id);
        } else if is_module {
            push(&mut queues.modules, path, id);
        }
        self.trim(&mut queues, &guard)
    }

    /// Whether something of that size finds a place without anything being given up for it.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + OVERHEAD + bytes <= self.max_bytes
    }

    pub(crate) fn remove(&self, path: &str) -> bool {
        let guard = self.map.guard();
        let removed = self.map.remove(path, &guard);
        removed.inspect(|entry| self.release(entry)).is_some()
    }

    /// Gives up all that is of an earlier session.
    pub(crate) fn purge(&self, epoch: u64) {
        let guard = self.map.guard();
        for (path, entry) in self.map.iter(&guard) {
            if entry.epoch < epoch {
                self.remove_this(path, entry.id, &guard);
            }
        }
        self.lock().compact(self, &guard);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn modules(&self) -> usize {
        self.modules.load(Relaxed)
    }

    pub(crate) fn absent(&self) -> usize {
        self.absent.load(Relaxed)
    }

    fn remove_this(&self, path: &str, id: u64, guard: &impl Guard) -> bool {
        let same = |_: &Arc<str>, entry: &Entry| entry.id == id;
        match self.map.remove_if(path, same, guard) {
            Ok(Some((_, entry))) => {
                self.release(entry);
                true
            }
            _ => false,
        }
    }

    fn hold(&self, entry: &Entry) {
        self.bytes.fetch_add(entry.cost, Relaxed);
        match entry.kept {
            Kept::Module(_) => _ = self.modules.fetch_add(1, Relaxed),
            Kept::Absent | Kept::Foreign(_) => {
                self.absent.fetch_add(1, Relaxed);
                self.absent_bytes.fetch_add(entry.cost, Relaxed);
            }
            Kept::Index(_) => {}
        }
    }

    fn release(&self, entry: &Entry) {
        self.bytes.fetch_sub(entry.cost, Relaxed);
        match entry.kept {
            Kept::Module(_) => _ = self.modules.fetch_sub(1, Relaxed),
            Kept::Absent | Kept::Foreign(_) => {
                self.absent.fetch_sub(1, Relaxed);
                self.absent_bytes.fetch_sub(entry.cost, Relaxed);
            }
            Kept::Index(_) => {}
        }
    }

    fn trim(&self, queues: &mut Queues, guard: &impl Guard) -> usize {
        let mut evicted = 0;
        while self.absent() > self.max_absent
            || self.absent_bytes.load(Relaxed) > self.max_absent_bytes
        {
            if !self.evict(&mut queues.absent, guard) {
                break;
            }
            evicted += 1;
        }
        while self.bytes() > self.max_bytes {
            if !self.evict(&mut queues.modules, guard) && !self.evict(&mut queues.absent, guard) {
                break;
            }
            evicted += 1;
        }
        if queues.modules.len() > 2 * self.modules() + SLACK
            || queues.absent.len() > 2 * self.absent() + SLACK
        {
            queues.compact(self, guard);
        }
        evicted
    }

    /// Gives up the first that was not visited. False if there is nothing.
    fn evict(&self, queue: &mut Queue, guard: &impl Guard) -> bool {
        while let Some((path, id)) = queue.pop_front() {
            let Some(entry) = self.map.get(&path, guard).filter(|entry| entry.id == id) else {
                continue;
            };
            if entry.visited.swap(false, Relaxed) {
                queue.push_back((path, id));
            } else if self.remove_this(&path, id, guard) {
                return true;
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many names of what has gone are borne with.
const SLACK: usize = 1024;

/// Adds a name. A queue that doubled when it is full would be half empty.
fn push(queue: &mut Queue, path: &Arc<str>, id: u64) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(spare(queue.len()));
    }
    queue.push_back((Arc::clone(path), id));
}

fn spare(names: usize) -> usize {
    64 + names / 8
}

impl Queues {
    fn compact(&mut self, store: &Store, guard: &impl Guard) {
        for queue in [&mut self.modules, &mut self.absent] {
            queue.retain(|(path, id)| {
                let entry = store.map.get(path, guard);
                entry.is_some_and(|entry| entry.id == *id)
            });
            queue.shrink_to(queue.len() + spare(queue.len()));
        }
    }
}

/// What a set of paths takes.
pub(crate) fn set_bytes<'a>(paths: impl ExactSizeIterator<Item = &'a String>) -> usize {
    let slots = paths.len() * 2 * (size_of::<String>() + 1);
    slots + paths.map(|path| path.len() + 16).sum::<usize>()
}
