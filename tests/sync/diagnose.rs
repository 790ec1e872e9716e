//! Why a module is absent or old: what `diagnose` tells with the database at hand.

use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::{Facade, LIMIT, Syncing, World, Writer, module, on_both_facades};
use bifrost_module_cache::diagnosis::{CacheState, Cause, Diagnosis, RowState};
use bifrost_module_cache::keys;
use bifrost_module_cache::sync::SyncOptions;

on_both_facades! {
    the_three_causes_of_the_specification_are_told_apart
    a_bug_in_invalidation_has_more_than_one_form
    rows_that_are_no_modules_are_named
    what_is_cached_for_a_while_or_never_is_named
    the_time_of_a_change_is_told_where_the_table_has_it
    a_change_whose_time_is_unknown_has_two_causes
    what_the_warm_up_reads_is_enough
    an_index_that_is_gone_is_nobodys_bug
    an_entry_of_another_type_is_corrupt
    a_writer_under_way_is_no_bug
    a_bad_path_asks_nobody
}

fn diagnose<F: Facade<Writer: Syncing>>(world: &World<F>, path: &str) -> Diagnosis {
    world.writer.diagnose(&mut world.client(), path).unwrap()
}

fn cause<F: Facade<Writer: Syncing>>(world: &World<F>, path: &str) -> Cause {
    diagnose(world, path).cause
}

fn the_three_causes_of_the_specification_are_told_apart<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("old.py", "1");
    table.run("UPDATE workspace_files SET updated_at = now() - interval '1 hour'");
    assert_eq!(cause(&world, "old.py"), Cause::CacheCold);

    world.warm(SyncOptions::default());
    let diagnosis = diagnose(&world, "old.py");
    assert_eq!(diagnosis.cause, Cause::Cached);
    assert_eq!(diagnosis.cached, Some(module("old.py", "1")));
    assert_eq!(diagnosis.row, Some(RowState::Module(module("old.py", "1"))));
    assert!(diagnosis.status.unwrap().is_warm());

    foreign.del("old.py");
    assert_eq!(cause(&world, "old.py"), Cause::WronglyRemoved);
    // The mark has whole seconds.
    table.put("new.py", "1");
    table.run(
        "UPDATE workspace_files SET updated_at = now() + interval '2 s' WHERE path = 'new.py'",
    );
    let diagnosis = diagnose(&world, "new.py");
    assert_eq!(diagnosis.cause, Cause::JustCreated);
    assert_eq!(diagnosis.cached, None);

    foreign.flush();
    let diagnosis = diagnose(&world, "new.py");
    assert_eq!(diagnosis.cause, Cause::CacheCold);
    assert_eq!(diagnosis.status.unwrap().state, CacheState::Cold);
}

fn a_bug_in_invalidation_has_more_than_one_form<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in ["stale.py", "deleted.py", "moved.py"] {
        table.put(path, "1");
    }
    world.warm(SyncOptions::default());
    table.put("stale.py", "2");
    table.delete("deleted.py");
    table.run("UPDATE workspace_files SET path = 'new.py' WHERE path = 'moved.py'");
    foreign.run(&format!("SADD {} member.py", keys::MODULE_INDEX_KEY));
    let diagnosis = diagnose(&world, "stale.py");
    assert_eq!(diagnosis.cause, Cause::Stale);
    assert_eq!(diagnosis.cached, Some(module("stale.py", "1")));
    assert_eq!(
        diagnosis.row,
        Some(RowState::Module(module("stale.py", "2")))
    );
    for (path, row) in [
        ("deleted.py", RowState::Deleted),
        ("moved.py", RowState::Absent),
        ("member.py", RowState::Absent),
    ] {
        let diagnosis = diagnose(&world, path);
        assert_eq!(diagnosis.cause, Cause::Ghost, "{path}");
        assert_eq!(diagnosis.row, Some(row), "{path}");
    }
}

fn rows_that_are_no_modules_are_named<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with(|config| config.with_max_content_bytes(10));
    let mut table = world.table();
    for path in [
        "deleted.py",
        "form.py",
        "kindless.py",
        "empty.py",
        "large.py",
    ] {
        table.put(path, "1");
    }
    table.delete("deleted.py");
    table.put("large.py", "12345678901");
    table.run(
        "UPDATE workspace_files SET entity_type = 'form' WHERE path = 'form.py';
         UPDATE workspace_files SET entity_type = NULL WHERE path = 'kindless.py';
         UPDATE workspace_files SET content = NULL WHERE path = 'empty.py'",
    );
    world.warm(SyncOptions::default());
    for (path, row, cause) in [
        ("deleted.py", RowState::Deleted, Cause::NoSuchModule),
        ("form.py", RowState::NotAModule, Cause::NoSuchModule),
        ("kindless.py", RowState::NotAModule, Cause::NoSuchModule),
        ("empty.py", RowState::NotAModule, Cause::NoSuchModule),
        ("absent.py", RowState::Absent, Cause::NoSuchModule),
        ("large.py", RowState::TooLarge, Cause::TooLarge),
    ] {
        let diagnosis = diagnose(&world, path);
        assert_eq!(
            (diagnosis.row, diagnosis.cause),
            (Some(row), cause),
            "{path}"
        );
        assert!(!cause.is_drift());
    }
}

fn what_is_cached_for_a_while_or_never_is_named<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in ["gone.py", "unlisted.py", "corrupt.py", "blank.py"] {
        table.put(path, "1");
    }
    world.warm(SyncOptions::default());
    let key = |path| keys::module_key(path).unwrap();
    foreign.run(&format!("DEL {}", key("gone.py")));
    foreign.run(&format!("SREM {} unlisted.py", keys::MODULE_INDEX_KEY));
    foreign.set_key("corrupt.py", "{");
    foreign.set_key("blank.py", "");
    assert_eq!(cause(&world, "gone.py"), Cause::ValueGone);
    assert_eq!(cause(&world, "blank.py"), Cause::ValueGone);
    assert_eq!(cause(&world, "unlisted.py"), Cause::Unlisted);
    let diagnosis = diagnose(&world, "corrupt.py");
    assert_eq!((diagnosis.cause, diagnosis.cached), (Cause::Corrupt, None));

    foreign.del("gone.py");
    world.redis.shutdown_save();
    world.redis.restart();
    assert_eq!(cause(&world, "gone.py"), Cause::CacheRestored);
}

fn the_time_of_a_change_is_told_where_the_table_has_it<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut table = world.table();
    table.put("a.py", "1");
    let near = |seconds: u64| {
        let changed = diagnose(&world, "a.py").changed.unwrap();
        let expected = SystemTime::now() - Duration::from_secs(seconds);
        let off = expected
            .duration_since(changed)
            .unwrap_or_else(|error| error.duration());
        assert!(off < Duration::from_secs(30), "{off:?}");
    };
    near(0);
    table.run("UPDATE workspace_files SET updated_at = localtimestamp - interval '2 hours'");
    near(7_200);
    table.run("ALTER TABLE workspace_files ALTER updated_at TYPE timestamptz");
    near(7_200);
    for never in ["'infinity'", "'-infinity'"] {
        table.run(&format!("UPDATE workspace_files SET updated_at = {never}"));
        diagnose(&world, "a.py");
    }
    table.run("ALTER TABLE workspace_files DROP updated_at");
    let diagnosis = diagnose(&world, "a.py");
    assert_eq!(diagnosis.changed, None);
    assert_eq!(diagnosis.cause, Cause::CacheCold);
}

fn a_change_whose_time_is_unknown_has_two_causes<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut table = world.table();
    table.put("a.py", "1");
    world.warm(SyncOptions::default());
    world.foreign().del("a.py");
    table.run(
        "ALTER TABLE workspace_files ALTER updated_at DROP NOT NULL;
         UPDATE workspace_files SET updated_at = NULL",
    );
    let diagnosis = diagnose(&world, "a.py");
    assert_eq!(
        (diagnosis.cause, diagnosis.changed),
        (Cause::NotCached, None)
    );
    let said = diagnosis.to_string();
    assert!(
        said.contains("the database has it") && said.contains("refresh"),
        "{said}"
    );
    // A clock of the service's own.
    table.run(
        "ALTER TABLE workspace_files ALTER updated_at DROP DEFAULT;
         ALTER TABLE workspace_files ALTER updated_at TYPE bigint USING 1700000000",
    );
    let diagnosis = diagnose(&world, "a.py");
    assert_eq!(
        (diagnosis.cause, diagnosis.changed),
        (Cause::NotCached, None)
    );
}

fn what_the_warm_up_reads_is_enough<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut table = world.table();
    table.put("a.py", "1");
    table.run(
        "DROP ROLE IF EXISTS narrow;
         CREATE ROLE narrow;
         GRANT USAGE ON SCHEMA public TO narrow;
         GRANT SELECT (path, content, content_hash, entity_type, is_deleted)
         ON workspace_files TO narrow",
    );
    let url = format!("{}?options=-c%20role%3Dnarrow", world.postgres.url());
    let client = &mut F::Writer::connect(&url);
    let warmed = world.writer.warm_with(client, SyncOptions::default());
    assert!(warmed.unwrap().complete);
    let diagnosis = world.writer.diagnose(client, "a.py").unwrap();
    assert_eq!((diagnosis.cause, diagnosis.changed), (Cause::Cached, None));
    assert_eq!(diagnosis.row, Some(RowState::Module(module("a.py", "1"))));
}

fn an_index_that_is_gone_is_nobodys_bug<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut table = world.table();
    for path in ["a.py", "b.py", "c.py", "d.py"] {
        table.put(path, "1");
    }
    world.warm(SyncOptions::default());
    let mut foreign = world.foreign();
    foreign.run(&format!("DEL {}", keys::MODULE_INDEX_KEY));
    assert_eq!(cause(&world, "a.py"), Cause::IndexGone);
    foreign.del("b.py");
    let diagnosis = diagnose(&world, "b.py");
    assert_eq!(diagnosis.cause, Cause::IndexGone);
    assert!(!diagnosis.status.unwrap().is_warm());
    world.refresh(&["b.py"]);
    assert_eq!(cause(&world, "b.py"), Cause::Cached);
}

fn an_entry_of_another_type_is_corrupt<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("a.py", "1");
    world.warm(SyncOptions::default());
    for path in ["a.py", "ghost.py"] {
        let key = keys::module_key(path).unwrap();
        foreign.run(&format!("DEL {key}"));
        foreign.run(&format!("HSET {key} field value"));
        assert_eq!(cause(&world, path), Cause::Corrupt, "{path}");
    }
    let drift = world.verify();
    assert_eq!(
        (drift.corrupt, drift.ghost),
        (vec!["a.py".into()], vec!["ghost.py".into()])
    );
    let report = world.repair(SyncOptions::default());
    assert_eq!((report.written, report.removed), (1, 1));
    foreign.assert_is("a.py", Some("1"));
    foreign.assert_is("ghost.py", None);
}

fn a_writer_under_way_is_no_bug<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut service) = (world.table(), world.table());
    table.put("a.py", "1");
    world.warm(SyncOptions::default());
    table.put("a.py", "2");
    // Another service's transaction, for the second look to wait for.
    service.run("BEGIN; INSERT INTO workspace_files (path) VALUES ('b.py')");
    thread::scope(|scope| {
        let looking = scope.spawn(|| diagnose(&world, "a.py"));
        table.wait_for_the_barrier(|| looking.is_finished());
        world.refresh(&["a.py"]);
        service.run("COMMIT");
        assert_eq!(looking.join().unwrap().cause, Cause::Cached);
    });
    // It waits, but not for ever.
    table.put("a.py", "3");
    service.run("BEGIN; INSERT INTO workspace_files (path) VALUES ('c.py')");
    let start = std::time::Instant::now();
    assert_eq!(cause(&world, "a.py"), Cause::Stale);
    assert!(start.elapsed() < LIMIT);
}

fn a_bad_path_asks_nobody<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    world.redis.reset_stats();
    let error = world.writer.diagnose(&mut world.client(), "index");
    assert!(error.unwrap_err().is_invalid_path());
    assert_eq!(world.redis.calls("get"), 0);
}
