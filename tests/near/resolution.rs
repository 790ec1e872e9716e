//! Names, answered by a near cache and by its snapshots.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Aim, Holder, Near, Nearby, PATIENCE, Proxy, READER_ACL, Reader, RedisServer, World, Writer,
    on_both_facades, patient, told, usual, wait_until,
};
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{CachedModule, Error, Resolution};
use redis::Commands as _;

on_both_facades! {
    a_warm_name_costs_nothing
    a_cold_name_costs_one_round_trip_and_one_for_the_index
    many_names_cost_what_one_costs
    a_name_spelled_like_a_path_leaves_that_path_alone
    what_a_foreign_writer_does_is_found_or_gone_when_it_is_announced
    a_change_asks_for_the_changed_paths_alone
    a_flush_leaves_nothing
    a_module_that_becomes_a_package_is_found_at_every_moment
    a_module_that_moves_is_not_missed_by_an_older_and_a_newer_absence
    a_path_that_cannot_be_one_breaks_nothing
    a_tied_writer_s_modules_are_found_at_once
    where_redis_is_not_followed_it_is_asked
    the_last_known_module_is_served_where_that_is_wanted
    what_a_package_may_have_hidden_is_not_served_instead
    what_was_said_to_be_gone_is_not_found_in_an_outage
    an_outage_is_never_an_absence
    a_corrupt_entry_is_named_unless_a_package_hides_it
    a_snapshot_answers_as_of_its_moment
    it_works_for_the_reader_s_acl_user
    a_user_that_may_not_ask_for_members_asks_for_the_whole_index
    an_index_too_large_to_be_kept_is_not_asked_for_each_time
}

const COMMANDS: [&str; 4] = ["get", "mget", "smembers", "smismember"];

fn module(path: &str) -> CachedModule {
    CachedModule::new(path, path).unwrap()
}

fn options() -> NearCacheOptions {
    // No machine is so slow that it can't give a sign of life in that time.
    NearCacheOptions::default().with_staleness_bound(PATIENCE)
}

fn serving<F: Nearby>(paths: &[&str]) -> (Holder, F::Writer, F::Near) {
    serving_with::<F>(paths, options())
}

fn serving_with<F: Nearby>(
    paths: &[&str],
    options: NearCacheOptions,
) -> (Holder, F::Writer, F::Near) {
    let world = World::<F>::new();
    for path in paths {
        world.writer.set(&module(path)).unwrap();
    }
    let near = world.near(options);
    (world.redis, world.writer, near)
}

/// One that may not follow Redis.
fn not_following<F: Nearby>(server: &RedisServer) -> F::Near {
    let acl = READER_ACL.replace("PASSWORD", "reads");
    server.command(&acl.replace("+client|tracking ", ""));
    let url = server.url_as("bifrost_reader", "reads");
    let config = patient(&url).with_index_max_age(PATIENCE);
    F::Near::new(F::Reader::new(config).unwrap(), options()).unwrap()
}

/// How often Redis was asked for anything.
fn asked(server: &RedisServer) -> [u64; 4] {
    COMMANDS.map(|command| server.calls(command))
}

fn tell<N: Near>(near: &N, name: &str) -> String {
    told(&near.resolve(name).unwrap())
}

const PATHS: [&str; 4] = ["p/__init__.py", "p.py", "p/m.py", "n/m.py"];

const NAMES: [(&str, &str); 8] = [
    ("p", "P p/__init__.py"),
    ("p.m", "M p/m.py"),
    ("n", "N n"),
    ("n.m", "M n/m.py"),
    ("n.x", "-"),
    ("numpy", "-"),
    ("index", "-"),
    ("a..b", "-"),
];

fn a_warm_name_costs_nothing<F: Nearby>() {
    let (server, _, near) = serving::<F>(&PATHS);
    let answer = || {
        for (name, expected) in NAMES {
            assert_eq!(tell(&near, name), expected, "{name}");
        }
    };
    answer();
    server.reset_stats();
    for _ in 0..100 {
        answer();
    }
    assert_eq!(asked(&server), [0; 4]);
    let stats = near.stats();
    assert_eq!(stats.reads(), stats.hits + stats.misses);
    let Resolution::Module(first) = near.resolve("n.m").unwrap() else {
        panic!("it is a module");
    };
    // No copy is made.
    assert!(std::sync::Arc::ptr_eq(
        &first,
        &near.get("n/m.py").unwrap().unwrap()
    ));
}

fn a_cold_name_costs_one_round_trip_and_one_for_the_index<F: Nearby>() {
    let (server, _, near) = serving::<F>(&PATHS);
    server.reset_stats();
    for (name, expected, cost) in [
        ("p", "P p/__init__.py", [0, 1, 0, 0]),
        ("n", "N n", [0, 2, 1, 0]),
        ("numpy", "-", [0, 3, 1, 0]),
        ("n.m", "M n/m.py", [0, 4, 1, 0]),
    ] {
        assert_eq!(tell(&near, name), expected);
        assert_eq!(asked(&server), cost);
    }
}

fn a_name_spelled_like_a_path_leaves_that_path_alone<F: Nearby>() {
    let (server, writer, near) = serving::<F>(&["x.py"]);
    let is_there = || near.get("x.py").unwrap().is_some();
    assert!(is_there() && near.get("y.py").unwrap().is_none());
    for name in ["x.py", "y.py"] {
        assert_eq!(tell(&near, name), "-");
    }
    server.reset_stats();
    for _ in 0..2 {
        assert!(is_there() && near.get("y.py").unwrap().is_none());
        for name in ["x.py", "y.py"] {
            assert_eq!(tell(&near, name), "-");
        }
    }
    assert_eq!(asked(&server), [0; 4]);
    // Nor does the path's change give up the name.
    writer.set(&module("x.py")).unwrap();
    near.until_announced();
    server.reset_stats();
    assert!(is_there() && tell(&near, "x.py") == "-");
    assert_eq!(asked(&server), [1, 0, 0, 0]);
}

fn many_names_cost_what_one_costs<F: Nearby>() {
    let (server, _, near) = serving::<F>(&PATHS);
    server.reset_stats();
    let names = NAMES.map(|(name, _)| name);
    for _ in 0..2 {
        let answers = near.resolve_many(&names).unwrap();
        let answers: Vec<_> = answers.iter().map(told).collect();
        assert_eq!(answers, NAMES.map(|(_, expected)| expected));
        assert_eq!(asked(&server), [0, 1, 1, 0]);
    }
    // What is kept is not asked for again.
    assert_eq!(told(&near.resolve_many(&["p", "new"]).unwrap()[1]), "-");
    assert_eq!(asked(&server), [0, 2, 1, 0]);
    assert_eq!(near.resolve_many(&[""; 0]).unwrap(), []);
}

fn what_a_foreign_writer_does_is_found_or_gone_when_it_is_announced<F: Nearby>() {
    let (server, _, near) = serving::<F>(&[]);
    let mut redis = server.connection();
    let index = "bifrost:module:index";
    for round in 0..3 {
        for (name, path) in [("d", "d/m.py"), ("d", "d/__init__.py"), ("d.m", "d/m.py")] {
            assert_eq!(tell(&near, name), "-", "{round}");
            let key = format!("bifrost:module:{path}");
            let () = redis.set(&key, module(path).to_json()).unwrap();
            let () = redis.sadd(index, path).unwrap();
            near.until_announced();
            let expected = match (name, path) {
                ("d", "d/m.py") => "N d".to_owned(),
                ("d", _) => format!("P {path}"),
                _ => format!("M {path}"),
            };
            assert_eq!(tell(&near, name), expected, "{round}");
            let () = redis.del(&key).unwrap();
            let () = redis.srem(index, path).unwrap();
            near.until_announced();
            assert_eq!(tell(&near, name), "-", "{round}");
        }
    }
}

fn a_change_asks_for_the_changed_paths_alone<F: Nearby>() {
    let (server, writer, near) = serving::<F>(&PATHS);
    assert_eq!(tell(&near, "numpy"), "-");
    server.reset_stats();
    for number in 0..3 {
        writer.set(&module(&format!("d{number}/m.py"))).unwrap();
        near.until_announced();
        assert_eq!(tell(&near, "numpy"), "-");
        assert_eq!(
            tell(&near, &format!("d{number}.m")),
            format!("M d{number}/m.py")
        );
        assert_eq!(tell(&near, &format!("d{number}")), format!("N d{number}"));
    }
    assert_eq!(asked(&server)[2..], [0, 3]);
    assert_eq!(near.paths().unwrap().len(), PATHS.len() + 3);
}

fn a_flush_leaves_nothing<F: Nearby>() {
    let (server, _, near) = serving::<F>(&PATHS);
    assert_eq!(tell(&near, "n"), "N n");
    server.command("FLUSHALL");
    near.until_announced();
    for name in ["n", "p", "n.m"] {
        assert_eq!(tell(&near, name), "-");
    }
}

fn a_module_that_becomes_a_package_is_found_at_every_moment<F: Nearby>() {
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    writer.set(&module("a.py")).unwrap();
    let proxy = Proxy::start(server.port());
    let near = F::Near::live(patient(&proxy.url()), options());
    assert_eq!(tell(&near, "a"), "M a.py");
    assert_eq!(tell(&near, "numpy"), "-");
    // That there is no package is kept, the module is not.
    writer
        .set(&CachedModule::new("a.py", "2").unwrap())
        .unwrap();
    near.hear_all();
    proxy.aim(Aim::Followers);
    proxy.stall_replies();
    writer.rename("a.py", &module("a/__init__.py")).unwrap();
    assert_eq!(tell(&near, "a"), "P a/__init__.py");
    assert_eq!(tell(&near, "a"), "P a/__init__.py");
}

/// That there is no package is known from before, that there is no module from after.
fn a_module_that_moves_is_not_missed_by_an_older_and_a_newer_absence<F: Nearby>() {
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    writer.set(&module("a.py")).unwrap();
    let proxy = Proxy::start(server.port());
    let near = F::Near::live(patient(&proxy.url()), options());
    near.until_announced();
    assert_eq!(near.get("a/__init__.py").unwrap(), None);
    assert_eq!(tell(&near, "numpy"), "-");
    proxy.aim(Aim::Followers);
    proxy.stall_replies();
    writer.rename("a.py", &module("a/__init__.py")).unwrap();
    assert_eq!(near.get("a.py").unwrap(), None);
    assert_eq!(tell(&near, "a"), "P a/__init__.py");
    assert_eq!(
        told(&near.resolve_many(&["a"]).unwrap()[0]),
        "P a/__init__.py"
    );
}

fn a_path_that_cannot_be_one_breaks_nothing<F: Nearby>() {
    let (server, writer, near) = serving::<F>(&["a.py"]);
    let mut redis = server.connection();
    assert_eq!(near.paths().unwrap().len(), 1);
    for bad in ["/b.py", "c//d.py", "e\\f.py"] {
        let key = format!("bifrost:module:{bad}");
        let json = r#"{"content": "x", "path": "x", "hash": "x"}"#;
        redis.set::<_, _, ()>(key, json).unwrap();
        redis.sadd::<_, _, ()>("bifrost:module:index", bad).unwrap();
    }
    near.hear_all();
    for path in ["g.py", "h.py"] {
        writer.set(&module(path)).unwrap();
        near.hear_all();
        assert!(near.paths().unwrap().contains(path));
    }
    assert_eq!(near.paths().unwrap().len(), 3);
    assert_eq!(near.snapshot().unwrap().paths().count(), 3);
    assert_eq!(near.prefetch().unwrap(), 3);
    assert_eq!(tell(&near, "c"), "-");
}

fn a_tied_writer_s_modules_are_found_at_once<F: Nearby>() {
    let (server, writer, near) = serving::<F>(&["a.py"]);
    near.tie(&writer);
    finds_what_it_wrote::<F>(&writer, &near);
    // Where Redis is not followed, an index may be some time old, but not older than a write.
    let near = not_following::<F>(&server);
    near.tie(&writer);
    finds_what_it_wrote::<F>(&writer, &near);
    assert!(!near.is_live());
}

fn finds_what_it_wrote<F: Nearby>(writer: &F::Writer, near: &F::Near) {
    for number in 0..50 {
        let name = format!("d{number}");
        let path = format!("{name}/m.py");
        assert_eq!(tell(near, &name), "-");
        writer.set(&module(&path)).unwrap();
        assert_eq!(tell(near, &name), format!("N {name}"));
        writer.invalidate(&path).unwrap();
        assert_eq!(tell(near, &name), "-");
    }
}

fn where_redis_is_not_followed_it_is_asked<F: Nearby>() {
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    for path in PATHS {
        writer.set(&module(path)).unwrap();
    }
    let near = not_following::<F>(server);
    server.reset_stats();
    for _ in 0..3 {
        for (name, expected) in NAMES {
            assert_eq!(tell(&near, name), expected, "{name}");
        }
    }
    // As the reader does: each name once, and the index at most so often.
    assert_eq!(asked(server), [0, 3 * 7, 1, 0]);
    assert!(!near.is_live());
    let stats = near.stats();
    assert_eq!((stats.bypasses, stats.hits), (2 * 3 * 7, 0));
}

fn the_last_known_module_is_served_where_that_is_wanted<F: Nearby>() {
    let (server, _, near) = serving_with::<F>(&PATHS, options().with_stale_if_error(PATIENCE));
    for (name, expected) in NAMES {
        assert_eq!(tell(&near, name), expected);
    }
    server.kill();
    wait_until("the loss is noticed", PATIENCE, || !near.is_live());
    for (name, expected) in NAMES {
        match near.resolve(name) {
            // What can't be a path never is one.
            Ok(answer) => assert!(name == "a..b" || told(&answer) == expected),
            // That something is absent, or a directory, says nothing about now.
            Err(error) => assert!(error.is_unavailable() && !expected.starts_with(['P', 'M'])),
        }
    }
    let answers = near.resolve_many(&["p", "n.m"]).unwrap();
    assert_eq!(
        answers.iter().map(told).collect::<Vec<_>>(),
        ["P p/__init__.py", "M n/m.py"]
    );
}

fn what_a_package_may_have_hidden_is_not_served_instead<F: Nearby>() {
    let (server, writer, near) = serving_with::<F>(&PATHS, options().with_stale_if_error(PATIENCE));
    near.prefetch().unwrap();
    // The package is not known any more, the module is.
    writer.set(&module("p/__init__.py")).unwrap();
    near.hear_all();
    server.kill();
    wait_until("the loss is noticed", PATIENCE, || !near.is_live());
    assert!(near.get("p.py").unwrap().is_some());
    assert!(near.resolve("p").unwrap_err().is_unavailable());
    // Nor where it was never known whether there is one.
    assert!(near.resolve("n.m").unwrap_err().is_unavailable());
}

fn what_was_said_to_be_gone_is_not_found_in_an_outage<F: Nearby>() {
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    for path in ["a.py", "b.py", "c.py"] {
        writer.set(&module(path)).unwrap();
    }
    let proxy = Proxy::start(server.port());
    let near = F::Near::live(usual(&proxy.url()), options().with_stale_if_error(PATIENCE));
    near.until_announced();
    for name in ["a", "b", "c"] {
        assert_eq!(tell(&near, name), format!("M {name}.py"));
    }
    // It is not followed any more, nor again.
    proxy.aim(Aim::Followers);
    proxy.cut_replies_after(1);
    writer.invalidate("a.py").unwrap();
    writer.rename("b.py", &module("b/__init__.py")).unwrap();
    wait_until("the loss is seen", PATIENCE, || !near.is_live());
    for (name, expected) in [("a", "-"), ("b", "P b/__init__.py")] {
        assert_eq!(tell(&near, name), expected);
    }
    server.kill();
    for (name, expected) in [("b", "P b/__init__.py"), ("c", "M c.py")] {
        assert_eq!(tell(&near, name), expected);
    }
    assert!(near.resolve("a").unwrap_err().is_unavailable());
}

fn an_outage_is_never_an_absence<F: Nearby>() {
    let (server, _, near) = serving::<F>(&PATHS);
    for (name, expected) in NAMES {
        assert_eq!(tell(&near, name), expected);
    }
    server.kill();
    wait_until("the loss is noticed", PATIENCE, || !near.is_live());
    for name in ["numpy", "n", "n.m", "p"] {
        let unavailable = |error: Error| assert!(error.is_unavailable(), "{error:?}");
        unavailable(near.resolve(name).unwrap_err());
        unavailable(near.resolve_many(&[name]).unwrap_err());
    }
    server.restart();
    near.until_live();
    let start = Instant::now();
    // It is another server, and empty; a connection to the old one may be noticed late.
    while near.resolve("n").is_err() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(tell(&near, "n"), "-");
}

fn a_corrupt_entry_is_named_unless_a_package_hides_it<F: Nearby>() {
    let (server, _, near) = serving::<F>(&["a/__init__.py", "c.py"]);
    let mut redis = server.connection();
    for path in ["a.py", "b/__init__.py"] {
        let () = redis.set(format!("bifrost:module:{path}"), "{").unwrap();
    }
    near.until_announced();
    for _ in 0..2 {
        assert_eq!(tell(&near, "a"), "P a/__init__.py");
        for error in [
            near.resolve("b").unwrap_err(),
            near.resolve_many(&["c", "b"]).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.path(), Some("b/__init__.py"), "{error:?}");
        }
    }
}

fn a_snapshot_answers_as_of_its_moment<F: Nearby>() {
    let (_server, writer, near) = serving::<F>(&PATHS);
    let snapshot = near.snapshot().unwrap();
    writer.clear().unwrap();
    writer.set(&module("numpy.py")).unwrap();
    for (name, expected) in NAMES {
        assert_eq!(told(&snapshot.resolve(name).unwrap()), expected);
    }
    let names = NAMES.map(|(name, _)| name);
    let answers = snapshot.resolve_many(&names).unwrap();
    assert_eq!(
        answers.iter().map(told).collect::<Vec<_>>(),
        NAMES.map(|(_, answer)| answer)
    );

    let part = near
        .snapshot_of(&["numpy/__init__.py", "numpy.py", "x.py"])
        .unwrap();
    assert_eq!(told(&part.resolve("numpy").unwrap()), "M numpy.py");
    assert_eq!(told(&part.resolve("a/b").unwrap()), "-");
    for unknown in ["x", "y"] {
        assert!(part.resolve(unknown).unwrap_err().is_invalid_path());
    }
}

fn it_works_for_the_reader_s_acl_user<F: Nearby>() {
    let world = World::<F>::acl();
    let writer = world.writer::<F>();
    let near = world.near(options());
    assert_eq!(tell(&near, "n"), "-");
    for path in PATHS {
        writer.set(&module(path)).unwrap();
        near.until_announced();
        near.resolve("n").unwrap();
    }
    for (name, expected) in NAMES {
        assert_eq!(tell(&near, name), expected, "{name}");
    }
    assert!(world.redis.calls("smismember") > 0 && near.is_live());
}

fn a_user_that_may_not_ask_for_members_asks_for_the_whole_index<F: Nearby>() {
    let (server, writer, _) = serving::<F>(&["a.py"]);
    let acl = READER_ACL.replace("PASSWORD", "reads");
    server.command(&acl.replace("+smismember ", ""));
    let url = server.url_as("bifrost_reader", "reads");
    let near = F::Near::live(patient(&url), options());
    for number in 0..4 {
        writer.set(&module(&format!("d{number}/m.py"))).unwrap();
        near.until_announced();
        assert_eq!(tell(&near, &format!("d{number}")), format!("N d{number}"));
        assert_eq!(tell(&near, "numpy"), "-");
    }
    assert_eq!(asked(&server)[2..], [4, 0]);
}

fn an_index_too_large_to_be_kept_is_not_asked_for_each_time<F: Nearby>() {
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    let paths = (0..2_000).map(|number| module(&format!("d{number}/m.py")));
    writer.publish_exact(&paths.collect::<Vec<_>>()).unwrap();
    // Like a reader's, it is as old as this for the names that it is asked for.
    let config = patient(&server.url()).with_index_max_age(PATIENCE);
    let near = F::Near::live(config, options().with_max_bytes(100_000));
    near.tie(writer);
    server.reset_stats();
    for number in 0..40 {
        assert_eq!(tell(&near, &format!("new{number}")), "-");
        assert_eq!(tell(&near, &format!("d{number}")), format!("N d{number}"));
    }
    assert_eq!(asked(server)[2..], [1, 0]);
    assert!(near.stats().bytes < 100_000);
    // What is written here is seen at once all the same.
    writer.set(&module("new0/m.py")).unwrap();
    assert_eq!(tell(&near, "new0"), "N new0");
    assert_eq!(asked(server)[2..], [2, 0]);
    // All paths are asked for, as ever.
    writer.set(&module("new1/m.py")).unwrap();
    assert_eq!(near.paths().unwrap().len(), 2_002);
}
