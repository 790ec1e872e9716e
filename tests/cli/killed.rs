//! Stopped at any moment, and run again: the right state, and no claim in between.
//!
//! Every request to Redis passes a gate, which holds it back when its turn has come; then the tool
//! is stopped. Between two requests it changes nothing, so these are all the moments that there
//! are.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::CachedModule;
use bifrost_module_cache::sync::SyncOptions;

use crate::support::{Gate, numbered};
use crate::tool::{Ran, World, run, signal, spawn, tool};

/// Several batches to load and to compare.
const MODULES: usize = 450;

/// Stops the tool when its request of this number has left it and not arrived; false if it needs
/// fewer, and succeeded.
fn stopped_at(world: &World, arguments: &[&str], request: usize, how: &str) -> bool {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    // What every request contains.
    let gate = Gate::start(world.redis.port(), "*", move || {
        if counter.fetch_add(1, Ordering::SeqCst) + 1 >= request {
            loop {
                thread::park();
            }
        }
    });
    let (redis, database) = (gate.url(), world.postgres.url());
    let variables = [("REDIS_URL", &*redis), ("DATABASE_URL", &database)];
    let mut child = spawn(arguments, &variables);
    let start = Instant::now();
    while count.load(Ordering::SeqCst) < request {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            Ran::new(&output, start.elapsed()).expect(0);
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    signal(&child, how);
    let output = child.wait_with_output().unwrap();
    match how {
        "KILL" => assert_eq!(output.status.signal(), Some(9)),
        _ => drop(
            Ran::new(&output, start.elapsed())
                .expect(143)
                .says(&["run it again"]),
        ),
    }
    true
}

/// At each of its requests in turn. Says how many there are.
fn stopped_at_each(
    world: &World,
    arguments: &[&str],
    prepare: impl Fn(),
    check: impl Fn(usize),
) -> usize {
    let mut request = 1;
    loop {
        prepare();
        let how = if request % 2 == 0 { "TERM" } else { "KILL" };
        if !stopped_at(world, arguments, request, how) {
            return request - 1;
        }
        check(request);
        request += 1;
    }
}

#[test]
fn a_warm_up() {
    let paths = numbered(MODULES);
    let world = World::with_rows(&paths);
    let requests = stopped_at_each(
        &world,
        &["warm"],
        || {
            world.foreign().flush();
            world.foreign().set(&paths[0], "stale");
            world.foreign().set("ghost.py", "1");
        },
        |request| {
            assert!(!world.status().is_warm(), "claimed at request {request}");
            run(tool(&world, &["warm", "--quiet"]), 0);
            assert!(world.status().is_warm());
            world.foreign().assert_holds(&paths);
        },
    );
    assert!(requests > 12, "only {requests}");
}

#[test]
fn a_repair() {
    let paths = numbered(MODULES);
    let world = World::with_rows(&paths);
    let requests = stopped_at_each(
        &world,
        &["repair"],
        || {
            world.foreign().flush();
            for path in &paths[..50] {
                world.foreign().set(path, "stale");
            }
            world.foreign().set("ghost.py", "1");
        },
        |request| {
            assert!(!world.status().is_warm(), "claimed at request {request}");
            run(tool(&world, &["repair", "--quiet"]), 0);
            world.foreign().assert_holds(&paths);
            assert!(!world.status().is_warm(), "it never claims that");
        },
    );
    assert!(requests > 12, "only {requests}");
}

/// A workspace of several transactions.
fn write(dir: &Path, version: &str) {
    for path in ["a.py", "b.py", "c.py"] {
        fs::write(dir.join(path), version.repeat(3 << 20)).unwrap();
    }
    fs::write(dir.join(format!("only-{version}.py")), version).unwrap();
}

fn modules(world: &World) -> Vec<CachedModule> {
    let reader = world.writer.reader();
    let mut paths: Vec<String> = reader.paths().unwrap().into_iter().collect();
    paths.sort_unstable();
    let modules = reader.get_many(&paths).unwrap();
    modules.into_iter().flatten().collect()
}

#[test]
fn an_exact_publication() {
    let world = World::new();
    let [old, new] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    write(old.path(), "1");
    write(new.path(), "2");
    let [old, new] = [&old, &new].map(|dir| dir.path().to_str().unwrap().to_owned());
    let publish = |dir: &str| run(tool(&world, &["publish", "--exact", "--quiet", dir]), 0);
    publish(&old);
    let before = modules(&world);
    publish(&new);
    let after = modules(&world);
    assert_eq!((before.len(), after.len()), (4, 4));
    let requests = stopped_at_each(
        &world,
        &["publish", "--exact", &new],
        || drop(publish(&old)),
        |request| {
            if world.status().is_warm() {
                let now = modules(&world);
                assert!(
                    now == before || now == after,
                    "claimed at request {request}"
                );
            }
            publish(&new);
            assert!(world.status().is_warm());
            assert_eq!(modules(&world), after);
        },
    );
    assert!(requests > 8, "only {requests}");
}

#[test]
fn a_publication_from_nothing() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1");
    let dir = dir.path().to_str().unwrap();
    for arguments in [&["publish", dir][..], &["publish", dir, "--exact"]] {
        let requests = stopped_at_each(
            &world,
            arguments,
            || world.foreign().flush(),
            |request| {
                assert!(!world.status().is_warm(), "claimed at request {request}");
                run(tool(&world, arguments), 0);
                assert_eq!(modules(&world).len(), 4);
            },
        );
        assert!(requests > 3, "only {requests}");
    }
}

#[test]
fn a_warm_up_over_a_warm_cache_leaves_it_right() {
    let paths = numbered(MODULES);
    let world = World::with_rows(&paths);
    world.warm(SyncOptions::default());
    let mut request = 1;
    loop {
        world
            .table()
            .put(&paths[request], &format!("changed {request}"));
        if !stopped_at(&world, &["warm"], request, "TERM") {
            break;
        }
        run(tool(&world, &["warm", "--quiet"]), 0);
        let changed = world.get(&paths[request]).unwrap();
        assert_eq!(changed, format!("changed {request}"));
        run(tool(&world, &["verify", "--quiet"]), 0);
        request += 3;
    }
}
