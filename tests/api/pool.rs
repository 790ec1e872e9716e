//! A pool that the caller brings to `blocking`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::support::{PATIENCE, Proxy, RedisServer, free_port, patient, wait_until};
use bifrost_module_cache::blocking::{ConnectionManager, ModuleReader, ModuleWriter};
use bifrost_module_cache::r2d2::event::{CheckoutEvent, TimeoutEvent};
use bifrost_module_cache::r2d2::{Builder, HandleEvent, Pool};
use bifrost_module_cache::{CachedModule, Config};

/// Counts what it is told.
#[derive(Debug, Default, Clone)]
struct Counted(Arc<[AtomicUsize; 2]>);

impl Counted {
    fn builder(&self) -> Builder<ConnectionManager> {
        Pool::builder().event_handler(Box::new(self.clone()))
    }

    /// How often a connection was lent, and how often none was in time.
    fn lent_and_missed(&self) -> [usize; 2] {
        [self.0[0].load(SeqCst), self.0[1].load(SeqCst)]
    }
}

impl HandleEvent for Counted {
    fn handle_checkout(&self, _: CheckoutEvent) {
        self.0[0].fetch_add(1, SeqCst);
    }

    fn handle_timeout(&self, _: TimeoutEvent) {
        self.0[1].fetch_add(1, SeqCst);
    }
}

#[test]
fn its_size_holds_and_its_events_are_told() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    // Neither of these two counts.
    let config = patient(&proxy.url()).with_pool_size(8);
    let config = config.with_pool_timeout(Duration::from_millis(50));
    let events = Counted::default();
    let builder = events.builder().max_size(1).connection_timeout(PATIENCE);
    let writer = ModuleWriter::with_pool(config, builder).unwrap();
    let module = CachedModule::new("a.py", "").unwrap();
    for _ in 0..3 {
        writer.set(&module).unwrap();
        assert_eq!(writer.reader().get("a.py").unwrap().as_ref(), Some(&module));
    }
    assert_eq!((proxy.connections(), writer.stats().in_use), (1, 0));
    assert_eq!(events.lent_and_missed(), [6, 0]);
    proxy.stall_replies();
    thread::scope(|scope| {
        let asking = scope.spawn(|| writer.reader().get("a.py"));
        wait_until("it has asked", PATIENCE, || server.calls("get") == 4);
        assert_eq!(writer.stats().in_use, 1);
        let error = writer.reader().get("a.py").unwrap_err();
        assert!(error.is_busy(), "{error:?}");
        proxy.resume();
        asking.join().unwrap().unwrap();
    });
    assert_eq!(events.lent_and_missed(), [7, 1]);
}

#[test]
fn what_it_makes_ahead_of_time_connects_to_nobody() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let builder = Pool::builder().max_size(4).min_idle(Some(4));
    let reader = ModuleReader::with_pool(patient(&proxy.url()), builder).unwrap();
    assert_eq!(reader.get("a.py").unwrap(), None);
    assert!(proxy.connections() <= 1, "{}", proxy.connections());
}

#[test]
fn a_connection_that_was_lost_is_replaced_without_an_error() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let builder = Pool::builder().max_size(2);
    let reader = ModuleReader::with_pool(patient(&proxy.url()), builder).unwrap();
    for _ in 0..5 {
        assert_eq!(reader.get("a.py").unwrap(), None);
        proxy.reset_all();
    }
}

#[test]
fn a_dead_server_is_unavailable_and_no_empty_pool() {
    let config = Config::new(format!("redis://127.0.0.1:{}", free_port())).unwrap();
    let reader = ModuleReader::with_pool(config, Pool::builder()).unwrap();
    for _ in 0..10 {
        let error = reader.get("a.py").unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
}

#[test]
fn a_place_that_is_still_to_be_made_is_not_in_use() {
    let server = RedisServer::start();
    for _ in 0..200 {
        let config = patient(&server.url()).with_pool_timeout(Duration::from_millis(1));
        let reader = ModuleReader::new(config).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(reader.get("a.py").unwrap(), None));
            }
        });
    }
}

#[test]
fn one_borrower_at_a_time_uses_one_connection() {
    let server = RedisServer::start();
    for _ in 0..20 {
        let proxy = Proxy::start(server.port());
        let reader = ModuleReader::new(patient(&proxy.url()).with_pool_size(32)).unwrap();
        for _ in 0..100 {
            assert_eq!(reader.get("a.py").unwrap(), None);
        }
        assert_eq!(proxy.connections(), 1);
    }
}
