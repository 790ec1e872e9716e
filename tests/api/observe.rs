//! What an observer is told of calls to Redis, and what it is not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    Facade, LIMIT, Proxy, Reader, RedisServer, World, Writer, block_on, on_both_facades, patient,
    wait_until,
};
#[cfg(feature = "near-cache")]
use crate::support::{Near, Nearby};
#[cfg(feature = "near-cache")]
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::sync::Change;
use bifrost_module_cache::{
    CachedModule, CallEnded, Config, Observe, Outcome, Resolution, nonblocking,
};

on_both_facades! {
    each_call_is_told_of_once
    no_event_holds_a_path
    a_call_that_redis_refuses_or_whose_entry_is_corrupt_says_so
    what_is_refused_before_it_is_sent_is_no_call
    a_read_that_is_tried_again_is_one_call
    a_dead_server_is_unavailable_and_an_open_breaker_rejects
    long_work_is_many_calls
    a_panic_fails_no_call
}

#[cfg(feature = "near-cache")]
mod near {
    super::on_both_facades! {
        a_hit_of_a_near_cache_is_no_call
    }

    use super::a_hit_of_a_near_cache_is_no_call;
}

#[cfg(feature = "postgres")]
mod postgres {
    super::on_both_facades! {
        a_warm_up_is_many_calls
    }

    use super::a_warm_up_is_many_calls;
}

/// Keeps all that it is told.
#[derive(Debug, Default, Clone)]
struct Told(Arc<Mutex<Vec<CallEnded>>>);

impl Observe for Told {
    fn call_ended(&self, call: &CallEnded) {
        self.0.lock().unwrap().push(*call);
    }
}

impl Told {
    fn observe(&self, config: Config) -> Config {
        config.with_observer(Arc::new(self.clone()))
    }

    /// What came since the last look.
    fn take(&self) -> Vec<CallEnded> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The same in short, such as `get done`.
    fn words(&self) -> Vec<String> {
        let in_short = |call: CallEnded| format!("{} {}", call.operation, call.outcome);
        self.take().into_iter().map(in_short).collect()
    }
}

fn module() -> CachedModule {
    CachedModule::new("a/b.py", "x = 1\n").unwrap()
}

fn observed<F: Facade>() -> (World<F>, Told) {
    let told = Told::default();
    let world = World::with(|config| told.observe(config));
    (world, told)
}

fn each_call_is_told_of_once<F: Facade>() {
    let (world, told) = observed::<F>();
    let (writer, reader) = (&world.writer, world.writer.reader());
    assert!(told.words().is_empty());
    writer.set(&module()).unwrap();
    assert_eq!(told.words(), ["set done"]);
    let start = Instant::now();
    assert!(reader.get("a/b.py").unwrap().is_some());
    let longest = start.elapsed();
    let [get] = told.take().try_into().unwrap();
    assert_eq!((get.operation, get.outcome), ("get", Outcome::Done));
    assert_eq!(get.retries, 0);
    assert!(get.elapsed > Duration::ZERO && get.elapsed <= longest);
    let key_and_value = "bifrost:module:a/b.py".len() + module().to_json().len();
    assert_eq!(get.bytes, key_and_value as u64);
    assert_eq!(reader.get("c.py").unwrap(), None);
    assert_eq!(told.words(), ["get absent"]);
    reader.get_many(&["c.py", "a/b.py"]).unwrap();
    reader.get_many(&["c.py", "d.py"]).unwrap();
    assert_eq!(told.words(), ["get_many done", "get_many absent"]);
    let resolved = reader.resolve("a.b").unwrap();
    assert!(matches!(resolved, Resolution::Module(_)));
    assert_eq!(told.words(), ["resolve done"]);
    assert_eq!(reader.resolve("c").unwrap(), Resolution::NotFound);
    assert_eq!(told.words()[0], "resolve absent");
    reader.paths().unwrap();
    reader.status().unwrap();
    reader.explain("a/b.py").unwrap();
    assert_eq!(told.words(), ["paths done", "status done", "explain done"]);
    let moved = CachedModule::new("c.py", "").unwrap();
    writer.rename("a/b.py", &moved).unwrap();
    assert!(writer.invalidate("c.py").unwrap());
    assert!(!writer.invalidate("c.py").unwrap());
    let expected = ["rename done", "invalidate done", "invalidate done"];
    assert_eq!(told.words(), expected);
}

fn no_event_holds_a_path<F: Facade>() {
    let (world, told) = observed::<F>();
    let (writer, reader) = (&world.writer, world.writer.reader());
    writer.set(&module()).unwrap();
    reader.get("a/b.py").unwrap();
    reader.resolve("a.b").unwrap();
    reader.resolve("a.nothing").unwrap();
    reader.explain("a/b.py").unwrap();
    world.foreign().set_key("a/b.py", "{");
    reader.get("a/b.py").unwrap_err();
    writer.clear().unwrap();
    let calls = told.take();
    assert!(calls.len() >= 7, "{calls:?}");
    for call in calls {
        let text = format!("{call:?} {}", call.outcome);
        for secret in ["a/b", "a.b", "nothing", "bifrost", "x = 1"] {
            assert!(!text.contains(secret), "{text}");
        }
        let is_word = |c: char| c == '_' || c.is_ascii_lowercase();
        assert!(call.operation.chars().all(is_word), "{text}");
    }
}

fn a_call_that_redis_refuses_or_whose_entry_is_corrupt_says_so<F: Facade>() {
    let (world, told) = observed::<F>();
    let reader = world.writer.reader();
    world.foreign().set_key("a/b.py", "{");
    reader.get("a/b.py").unwrap_err();
    reader.get_many(&["c.py", "a/b.py"]).unwrap_err();
    assert_eq!(told.words(), ["get corrupt", "get_many corrupt"]);
    world.redis.command("DEL bifrost:module:index");
    world.redis.command("SET bifrost:module:index x");
    reader.paths().unwrap_err();
    world.writer.set(&module()).unwrap_err();
    assert_eq!(told.words(), ["paths refused", "set refused"]);
}

fn what_is_refused_before_it_is_sent_is_no_call<F: Facade>() {
    let (world, told) = observed::<F>();
    let reader = world.writer.reader();
    assert!(reader.get("../a.py").unwrap_err().is_invalid_path());
    assert!(world.writer.invalidate("index").is_err());
    let none: [&str; 0] = [];
    reader.get_many(&none).unwrap();
    assert!(told.words().is_empty());
}

fn a_read_that_is_tried_again_is_one_call<F: Facade>() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let told = Told::default();
    let writer = F::Writer::new(told.observe(patient(&proxy.url()))).unwrap();
    writer.set(&module()).unwrap();
    told.take();
    // The connection is lost in the middle of the answer.
    proxy.cut_one_reply_after(1);
    assert_eq!(writer.reader().get("a/b.py").unwrap(), Some(module()));
    let [get] = told.take().try_into().unwrap();
    assert_eq!((get.operation, get.outcome), ("get", Outcome::Done));
    assert_eq!(get.retries, 1);
    assert_eq!(writer.reader().stats().retries, 1);
    // What was sent twice counts once.
    let key_and_value = "bifrost:module:a/b.py".len() + module().to_json().len();
    assert_eq!(get.bytes, key_and_value as u64);
}

fn a_dead_server_is_unavailable_and_an_open_breaker_rejects<F: Facade>() {
    let (world, told) = observed::<F>();
    let (writer, reader) = (&world.writer, world.writer.reader());
    reader.get("a/b.py").unwrap();
    world.redis.kill();
    told.take();
    reader.get("a/b.py").unwrap_err();
    writer.set(&module()).unwrap_err();
    let words = told.words();
    assert_eq!(words, ["get unavailable", "set unavailable"]);
    wait_until("the breaker rejects", LIMIT, || {
        let rejected = reader.stats().rejected;
        reader.get("a/b.py").unwrap_err();
        reader.stats().rejected > rejected
    });
    let last = *told.take().last().unwrap();
    assert_eq!(
        (last.operation, last.outcome),
        ("get", Outcome::Rejected),
        "{last:?}"
    );
    assert_eq!((last.bytes, last.retries), (0, 0));
}

fn long_work_is_many_calls<F: Facade>() {
    let (world, told) = observed::<F>();
    let writer = &world.writer;
    let changes = [Change::Set(module()), Change::Remove("c.py".to_owned())];
    writer.publish(&changes).unwrap();
    writer.publish(&changes[1..]).unwrap();
    assert_eq!(told.words(), ["write done", "remove done"]);
    writer.refresh_to(&["a/b.py"], &[module()]).unwrap();
    assert_eq!(told.words(), ["reserve done", "write done"]);
    writer.publish_exact(&[module()]).unwrap();
    let words = told.words();
    assert!(words.contains(&"inspect done".to_owned()), "{words:?}");
    assert_eq!(words.last().unwrap(), "mark done");
    writer.clear().unwrap();
    let words = told.words();
    assert_eq!(words[0], "unmark done");
    assert!(words.contains(&"scan done".to_owned()), "{words:?}");
}

fn a_panic_fails_no_call<F: Facade>() {
    struct Panics;
    impl Observe for Panics {
        fn call_ended(&self, _: &CallEnded) {
            panic!("on purpose");
        }
    }
    let world = World::<F>::with(|config| config.with_observer(Arc::new(Panics)));
    world.writer.set(&module()).unwrap();
    let reader = world.writer.reader();
    assert_eq!(reader.get("a/b.py").unwrap(), Some(module()));
}

#[cfg(feature = "near-cache")]
fn a_hit_of_a_near_cache_is_no_call<F: Nearby>() {
    let (world, told) = observed::<F>();
    world.writer.set(&module()).unwrap();
    let config = told.observe(world.reader_config());
    let near = F::Near::live(config, NearCacheOptions::default());
    told.take();
    assert!(near.get("a/b.py").unwrap().is_some());
    assert_eq!(told.words(), ["get done"]);
    for _ in 0..3 {
        assert!(near.get("a/b.py").unwrap().is_some());
        assert!(near.get_many(&["a/b.py"]).unwrap()[0].is_some());
    }
    assert_eq!(near.stats().hits, 6);
    assert!(told.words().is_empty());
    near.get_many(&["a/b.py", "c.py"]).unwrap();
    assert_eq!(told.words(), ["get_many absent"]);
}

#[cfg(feature = "postgres")]
fn a_warm_up_is_many_calls<F: Facade>() {
    let (world, told) = observed::<F>();
    let paths = crate::support::numbered(401);
    world.table().fill(&paths);
    let mut client = world.client();
    let report = world.writer.warm_from_db(&mut client).unwrap();
    assert_eq!(report.written, paths.len());
    let calls = told.take();
    let count = |operation| {
        calls
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    };
    // Three batches, each of which is looked at again by the verification.
    assert_eq!(count("write"), 3, "{calls:?}");
    assert!(count("inspect") >= 6, "{calls:?}");
    assert_eq!(count("mark"), 1, "{calls:?}");
    assert!(
        calls.iter().all(|call| call.outcome == Outcome::Done),
        "{calls:?}"
    );
}

#[test]
fn a_call_that_its_caller_drops_is_cancelled() {
    let (world, told) = observed::<crate::support::Nonblocking>();
    let config = told.observe(world.reader_config());
    let reader = nonblocking::ModuleReader::new(config).unwrap();
    block_on(reader.get("a/b.py")).unwrap();
    told.take();
    world.redis.freeze();
    let given_up = block_on(async {
        tokio::time::timeout(Duration::from_millis(50), reader.get("a/b.py")).await
    });
    assert!(given_up.is_err());
    assert_eq!(told.words(), ["get cancelled"]);
    world.redis.thaw();
}
