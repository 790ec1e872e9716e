//! Each way in which others can come between: never an older module over a newer one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{
    Facade, Foreign, Gate, LIMIT, Reader, RedisServer, StopOnDrop, Syncing, Table, World, Writer,
    after, at_each, connect, module, numbered, on_both_facades, patient, wait_until, writer,
};
use bifrost_module_cache::diagnosis::CacheState;
use bifrost_module_cache::keys;
use bifrost_module_cache::sync::{
    Change, RefreshReport, Stage, SyncOptions, Unverified, WarmReport,
};

on_both_facades! {
    a_foreign_set_between_our_read_and_our_write_wins
    a_foreign_setex_between_our_read_and_our_write_wins
    a_foreign_set_of_the_same_value_is_noticed
    a_foreign_del_of_a_present_key_wins
    a_foreign_del_of_an_absent_key_wins
    a_foreign_expire_does_not_outlive_our_write
    an_entry_that_expires_before_our_write_is_written_again
    a_flush_of_a_present_key_is_noticed
    a_flush_of_an_absent_key_is_noticed
    a_row_that_is_gone_is_invalidated
    a_row_that_comes_during_a_removal_without_a_watch_is_cached
    a_placeholder_reads_as_absent_and_expires
    a_failed_fetch_leaves_what_was_there
    a_path_that_stays_contended_is_reported_as_unsettled
    one_contended_path_does_not_hold_up_the_others
    of_two_refreshers_the_one_that_reads_first_and_writes_last_gives_way
    of_two_refreshers_the_one_that_reads_last_and_writes_last_prevails
    a_refresh_reads_the_database_after_it_began_to_watch
    a_warm_up_reads_the_database_after_it_began_to_watch
    a_warm_up_gives_way_to_a_foreign_set
    a_warm_up_gives_way_to_a_foreign_setex
    a_warm_up_gives_way_to_a_foreign_del_of_a_present_key
    a_warm_up_removes_what_a_foreign_del_of_an_absent_key_could_not
    a_warm_up_gives_way_to_a_refresh
    a_warm_up_gives_way_to_a_flush
    a_writer_that_sets_before_it_commits_is_mended_by_the_warm_up
    a_writer_that_deletes_before_it_commits_is_mended_by_the_warm_up
    a_writer_that_adds_before_it_commits_is_kept_by_the_warm_up
    a_writer_that_sets_before_it_commits_is_mended_by_the_repair
    a_writer_that_sets_during_the_mending_is_mended_in_turn
    a_writer_that_never_rests_leaves_the_warm_up_unverified
    a_flush_after_the_comparison_is_not_covered_up_by_the_mark
    a_flush_just_before_the_mark_is_not_covered_up_by_it
    a_clear_during_a_warm_up_is_not_covered_up_by_its_mark
    a_flush_each_time_leaves_the_cache_cold
    a_flush_during_an_exact_publication_is_not_covered_up_by_the_mark
    readers_of_a_rename_never_see_neither_path
    readers_of_a_refreshed_move_never_see_neither_path
    a_contended_move_never_shows_neither_path
    a_move_of_more_than_one_batch_never_shows_neither_path
    readers_see_a_publication_all_at_once
    connections_that_watch_are_released_after_success_and_failure
    a_watch_does_not_disturb_other_calls_of_the_same_writer
}

const PATH: &str = "a.py";

/// Refreshes [`PATH`] from a source that has `before`, until `meanwhile`, which happens between
/// our read and our write, brings it to `after`.
fn refresh_while<F: Facade<Writer: Syncing>>(
    redis: &RedisServer,
    before: Option<&str>,
    after: Option<&str>,
    meanwhile: impl FnOnce(&mut Foreign),
) -> RefreshReport {
    let writer = writer::<F>(&redis.url());
    let mut foreign = Foreign::new(redis.connection());
    let mut meanwhile = Some(meanwhile);
    let fetch = |_| {
        let content = if let Some(meanwhile) = meanwhile.take() {
            meanwhile(&mut foreign);
            before
        } else {
            after
        };
        let found = content.map(|content| module(PATH, content));
        Ok::<_, Infallible>(found.into_iter().collect())
    };
    writer.refresh_from(&[PATH], fetch).unwrap()
}

/// A cache, with a module at [`PATH`] or without.
fn cache(content: Option<&str>) -> (RedisServer, Foreign) {
    let redis = RedisServer::start();
    let mut foreign = Foreign::new(redis.connection());
    if let Some(content) = content {
        foreign.set(PATH, content);
    }
    (redis, foreign)
}

fn a_foreign_set_between_our_read_and_our_write_wins<F: Facade<Writer: Syncing>>() {
    for present in [Some("1"), None] {
        let (redis, mut foreign) = cache(present);
        let report = refresh_while::<F>(&redis, Some("1"), Some("2"), |foreign| {
            foreign.set(PATH, "2");
        });
        assert_eq!((report.written, report.retried), (1, 1));
        foreign.assert_is(PATH, Some("2"));
    }
}

fn a_foreign_setex_between_our_read_and_our_write_wins<F: Facade<Writer: Syncing>>() {
    for present in [Some("1"), None] {
        let (redis, mut foreign) = cache(present);
        let report = refresh_while::<F>(&redis, Some("1"), Some("2"), |foreign| {
            foreign.setex(PATH, "2", 86_400);
        });
        assert_eq!((report.written, report.retried), (1, 1));
        foreign.assert_is(PATH, Some("2"));
    }
}

fn a_foreign_set_of_the_same_value_is_noticed<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    let report = refresh_while::<F>(&redis, Some("0"), Some("1"), |foreign| {
        foreign.set(PATH, "1");
    });
    assert_eq!(report.retried, 1);
    foreign.assert_is(PATH, Some("1"));
}

fn a_foreign_del_of_a_present_key_wins<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    let report = refresh_while::<F>(&redis, Some("1"), None, |foreign| foreign.del(PATH));
    assert_eq!((report.written, report.removed, report.retried), (0, 1, 1));
    foreign.assert_is(PATH, None);
}

fn a_foreign_del_of_an_absent_key_wins<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(None);
    let report = refresh_while::<F>(&redis, Some("1"), None, |foreign| foreign.del(PATH));
    assert_eq!((report.written, report.removed, report.retried), (0, 1, 1));
    foreign.assert_is(PATH, None);
}

fn a_foreign_expire_does_not_outlive_our_write<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    let report = refresh_while::<F>(&redis, Some("1"), Some("1"), |foreign| {
        foreign.run(&format!("EXPIRE {} 1000", keys::module_key(PATH).unwrap()));
    });
    assert_eq!(report.retried, 1);
    foreign.assert_is(PATH, Some("1"));
}

fn an_entry_that_expires_before_our_write_is_written_again<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    foreign.run(&format!("PEXPIRE {} 200", keys::module_key(PATH).unwrap()));
    let report = refresh_while::<F>(&redis, Some("1"), Some("1"), |foreign| {
        wait_until("the entry has expired", LIMIT, || {
            foreign.entry(PATH).value.is_none()
        });
    });
    assert_eq!(report.retried, 1);
    foreign.assert_is(PATH, Some("1"));
}

fn a_flush_of_a_present_key_is_noticed<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    let report = refresh_while::<F>(&redis, Some("1"), Some("2"), Foreign::flush);
    assert_eq!(report.retried, 1);
    foreign.assert_is(PATH, Some("2"));
}

fn a_flush_of_an_absent_key_is_noticed<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(None);
    let report = refresh_while::<F>(&redis, Some("1"), Some("2"), Foreign::flush);
    assert_eq!(report.retried, 1);
    foreign.assert_is(PATH, Some("2"));
}

fn a_row_that_is_gone_is_invalidated<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("kept.py", "1");
    table.put("deleted.py", "1");
    table.put("emptied.py", "1");
    table.put("changed.py", "1");
    let paths = ["changed.py", "deleted.py", "emptied.py", "kept.py"];
    let report = world.refresh(&paths);
    assert_eq!((report.written, report.removed), (4, 0));

    table.delete("deleted.py");
    table.run("UPDATE workspace_files SET content = NULL WHERE path = 'emptied.py'");
    table.run("UPDATE workspace_files SET entity_type = 'form' WHERE path = 'changed.py'");
    let report = world.refresh(&paths);
    assert_eq!((report.written, report.removed), (1, 3));
    foreign.assert_is("kept.py", Some("1"));
    for path in ["deleted.py", "emptied.py", "changed.py"] {
        foreign.assert_is(path, None);
    }
}

/// Out of memory nothing can be watched.
fn a_row_that_comes_during_a_removal_without_a_watch_is_cached<F: Facade<Writer: Syncing>>() {
    let redis = RedisServer::start();
    let others = Arc::new(Mutex::new(None::<(Table, Foreign)>));
    let service = Arc::clone(&others);
    let gate = Gate::start(redis.port(), "SREM", move || {
        if let Some((table, foreign)) = &mut *service.lock().unwrap() {
            foreign.run("CONFIG SET maxmemory 0");
            table.put(PATH, "1");
            foreign.set(PATH, "1");
        }
    });
    let config = patient(&gate.url());
    let world = World::<F>::around(redis, config);
    *others.lock().unwrap() = Some((world.table(), world.foreign()));
    world.redis.command("CONFIG SET maxmemory 1");
    let report = world.refresh(&[PATH]);
    assert_eq!((report.written, report.retried), (1, 1), "{report}");
    world.foreign().assert_is(PATH, Some("1"));
}

fn a_placeholder_reads_as_absent_and_expires<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(None);
    let reader = F::Reader::new(patient(&redis.url())).unwrap();
    let report = refresh_while::<F>(&redis, None, None, |foreign| {
        let entry = foreign.entry(PATH);
        assert_eq!(entry.value.as_deref(), Some(""));
        assert!(!entry.listed);
        assert!((1..=10_000).contains(&entry.ttl), "{} ms", entry.ttl);
        assert_eq!(reader.get(PATH).unwrap(), None);
        assert_eq!(reader.get_many(&[PATH]).unwrap(), [None]);
        assert!(reader.paths().unwrap().is_empty());
    });
    assert_eq!((report.removed, report.retried), (1, 0));
    foreign.assert_is(PATH, None);
}

fn a_failed_fetch_leaves_what_was_there<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    let writer = writer::<F>(&redis.url());
    let paths = [PATH, "absent.py"];
    writer
        .refresh_from(&paths, |_| Err("no source"))
        .unwrap_err();
    foreign.assert_is(PATH, Some("1"));
    assert_eq!(writer.reader().get("absent.py").unwrap(), None);
    let left = foreign.entry("absent.py");
    assert!((1..=10_000).contains(&left.ttl), "a placeholder expires");
    assert!(!left.listed);
}

fn a_path_that_stays_contended_is_reported_as_unsettled<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("0"));
    let writer = writer::<F>(&redis.url());
    let mut reads = 0;
    let report = writer.refresh_from(&[PATH], |_| {
        reads += 1;
        foreign.set(PATH, "foreign");
        Ok::<_, Infallible>(vec![module(PATH, "ours")])
    });
    let report = report.unwrap();
    assert_eq!(report.unsettled, [PATH]);
    // Every attempt was aborted, and none of them reads as success.
    assert_eq!((report.written, report.bytes, report.removed), (0, 0, 0));
    assert_eq!(report.retried, reads - 1);
    assert!(report.to_string().contains("1 unsettled"), "{report}");
    foreign.assert_is(PATH, Some("foreign"));
}

fn one_contended_path_does_not_hold_up_the_others<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(None);
    let writer = writer::<F>(&redis.url());
    let paths = numbered(20);
    let report = writer.refresh_from(&paths, |asked| {
        if asked.contains(&paths[7]) {
            foreign.set(&paths[7], "foreign");
        }
        let found = asked.iter().map(|path| module(path, "ours"));
        Ok::<_, Infallible>(found.collect())
    });
    let report = report.unwrap();
    assert_eq!(report.unsettled, [paths[7].clone()]);
    assert_eq!(report.written, 19);
    for path in &paths {
        let content = if *path == paths[7] { "foreign" } else { "ours" };
        foreign.assert_is(path, Some(content));
    }
}

fn of_two_refreshers_the_one_that_reads_first_and_writes_last_gives_way<
    F: Facade<Writer: Syncing>,
>() {
    for present in [Some("0"), None] {
        let (redis, mut foreign) = cache(present);
        // The other commits 2, reads and writes it, all between our read of 1 and our write.
        let report = refresh_while::<F>(&redis, Some("1"), Some("2"), |_| {
            let other = refresh_while::<F>(&redis, Some("2"), Some("2"), |_| {});
            assert_eq!((other.written, other.retried), (1, 0));
        });
        assert_eq!((report.written, report.retried), (1, 1));
        foreign.assert_is(PATH, Some("2"));
    }
}

fn of_two_refreshers_the_one_that_reads_last_and_writes_last_prevails<
    F: Facade<Writer: Syncing>,
>() {
    for present in [Some("0"), None] {
        let (redis, mut foreign) = cache(present);
        // The other has read 1 and writes it between our read of 2 and our write.
        let report = refresh_while::<F>(&redis, Some("2"), Some("2"), |foreign| {
            let other = refresh_while::<F>(&redis, Some("1"), Some("1"), |_| {});
            assert_eq!((other.written, other.retried), (1, 0));
            foreign.assert_is(PATH, Some("1"));
        });
        assert_eq!((report.written, report.retried), (1, 1));
        foreign.assert_is(PATH, Some("2"));
    }
}

/// A lock on the table holds the read up, so that all the rest happens between watch and read.
fn a_refresh_reads_the_database_after_it_began_to_watch<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    table.run("BEGIN; LOCK TABLE workspace_files IN ACCESS EXCLUSIVE MODE");
    table.put(PATH, "2");
    thread::scope(|scope| {
        // Its lock ends with it.
        let mut table = table;
        let refreshing = scope.spawn(|| world.refresh(&[PATH]));
        let mut other = world.table();
        wait_until("the refresh waits for the table", LIMIT, || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            other.0.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 1
        });
        // A writer that sets before it commits.
        foreign.set(PATH, "2");
        table.run("COMMIT");
        let report = refreshing.join().unwrap();
        assert_eq!((report.written, report.retried), (1, 1));
    });
    foreign.assert_is(PATH, Some("2"));
}

/// The watch is held up, and with it the read, so that it finds what was committed meanwhile.
fn a_warm_up_reads_the_database_after_it_began_to_watch<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    world.table().put(PATH, "1");
    let (table, url) = (Mutex::new(world.table()), world.redis.url());
    let held_up = AtomicBool::new(false);
    let gate = Gate::start(world.redis.port(), "\r\nWATCH\r\n", move || {
        if !held_up.swap(true, Ordering::SeqCst) {
            // Time for a read that must not be made now.
            thread::sleep(Duration::from_millis(100));
            table.lock().unwrap().put(PATH, "2");
            Foreign::new(connect(&url)).set(PATH, "2");
        }
    });
    let writer = writer::<F>(&gate.url());
    let options = SyncOptions::default();
    let report = writer.warm_with(&mut world.client(), options).unwrap();
    // Else it would have been written twice: once too old, once mended.
    assert_eq!((report.written, report.unchanged), (0, 1));
    world.foreign().assert_is(PATH, Some("2"));
}

fn a_warm_up_gives_way_to_a_foreign_set<F: Facade<Writer: Syncing>>() {
    for present in [Some("0"), None] {
        let world = World::<F>::new();
        let (mut table, mut foreign) = (world.table(), world.foreign());
        table.put(PATH, "1");
        if let Some(content) = present {
            foreign.set(PATH, content);
        }
        let report = world.warm(after(Stage::Load, || {
            table.put(PATH, "2");
            world.foreign().set(PATH, "2");
        }));
        // What the other wrote is right.
        assert_eq!((report.written, report.retried), (0, 1));
        assert!(report.verified());
        foreign.assert_is(PATH, Some("2"));
    }
}

fn a_warm_up_gives_way_to_a_foreign_setex<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    let report = world.warm(after(Stage::Load, || {
        table.put(PATH, "2");
        world.foreign().setex(PATH, "2", 86_400);
    }));
    assert_eq!((report.written, report.retried), (1, 1));
    foreign.assert_is(PATH, Some("2"));
}

fn a_warm_up_gives_way_to_a_foreign_del_of_a_present_key<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    foreign.set(PATH, "0");
    let report = world.warm(after(Stage::Load, || {
        table.delete(PATH);
        world.foreign().del(PATH);
    }));
    assert_eq!((report.written, report.retried), (0, 1));
    assert_eq!(report.modules, 0);
    foreign.assert_is(PATH, None);
}

fn a_warm_up_removes_what_a_foreign_del_of_an_absent_key_could_not<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    table.put("kept.py", "1");
    let report = world.warm(after(Stage::Load, || {
        table.delete(PATH);
        world.foreign().del(PATH);
    }));
    // It was written after its deletion, and the comparison found it.
    assert_eq!((report.written, report.pruned), (2, 1));
    assert_eq!(report.modules, 1);
    assert!(report.verified() && report.complete);
    foreign.assert_is(PATH, None);
    foreign.assert_is("kept.py", Some("1"));
}

fn a_warm_up_gives_way_to_a_refresh<F: Facade<Writer: Syncing>>() {
    for present in [Some("0"), None] {
        let world = World::<F>::new();
        let (mut table, mut foreign) = (world.table(), world.foreign());
        table.put(PATH, "1");
        table.put("deleted.py", "1");
        if let Some(content) = present {
            foreign.set(PATH, content);
            foreign.set("deleted.py", content);
        }
        let report = world.warm(after(Stage::Load, || {
            table.put(PATH, "2");
            table.delete("deleted.py");
            world.refresh(&[PATH, "deleted.py"]);
        }));
        // The placeholder of the refresh makes even the removal of an absent key felt.
        assert_eq!(report.retried, 2);
        assert_eq!((report.modules, report.written), (1, 0));
        foreign.assert_is(PATH, Some("2"));
        foreign.assert_is("deleted.py", None);
    }
}

fn a_warm_up_gives_way_to_a_flush<F: Facade<Writer: Syncing>>() {
    let paths = numbered(450);
    let world = World::<F>::with_rows(&paths);
    let mut foreign = world.foreign();
    let report = world.warm(after(Stage::Load, || world.foreign().flush()));
    assert!(report.verified() && report.complete, "{report}");
    assert_eq!(report.modules, paths.len());
    foreign.assert_holds(&paths);
}

/// Starts a change and does not commit it, lets the warm-up overwrite what it did to the cache, and
/// commits when the warm-up waits.
fn warm_while_open<F: Facade<Writer: Syncing>>(
    world: &World<F>,
    open: impl FnOnce(),
    overwritten: impl Fn(&mut Foreign) -> bool,
    commit: impl FnOnce(),
) -> WarmReport {
    open();
    thread::scope(|scope| {
        let warming = scope.spawn(|| world.warm(SyncOptions::default()));
        let mut foreign = world.foreign();
        wait_until("the load has overwritten it", LIMIT, || {
            overwritten(&mut foreign)
        });
        world.table().wait_for_the_barrier(|| warming.is_finished());
        commit();
        warming.join().unwrap()
    })
}

fn a_writer_that_sets_before_it_commits_is_mended_by_the_warm_up<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    table.run("BEGIN");
    table.put(PATH, "2");
    let report = warm_while_open(
        &world,
        || world.foreign().set(PATH, "2"),
        |foreign| {
            foreign
                .entry(PATH)
                .value
                .is_some_and(|json| json.contains("\"1\""))
        },
        || table.run("COMMIT"),
    );
    assert_eq!(report.unverified, None);
    assert_eq!(report.written, 2);
    foreign.assert_is(PATH, Some("2"));
}

fn a_writer_that_deletes_before_it_commits_is_mended_by_the_warm_up<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    table.put("kept.py", "1");
    table.run("BEGIN");
    table.delete(PATH);
    let report = warm_while_open(
        &world,
        || world.foreign().del(PATH),
        |foreign| foreign.entry(PATH).value.is_some(),
        || table.run("COMMIT"),
    );
    assert_eq!(report.unverified, None);
    assert_eq!((report.modules, report.pruned), (1, 1));
    foreign.assert_is(PATH, None);
}

fn a_writer_that_adds_before_it_commits_is_kept_by_the_warm_up<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("other.py", "1");
    table.run("BEGIN");
    table.put(PATH, "1");
    let report = warm_while_open(
        &world,
        || world.foreign().set(PATH, "1"),
        |foreign| foreign.entry("other.py").value.is_some(),
        || table.run("COMMIT"),
    );
    // Removed before the barrier, it would have been absent for a while.
    assert_eq!((report.modules, report.pruned), (2, 0));
    assert_eq!(report.unverified, None);
    foreign.assert_is(PATH, Some("1"));
}

fn a_writer_that_sets_before_it_commits_is_mended_by_the_repair<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (table, mut foreign) = (Mutex::new(world.table()), world.foreign());
    table.lock().unwrap().put(PATH, "1");
    foreign.set(PATH, "0");
    let (mended, is_mended) = mpsc::channel();
    let options = at_each(|progress| match progress.stage {
        Stage::Compare => {
            let mut table = table.lock().unwrap();
            table.run("BEGIN");
            table.put(PATH, "2");
            world.foreign().set(PATH, "2");
        }
        // The test may not listen any more.
        Stage::Mend => drop(mended.send(())),
        _ => {}
    });
    let report = thread::scope(|scope| {
        let repairing = scope.spawn(|| world.repair(options));
        is_mended.recv().unwrap();
        foreign.assert_is(PATH, Some("1"));
        world
            .table()
            .wait_for_the_barrier(|| repairing.is_finished());
        table.lock().unwrap().run("COMMIT");
        repairing.join().unwrap()
    });
    assert_eq!(report.unverified, None);
    assert_eq!((report.drift.paths(), report.written), (1, 2));
    foreign.assert_is(PATH, Some("2"));
}

fn a_writer_that_sets_during_the_mending_is_mended_in_turn<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(PATH, "1");
    foreign.set(PATH, "0");
    let mut passes = 0;
    let report = world.repair(at_each(|progress| match progress.stage {
        Stage::Compare => {
            table.run("BEGIN");
            table.put(PATH, "2");
            world.foreign().set(PATH, "2");
        }
        Stage::Mend => {
            passes += 1;
            if passes == 1 {
                table.run("COMMIT");
            }
        }
        _ => {}
    }));
    assert_eq!(report.unverified, None);
    // Each pass mends, and compares again.
    assert_eq!((passes, report.written), (2 * 2, 2));
    foreign.assert_is(PATH, Some("2"));
}

fn a_writer_that_never_rests_leaves_the_warm_up_unverified<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    world.table().put(PATH, "1");
    foreign.set("ghost.py", "1");
    let report = world.warm(at_each(|progress| {
        if progress.stage == Stage::Mend {
            foreign.set("ghost.py", "1");
        }
    }));
    assert_eq!(report.unverified, Some(Unverified::Contended));
    assert_eq!(report.unsettled, ["ghost.py"]);
    assert!(!report.complete && !report.verified());
    assert_eq!(world.status().state, CacheState::Cold);
}

fn a_flush_after_the_comparison_is_not_covered_up_by_the_mark<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    let report = world.warm(after(Stage::Compare, || world.foreign().flush()));
    assert!(report.verified() && report.complete, "{report}");
    assert!(world.status().is_warm());
    world.foreign().assert_holds(&paths);
}

/// A writer whose cache is flushed at the last moment before it writes its first mark: after it
/// saw that its token is there.
fn flushed_before_the_mark<F: Facade>(world: &World<F>) -> F::Writer {
    let (url, flushed) = (world.redis.url(), AtomicBool::new(false));
    let gate = Gate::start(world.redis.port(), keys::COMPLETE_KEY, move || {
        if !flushed.swap(true, Ordering::SeqCst) {
            Foreign::new(connect(&url)).flush();
        }
    });
    writer::<F>(&gate.url())
}

fn a_flush_just_before_the_mark_is_not_covered_up_by_it<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    let writer = flushed_before_the_mark(&world);
    let options = SyncOptions::default();
    let report = writer.warm_with(&mut world.client(), options).unwrap();
    assert!(report.verified() && report.complete, "{report}");
    assert_eq!(report.written, 6);
    assert!(world.status().is_warm());
    world.foreign().assert_holds(&paths);
}

fn a_clear_during_a_warm_up_is_not_covered_up_by_its_mark<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    // After the comparison; and half before it, half after it.
    let world = World::<F>::with_rows(&paths);
    let clear = || _ = world.writer.clear().unwrap();
    let report = world.warm(after(Stage::Compare, clear));
    assert!(report.verified() && report.complete, "{report}");
    assert!(world.status().is_warm());
    world.foreign().assert_holds(&paths);

    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let gate = Gate::start(world.redis.port(), "SMEMBERS", move || {
        begun.send(()).unwrap();
        let _ = may_go_on.lock().unwrap().recv();
    });
    let slow = writer::<F>(&gate.url());
    let report = thread::scope(|scope| {
        let clearing = scope.spawn(|| slow.clear().unwrap());
        has_begun.recv().unwrap();
        // The mark is gone already, and nothing is removed yet.
        let report = world.warm(after(Stage::Compare, || {
            let _ = go_on.send(());
            while !clearing.is_finished() {
                thread::yield_now();
            }
        }));
        clearing.join().unwrap();
        report
    });
    assert!(report.verified() && report.complete, "{report}");
    assert!(world.status().is_warm());
    world.foreign().assert_holds(&paths);
}

fn a_flush_each_time_leaves_the_cache_cold<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    let report = world.warm(at_each(|progress| {
        if progress.stage == Stage::Compare {
            world.foreign().flush();
        }
    }));
    assert_eq!(report.unverified, Some(Unverified::Flushed));
    assert!(!report.complete);
    assert_eq!(world.status().state, CacheState::Cold);
}

fn a_flush_during_an_exact_publication_is_not_covered_up_by_the_mark<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let modules = [module(PATH, "1")];
    let report = world.writer.publish_exact(&modules).unwrap();
    assert!(report.complete && world.status().is_warm());

    let writer = flushed_before_the_mark(&world);
    let report = writer.publish_exact(&modules).unwrap();
    assert!(!report.complete);
    assert_eq!(world.status().state, CacheState::Cold);
}

/// Works while a reader asks for both paths, again and again, and always gets at least one.
fn never_neither<R: Reader>(reader: &R, paths: &[String; 2], work: impl FnOnce()) {
    let (reads, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        let reading = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let found = reader.get_many(paths).unwrap();
                assert!(found.iter().any(Option::is_some), "neither path");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        wait_until("somebody reads", LIMIT, || {
            reads.load(Ordering::SeqCst) > 0 || reading.is_finished()
        });
        work();
    });
    assert!(reads.into_inner() > 10, "somebody read meanwhile");
}

fn readers_of_a_rename_never_see_neither_path<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(None);
    let writer = writer::<F>(&redis.url());
    let paths = ["a.py".to_owned(), "b.py".to_owned()];
    writer.set(&module(&paths[0], "0")).unwrap();
    never_neither(writer.reader(), &paths, || {
        for round in 0..2_000 {
            let (old, new) = (&paths[round % 2], &paths[(round + 1) % 2]);
            let moved = module(new, &round.to_string());
            writer.rename(old, &moved).unwrap();
        }
    });
    foreign.assert_is(&paths[0], Some("1999"));
    foreign.assert_is(&paths[1], None);
}

fn readers_of_a_refreshed_move_never_see_neither_path<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut client) = (world.table(), world.client());
    let paths = ["a.py".to_owned(), "b.py".to_owned()];
    table.put(&paths[0], "0");
    world.refresh(&["a.py"]);
    never_neither(world.writer.reader(), &paths, || {
        for round in 0..300 {
            let (old, new) = (&paths[round % 2], &paths[(round + 1) % 2]);
            table.run("BEGIN");
            table.delete(old);
            table.put(new, &round.to_string());
            table.run("COMMIT");
            world.writer.refresh(&mut client, &paths).unwrap();
        }
    });
    let mut foreign = world.foreign();
    foreign.assert_is(&paths[0], Some("299"));
    foreign.assert_is(&paths[1], None);
}

/// Refreshes a move of these paths, and asserts at each read of the source that readers see every
/// module under its old or its new path; `meanwhile` happens at each, too.
fn refresh_a_move<F: Facade<Writer: Syncing>>(
    count: usize,
    mut meanwhile: impl FnMut(&mut Foreign, &[String]),
) -> RefreshReport {
    let (redis, mut foreign) = cache(None);
    let writer = writer::<F>(&redis.url());
    let old: Vec<String> = (0..count).map(|number| format!("a/{number}.py")).collect();
    let new: Vec<String> = (0..count).map(|number| format!("b/{number}.py")).collect();
    for path in &old {
        foreign.set(path, "1");
    }
    let assert_seen = || {
        let at_old = writer.reader().get_many(&old).unwrap();
        let at_new = writer.reader().get_many(&new).unwrap();
        let seen = |(old, new): (&Option<_>, &Option<_>)| old.is_some() || new.is_some();
        assert!(at_old.iter().zip(&at_new).all(seen), "neither path");
    };
    let report = writer.refresh_from(&[old.clone(), new.clone()].concat(), |paths| {
        assert_seen();
        meanwhile(&mut foreign, &paths);
        let found = paths.iter().filter(|path| path.starts_with("b/"));
        Ok::<_, Infallible>(found.map(|path| module(path, "1")).collect())
    });
    for (old, new) in old.iter().zip(&new) {
        foreign.assert_is(old, None);
        foreign.assert_is(new, Some("1"));
    }
    report.unwrap()
}

fn a_contended_move_never_shows_neither_path<F: Facade<Writer: Syncing>>() {
    // Whatever comes is contended the first and the second time.
    let mut reads = 0;
    let report = refresh_a_move::<F>(3, |foreign, paths| {
        reads += 1;
        let coming = paths.iter().find(|path| path.starts_with("b/"));
        if let Some(path) = coming.filter(|_| reads <= 4) {
            foreign.del(path);
        }
    });
    assert_eq!(report.unsettled, Vec::<String>::new());
    assert!(report.retried > 0);
}

fn a_move_of_more_than_one_batch_never_shows_neither_path<F: Facade<Writer: Syncing>>() {
    let report = refresh_a_move::<F>(250, |_, _| {});
    assert_eq!((report.written, report.removed), (250, 250));
}

fn readers_see_a_publication_all_at_once<F: Facade<Writer: Syncing>>() {
    let (redis, _) = cache(None);
    let writer = writer::<F>(&redis.url());
    let paths = numbered(50);
    let publish = |version: usize| {
        let set = |path: &String| Change::Set(module(path, &version.to_string()));
        let changes: Vec<Change> = paths.iter().map(set).collect();
        assert_eq!(writer.publish(&changes).unwrap().written, 50);
    };
    publish(0);
    let (seen, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        let reading = scope.spawn(|| {
            let mut versions = BTreeSet::new();
            while !done.load(Ordering::SeqCst) {
                let found = writer.reader().get_many(&paths).unwrap();
                let contents = found.into_iter().map(|module| module.unwrap().content);
                let once: BTreeSet<String> = contents.collect();
                assert_eq!(once.len(), 1, "a mixture of versions");
                versions.extend(once);
                seen.store(versions.len(), Ordering::SeqCst);
            }
        });
        // Until the reader has met some of them: whether it does depends on the scheduler.
        let mut version = 0;
        wait_until("the reader has seen ten versions", LIMIT, || {
            version += 1;
            publish(version);
            seen.load(Ordering::SeqCst) >= 10 || reading.is_finished()
        });
    });
}

fn connections_that_watch_are_released_after_success_and_failure<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    let (mut table, mut foreign) = (world.table(), world.foreign());
    // Opens the shared connections.
    world.get(PATH);
    world.writer.reader().get_many(&[PATH]).unwrap();
    let shared = foreign.others();
    let mut assert_released = |after: &str| {
        let what = format!("the connection is released after {after}");
        wait_until(&what, LIMIT, || foreign.others() == shared);
    };

    world.refresh(&[PATH]);
    assert_released("a refresh");
    let failed = |_| Err::<Vec<_>, _>("no source");
    world.writer.refresh_from(&[PATH], failed).unwrap_err();
    assert_released("a failed refresh");
    world.warm(SyncOptions::default());
    assert_released("a warm-up");
    world.foreign().set("ghost.py", "1");
    world.repair(SyncOptions::default());
    assert_released("a repair");
    world.verify();
    assert_released("a verification");
    world.writer.publish_exact(&[module(PATH, "1")]).unwrap();
    assert_released("an exact publication");
    let mut client = world.client();
    let drop_table = after(Stage::Load, || table.run("DROP TABLE workspace_files"));
    let failed = world.writer.warm_with(&mut client, drop_table);
    assert!(failed.unwrap_err().is_database());
    assert_released("a failed warm-up");
}

fn a_watch_does_not_disturb_other_calls_of_the_same_writer<F: Facade<Writer: Syncing>>() {
    let (redis, mut foreign) = cache(Some("1"));
    // One connection, which must not be the one that watches.
    let config = patient(&redis.url()).with_pool_size(1);
    let writer = F::Writer::new(config).unwrap();
    let mut calls = 0;
    let report = writer.refresh_from(&[PATH, "b.py"], |paths| {
        calls += 1;
        if calls == 1 {
            // A change of what is watched, which aborts no other service.
            foreign.set(PATH, "2");
            writer.set(&module("c.py", "1")).unwrap();
            writer.invalidate("d.py").unwrap();
            writer.publish(&[Change::Remove("e.py".into())]).unwrap();
            writer.set(&module(PATH, "3")).unwrap();
            assert_eq!(writer.reader().get(PATH).unwrap().unwrap().content, "3");
        }
        let found = paths.iter().map(|path| module(path, "4"));
        Ok::<_, Infallible>(found.collect())
    });
    assert_eq!(report.unwrap().retried, 2);
    foreign.assert_is(PATH, Some("4"));
    foreign.assert_is("c.py", Some("1"));

    // A watch that was left behind would swallow this.
    writer
        .refresh_from(&[PATH], |_| {
            foreign.set(PATH, "5");
            Err("no source")
        })
        .unwrap_err();
    writer.set(&module(PATH, "6")).unwrap();
    foreign.assert_is(PATH, Some("6"));
}
