//! Several guards at once, and writers that never agree.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::support::{
    Foreign, Guard, Guarding, LIMIT, StopOnDrop, World, numbered, on_both_facades, wait_until,
};
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    two_guards_agree
    a_standby_mostly_reads
    a_standby_takes_over
    a_path_that_two_writers_fight_over_is_mended_less_often
    a_row_that_changes_often_is_brought_each_time
}

fn often() -> GuardOptions {
    GuardOptions::default().with_poll(Duration::from_millis(50))
}

/// One of each facade.
fn two_guards_agree<F: Guarding<Other: Guarding>>() {
    let paths = numbered(50);
    let world = World::<F>::with_rows(&paths);
    let guards = (
        Guard::start(&world, often()),
        Guard::<F::Other>::begin(world.writer::<F::Other>(), &world.postgres.url(), often()),
    );
    guards.1.wait_until_it_guards();
    guards.0.wait_for_the_mark(&world);
    let (mut foreign, mut table) = (world.foreign(), world.table());
    for (n, path) in paths.iter().enumerate() {
        match n % 3 {
            0 => foreign.set(path, "wrong"),
            1 => foreign.del(path),
            _ => table.put(path, path),
        }
    }
    foreign.flush();
    wait_until("all is right", LIMIT, || world.count_wrong() == 0);
    for path in &paths {
        foreign.set(path, "wrong again");
        foreign.wait_for(path, Some(path));
    }
    guards.0.wait_until_it_rests();
    guards.1.wait_until_it_rests();
    foreign.assert_holds(&paths);
    let (first, second) = (guards.0.stats(), guards.1.stats());
    assert_eq!((first.failures, second.failures), (0, 0));
    assert_eq!((first.contended, second.contended), (0, 0));
}

fn a_standby_mostly_reads<F: Guarding>() {
    let paths = numbered(60);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    // So long that a first guard on a busy machine is in time.
    let late = often().with_standby(Duration::from_secs(5));
    let standby = Guard::start(&world, late);
    let (mut foreign, mut table) = (world.foreign(), world.table());
    for path in &paths {
        foreign.set(path, "wrong");
        foreign.wait_for(path, Some(path));
        table.put(path, "new");
        foreign.wait_for(path, Some("new"));
    }
    wait_until("the second one has looked, too", LIMIT, || {
        standby.stats().pending == 0 && standby.stats().checked >= 60
    });
    assert_eq!(standby.stats().mended.total(), 0, "{:?}", standby.stats());
    wait_until("the first one counts them", LIMIT, || {
        guard.stats().mended.stale >= 60
    });
    assert_eq!(world.status().guard.unwrap().pending, 0);
}

fn a_standby_takes_over<F: Guarding>() {
    let paths = numbered(20);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    let standby = Guard::start(&world, often().with_standby(Duration::from_millis(200)));
    let since = |guard: &Guard<F>| guard.stats().since.unwrap();
    let told = || world.status().guard.map(|guard| guard.since);
    let whole = |at: std::time::SystemTime| {
        let seconds = at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        std::time::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    wait_until("the first one tells", LIMIT, || {
        told() == Some(whole(since(&guard)))
    });
    guard.stop().unwrap();
    let mut foreign = world.foreign();
    foreign.set(&paths[0], "wrong");
    foreign.wait_for(&paths[0], Some(&paths[0]));
    // It counts what it has written.
    wait_until("it was the second one", LIMIT, || {
        standby.stats().mended.stale == 1
    });
    wait_until("the second one tells", LIMIT, || {
        told() == Some(whole(since(&standby)))
    });
}

fn a_path_that_two_writers_fight_over_is_mended_less_often<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let (mut other, is_over) = (world.foreign(), &is_over);
        // Writes it wrongly whenever it is right.
        let writes = scope.spawn(move || {
            let mut count = 0;
            while !is_over.load(SeqCst) {
                if other.content("m/000.py").as_deref() != Some("wrong") {
                    other.set("m/000.py", "wrong");
                    count += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            count
        });
        wait_until("it is contended", LIMIT, || guard.stats().contended == 1);
        let before = guard.stats().mended.stale;
        // All others are mended as ever.
        let mut foreign: Foreign = world.foreign();
        for n in 1..10 {
            let path = format!("m/00{n}.py");
            foreign.set(&path, "wrong");
            foreign.wait_for(&path, Some(&path));
        }
        thread::sleep(Duration::from_secs(2));
        let more = guard.stats().mended.stale - before - 9;
        assert!(more <= 2, "{more} times in 2 s");
        drop(stop);
        assert!(writes.join().unwrap() >= 10);
        // It does not give up.
        foreign.wait_for("m/000.py", Some("m/000.py"));
    });
}

fn a_row_that_changes_often_is_brought_each_time<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let guard = Guard::start(&world, often());
    let (mut foreign, mut table) = (world.foreign(), world.table());
    for n in 0..40 {
        let content = n.to_string();
        table.put("m/000.py", &content);
        foreign.wait_for("m/000.py", Some(&content));
    }
    assert_eq!(guard.stats().contended, 0);
}
