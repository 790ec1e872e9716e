//! What a near cache promises while all is well, on both facades.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Holder, Monitor, Near, Nearby, PATIENCE, READER_ACL, Reader, RedisServer, StopOnDrop, World,
    Writer, block_on, content, on_both_facades, patient, wait_until,
};
use bifrost_module_cache::near::{Invalidation, NearCacheOptions};
use bifrost_module_cache::sync::Change;
use bifrost_module_cache::{CachedModule, nonblocking};

on_both_facades! {
    a_hit_asks_redis_for_nothing
    what_is_written_elsewhere_is_seen
    a_path_that_was_absent_is_seen_when_it_is_created
    what_expires_goes
    many_are_read_in_one_round_trip
    a_path_named_twice_is_answered_twice
    the_index_is_kept_until_it_changes
    bad_paths_are_refused_and_nothing_is_sent
    corrupt_entries_are_errors_and_not_kept
    a_tied_writer_sees_what_it_wrote
    a_tied_writer_s_bulk_writes_are_seen
    all_who_miss_the_same_path_cause_one_request
    every_read_is_counted_once
    bytes_stay_within_their_bound
    absent_paths_stay_within_their_bound
    an_old_entry_is_asked_for_anew
    everything_is_loaded_in_few_round_trips
    what_has_no_room_is_not_loaded
    the_last_one_dropped_ends_the_connection
    hooks_are_told_what_changed
    a_snapshot_stays_as_it_was
    a_snapshot_knows_what_it_is_of
    a_snapshot_bears_a_corrupt_entry
    a_snapshot_is_never_of_two_moments
    it_works_for_the_reader_s_acl_user
    where_tracking_is_forbidden_it_reads_through
    where_the_protocol_is_too_old_it_reads_through
}

fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::new(path, content).unwrap()
}

fn options() -> NearCacheOptions {
    // No machine is so slow that it can't give a sign of life in that time.
    NearCacheOptions::default().with_staleness_bound(PATIENCE)
}

/// A server, a writer over other connections, and a near cache.
fn serving<F: Nearby>() -> (Holder, F::Writer, F::Near) {
    serving_with::<F>(options())
}

fn serving_with<F: Nearby>(options: NearCacheOptions) -> (Holder, F::Writer, F::Near) {
    let world = World::<F>::new();
    let near = world.near(options);
    (world.redis, world.writer, near)
}

fn a_hit_asks_redis_for_nothing<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    near.hear_all();
    near.get_many(&["a.py", "b.py"]).unwrap();
    let mut monitor = Monitor::start(&server);
    let first = near.get("a.py").unwrap().unwrap();
    for _ in 0..100 {
        let again = near.get("a.py").unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again), "it is shared, not copied");
        assert_eq!(near.get("b.py").unwrap(), None);
    }
    assert_eq!(*first, module("a.py", "a"));
    let asked = monitor.commands();
    assert!(!asked.contains(&"GET".to_owned()), "{asked:?}");
}

fn what_is_written_elsewhere_is_seen<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    for version in 0..100 {
        let content = version.to_string();
        writer.set(&module("a.py", &content)).unwrap();
        near.until("a.py", Some(&content));
    }
    // Python writes and removes in two steps.
    server.command("SET bifrost:module:a.py {\"content\":\"py\",\"path\":\"a.py\",\"hash\":\"\"}");
    near.until("a.py", Some("py"));
    server.command("DEL bifrost:module:a.py");
    near.until("a.py", None);
    writer.rename("a.py", &module("b.py", "moved")).unwrap();
    near.until("b.py", Some("moved"));
    writer.clear().unwrap();
    near.until("b.py", None);
}

fn a_path_that_was_absent_is_seen_when_it_is_created<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    assert_eq!(near.get("a.py").unwrap(), None);
    writer.set(&module("a.py", "a")).unwrap();
    near.until("a.py", Some("a"));
    writer.invalidate("a.py").unwrap();
    near.until("a.py", None);
}

fn what_expires_goes<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    near.until("a.py", Some("a"));
    server.command("PEXPIRE bifrost:module:a.py 50");
    near.until("a.py", None);
}

fn many_are_read_in_one_round_trip<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    let paths: Vec<String> = (0..50).map(|n| format!("{n}.py")).collect();
    for path in &paths[..40] {
        writer.set(&module(path, path)).unwrap();
    }
    near.hear_all();
    server.reset_stats();
    for _ in 0..3 {
        let found = near.get_many(&paths).unwrap();
        for (path, module) in paths.iter().zip(&found) {
            let expected = paths[..40].contains(path).then_some(path);
            assert_eq!(module.as_ref().map(|module| &module.path), expected);
        }
        assert_eq!(server.calls("mget"), 1);
    }
    assert_eq!(server.calls("get"), 0);
    assert_eq!(near.get_many(&[] as &[&str]).unwrap(), []);
}

fn a_path_named_twice_is_answered_twice<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    near.until("a.py", Some("a"));
    for paths in [["a.py", "a.py"], ["b.py", "b.py"], ["a.py", "b.py"]] {
        let found = near.get_many(&paths).unwrap();
        let found: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert_eq!(found, paths.map(|path| path == "a.py"));
    }
}

fn the_index_is_kept_until_it_changes<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    near.hear_all();
    assert!(near.paths().unwrap().contains("a.py"));
    server.reset_stats();
    for _ in 0..10 {
        assert_eq!(near.paths().unwrap().len(), 1);
    }
    assert_eq!(server.calls("smembers"), 0);
    // A path without its key, which no announcement names, is found two signs of life later.
    let bound = Duration::from_secs(4);
    let near = F::Near::live(
        patient(&server.url()),
        options().with_staleness_bound(bound),
    );
    assert_eq!(near.paths().unwrap().len(), 1);
    server.command("SADD bifrost:module:index b.py");
    wait_until("the new path is here", PATIENCE, || {
        near.paths().unwrap().contains("b.py")
    });
    // The index is no module.
    assert!(near.get("index").unwrap_err().is_invalid_path());
}

fn bad_paths_are_refused_and_nothing_is_sent<F: Nearby>() {
    let (server, _writer, near) = serving::<F>();
    near.get_many(&["a.py"]).unwrap();
    server.reset_stats();
    for path in ["", "/a.py", "a//b.py", "../a.py", "index", "a\0.py"] {
        assert!(near.get(path).unwrap_err().is_invalid_path());
        assert!(
            near.get_many(&["a.py", path])
                .unwrap_err()
                .is_invalid_path()
        );
        assert!(near.prefetch_paths(&[path]).unwrap_err().is_invalid_path());
        assert!(near.snapshot_of(&[path]).unwrap_err().is_invalid_path());
    }
    assert_eq!(server.calls("get") + server.calls("mget"), 0);
}

fn corrupt_entries_are_errors_and_not_kept<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    server.command("SET bifrost:module:a.py broken");
    for _ in 0..2 {
        assert!(near.get("a.py").unwrap_err().is_corrupt());
        assert!(near.get_many(&["a.py"]).unwrap_err().is_corrupt());
    }
    writer.set(&module("a.py", "a")).unwrap();
    assert_eq!(content(near.get("a.py")).as_deref(), Some("a"));
    writer.set(&module("b.py", "b")).unwrap();
    server.command("SET bifrost:module:c.py broken");
    server.command("SADD bifrost:module:index c.py");
    near.hear_all();
    assert_eq!(near.prefetch().unwrap(), 2);
}

fn a_tied_writer_sees_what_it_wrote<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    near.tie(&writer);
    let writer = writer.clone();
    for version in 0..300 {
        let text = version.to_string();
        writer.set(&module("a.py", &text)).unwrap();
        assert_eq!(content(near.get("a.py")), Some(text.clone()));
        let change = Change::Set(module("b.py", &text));
        writer.publish(&[change]).unwrap();
        assert_eq!(content(near.get("b.py")), Some(text.clone()));
        writer.rename("b.py", &module("c.py", &text)).unwrap();
        assert_eq!(near.get("b.py").unwrap(), None);
        assert_eq!(content(near.get("c.py")), Some(text));
        assert!(near.paths().unwrap().contains("c.py"));
        writer.invalidate("c.py").unwrap();
        assert_eq!(near.get("c.py").unwrap(), None);
        assert!(!near.paths().unwrap().contains("c.py"));
    }
}

fn a_tied_writer_s_bulk_writes_are_seen<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    near.tie(&writer);
    for version in 0..100 {
        let modules = [module("a.py", &version.to_string())];
        writer.publish_exact(&modules).unwrap();
        assert_eq!(content(near.get("a.py")), Some(version.to_string()));
        let again = [module("a.py", &format!("{version} again"))];
        writer.refresh_to(&["a.py"], &again).unwrap();
        assert_eq!(content(near.get("a.py")), Some(format!("{version} again")));
        writer.clear().unwrap();
        assert_eq!(near.get("a.py").unwrap(), None);
    }
}

fn all_who_miss_the_same_path_cause_one_request<F: Nearby>() {
    const THREADS: usize = 100;
    let (server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    near.hear_all();
    let misses = near.stats().misses;
    for path in ["b.py", "c.py", "d.py"] {
        writer.set(&module(path, path)).unwrap();
        near.hear_all();
        server.reset_stats();
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(content(near.get(path)).as_deref(), Some(path));
                });
            }
        });
        assert_eq!(server.calls("get"), 1);
    }
    let stats = near.stats();
    assert!(stats.joined < stats.misses - misses);
    assert_eq!(
        stats.misses - misses - stats.joined,
        3,
        "one each asked: {stats:?}"
    );
}

fn every_read_is_counted_once<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    let paths = ["a.py", "b.py", "c.py"];
    let before = near.stats().reads();
    let mut asked = 0;
    for _ in 0..10 {
        for path in paths {
            near.get(path).unwrap();
        }
        near.get_many(&paths).unwrap();
        asked += 6;
    }
    near.get("/").unwrap_err();
    let stats = near.stats();
    assert_eq!(stats.reads() - before, asked, "{stats:?}");
    assert!(
        stats.absent_hits > 0 && stats.hits > stats.absent_hits,
        "{stats:?}"
    );
    assert_eq!((stats.modules, stats.absent_paths), (1, 2));
    assert!(stats.live && stats.sessions == 1 && stats.bytes > 0);
}

fn bytes_stay_within_their_bound<F: Nearby>() {
    const BOUND: usize = 1024 * 1024;
    let (_server, writer, near) = serving_with::<F>(options().with_max_bytes(BOUND));
    let paths: Vec<String> = (0..100).map(|n| format!("{n}.py")).collect();
    for path in &paths {
        writer.set(&module(path, &"x".repeat(50_000))).unwrap();
    }
    near.hear_all();
    near.get("0.py").unwrap();
    for path in &paths {
        assert!(near.get(path).unwrap().is_some());
        assert!(near.get("0.py").unwrap().is_some());
        assert!(near.stats().bytes <= BOUND);
    }
    let stats = near.stats();
    assert!(stats.modules >= 15 && stats.evictions >= 80, "{stats:?}");
    // What was asked for again and again has stayed.
    assert!(stats.hits >= 100, "{stats:?}");
    writer.set(&module("huge.py", &"x".repeat(BOUND))).unwrap();
    assert_eq!(
        content(near.get("huge.py")).map(|content| content.len()),
        Some(BOUND)
    );
    assert!(near.stats().bytes <= BOUND && near.stats().modules >= 15);
}

fn absent_paths_stay_within_their_bound<F: Nearby>() {
    let (_server, writer, near) = serving_with::<F>(options().with_max_absent_paths(100));
    writer.set(&module("a.py", "a")).unwrap();
    near.hear_all();
    assert!(near.get("a.py").unwrap().is_some());
    for n in 0..1_000 {
        assert_eq!(near.get(&format!("{n}.py")).unwrap(), None);
    }
    let stats = near.stats();
    assert_eq!((stats.absent_paths, stats.modules), (100, 1), "{stats:?}");
}

fn an_old_entry_is_asked_for_anew<F: Nearby>() {
    let age = Duration::from_millis(50);
    let (server, writer, near) = serving_with::<F>(options().with_max_age(age));
    writer.set(&module("a.py", "a")).unwrap();
    near.until("a.py", Some("a"));
    // What Redis never announces.
    let mut redis = server.connection();
    redis::cmd("SWAPDB").arg(0).arg(1).exec(&mut redis).unwrap();
    near.until("a.py", None);
}

fn everything_is_loaded_in_few_round_trips<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    let modules: Vec<_> = (0..1_200)
        .map(|n| module(&format!("{n}.py"), "x"))
        .collect();
    writer.publish_exact(&modules).unwrap();
    near.hear_all();
    server.reset_stats();
    assert_eq!(near.prefetch().unwrap(), 1_200);
    assert_eq!((server.calls("smembers"), server.calls("mget")), (1, 3));
    server.reset_stats();
    assert_eq!(near.prefetch().unwrap(), 1_200);
    assert_eq!(near.prefetch_paths(&["1.py", "none.py"]).unwrap(), 1);
    for module in &modules {
        assert!(near.get(&module.path).unwrap().is_some());
    }
    assert_eq!((server.calls("smembers"), server.calls("mget")), (0, 1));
    assert_eq!(server.calls("get"), 0);
}

fn what_has_no_room_is_not_loaded<F: Nearby>() {
    const BOUND: usize = 1024 * 1024;
    let (_server, writer, near) = serving_with::<F>(options().with_max_bytes(BOUND));
    let modules: Vec<_> = (0..100)
        .map(|n| module(&format!("{n}.py"), &"x".repeat(50_000)))
        .collect();
    writer.publish_exact(&modules).unwrap();
    near.hear_all();
    assert!(near.get("7.py").unwrap().is_some());
    let loaded = near.prefetch().unwrap();
    assert!((15..22).contains(&loaded), "{loaded}");
    let stats = near.stats();
    assert!(stats.bytes <= BOUND && stats.evictions == 0, "{stats:?}");
    let hits = stats.hits;
    assert!(near.get("7.py").unwrap().is_some());
    assert_eq!(near.stats().hits, hits + 1, "it was hot");
}

fn the_last_one_dropped_ends_the_connection<F: Nearby>() {
    let (server, _writer, near) = serving::<F>();
    let followers = || {
        let mut redis = server.connection();
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
        list.lines()
            .filter(|line| {
                line.contains(" flags=tB ")
                    || line.contains(" flags=tBR ")
                    || line.contains("flags=t")
            })
            .count()
    };
    assert_eq!(followers(), 1);
    let clone = near.clone();
    drop(near);
    assert!(clone.is_live() && followers() == 1);
    let start = Instant::now();
    drop(clone);
    wait_until("the listener has ended", PATIENCE, || followers() == 0);
    let took = start.elapsed();
    assert!(
        took < Duration::from_millis(100) * 5,
        "{took:?}: promised within 100 ms, on a machine that has nothing else to do"
    );
}

fn hooks_are_told_what_changed<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    let (sender, told) = mpsc::channel();
    let seen = near.clone();
    near.on_invalidate(move |invalidation: &Invalidation| {
        // A reader that asks then gets what is new. (In a task, this would block the runtime.)
        let _ = seen.is_live();
        sender.send(invalidation.clone()).unwrap();
    })
    .unwrap();
    near.on_invalidate(|_| panic!("on purpose")).unwrap();
    let next = || told.recv_timeout(PATIENCE).unwrap();
    writer.set(&module("a.py", "a")).unwrap();
    assert_eq!(next(), Invalidation::Paths(vec!["a.py".into()]));
    writer.invalidate("a.py").unwrap();
    assert_eq!(next(), Invalidation::Paths(vec!["a.py".into()]));
    // The index alone is no module.
    server.command("SADD bifrost:module:index b.py");
    server.command("FLUSHALL");
    assert_eq!(next(), Invalidation::Everything);
    server.command("CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(next(), Invalidation::Everything);
    // And again when it is followed again: Redis did not tell what changed between.
    assert_eq!(next(), Invalidation::Everything);
}

fn a_snapshot_stays_as_it_was<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    for path in ["a.py", "b.py"] {
        writer.set(&module(path, "old")).unwrap();
    }
    let snapshot = near.snapshot().unwrap();
    writer.set(&module("a.py", "new")).unwrap();
    writer.set(&module("c.py", "new")).unwrap();
    writer.invalidate("b.py").unwrap();
    near.until("a.py", Some("new"));
    let later = near.snapshot().unwrap();
    drop(server);
    drop(near);
    let paths = |snapshot: &bifrost_module_cache::near::Snapshot| {
        let mut paths: Vec<_> = snapshot.paths().map(str::to_owned).collect();
        paths.sort_unstable();
        paths
    };
    assert_eq!(paths(&snapshot), ["a.py", "b.py"]);
    assert_eq!(content(snapshot.get("a.py")).as_deref(), Some("old"));
    assert_eq!(content(snapshot.get("b.py")).as_deref(), Some("old"));
    assert_eq!(snapshot.get("c.py").unwrap(), None);
    assert_eq!(paths(&later), ["a.py", "c.py"]);
    assert_eq!(content(later.get("a.py")).as_deref(), Some("new"));
    assert_eq!(later.get("b.py").unwrap(), None);
}

fn a_snapshot_knows_what_it_is_of<F: Nearby>() {
    let (_server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    writer.set(&module("b.py", "b")).unwrap();
    let some = near.snapshot_of(&["a.py", "none.py", "a.py"]).unwrap();
    assert_eq!(content(some.get("a.py")).as_deref(), Some("a"));
    assert_eq!(some.get("none.py").unwrap(), None);
    // It was not looked at: a caller must not take that for absent.
    assert!(some.get("b.py").unwrap_err().is_invalid_path());
    let all = near.snapshot().unwrap();
    assert_eq!(all.get("none.py").unwrap(), None);
    assert!(all.get("../a.py").unwrap_err().is_invalid_path());
    let shared = near.get("a.py").unwrap().unwrap();
    let found = all.get("a.py").unwrap().unwrap();
    assert!(Arc::ptr_eq(&shared, &found), "it is shared, not copied");
}

fn a_snapshot_bears_a_corrupt_entry<F: Nearby>() {
    let (server, writer, near) = serving::<F>();
    writer.set(&module("a.py", "a")).unwrap();
    writer.set(&module("b.py", "b")).unwrap();
    server.command("SET bifrost:module:b.py broken");
    let snapshot = near.snapshot().unwrap();
    assert_eq!(content(snapshot.get("a.py")).as_deref(), Some("a"));
    assert!(snapshot.get("b.py").unwrap_err().is_corrupt());
    assert_eq!(snapshot.paths().count(), 2);
}

/// A writer publishes a set of modules at once, again and again, and some by the way.
fn a_snapshot_is_never_of_two_moments<F: Nearby>() {
    const MODULES: usize = 50;
    const SNAPSHOTS: usize = 1_000;
    let (_server, writer, near) = serving::<F>();
    let publish = |version: usize| {
        let present = (0..MODULES).filter(|n| !(n + version).is_multiple_of(5));
        let set = present.map(|n| Change::Set(module(&format!("{n}.py"), &version.to_string())));
        let absent = (0..MODULES).filter(|n| (n + version).is_multiple_of(5));
        let remove = absent.map(|n| Change::Remove(format!("{n}.py")));
        writer
            .publish(&set.chain(remove).collect::<Vec<_>>())
            .unwrap();
    };
    publish(0);
    let (done, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // Also when a check fails.
        let stop = StopOnDrop(&done);
        scope.spawn(|| {
            while !done.load(SeqCst) {
                publish(published.fetch_add(1, SeqCst) + 1);
                // So that it can be caught up with.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let paths: Vec<String> = (0..MODULES).map(|n| format!("{n}.py")).collect();
        for round in 0.. {
            if round >= SNAPSHOTS && published.load(SeqCst) >= 100 {
                break;
            }
            let snapshot = if round % 2 == 0 {
                near.snapshot().unwrap()
            } else {
                near.snapshot_of(&paths).unwrap()
            };
            let versions: Vec<Option<usize>> = paths
                .iter()
                .map(|path| content(snapshot.get(path)).map(|text| text.parse().unwrap()))
                .collect();
            let version = versions.iter().flatten().next().copied().unwrap();
            for (n, found) in versions.iter().enumerate() {
                let expected = (!(n + version).is_multiple_of(5)).then_some(version);
                assert_eq!(*found, expected, "{n} of {versions:?}");
            }
            near.get("7.py").unwrap();
        }
        drop(stop);
    });
}

fn it_works_for_the_reader_s_acl_user<F: Nearby>() {
    for world in [World::<F>::acl(), World::<F>::tenant()] {
        let near = world.near(options());
        let writer = world.writer::<F>();
        writer.set(&module("a.py", "a")).unwrap();
        near.until("a.py", Some("a"));
        assert_eq!(near.prefetch().unwrap(), 1);
        assert_eq!(near.snapshot().unwrap().paths().count(), 1);
        assert!(near.is_live());
    }
}

/// Slower, never wrong.
fn reads_through<F: Nearby>(server: &RedisServer, near: &F::Near, writer: &F::Writer) {
    wait_until("it is known that it can't be followed", PATIENCE, || {
        near.stats().last_failure.is_some()
    });
    for version in 0..10 {
        writer.set(&module("a.py", &version.to_string())).unwrap();
        assert_eq!(content(near.get("a.py")), Some(version.to_string()));
        assert_eq!(content(near.get("a.py")), Some(version.to_string()));
        assert_eq!(near.paths().unwrap().len(), 1);
        let many = near.get_many(&["a.py", "b.py"]).unwrap();
        assert!(many[0].is_some() && many[1].is_none());
    }
    assert!(!near.is_live());
    let stats = near.stats();
    assert_eq!(
        (stats.hits, stats.misses, stats.bypasses),
        (0, 0, 40),
        "{stats:?}"
    );
    assert_eq!((stats.bytes, stats.sessions), (0, 0));
    assert!(near.snapshot().unwrap_err().is_refused());
    assert!(near.prefetch().unwrap_err().is_refused());
    assert!(server.calls("get") >= 20);
}

fn where_tracking_is_forbidden_it_reads_through<F: Nearby>() {
    let server = RedisServer::start();
    let line = READER_ACL
        .replace("PASSWORD", "reads")
        .replace("+client|tracking ", "");
    server.command(&line);
    let reader = F::Reader::new(patient(&server.url_as("bifrost_reader", "reads"))).unwrap();
    let near = F::Near::new(reader, options()).unwrap();
    let writer = F::Writer::new(patient(&server.url())).unwrap();
    reads_through::<F>(&server, &near, &writer);
    assert!(near.stats().last_failure.unwrap().contains("NOPERM"));
}

fn where_the_protocol_is_too_old_it_reads_through<F: Nearby>() {
    // A server before version 6 does not know it.
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let reader = F::Reader::new(patient(&server.url())).unwrap();
    let near = F::Near::new(reader, options()).unwrap();
    let writer = F::Writer::new(patient(&server.url())).unwrap();
    reads_through::<F>(&server, &near, &writer);
}

#[test]
fn outside_a_runtime_it_is_an_error() {
    let server = RedisServer::start();
    let reader = nonblocking::ModuleReader::new(patient(&server.url())).unwrap();
    let near = nonblocking::NearCache::new(reader.clone(), NearCacheOptions::default());
    assert!(near.unwrap_err().is_invalid_config());
    let near = block_on(async { nonblocking::NearCache::new(reader, NearCacheOptions::default()) });
    near.unwrap();
}

#[test]
fn a_staleness_bound_that_no_network_can_keep_is_refused() {
    let server = RedisServer::start();
    let reader = bifrost_module_cache::blocking::ModuleReader::new(patient(&server.url())).unwrap();
    let options = NearCacheOptions::default().with_staleness_bound(Duration::from_millis(99));
    let near = bifrost_module_cache::blocking::NearCache::new(reader, options);
    assert!(near.unwrap_err().is_invalid_config());
}

/// The task that followed Redis has gone with its runtime.
#[test]
fn in_another_runtime_it_follows_again() {
    let server = RedisServer::start();
    let new_runtime = || tokio::runtime::Runtime::new().unwrap();
    let reader = nonblocking::ModuleReader::new(patient(&server.url())).unwrap();
    let options = NearCacheOptions::default().with_staleness_bound(Duration::from_millis(200));
    let (first, second) = (new_runtime(), new_runtime());
    let near = first.block_on(async { nonblocking::NearCache::new(reader, options).unwrap() });
    wait_until("it follows", PATIENCE, || near.is_live());
    drop(first);
    wait_until("the lease lapses", PATIENCE, || !near.is_live());
    assert_eq!(second.block_on(near.get("a.py")).unwrap(), None);
    wait_until("it follows again", PATIENCE, || near.is_live());
}

#[test]
fn its_futures_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let server = RedisServer::start();
    let reader = nonblocking::ModuleReader::new(patient(&server.url())).unwrap();
    let near = block_on(async { nonblocking::NearCache::new(reader, options()).unwrap() });
    is_send(&near.get("a.py"));
    is_send(&near.get_many(&["a.py"]));
    is_send(&near.paths());
    is_send(&near.prefetch());
    is_send(&near.prefetch_paths(&["a.py"]));
    is_send(&near.snapshot());
    is_send(&near.snapshot_of(&["a.py"]));
}
