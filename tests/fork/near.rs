//! A process with a near cache that forks: what the child inherited is served for as long as the
//! bound, then it follows Redis for itself; and it leaves its parent's following alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::child::{Child, listen, say, threads};
use crate::support::{PATIENCE, RedisServer, StopOnDrop, patient, wait_until};
use bifrost_module_cache::blocking::{ModuleReader, ModuleWriter, NearCache};
use bifrost_module_cache::near::{Invalidation, NearCacheOptions};
use bifrost_module_cache::{CachedModule, Error, Outage, Resolution};

/// Long enough that a slow machine keeps it, and short enough to wait for.
const BOUND: Duration = Duration::from_secs(2);

fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::new(path, content).unwrap()
}

struct Serving {
    server: RedisServer,
    writer: ModuleWriter,
    near: NearCache,
}

fn serving() -> Serving {
    let server = RedisServer::start();
    let writer = ModuleWriter::new(patient(&server.url())).unwrap();
    let near = near(&server, BOUND);
    Serving {
        server,
        writer,
        near,
    }
}

fn near(server: &RedisServer, bound: Duration) -> NearCache {
    let reader = ModuleReader::new(patient(&server.url())).unwrap();
    let options = NearCacheOptions::default().with_staleness_bound(bound);
    let near = NearCache::new(reader, options).unwrap();
    until_live(&near);
    near
}

fn until_live(near: &NearCache) {
    wait_until("it follows", PATIENCE, || near.is_live());
}

fn content(near: &NearCache, path: &str) -> Option<String> {
    let found = near.get(path).unwrap();
    found.map(|module| module.content.clone())
}

fn until(near: &NearCache, path: &str, expected: &str) {
    wait_until("what is new is here", PATIENCE, || {
        content(near, path).as_deref() == Some(expected)
    });
}

/// The identities of the connections that follow, as Redis has them.
fn followers(server: &RedisServer) -> Vec<String> {
    let mut redis = server.connection();
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
    list.lines()
        .filter(|line| line.contains(" flags=t"))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

/// Sees that this process hears of changes.
fn hears(near: &NearCache, writer: &ModuleWriter, path: &str) {
    until_live(near);
    for version in 0..3 {
        let version = format!("heard {version}");
        writer.set(&module(path, &version)).unwrap();
        until(near, path, &version);
    }
}

pub fn a_child_serves_what_it_inherited_for_the_bound_at_most() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    writer.set(&module("a.py", "old")).unwrap();
    until(&near, "a.py", "old");
    let mut child = Child::fork(|parent| {
        // Nothing tells the child, so it may serve the old value until the lease lapses.
        listen(parent);
        let start = Instant::now();
        let end = start + BOUND + Duration::from_millis(100);
        loop {
            let asked = Instant::now();
            let found = content(&near, "a.py").unwrap();
            if found == "new" {
                break;
            }
            assert!(asked < end, "{:?} after the write", asked - start);
            thread::sleep(Duration::from_millis(1));
        }
        // Once it has seen the new one it never sees the old one again.
        for _ in 0..100 {
            assert_eq!(content(&near, "a.py").as_deref(), Some("new"));
        }
        until_live(&near);
        assert_eq!(content(&near, "a.py").as_deref(), Some("new"));
    });
    writer.set(&module("a.py", "new")).unwrap();
    child.go();
    until(&near, "a.py", "new");
    child.join();
    drop(server);
}

pub fn a_child_follows_redis_for_itself() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let before = followers(&server);
    assert_eq!(before.len(), 1);
    let mut child = Child::fork(|parent| {
        // A miss is where it finds out.
        assert_eq!(content(&near, "none.py"), None);
        until_live(&near);
        assert_eq!(near.stats().sessions, 1, "those of the child alone");
        say(parent);
        listen(parent);
        hears(&near, &writer, "child.py");
    });
    child.wait();
    let both = followers(&server);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&before[0]), "the parent's is the same");
    child.go();
    hears(&near, &writer, "parent.py");
    child.join();
    wait_until("the child's connection is closed", PATIENCE, || {
        followers(&server) == before
    });
    hears(&near, &writer, "parent.py");
    assert_eq!(near.stats().sessions, 1, "it was never lost");
}

pub fn a_child_reads_at_once_what_a_tied_writer_wrote_there() {
    let Serving {
        server: _server,
        writer,
        near,
    } = serving();
    near.tie(&writer);
    for path in ["a.py", "b.py"] {
        writer.set(&module(path, "old")).unwrap();
        until(&near, path, "old");
    }
    Child::fork(|_| {
        // At first what it inherited is there.
        for version in 0..200 {
            let version = version.to_string();
            writer.set(&module("a.py", &version)).unwrap();
            assert_eq!(content(&near, "a.py"), Some(version));
            writer.invalidate("b.py").unwrap();
            assert_eq!(content(&near, "b.py"), None);
            writer.rename("a.py", &module("b.py", "moved")).unwrap();
            assert_eq!(content(&near, "a.py"), None);
            assert_eq!(content(&near, "b.py").as_deref(), Some("moved"));
        }
        until_live(&near);
        writer.clear().unwrap();
        assert_eq!(content(&near, "b.py"), None);
    })
    .join();
    wait_until("the parent has heard", PATIENCE, || {
        content(&near, "b.py").is_none()
    });
    writer.set(&module("a.py", "parent")).unwrap();
    assert_eq!(content(&near, "a.py").as_deref(), Some("parent"));
}

pub fn a_child_that_drops_its_near_cache_ends_nothing_of_its_parent_s() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let before = followers(&server);
    let held = Cell::new(Some(near));
    // At once, and after it has made a life of its own.
    Child::fork(|_| drop(held.take())).join();
    Child::fork(|_| {
        let near = held.take().unwrap();
        near.on_invalidate(|_| ()).unwrap();
        assert_eq!(content(&near, "none.py"), None);
        until_live(&near);
        assert!(threads().len() > 1);
        drop(near);
        wait_until("its own connection is closed", PATIENCE, || {
            followers(&server) == before
        });
        wait_until("its own threads have ended", PATIENCE, || {
            threads().len() == 1
        });
    })
    .join();
    let near = held.take().unwrap();
    assert_eq!(followers(&server), before);
    hears(&near, &writer, "a.py");
    assert_eq!(near.stats().sessions, 1);
    drop(near);
    wait_until("the parent's is closed", PATIENCE, || {
        followers(&server).is_empty()
    });
}

pub fn a_child_that_exits_leaves_its_parent_following() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let before = followers(&server);
    for round in 0..20 {
        let child = Child::fork(|_| {
            if round % 2 == 0 {
                near.get("none.py").unwrap();
            }
            if round % 4 == 0 {
                until_live(&near);
            }
        });
        child.join();
        assert!(near.is_live());
        hears(&near, &writer, "a.py");
    }
    wait_until("the children's are closed", PATIENCE, || {
        followers(&server) == before
    });
    assert_eq!(near.stats().sessions, 1);
}

pub fn a_child_of_a_child_follows_redis_for_itself() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let mut child = Child::fork(|parent| {
        near.get("none.py").unwrap();
        until_live(&near);
        let mut grandchild = Child::fork(|parent| {
            near.get("nothing.py").unwrap();
            until_live(&near);
            say(parent);
            listen(parent);
            hears(&near, &writer, "grandchild.py");
        });
        // One that never asks of itself.
        let mut other = Child::fork(|parent| {
            Child::fork(|_| hears(&near, &writer, "great-grandchild.py")).join();
            listen(parent);
        });
        grandchild.wait();
        other.go();
        other.join();
        say(parent);
        listen(parent);
        grandchild.go();
        hears(&near, &writer, "child.py");
        grandchild.join();
        hears(&near, &writer, "child.py");
    });
    child.wait();
    wait_until("each of them follows", PATIENCE, || {
        followers(&server).len() == 3
    });
    child.go();
    hears(&near, &writer, "parent.py");
    child.join();
    hears(&near, &writer, "parent.py");
}

pub fn a_child_s_hooks_are_called() {
    let Serving {
        server: _server,
        writer,
        near,
    } = serving();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    near.on_invalidate(move |what: &Invalidation| {
        if what.concerns("a.py") {
            count.fetch_add(1, SeqCst);
        }
    })
    .unwrap();
    let is_told = |what: &str| {
        let before = told.load(SeqCst);
        writer.set(&module("a.py", what)).unwrap();
        wait_until("the hook is called", PATIENCE, || {
            told.load(SeqCst) > before
        });
    };
    is_told("before");
    let mut child = Child::fork(|parent| {
        near.get("none.py").unwrap();
        until_live(&near);
        is_told("in the child");
        say(parent);
        listen(parent);
        // One that only the child has.
        let (sender, receiver) = std::sync::mpsc::channel();
        near.on_invalidate(move |what: &Invalidation| _ = sender.send(what.clone()))
            .unwrap();
        writer.set(&module("b.py", "b")).unwrap();
        while !receiver.recv_timeout(PATIENCE).unwrap().concerns("b.py") {}
    });
    child.wait();
    is_told("in the parent");
    child.go();
    child.join();
    is_told("after");
}

pub fn a_snapshot_serves_in_a_child_without_a_connection() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    for n in 0..50 {
        writer.set(&module(&format!("{n}.py"), "old")).unwrap();
    }
    let snapshot = near.snapshot().unwrap();
    let mut child = Child::fork(|parent| {
        listen(parent);
        // The server has gone.
        for n in 0..50 {
            let found = snapshot.get(&format!("{n}.py")).unwrap().unwrap();
            assert_eq!(found.content, "old");
        }
        assert_eq!(snapshot.get("none.py").unwrap(), None);
        assert_eq!(snapshot.paths().count(), 50);
        let copy = snapshot.clone();
        drop(copy);
    });
    writer.set(&module("1.py", "new")).unwrap();
    server.kill();
    child.go();
    child.join();
    let found = snapshot.get("1.py").unwrap().unwrap();
    assert_eq!(found.content, "old");
}

/// Of three generations, the one in the middle ends.
pub fn a_parent_that_has_gone_leaves_its_child_following() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let before = followers(&server);
    // The grandchild speaks to this process, also when it has another parent.
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    Child::fork(|_| {
        near.get("none.py").unwrap();
        until_live(&near);
        let grandchild = Child::fork(|parent| {
            // It is orphaned.
            assert!(parent.read_exact(&mut [0]).is_err());
            hears(&near, &writer, "grandchild.py");
            say(&mut theirs);
        });
        drop(grandchild);
    })
    .join();
    drop(theirs);
    listen(&mut ours);
    hears(&near, &writer, "parent.py");
    wait_until("the others have gone", PATIENCE, || {
        followers(&server) == before
    });
}

/// Threads hit, miss, keep and give up in a loop, and are born and die; whatever a fork interrupts
/// there, the child must not wait for it.
pub fn a_fork_amid_everything_hangs_nobody() {
    const FORKS: usize = 200;
    let server = RedisServer::start();
    let writer = ModuleWriter::new(patient(&server.url())).unwrap();
    let near = near(&server, BOUND);
    near.tie(&writer);
    near.on_invalidate(|_| ()).unwrap();
    for n in 0..50 {
        writer.set(&module(&format!("{n}.py"), "x")).unwrap();
    }
    let is_over = AtomicBool::new(false);
    let again = |work: &(dyn Fn(usize) + Sync)| {
        let mut round = 0;
        while !is_over.load(SeqCst) {
            work(round);
            round += 1;
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| again(&|n| _ = near.get(&format!("{}.py", n % 50)).unwrap()));
        scope.spawn(|| again(&|n| _ = near.get(&format!("absent {n}.py")).unwrap()));
        scope.spawn(|| {
            again(&|n| {
                let path = format!("{}.py", n % 50);
                writer.set(&module(&path, &n.to_string())).unwrap();
                near.get_many(&[path.as_str(), "0.py"]).unwrap();
            });
        });
        scope.spawn(|| again(&|n| _ = near.resolve(&format!("foreign{}", n % 1_000)).unwrap()));
        scope.spawn(|| {
            again(&|_| {
                near.snapshot_of(&["0.py"]).unwrap();
                let _ = near.stats();
            });
        });
        scope.spawn(|| {
            again(&|_| {
                thread::scope(|scope| _ = scope.spawn(|| near.get("0.py").unwrap()));
            });
        });
        let _end = StopOnDrop(&is_over);
        for round in 0..FORKS {
            Child::fork(|_| {
                let own = format!("child {round}.py");
                let _ = (near.is_live(), near.get("0.py").unwrap());
                for n in 0..10 {
                    let name = format!("foreign{}", (100 * n + round) % 1_000);
                    assert_eq!(near.resolve(&name).unwrap(), Resolution::NotFound);
                }
                assert_eq!(content(&near, &own), None);
                writer.set(&module(&own, "x")).unwrap();
                assert_eq!(content(&near, &own).as_deref(), Some("x"));
                if round % 10 == 0 && can_start_threads() {
                    until_live(&near);
                    near.snapshot_of(&[&own]).unwrap();
                    writer.invalidate(&own).unwrap();
                    assert_eq!(content(&near, &own), None);
                }
                let _ = (near.stats(), near.paths().unwrap());
            })
            .join();
        }
    });
    assert!(near.is_live());
    hears(&near, &writer, "0.py");
}

/// Not where the standard library's own lock is held by a thread that was left behind.
fn can_start_threads() -> bool {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(()));
    receiver.recv_timeout(Duration::from_secs(2)).is_ok()
}

pub fn a_fork_amid_births_and_deaths_hangs_nobody() {
    amid_births_and_deaths(500);
}

pub fn soak_a_fork_amid_births_and_deaths_hangs_nobody() {
    amid_births_and_deaths(5_000);
}

/// Threads are born, hit once and die, and the parent writes. Each child is forked by a thread that
/// has not read yet, so that its first hit is its thread's.
fn amid_births_and_deaths(forks: usize) {
    const READERS: usize = 3;
    let Serving {
        server: _server,
        writer,
        near,
    } = serving();
    near.tie(&writer);
    writer.set(&module("a.py", "a")).unwrap();
    until(&near, "a.py", "a");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    thread::scope(|scope| _ = scope.spawn(|| near.get("a.py").unwrap()));
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                writer.set(&module("b.py", "b")).unwrap();
            }
        });
        let _end = StopOnDrop(&is_over);
        for round in 0..forks {
            let fork = || {
                Child::fork(|_| {
                    assert_eq!(content(&near, "a.py").as_deref(), Some("a"));
                    if round % 20 == 0 {
                        assert_eq!(content(&near, "none.py"), None);
                        writer.set(&module("c.py", "c")).unwrap();
                        assert_eq!(content(&near, "c.py").as_deref(), Some("c"));
                    }
                })
                .join();
            };
            thread::scope(|scope| _ = scope.spawn(fork));
        }
    });
    hears(&near, &writer, "a.py");
}

/// Stops what is being born where it holds the standard library's lock: when it is to name itself
/// among the threads, and needs memory for one more.
struct Stopping;

static STOPS: AtomicBool = AtomicBool::new(false);
static HAS_STOPPED: AtomicBool = AtomicBool::new(false);

/// The threads that were there before.
static GROWN: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

fn is_grown() -> bool {
    // SAFETY: it has no preconditions.
    let id = unsafe { libc::gettid() };
    GROWN.iter().any(|grown| grown.load(SeqCst) == id)
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Stopping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Larger than what it needs before that.
        if STOPS.load(SeqCst) && layout.size() > 256 && !is_grown() {
            HAS_STOPPED.store(true, SeqCst);
            while STOPS.load(SeqCst) {
                // SAFETY: it has no preconditions.
                unsafe { libc::usleep(1_000) };
            }
        }
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Stopping = Stopping;

pub fn a_child_that_can_start_no_thread_reads_through() {
    let Serving {
        server,
        writer,
        near,
    } = serving();
    let by_name = patient(&server.url().replace("127.0.0.1", "localhost"));
    let by_name = NearCache::new(
        ModuleReader::new(by_name).unwrap(),
        NearCacheOptions::default(),
    );
    let by_name = by_name.unwrap();
    until_live(&by_name);
    writer.set(&module("a.py", "old")).unwrap();
    until(&near, "a.py", "old");
    let snapshot = near.snapshot().unwrap();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    for (task, grown) in tasks.zip(&GROWN) {
        let id = task.unwrap().file_name().into_string().unwrap();
        grown.store(id.parse().unwrap(), SeqCst);
    }
    let mut others = Vec::new();
    STOPS.store(true, SeqCst);
    // So many that one of them needs memory.
    while !HAS_STOPPED.load(SeqCst) && others.len() < 64 {
        let (sender, receiver) = mpsc::channel::<()>();
        others.push(sender);
        thread::spawn(move || _ = receiver.recv());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(
        HAS_STOPPED.load(SeqCst),
        "the library takes no lock here any more"
    );
    let mut child = Child::fork(|parent| {
        STOPS.store(false, SeqCst);
        assert!(!can_start_threads());
        listen(parent);
        for near in [&near, &by_name] {
            near.on_invalidate(|_| ()).unwrap();
            wait_until("what was inherited has lapsed", PATIENCE, || {
                !near.is_live()
            });
            for version in 0..20 {
                let version = version.to_string();
                writer.set(&module("a.py", &version)).unwrap();
                assert_eq!(content(near, "a.py"), Some(version));
                assert_eq!(near.resolve("b").unwrap(), Resolution::NotFound);
            }
            assert!(!near.is_live());
            let error = near.snapshot().unwrap_err();
            assert!(
                matches!(
                    &error,
                    Error::Unavailable {
                        cause: Outage::Connect,
                        ..
                    }
                ),
                "{error:?}"
            );
            near.prefetch().unwrap_err();
        }
        let found = snapshot.get("a.py").unwrap().unwrap();
        assert_eq!(found.content, "old");
        drop((near.clone(), by_name.clone()));
    });
    STOPS.store(false, SeqCst);
    writer.set(&module("a.py", "new")).unwrap();
    child.go();
    child.join();
    drop(others);
    hears(&near, &writer, "a.py");
}
