//! What `resolve` promises beyond the right answer: what it costs, how old it may be, and that it
//! never takes an outage for an absence.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Blocking, Facade, Monitor, PATIENCE, Proxy, Reader, RedisServer, World, Writer, block_on,
    on_both_facades, patient, told, wait_until,
};
use bifrost_module_cache::diagnosis::Cause;
use bifrost_module_cache::{CachedModule, Config, Error, Integrity, Resolution};
use redis::Commands as _;

on_both_facades! {
    each_name_is_what_python_takes_it_for
    what_can_not_be_a_path_is_not_found_and_not_asked_for
    a_foreign_name_costs_one_command_and_the_index_is_asked_for_once
    an_index_that_is_too_old_comes_with_the_modules
    our_own_modules_do_not_ask_for_the_index
    many_names_cost_what_one_costs
    threads_that_need_the_index_ask_for_it_once
    a_new_module_is_found_at_once_and_a_directory_within_the_age
    a_module_without_its_value_is_not_found
    paths_that_no_disk_can_hold_count_each_for_itself
    a_corrupt_entry_is_named_unless_a_package_hides_it
    the_hash_is_compared_where_that_is_wanted
    an_index_that_can_not_be_read_is_an_error_for_those_who_need_it
    an_outage_is_never_an_absence
    all_threads_end_in_time_while_the_server_is_frozen
    the_breaker_opens_for_names_that_are_not_ours
    a_name_is_explained
    a_cold_cache_is_told_from_a_warm_one
}

const INDEX: &str = "bifrost:module:index";
const MGET: &str = "MGET";
const SMEMBERS: &str = "SMEMBERS";

fn module(path: &str) -> CachedModule {
    CachedModule::new(path, path).unwrap()
}

fn worlds<F: Facade>() -> [World<F>; 3] {
    [World::new(), World::resp3(), World::acl()]
}

fn cached<F: Facade>(world: &World<F>, paths: &[&str]) -> F::Writer {
    let writer = world.writer::<F>();
    for path in paths {
        writer.set(&module(path)).unwrap();
    }
    writer
}

fn reader<F: Facade>(world: &World<F>, index_age: Duration) -> F::Reader {
    F::Reader::new(world.reader_config().with_index_max_age(index_age)).unwrap()
}

fn tell<R: Reader>(reader: &R, name: &str) -> String {
    told(&reader.resolve(name).unwrap())
}

fn each_name_is_what_python_takes_it_for<F: Facade>() {
    let paths = [
        "both/__init__.py",
        "both.py",
        "shared/halopsa.py",
        "module.py",
        "module/hidden.py",
        "my-mod.py",
        "日本語/data.txt",
    ];
    for world in worlds::<F>() {
        cached::<F>(&world, &paths);
        let reader = world.reader::<F>();
        let names = [
            ("both", "P both/__init__.py"),
            ("both.__init__", "M both/__init__.py"),
            ("shared", "N shared"),
            ("shared.halopsa", "M shared/halopsa.py"),
            ("module", "M module.py"),
            // For the name alone: Python does not come so far.
            ("module.hidden", "M module/hidden.py"),
            ("my-mod", "M my-mod.py"),
            ("日本語", "N 日本語"),
            ("日本語.data", "-"),
            ("numpy", "-"),
            ("shared.numpy", "-"),
            ("share", "-"),
        ];
        for (name, expected) in names {
            assert_eq!(tell(&reader, name), expected, "{name}");
        }
        let answers = reader.resolve_many(&names.map(|(name, _)| name)).unwrap();
        assert_eq!(
            answers.iter().map(told).collect::<Vec<_>>(),
            names.map(|(_, expected)| expected)
        );
        let Resolution::Package(package) = &answers[0] else {
            panic!("{answers:?}");
        };
        assert_eq!(**package, module("both/__init__.py"));
        assert_eq!(reader.stats().absent, 2 * 4);
    }
}

fn what_can_not_be_a_path_is_not_found_and_not_asked_for<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(&world, &["a/b.py", ".py", "a/.py"]);
    let reader = world.reader::<F>();
    let long = "x".repeat(1_000);
    let names = [
        "", ".", "..", "a.", ".a", "a..b", "a/b", "a\\b", "a\0", "a\n", &long,
    ];
    for name in names {
        assert_eq!(tell(&reader, name), "-", "{name:?}");
    }
    let answers = reader.resolve_many(&names).unwrap();
    assert!(answers.iter().all(|answer| *answer == Resolution::NotFound));
    assert_eq!(reader.resolve_many(&[""; 0]).unwrap(), []);
    let explained = reader.explain_name("a/b").unwrap();
    assert_eq!(explained.cause, Cause::NotAPath);
    let stats = reader.stats();
    assert_eq!((stats.calls, stats.absent), (0, 0));
    // The longest of names can have neither path, and still be a directory.
    let name = "x".repeat(998);
    cached::<F>(&world, &[&format!("{name}/y")]);
    assert_eq!(tell(&reader, &name), format!("N {name}"));
}

fn a_foreign_name_costs_one_command_and_the_index_is_asked_for_once<F: Facade>() {
    let world = World::<F>::acl();
    cached::<F>(&world, &["a/b.py"]);
    let reader = reader::<F>(&world, PATIENCE);
    let mut monitor = Monitor::start(&world.redis);
    for number in 0..1_000 {
        assert_eq!(tell(&reader, &format!("foreign.module_{number}")), "-");
    }
    assert_eq!(tell(&reader, "a"), "N a");
    let mut commands = monitor.commands();
    commands.retain(|command| command == MGET || command == SMEMBERS);
    // Both in one request, then a request each.
    assert_eq!(commands[..3], [MGET, SMEMBERS, MGET]);
    assert_eq!(commands.len(), 1_002);
    assert_eq!(reader.stats().calls, 1_001);
    // Clones share it.
    assert_eq!(tell(&reader.clone(), "foreign"), "-");
    assert_eq!(world.redis.calls("smembers"), 1);
}

fn an_index_that_is_too_old_comes_with_the_modules<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(&world, &["a/b.py"]);
    for age in [Duration::ZERO, Duration::from_millis(20)] {
        let reader = reader::<F>(&world, age);
        world.redis.reset_stats();
        for _ in 0..3 {
            thread::sleep(age + Duration::from_millis(1));
            assert_eq!(tell(&reader, "a"), "N a");
        }
        assert_eq!(world.redis.calls("smembers"), 3);
        assert_eq!(reader.stats().calls, 3);
    }
}

fn our_own_modules_do_not_ask_for_the_index<F: Facade>() {
    let world = World::<F>::new();
    let writer = cached::<F>(&world, &["a/__init__.py", "a/b.py"]);
    let reader = reader::<F>(&world, Duration::ZERO);
    let ours = || {
        assert_eq!(tell(&reader, "a"), "P a/__init__.py");
        assert_eq!(tell(&reader, "a.b"), "M a/b.py");
        world.redis.calls("smembers")
    };
    // Nothing is known of the index yet, and a second round trip would be one too many.
    assert_eq!(ours(), 1);
    assert_eq!(ours(), 1);
    assert_eq!(tell(&reader, "foreign"), "-");
    assert_eq!(ours(), 2);
    let calls = reader.stats().calls;
    writer.invalidate("a/b.py").unwrap();
    assert_eq!(tell(&reader, "a.b"), "-");
    // What was listed when it was looked at last: here, and only here, the index comes after.
    assert_eq!(reader.stats().calls, calls + 2);
}

fn many_names_cost_what_one_costs<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(&world, &["a/b.py", "c.py"]);
    let reader = reader::<F>(&world, PATIENCE);
    let names: Vec<String> = (0..100)
        .map(|number| format!("x{number}"))
        .chain(["a", "c", "a.b"].map(String::from))
        .collect();
    world.redis.reset_stats();
    for round in 1..=2 {
        let answers = reader.resolve_many(&names).unwrap();
        let answers: Vec<_> = answers.iter().map(told).collect();
        assert_eq!(answers[99..], ["-", "N a", "M c.py", "M a/b.py"]);
        assert_eq!(world.redis.calls("mget"), round);
        assert_eq!(world.redis.calls("smembers"), 1);
        assert_eq!(reader.stats().calls, round);
    }
}

fn threads_that_need_the_index_ask_for_it_once<F: Facade>() {
    const THREADS: usize = 8;
    let world = World::<F>::new();
    cached::<F>(&world, &["a/b.py"]);
    let proxy = Proxy::start(world.redis.port());
    // Long enough for all threads to begin before the first one has its answer.
    proxy.set_latency(Duration::from_millis(100));
    let config = patient(&proxy.url()).with_index_max_age(PATIENCE);
    let reader = F::Reader::new(config).unwrap();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (reader, barrier) = (reader.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                assert_eq!(tell(&reader, &format!("foreign_{number}")), "-");
                assert_eq!(tell(&reader, "a"), "N a");
            });
        }
    });
    assert_eq!(world.redis.calls("smembers"), 1);
    assert_eq!(world.redis.calls("mget"), 2 * THREADS as u64);
}

fn a_new_module_is_found_at_once_and_a_directory_within_the_age<F: Facade>() {
    let world = World::<F>::acl();
    let writer = cached::<F>(&world, &["gone/a.py"]);
    let exact = reader::<F>(&world, Duration::ZERO);
    let relaxed = reader::<F>(&world, PATIENCE);
    assert_eq!(tell(&relaxed, "foreign"), "-");
    writer.set(&module("new/a.py")).unwrap();
    writer.invalidate("gone/a.py").unwrap();
    for (name, now, later) in [
        ("new.a", "M new/a.py", "M new/a.py"),
        ("gone.a", "-", "-"),
        ("new", "N new", "-"),
        ("gone", "-", "N gone"),
    ] {
        assert_eq!(tell(&exact, name), now);
        assert_eq!(tell(&relaxed, name), later);
    }
}

fn a_module_without_its_value_is_not_found<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(
        &world,
        &["a/__init__.py", "b/__init__.py", "b/c.py", "d.py"],
    );
    let mut redis = world.redis.connection();
    for path in ["a/__init__.py", "b/__init__.py", "d.py"] {
        let () = redis.del(format!("bifrost:module:{path}")).unwrap();
    }
    let reader = world.reader::<F>();
    // An expired package must not be imported as an empty one.
    for (name, answer) in [("a", "-"), ("b", "N b"), ("b.c", "M b/c.py"), ("d", "-")] {
        assert_eq!(tell(&reader, name), answer);
    }
    for (name, gone) in [("a", "a/__init__.py"), ("d", "d.py")] {
        let explained = reader.explain_name(name).unwrap();
        assert_eq!(explained.cause, Cause::ValueGone, "{explained:?}");
        assert_eq!(explained.path.as_deref(), Some(gone));
    }
    // What is there, and not in the index yet, is there.
    let () = redis.srem(INDEX, "b/c.py").unwrap();
    assert_eq!(tell(&reader, "b.c"), "M b/c.py");
}

fn paths_that_no_disk_can_hold_count_each_for_itself<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(
        &world,
        &[
            "a",
            "a/b.py",
            "c.py",
            "c.py/d.py",
            "e/__init__.py",
            "e/__init__.py/f.py",
        ],
    );
    let reader = world.reader::<F>();
    for (name, answer) in [
        ("a", "N a"),
        ("a.b", "M a/b.py"),
        ("c", "M c.py"),
        ("c.py", "-"),
        ("c.d", "-"),
        ("e", "P e/__init__.py"),
        ("e.__init__", "M e/__init__.py"),
    ] {
        assert_eq!(tell(&reader, name), answer, "{name}");
    }
}

fn a_corrupt_entry_is_named_unless_a_package_hides_it<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(
        &world,
        &["a/__init__.py", "a.py", "b/__init__.py", "b.py", "c.py"],
    );
    let mut redis = world.redis.connection();
    for path in ["a.py", "b/__init__.py"] {
        let () = redis.set(format!("bifrost:module:{path}"), "{").unwrap();
    }
    let reader = world.reader::<F>();
    assert_eq!(tell(&reader, "a"), "P a/__init__.py");
    for error in [
        reader.resolve("b").unwrap_err(),
        reader.resolve_many(&["c", "b"]).map(drop).unwrap_err(),
    ] {
        assert!(error.is_corrupt(), "{error:?}");
        assert_eq!(error.path(), Some("b/__init__.py"));
    }
    let explained = reader.explain_name("b").unwrap();
    assert_eq!(explained.cause, Cause::Corrupt);
    assert_eq!(explained.path.as_deref(), Some("b/__init__.py"));
}

fn the_hash_is_compared_where_that_is_wanted<F: Facade>() {
    let world = World::<F>::new();
    let writer = world.writer::<F>();
    let forged = CachedModule::with_hash("a.py", "evil", module("a.py").hash).unwrap();
    writer.set(&forged).unwrap();
    let config = world.reader_config().with_integrity(Integrity::Enforce);
    let reader = F::Reader::new(config).unwrap();
    assert!(reader.resolve("a").unwrap_err().is_corrupt());
    assert_eq!(reader.stats().mismatched, 1);
    // What no read serves is not told as cached, nor is what lies below it.
    for explained in [
        reader.explain("a.py").unwrap(),
        reader.explain_name("a").unwrap(),
        reader.explain_name("a.b").unwrap(),
    ] {
        assert_eq!(explained.cause, Cause::Corrupt, "{explained}");
        assert_eq!(explained.path.as_deref(), Some("a.py"));
    }
    assert_eq!(tell(&world.reader::<F>(), "a"), "M a.py");
}

fn an_index_that_can_not_be_read_is_an_error_for_those_who_need_it<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(&world, &["a.py"]);
    let reader = reader::<F>(&world, Duration::ZERO);
    let mut redis = world.redis.connection();
    let () = redis.del(INDEX).unwrap();
    let () = redis.set(INDEX, "no set").unwrap();
    for _ in 0..2 {
        assert_eq!(tell(&reader, "a"), "M a.py");
        for _ in 0..2 {
            let error = reader.resolve("foreign").unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Refused {
                        code: "WRONGTYPE",
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }
    assert_eq!(reader.stats().refused, 4);
    let () = redis.del(INDEX).unwrap();
    assert_eq!(tell(&reader, "foreign"), "-");
    // And all is as it was: one round trip.
    let calls = reader.stats().calls;
    assert_eq!(tell(&reader, "foreign"), "-");
    assert_eq!(reader.stats().calls, calls + 1);
}

fn an_outage_is_never_an_absence<F: Facade>() {
    let world = World::<F>::new();
    cached::<F>(&world, &["a/b.py"]);
    let reader = reader::<F>(&world, PATIENCE);
    assert_eq!(tell(&reader, "foreign"), "-");
    world.redis.kill();
    for name in ["foreign", "a", "a.b"] {
        assert!(reader.resolve(name).unwrap_err().is_unavailable());
        assert!(reader.resolve_many(&[name]).unwrap_err().is_unavailable());
        assert!(reader.explain_name(name).unwrap_err().is_unavailable());
    }
}

/// With the time-outs of a worker; the limit leaves time for a noisy machine.
const LIMIT: Duration = Duration::from_millis(1_500);

fn all_threads_end_in_time_while_the_server_is_frozen<F: Facade>() {
    let server = RedisServer::start();
    let reader = F::Reader::new(Config::new(server.url()).unwrap()).unwrap();
    server.freeze();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let start = Instant::now();
                let error = reader.resolve("foreign").unwrap_err();
                assert!(error.is_unavailable(), "{error:?}");
                assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
            });
        }
    });
    server.thaw();
    wait_until("the breaker lets a call through", PATIENCE, || {
        reader.resolve("foreign").is_ok()
    });
}

/// Although time-outs of large answers do not count for it.
fn the_breaker_opens_for_names_that_are_not_ours<F: Facade>() {
    let server = RedisServer::start();
    let config = Config::new(server.url())
        .unwrap()
        .with_response_timeout(Duration::from_millis(20))
        .with_lookup_deadline(Duration::from_millis(50));
    let reader = F::Reader::new(config).unwrap();
    server.freeze();
    let mut unavailable = 0;
    while unavailable < 8 {
        let error = reader.resolve("foreign").unwrap_err();
        // On a busy machine the pool's own thread may be late, which counts for no outage.
        assert!(error.is_unavailable() || error.is_busy(), "{error:?}");
        unavailable += u32::from(error.is_unavailable());
    }
    assert!(reader.stats().breaker_opened > 0, "{:?}", reader.stats());
}

fn a_name_is_explained<F: Facade>() {
    for world in worlds::<F>() {
        let writer = world.writer::<F>();
        let modules = ["a/__init__.py", "a/b.py", "m.py", "m/x.py", "n/x.py"].map(module);
        writer.publish_exact(&modules).unwrap();
        let reader = world.reader::<F>();
        for (name, about, cause, words) in [
            ("a.b", "a.b", Cause::Cached, "\"a.b\" is cached"),
            ("n", "n", Cause::Namespace, "is a namespace package"),
            (
                "m.x",
                "m.x",
                Cause::Hidden,
                "\"m.py\" is a module and no package",
            ),
            (
                "a.c",
                "a.c",
                Cause::NotCached,
                "no \"a/c/__init__.py\" and no \"a/c.py\"",
            ),
            (
                "z.y.x",
                "z",
                Cause::NotCached,
                "no module named \"z\": there is no \"z/",
            ),
            (
                "a..b",
                "a..b",
                Cause::NotAPath,
                "no path can have such a name",
            ),
        ] {
            let explained = reader.explain_name(name).unwrap();
            assert_eq!(explained.name.as_deref(), Some(about));
            assert_eq!(explained.cause, cause, "{explained:?}");
            assert!(explained.to_string().contains(words), "{explained}");
        }
    }
}

fn a_cold_cache_is_told_from_a_warm_one<F: Facade>() {
    let world = World::<F>::acl();
    let writer = cached::<F>(&world, &["a.py"]);
    let reader = world.reader::<F>();
    let cause = || reader.explain_name("shared.halopsa").unwrap().cause;
    assert_eq!(cause(), Cause::CacheCold);
    writer.publish_exact(&[module("a.py")]).unwrap();
    assert_eq!(cause(), Cause::NotCached);
}

#[test]
fn a_call_that_is_given_up_leaves_the_index_to_others() {
    use bifrost_module_cache::nonblocking::ModuleReader;
    let world = World::<Blocking>::new();
    let proxy = Proxy::start(world.redis.port());
    let reader = ModuleReader::new(patient(&proxy.url())).unwrap();
    proxy.stall_replies();
    block_on(async {
        let given_up = tokio::time::timeout(Duration::from_millis(50), reader.resolve("foreign"));
        assert!(given_up.await.is_err());
    });
    proxy.resume();
    let answer = block_on(reader.resolve("foreign")).unwrap();
    assert_eq!(answer, Resolution::NotFound);
}
