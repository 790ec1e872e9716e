//! The server that is followed loses its place, and lives on.

use std::time::{Duration, Instant};

use crate::support::{
    Near, Nearby, PATIENCE, Proxy, RedisServer, Writer, connect, content, module, on_both_facades,
    patient, wait_until,
};
use bifrost_module_cache::near::NearCacheOptions;
use redis::{Connection, Value};

on_both_facades! {
    a_demoted_server_is_left_within_the_bound
    a_server_that_reigns_again_is_followed_anew
}

const BOUND: Duration = Duration::from_millis(800);

fn bounded() -> NearCacheOptions {
    NearCacheOptions::default().with_staleness_bound(BOUND)
}

/// Two servers, the address of the first, and what writes to the second.
struct Pair<F: Nearby> {
    old: RedisServer,
    new: RedisServer,
    proxy: Proxy,
    new_writer: F::Writer,
}

impl<F: Nearby> Pair<F> {
    fn start() -> Self {
        let (old, new) = (RedisServer::start(), RedisServer::start());
        let writer = F::Writer::new(patient(&old.url())).unwrap();
        writer.set(&module("a.py", "old")).unwrap();
        new.replicate(&old);
        Self {
            proxy: Proxy::start(old.port()),
            new_writer: F::Writer::new(patient(&new.url())).unwrap(),
            old,
            new,
        }
    }

    /// The address leads to the second from now on; the first knows that it is no primary any
    /// more, keeps its connections, and is cut off from the second.
    fn fail_over(&self) {
        self.proxy.set_target(self.new.port());
        self.new.promote();
        self.old.demote();
        self.new_writer.set(&module("a.py", "new")).unwrap();
    }
}

fn a_demoted_server_is_left_within_the_bound<F: Nearby>() {
    let pair = Pair::<F>::start();
    let near = F::Near::live(patient(&pair.proxy.url()), bounded());
    assert_eq!(content(near.get("a.py")).as_deref(), Some("old"));
    assert_eq!(near.get("absent.py").unwrap(), None);
    let sessions = near.stats().sessions;
    pair.fail_over();
    pair.new_writer.set(&module("absent.py", "new")).unwrap();
    let written = Instant::now();
    // By the clock of hits, which is some milliseconds behind.
    let bound = BOUND + Duration::from_millis(50);
    loop {
        let asked = Instant::now();
        let found = [near.get("a.py"), near.get("absent.py")].map(content);
        if found == [Some("new".into()), Some("new".into())] {
            break;
        }
        let age = asked.duration_since(written);
        assert!(age < bound, "{found:?} is {age:?} old");
    }
    wait_until("the new server is followed", PATIENCE, || {
        let stats = near.stats();
        stats.live && stats.sessions > sessions
    });
    pair.new_writer.set(&module("a.py", "newer")).unwrap();
    near.until("a.py", Some("newer"));
}

/// As a heartbeat by PING would have it: the test that it must fail.
#[test]
fn a_ping_sees_no_demotion() {
    let pair = Pair::<crate::support::Blocking>::start();
    let mut naive = Naive::follow(&pair.proxy);
    assert_eq!(naive.kept.as_deref(), Some("old"));
    pair.fail_over();
    let end = Instant::now() + BOUND * 4;
    while Instant::now() < end {
        assert!(naive.beat(), "it announces something");
    }
    let stored = naive.kept.expect("it is kept for ever");
    assert_eq!(stored, "old");
}

/// A near cache of one module whose heartbeat is a PING.
struct Naive {
    connection: Connection,
    kept: Option<String>,
}

impl Naive {
    fn follow(proxy: &Proxy) -> Self {
        let mut connection = connect(&format!("{}?protocol=resp3", proxy.url()));
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg(&["TRACKING", "ON", "BCAST", "PREFIX", "bifrost:module:"]);
        tracking.exec(&mut connection).unwrap();
        let reader = <bifrost_module_cache::blocking::ModuleReader>::new(patient(&proxy.url()));
        let module = reader.unwrap().get("a.py").unwrap();
        Self {
            connection,
            kept: module.map(|module| module.content),
        }
    }

    /// Whether it is alive, as far as it can tell, and has announced nothing.
    fn beat(&mut self) -> bool {
        let packed = redis::cmd("PING").get_packed_command();
        self.connection.send_packed_command(&packed).unwrap();
        let answer = self.connection.recv_response().unwrap();
        let is_alive = answer == Value::SimpleString("PONG".to_owned());
        if !is_alive {
            self.kept = None;
        }
        is_alive
    }
}

/// From the first to the second and back, while the connections to the first stay open.
fn a_server_that_reigns_again_is_followed_anew<F: Nearby>() {
    let pair = Pair::<F>::start();
    let near = F::Near::live(patient(&pair.old.url()), bounded());
    assert_eq!(content(near.get("a.py")).as_deref(), Some("old"));
    let sessions = near.stats().sessions;
    pair.new.promote();
    pair.old.replicate(&pair.new);
    pair.old.promote();
    wait_until("another session begins", PATIENCE, || {
        let stats = near.stats();
        stats.live && stats.sessions > sessions
    });
    let writer = F::Writer::new(patient(&pair.old.url())).unwrap();
    writer.set(&module("a.py", "new")).unwrap();
    near.until("a.py", Some("new"));
    // Readers and the listener agree on the reign: what is asked for is kept again.
    wait_until("it is kept", PATIENCE, || {
        near.get("a.py").unwrap();
        near.stats().modules > 0
    });
}
