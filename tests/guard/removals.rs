//! What has no row is removed, unless too much is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::support::{
    Gate, Guard, Guarding, LIMIT, Reader, StopOnDrop, World, Writer, numbered, on_both_facades,
    patient, wait_until,
};
use bifrost_module_cache::Error;
use bifrost_module_cache::guard::GuardOptions;
use bifrost_module_cache::postgres::{Client, NoTls};

on_both_facades! {
    an_emptied_table_removes_nothing
    a_truncated_table_removes_nothing_where_triggers_tell_it
    a_table_that_is_emptied_while_it_is_mended_from_removes_nothing
    an_empty_table_that_is_meant_empties_the_cache
    too_many_removals_are_withheld
    a_wrong_database_of_the_same_size_removes_nothing
    a_wrong_database_is_refused_at_the_start
    what_one_guard_withholds_no_other_removes
    a_moved_module_is_never_missing
    modules_that_move_by_the_hundred_are_never_missing
    modules_that_move_are_never_missing_where_triggers_tell_it
}

fn often() -> GuardOptions {
    GuardOptions::default()
        .with_poll(Duration::from_millis(20))
        .with_sweep(Duration::from_secs(1))
}

#[track_caller]
fn wait_until_withheld<F: Guarding>(guard: &Guard<F>, count: usize) {
    wait_until("removals are withheld", LIMIT, || {
        guard.stats().withheld == count
    });
}

/// In a small cache, where any share may be removed, and by each way.
fn an_emptied_table_removes_nothing<F: Guarding>() {
    let paths = numbered(5);
    for emptied in [
        "DELETE FROM workspace_files",
        "TRUNCATE workspace_files",
        "UPDATE workspace_files SET is_deleted = TRUE",
    ] {
        let world = World::<F>::with_rows(&paths);
        let guard = Guard::start(&world, often());
        guard.wait_for_the_mark(&world);
        world.table().run(emptied);
        wait_until_withheld(&guard, 5);
        // Each of them once more, by name.
        let mut foreign = world.foreign();
        for path in &paths {
            foreign.set(path, path);
        }
        guard.wait_for_a_sweep();
        guard.wait_until_it_rests();
        foreign.assert_holds(&paths);
        // It is told.
        wait_until("the sign of life tells it", LIMIT, || {
            world
                .status()
                .guard
                .is_some_and(|guard| guard.withheld == 5)
        });
        // And mends again once there are rows.
        let mut table = world.table();
        table.run("DELETE FROM workspace_files");
        table.fill(&paths[1..]);
        foreign.wait_for(&paths[0], None);
        wait_until_withheld(&guard, 0);
    }
}

fn a_truncated_table_removes_nothing_where_triggers_tell_it<F: Guarding>() {
    let paths = numbered(30);
    let world = World::<F>::with_rows(&paths);
    world.install_triggers();
    let guard = Guard::start(&world, GuardOptions::default().with_listen(true));
    guard.wait_until_it_listens();
    guard.wait_for_the_mark(&world);
    world.table().run("TRUNCATE workspace_files");
    wait_until_withheld(&guard, 30);
    guard.wait_until_it_rests();
    world.foreign().assert_holds(&paths);
}

fn an_empty_table_that_is_meant_empties_the_cache<F: Guarding>() {
    let paths = numbered(30);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often().with_allow_empty(true));
    guard.wait_for_the_mark(&world);
    world.table().run("DELETE FROM workspace_files");
    let mut foreign = world.foreign();
    for path in &paths {
        foreign.wait_for(path, None);
    }
    assert_eq!(guard.stats().withheld, 0);
}

fn too_many_removals_are_withheld<F: Guarding>() {
    let paths = numbered(500);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    let mut table = world.table();
    table.run("DELETE FROM workspace_files WHERE path >= 'm/200.py'");
    wait_until_withheld(&guard, 300);
    // All else is still mended, while nothing is removed.
    let mut foreign = world.foreign();
    table.put("m/000.py", "new");
    foreign.wait_for("m/000.py", Some("new"));
    foreign.set("m/001.py", "wrong");
    foreign.wait_for("m/001.py", Some("m/001.py"));
    guard.wait_for_a_sweep();
    guard.wait_until_it_rests();
    for path in &paths[200..] {
        foreign.assert_is(path, Some(path));
    }
    // Fewer are removed.
    table.fill(&paths[300..500]);
    for path in &paths[200..300] {
        foreign.wait_for(path, None);
    }
    foreign.wait_for(&paths[300], Some(&paths[300]));
    wait_until_withheld(&guard, 0);
}

/// A reader that asks for both paths of a module finds one, at any moment.
fn a_moved_module_is_never_missing<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(300));
    // Polls are so far apart that the old path is looked at before the new one is known.
    let guard = Guard::start(
        &world,
        GuardOptions::default().with_poll(Duration::from_secs(1)),
    );
    guard.wait_for_the_mark(&world);
    let (mut foreign, mut table) = (world.foreign(), world.table());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let (reader, is_over) = (world.writer.reader().clone(), &is_over);
        let missed = scope.spawn(move || {
            let mut missed = 0;
            while !is_over.load(SeqCst) {
                let found = reader.get_many(&["m/000.py", "moved.py"]).unwrap();
                missed += usize::from(found.iter().all(Option::is_none));
            }
            missed
        });
        for n in 0..6 {
            let (old, new) = if n % 2 == 0 {
                ("m/000.py", "moved.py")
            } else {
                ("moved.py", "m/000.py")
            };
            table.run(&format!(
                "UPDATE workspace_files SET path = '{new}' WHERE path = '{old}'"
            ));
            // Somebody writes to the old one, so that it is looked at.
            foreign.set(old, "whatever");
            foreign.wait_for(old, None);
            foreign.wait_for(new, Some("m/000.py"));
        }
        drop(stop);
        assert_eq!(missed.join().unwrap(), 0);
    });
}

/// What the guard writes itself must not make the share of what has no row smaller.
fn a_wrong_database_of_the_same_size_removes_nothing<F: Guarding>() {
    let paths = numbered(240);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    world
        .table()
        .run("UPDATE workspace_files SET path = 'other/' || path");
    wait_until("removals are withheld", LIMIT, || {
        guard.stats().withheld > 0
    });
    for _ in 0..2 {
        guard.wait_for_a_sweep();
        guard.wait_until_it_rests();
    }
    let mut foreign = world.foreign();
    for path in &paths {
        foreign.assert_is(path, Some(path));
    }
    assert!(guard.stats().withheld >= 240, "{:?}", guard.stats());
}

fn a_wrong_database_is_refused_at_the_start<F: Guarding>() {
    let paths = numbered(30);
    let world = World::<F>::with_rows(&paths);
    Guard::start(&world, often()).stop().unwrap();
    let refused = |options| {
        let guard = Guard::<F>::begin(world.writer::<F>(), &world.postgres.url(), options);
        guard.ended().unwrap_err()
    };
    let mut table = world.table();
    table.run("UPDATE workspace_files SET path = 'other/' || path");
    let error = refused(often());
    assert!(matches!(error, Error::TooManyRemovals { .. }), "{error}");
    table.run("DELETE FROM workspace_files");
    let error = refused(often());
    assert!(
        matches!(error, Error::Empty | Error::TooManyRemovals { .. }),
        "{error}"
    );
    // Nothing was written, and nothing removed.
    world.foreign().assert_holds(&paths);
    table.fill(&paths);
    Guard::start(&world, often()).stop().unwrap();
}

/// In one commit, so that hints at old and new paths come together, and more than are looked at
/// together.
fn modules_that_move_by_the_hundred_are_never_missing<F: Guarding>() {
    move_by_the_hundred::<F>(false);
}

fn modules_that_move_are_never_missing_where_triggers_tell_it<F: Guarding>() {
    move_by_the_hundred::<F>(true);
}

fn move_by_the_hundred<F: Guarding>(listen: bool) {
    let paths = numbered(600);
    let world = World::<F>::with_rows(&paths);
    world.install_triggers();
    let options = GuardOptions::default().with_poll(Duration::from_millis(200));
    let guard = Guard::start(&world, options.with_listen(listen));
    if listen {
        guard.wait_until_it_listens();
    }
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let moved: Vec<String> = paths.iter().map(|path| format!("moved/{path}")).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let (reader, is_over, paths, moved) =
            (world.writer.reader().clone(), &is_over, &paths, &moved);
        let missed = scope.spawn(move || {
            let both: Vec<&String> = paths.iter().chain(moved).collect();
            let mut missed = 0;
            while !is_over.load(SeqCst) {
                // One MGET: of one moment.
                let found = reader.get_many(&both).unwrap();
                let (old, new) = found.split_at(paths.len());
                let pairs = old.iter().zip(new);
                missed += pairs
                    .filter(|pair| pair.0.is_none() && pair.1.is_none())
                    .count();
            }
            missed
        });
        let mut table = world.table();
        let mut foreign = world.foreign();
        table.run("UPDATE workspace_files SET path = 'moved/' || path WHERE path < 'm/250.py'");
        for path in &paths[..250] {
            foreign.wait_for(path, None);
        }
        table.run("UPDATE workspace_files SET path = substr(path, 7) WHERE path LIKE 'moved/%'");
        for path in &moved[..250] {
            foreign.wait_for(path, None);
        }
        drop(stop);
        assert_eq!(missed.join().unwrap(), 0);
    });
}

/// Between the decision that an entry is to be mended and the reading of its row.
fn a_table_that_is_emptied_while_it_is_mended_from_removes_nothing<F: Guarding>() {
    let paths = numbered(5);
    let world = World::<F>::with_rows(&paths);
    let database = world.postgres.url();
    let emptied = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::new(AtomicBool::new(false));
    let gate = {
        let (emptied, is_armed) = (Arc::clone(&emptied), Arc::clone(&is_armed));
        // The first that is watched is what is to be mended.
        Gate::start(world.redis.port(), "\r\nWATCH\r\n", move || {
            if is_armed.load(SeqCst) && !emptied.swap(true, SeqCst) {
                let mut client = Client::connect(&database, NoTls).unwrap();
                client.batch_execute("DELETE FROM workspace_files").unwrap();
            }
        })
    };
    let writer = F::Writer::new(patient(&gate.url())).unwrap();
    let hour = Duration::from_secs(3_600);
    let options = GuardOptions::default().with_poll(hour).with_sweep(hour);
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    is_armed.store(true, SeqCst);
    let mut foreign = world.foreign();
    for path in &paths {
        foreign.set(path, "wrong");
    }
    wait_until("the table was emptied", LIMIT, || emptied.load(SeqCst));
    wait_until_withheld(&guard, 5);
    guard.wait_until_it_rests();
    for path in &paths {
        let content = foreign.content(path);
        assert!(content.is_some(), "{path} was removed");
    }
}

/// A second guard, and one that is started anew, see the modules that the first one brought beside
/// those that have no row: the share is half by now.
fn what_one_guard_withholds_no_other_removes<F: Guarding<Other: Guarding>>() {
    let paths = numbered(240);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    let url = world.postgres.url();
    let late = often().with_standby(Duration::from_millis(300));
    let standby = Guard::<F::Other>::begin(world.writer::<F::Other>(), &url, late);
    standby.wait_until_it_guards();
    let mut table = world.table();
    table.run("UPDATE workspace_files SET path = 'other/' || path");
    wait_until("both withhold", LIMIT, || {
        guard.stats().withheld > 0 && standby.stats().withheld > 0
    });
    guard.wait_for_a_sweep();
    standby.wait_for_a_sweep();
    let mut foreign = world.foreign();
    let mut assert_all_are_there = || {
        for path in &paths {
            foreign.assert_is(path, Some(path));
        }
    };
    assert_all_are_there();
    guard.stop().unwrap();
    standby.stop().unwrap();
    let again = Guard::<F>::begin(world.writer::<F>(), &url, often());
    let error = again.ended().unwrap_err();
    assert!(matches!(error, Error::TooManyRemovals { .. }), "{error}");
    assert_all_are_there();
    // Whoever says that it is meant is believed.
    let options = often().with_max_prune(1.0);
    let permitted = Guard::<F>::begin(world.writer::<F>(), &url, options);
    for path in &paths {
        foreign.wait_for(path, None);
    }
    drop(permitted);
}
