//! A hit of the near cache allocates nothing: a module is shared, an absence is a word.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::support::{Blocking, Nearby, Nonblocking, World, Writer as _, block_on};
use bifrost_module_cache::CachedModule;
use bifrost_module_cache::near::NearCacheOptions;

thread_local! {
    /// Of this thread alone: the thread that follows Redis allocates as it likes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PRESENT: &str = "shared/present.py";
const ABSENT: &str = "shared/absent.py";
const HITS: u64 = 1_000;

fn allocations(work: impl Fn()) -> u64 {
    let before = ALLOCATIONS.get();
    for _ in 0..HITS {
        work();
    }
    ALLOCATIONS.get() - before
}

fn serving<F: Nearby>() -> World<F> {
    let world = World::<F>::new();
    let module = CachedModule::new(PRESENT, "x = 1\n".repeat(1_000)).unwrap();
    world.writer.set(&module).unwrap();
    world
}

#[test]
fn allocations_are_seen() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), HITS);
}

#[test]
fn a_blocking_hit_allocates_nothing() {
    let world = serving::<Blocking>();
    let near = world.near(NearCacheOptions::default());
    for (path, is_there) in [(PRESENT, true), (ABSENT, false)] {
        let get = || assert_eq!(near.get(path).unwrap().is_some(), is_there);
        // What comes first brings it in, and this thread gets its places.
        get();
        get();
        let hits = near.stats().hits;
        assert_eq!(allocations(get), 0, "{path}");
        assert_eq!(near.stats().hits, hits + HITS);
    }
}

#[test]
fn a_nonblocking_hit_allocates_nothing_and_is_ready_at_once() {
    let world = serving::<Nonblocking>();
    let near = world.near(NearCacheOptions::default());
    for (path, is_there) in [(PRESENT, true), (ABSENT, false)] {
        let get = || match pin!(near.get(path)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => assert_eq!(found.unwrap().is_some(), is_there),
            Poll::Pending => panic!("a hit that waits"),
        };
        block_on(near.get(path)).unwrap();
        get();
        let hits = near.stats().hits;
        assert_eq!(allocations(get), 0, "{path}");
        assert_eq!(near.stats().hits, hits + HITS);
    }
}
