//! A Redis that is out of memory, or that makes room by itself.

use std::convert::Infallible;

use crate::support::{
    Facade, Foreign, LIMIT, Reader, RedisServer, Syncing, World, Writer, numbered, on_both_facades,
    wait_until,
};
use bifrost_module_cache::diagnosis::{CacheState, Cause};
use bifrost_module_cache::sync::{Change, SyncOptions};
use bifrost_module_cache::{Error, keys};

on_both_facades! {
    removing_needs_no_memory
    what_is_removed_makes_room_for_what_is_missing
    what_has_no_room_is_refused_after_all_removals
    a_cache_whose_index_was_deleted_is_not_warm
    a_cache_whose_index_was_evicted_is_not_warm
    a_cache_that_shrinks_is_warm
}

/// Out of memory, and nothing is evicted: the default policy.
fn fill(redis: &RedisServer) {
    redis.command("CONFIG SET maxmemory 1");
}

fn used_memory(foreign: &mut Foreign) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query(&mut foreign.0)
        .unwrap();
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().parse().unwrap()
}

#[track_caller]
fn assert_out_of_memory<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.unwrap_err();
    assert!(
        matches!(error, Error::Refused { code: "OOM", .. }),
        "{error:?}"
    );
    assert!(!error.may_have_been_applied());
}

fn removing_needs_no_memory<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    let paths = numbered(3);
    table.fill(&paths);
    for path in &paths {
        foreign.set(path, path);
    }
    let ghosts = [
        "invalidated.py",
        "published.py",
        "refreshed.py",
        "repaired.py",
    ];
    for path in ghosts {
        foreign.set(path, "1");
    }
    fill(&world.redis);
    world.writer.invalidate(ghosts[0]).unwrap();
    let removal = Change::Remove(ghosts[1].to_owned());
    assert_eq!(world.writer.publish(&[removal]).unwrap().removed, 1);
    let report = world.refresh(&[ghosts[2], "never.py"]);
    assert_eq!((report.removed, report.retried), (2, 0), "{report}");
    assert!(report.unsettled.is_empty());
    let none = |_| Ok::<_, Infallible>(Vec::new());
    let report = world.writer.refresh_from(&["never.py"], none).unwrap();
    assert_eq!(report.removed, 1);
    let report = world.repair(SyncOptions::default());
    assert_eq!((report.removed, report.unverified), (1, None), "{report}");
    assert_eq!(world.writer.clear().unwrap().removed, 3);
    foreign.assert_holds(&[]);
}

fn what_is_removed_makes_room_for_what_is_missing<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    let paths = numbered(300);
    table.fill(&paths);
    let large = "x".repeat(8 << 20);
    for ghost in ["a.py", "z.py"] {
        foreign.set(ghost, &large);
    }
    let limit = used_memory(&mut foreign) - (12 << 20);
    world
        .redis
        .command(&format!("CONFIG SET maxmemory {limit}"));
    let report = world.repair(SyncOptions::default());
    assert_eq!((report.written, report.removed), (300, 2), "{report}");
    assert_eq!(report.unverified, None);
    foreign.assert_holds(&paths);
}

fn what_has_no_room_is_refused_after_all_removals<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in ["new.py", "old.py"] {
        table.put(path, "1");
    }
    foreign.set("old.py", "0");
    foreign.set("gone.py", "0");
    fill(&world.redis);
    let client = &mut world.client();
    for path in ["new.py", "old.py"] {
        assert_out_of_memory(world.writer.refresh(client, &[path]));
    }
    assert_out_of_memory(
        world
            .writer
            .refresh(client, &["gone.py", "new.py", "old.py"]),
    );
    // Not even a transaction of reads is taken before.
    world.redis.command("CONFIG SET maxmemory 0");
    foreign.assert_is("gone.py", None);
    foreign.assert_is("old.py", Some("0"));
}

#[track_caller]
fn assert_incomplete<F: Facade<Writer: Syncing>>(world: &World<F>, warmed: usize, left: usize) {
    let status = world.status();
    assert_eq!(status.state, CacheState::Incomplete);
    assert_eq!((status.modules, status.members), (warmed, Some(left)));
    assert!(!status.is_warm());
}

fn a_cache_whose_index_was_deleted_is_not_warm<F: Facade<Writer: Syncing>>() {
    let paths = numbered(10);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    let mut foreign = world.foreign();
    foreign.run(&format!("DEL {}", keys::MODULE_INDEX_KEY));
    assert_incomplete(&world, 10, 0);
    let reader = world.writer.reader();
    // An entry is an entry.
    assert_eq!(reader.explain(&paths[0]).unwrap().cause, Cause::Cached);
    assert_eq!(reader.explain("a.py").unwrap().cause, Cause::IndexGone);
    let explained = reader.explain_name("a").unwrap();
    assert_eq!(explained.cause, Cause::IndexGone);
    // What is saved now names itself.
    world.refresh(&[&paths[0], &paths[1], &paths[2], &paths[3]]);
    assert_incomplete(&world, 10, 4);
    world.warm(SyncOptions::default());
    assert!(world.status().is_warm());
    assert_eq!(reader.explain("a.py").unwrap().cause, Cause::NotCached);
}

fn a_cache_whose_index_was_evicted_is_not_warm<F: Facade<Writer: Syncing>>() {
    let paths = numbered(10);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    let mut foreign = world.foreign();
    let mark: String = query(&mut foreign, "GET", keys::COMPLETE_KEY);
    world
        .redis
        .command("CONFIG SET maxmemory-policy allkeys-random");
    world.redis.command("CONFIG SET maxmemory 1");
    wait_until("the index is evicted", LIMIT, || {
        query::<usize>(&mut foreign, "SCARD", keys::MODULE_INDEX_KEY) == 0
    });
    // Chance may leave it.
    world.redis.command("CONFIG SET maxmemory 0");
    let () = redis::cmd("SET")
        .arg(keys::COMPLETE_KEY)
        .arg(mark)
        .query(&mut foreign.0)
        .unwrap();
    assert_incomplete(&world, 10, 0);
    let status = world.status();
    assert!(status.evicted_keys > Some(0), "{status}");
    let warning = status.warning().expect("it evicts");
    assert!(warning.contains("allkeys-random"), "{warning}");
}

fn query<T: redis::FromRedisValue>(foreign: &mut Foreign, command: &str, key: &str) -> T {
    redis::cmd(command).arg(key).query(&mut foreign.0).unwrap()
}

/// Services remove modules, too.
fn a_cache_that_shrinks_is_warm<F: Facade<Writer: Syncing>>() {
    let paths = numbered(10);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    for path in &paths[5..] {
        world.writer.invalidate(path).unwrap();
        assert!(world.status().is_warm());
    }
    let reader = world.writer.reader();
    assert_eq!(reader.explain(&paths[9]).unwrap().cause, Cause::NotCached);
    // Who may not ask goes by the mark alone.
    if !RedisServer::is_old() {
        world
            .foreign()
            .run(&format!("DEL {}", keys::MODULE_INDEX_KEY));
        world.redis.command("ACL SETUSER default -scard");
        assert!(world.status().is_warm());
        assert_eq!(reader.explain(&paths[9]).unwrap().cause, Cause::NotCached);
    }
}
