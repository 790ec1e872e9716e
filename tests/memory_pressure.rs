//! A Redis that is out of memory, or that makes room by itself.

mod support;

use std::convert::Infallible;

use bifrost_module_cache::{Change, Error, SyncOptions};
use support::consistency::{Foreign, Syncing, World, numbered};
use support::{Facade, RedisServer, Writer, on_both_facades};

on_both_facades! {
    removing_needs_no_memory
    what_is_removed_makes_room_for_what_is_missing
    what_has_no_room_is_refused_after_all_removals
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
    assert_eq!(world.writer.clear().unwrap(), 3);
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
