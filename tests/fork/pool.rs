//! A process that forks: the child opens connections of its own and leaves its parent's alone.

use std::collections::BTreeSet;
use std::env;
use std::process::{Command, Stdio};

use crate::child::{Child, listen, say, threads};
use crate::support::{PATIENCE, Proxy, RedisServer, patient, wait_until};
use bifrost_module_cache::blocking::{ModuleReader, ModuleWriter};
use bifrost_module_cache::{CachedModule, Resolution};

const MODULES: usize = 50;
const GETS: usize = 3_000;

fn module(i: usize) -> CachedModule {
    CachedModule::new(format!("m{i}.py"), format!("{i}").repeat(i * 40)).unwrap()
}

fn serving() -> (RedisServer, ModuleWriter) {
    let server = RedisServer::start();
    let writer = ModuleWriter::new(patient(&server.url())).unwrap();
    for i in 0..MODULES {
        writer.set(&module(i)).unwrap();
    }
    (server, writer)
}

/// Each answer belongs to its question.
fn read_all(reader: &ModuleReader) {
    for i in 0..GETS {
        let i = i % MODULES;
        let found = reader.get(&format!("m{i}.py")).unwrap();
        assert_eq!(found, Some(module(i)));
    }
}

/// Where the connections of readers come from, of those that have asked for a module.
fn readers(server: &RedisServer) -> BTreeSet<String> {
    let mut redis = server.connection();
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
    let asked = |line: &&str| line.contains(" cmd=get ");
    let address = |line: &str| {
        line.split(' ')
            .find_map(|f| f.strip_prefix("addr=").map(String::from))
    };
    list.lines().filter(asked).filter_map(address).collect()
}

pub fn both_go_on_and_nothing_is_mixed_up() {
    let (server, writer) = serving();
    let reader = writer.reader();
    read_all(reader);
    let before = readers(&server);
    assert_eq!(before.len(), 1);
    let mut child = Child::fork(|parent| {
        reader.get("m1.py").unwrap();
        say(parent);
        listen(parent);
        read_all(reader);
        say(parent);
        listen(parent);
    });
    child.wait();
    // One more, and the old one is still there.
    let both = readers(&server);
    assert_eq!(both.len(), 2);
    assert!(both.is_superset(&before));
    child.go();
    read_all(reader);
    child.wait();
    assert_eq!(readers(&server), both);
    child.go();
    child.join();
    read_all(reader);
    wait_until("the child's connection is closed", PATIENCE, || {
        readers(&server) == before
    });
}

pub fn a_child_may_be_the_first_to_connect() {
    let (server, writer) = serving();
    let reader = ModuleReader::new(patient(&server.url())).unwrap();
    drop(writer);
    Child::fork(|_| read_all(&reader)).join();
    read_all(&reader);
}

pub fn a_child_that_drops_its_reader_leaves_its_parent_s_connections_open() {
    let (server, writer) = serving();
    writer.reader().get("m1.py").unwrap();
    let before = readers(&server);
    // What the child takes out is still there in the parent.
    let mut held = Some(writer);
    Child::fork(|_| drop(held.take())).join();
    Child::fork(|_| {
        held.as_ref().unwrap().reader().get("m1.py").unwrap();
        drop(held.take());
    })
    .join();
    let writer = held.expect("still there");
    writer.reader().get("m1.py").unwrap();
    wait_until("the child's connection is closed", PATIENCE, || {
        readers(&server) == before
    });
}

pub fn a_child_of_a_child_has_its_own_connections() {
    let (server, writer) = serving();
    let reader = writer.reader();
    reader.get("m1.py").unwrap();
    let mut child = Child::fork(|parent| {
        reader.get("m1.py").unwrap();
        let mut grandchild = Child::fork(|parent| {
            reader.get("m1.py").unwrap();
            say(parent);
            listen(parent);
            read_all(reader);
        });
        grandchild.wait();
        say(parent);
        listen(parent);
        grandchild.go();
        read_all(reader);
        grandchild.join();
    });
    child.wait();
    assert_eq!(readers(&server).len(), 3);
    child.go();
    read_all(reader);
    child.join();
}

pub fn a_child_does_not_wait_for_a_thread_that_it_lacks() {
    let (server, _writer) = serving();
    let proxy = Proxy::start(server.port());
    let reader = ModuleReader::new(patient(&proxy.url())).unwrap();
    let resolve = || assert_eq!(reader.resolve("foreign").unwrap(), Resolution::NotFound);
    proxy.stall_replies();
    std::thread::scope(|scope| {
        let fetching = scope.spawn(resolve);
        wait_until("a thread fetches the index", PATIENCE, || {
            server.calls("smembers") == 1
        });
        let mut child = Child::fork(|parent| {
            listen(parent);
            resolve();
        });
        proxy.resume();
        fetching.join().unwrap();
        child.go();
        child.join();
    });
}

pub fn only_the_first_process_has_a_thread_for_its_pool() {
    let (server, writer) = serving();
    let unused = ModuleReader::new(patient(&server.url())).unwrap();
    assert!(threads().contains(&"bifrost-pool-0".to_owned()));
    let read = |reader: &ModuleReader| {
        reader.get("m1.py").unwrap();
        assert_eq!(threads().len(), 1, "{:?}", threads());
    };
    Child::fork(|_| {
        read(writer.reader());
        read(&unused);
        read(&ModuleReader::new(patient(&server.url())).unwrap());
        Child::fork(|_| read(writer.reader())).join();
    })
    .join();
}

/// The variable that tells this program to be such a process, and where the server is.
pub const WITHOUT_THREADS: &str = "BIFROST_TEST_WITHOUT_THREADS";

pub fn a_process_that_can_start_no_thread_reads() {
    let (server, _writer) = serving();
    let status = Command::new(env::current_exe().unwrap())
        .env(WITHOUT_THREADS, server.url())
        // No address space holds such a stack.
        .env("RUST_MIN_STACK", (1_u64 << 60).to_string())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

pub fn read_without_threads(url: &str) {
    let reader = ModuleReader::new(patient(url)).unwrap();
    read_all(&reader);
    assert_eq!(threads().len(), 1, "{:?}", threads());
}
