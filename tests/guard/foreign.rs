//! What foreign writers do wrong, and that it is right soon afterwards, without anybody's help.

use std::time::Duration;

use crate::support::{
    Foreign, Guard, Guarding, LIMIT, Table, World, numbered, on_both_facades, wait_until,
};
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    each_wrong_entry_is_right_soon
    each_wrong_entry_is_right_soon_where_triggers_tell_it
    a_cache_that_was_flushed_is_complete_again
    what_was_wrong_before_is_right_at_the_start
    rows_that_cannot_be_cached_hold_nothing_up
    a_table_full_of_changes_is_right_soon
    a_wide_row_is_mended
    its_own_writes_come_back_as_checks_and_not_as_writes
}

/// A world whose cache is right, beside a guard.
fn guarded<F: Guarding>(modules: usize, options: GuardOptions) -> (World<F>, Guard<F>) {
    let world = World::<F>::with_rows(&numbered(modules));
    let guard = Guard::start(&world, options);
    guard.wait_until_it_rests();
    (world, guard)
}

fn each_wrong_entry_is_right_soon<F: Guarding>() {
    let often = GuardOptions::default().with_poll(Duration::from_millis(50));
    let (world, guard) = guarded::<F>(50, often);
    do_everything_wrong(&world);
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
    guard.stop().unwrap();
}

/// Polls and sweeps are so far apart that only the triggers can have told.
fn each_wrong_entry_is_right_soon_where_triggers_tell_it<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(50));
    let guard = Guard::start_listening(&world);
    guard.wait_until_it_rests();
    do_everything_wrong(&world);
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
    guard.stop().unwrap();
}

/// A path, what goes wrong with it, and what is right afterwards.
type Wrong = (
    &'static str,
    fn(&mut Foreign, &mut Table),
    Option<&'static str>,
);

const EVERYTHING: &[Wrong] = &[
    (
        "m/000.py",
        |redis, _| redis.set("m/000.py", "wrong"),
        Some("m/000.py"),
    ),
    (
        "m/001.py",
        |_, table| table.put("m/001.py", "new"),
        Some("new"),
    ),
    (
        "m/002.py",
        |redis, _| redis.run("DEL bifrost:module:m/002.py"),
        Some("m/002.py"),
    ),
    (
        "m/003.py",
        |redis, _| redis.run("SREM bifrost:module:index m/003.py"),
        Some("m/003.py"),
    ),
    (
        "m/004.py",
        |redis, _| redis.del("m/004.py"),
        Some("m/004.py"),
    ),
    (
        "m/005.py",
        |redis, _| redis.setex("m/005.py", "m/005.py", 60),
        Some("m/005.py"),
    ),
    (
        "m/006.py",
        |redis, _| redis.set_key("m/006.py", "{"),
        Some("m/006.py"),
    ),
    (
        "m/007.py",
        |redis, _| redis.run("EXPIRE bifrost:module:m/007.py 3600"),
        Some("m/007.py"),
    ),
    ("ghost.py", |redis, _| redis.set("ghost.py", "ghost"), None),
    (
        "listed.py",
        |redis, _| redis.run("SADD bifrost:module:index listed.py"),
        None,
    ),
    ("m/008.py", |_, table| table.delete("m/008.py"), None),
    (
        "m/009.py",
        |_, table| table.run("DELETE FROM workspace_files WHERE path = 'm/009.py'"),
        None,
    ),
    (
        "moved.py",
        |_, table| {
            table.run("UPDATE workspace_files SET path = 'moved.py' WHERE path = 'm/010.py'");
        },
        Some("m/010.py"),
    ),
    ("m/010.py", |_, _| {}, None),
    (
        "m/011.py",
        |_, table| {
            table.run("UPDATE workspace_files SET entity_type = 'form' WHERE path = 'm/011.py'");
        },
        None,
    ),
    // Commit, then an older SET.
    (
        "m/012.py",
        |redis, table| {
            table.put("m/012.py", "newer");
            redis.set("m/012.py", "older");
        },
        Some("newer"),
    ),
    // SET, then a roll-back.
    (
        "m/013.py",
        |redis, table| {
            let mut transaction = table.0.transaction().unwrap();
            let update = "UPDATE workspace_files SET content = 'undone' WHERE path = 'm/013.py'";
            transaction.batch_execute(update).unwrap();
            redis.set("m/013.py", "undone");
            transaction.rollback().unwrap();
        },
        Some("m/013.py"),
    ),
    (
        "m/014.py",
        |redis, _| redis.run("DEL bifrost:module:index"),
        Some("m/014.py"),
    ),
    (
        "new.py",
        |_, table| table.put("new.py", "created"),
        Some("created"),
    ),
    ("m/015.py", |redis, _| redis.flush(), Some("m/015.py")),
];

fn do_everything_wrong<F: Guarding>(world: &World<F>) {
    let (mut foreign, mut table) = (world.foreign(), world.table());
    for (path, wrong, right) in EVERYTHING {
        wrong(&mut foreign, &mut table);
        foreign.wait_for(path, *right);
    }
    // What is no path, in the index.
    foreign.run("SADD bifrost:module:index /absolute");
    foreign.wait_for_no_member("/absolute");
    let mut modules: Vec<String> = numbered(50);
    modules.retain(|path| !["m/008.py", "m/009.py", "m/010.py", "m/011.py"].contains(&&**path));
    modules.extend(["moved.py".to_owned(), "new.py".to_owned()]);
    for path in &modules {
        let right = match path.as_str() {
            "m/001.py" => "new",
            "moved.py" => "m/010.py",
            "m/012.py" => "newer",
            "new.py" => "created",
            path => path,
        };
        foreign.wait_for(path, Some(right));
    }
}

fn a_cache_that_was_flushed_is_complete_again<F: Guarding>() {
    let (world, guard) = guarded::<F>(450, GuardOptions::default());
    guard.wait_for_the_mark(&world);
    let before = world.status();
    assert!(before.verified, "{before}");
    world.foreign().flush();
    guard.wait_for_the_mark(&world);
    world.foreign().assert_holds(&numbered(450));
    assert_eq!(world.status().modules, 450);
    wait_until("it counts the second mark", LIMIT, || {
        guard.stats().completed == 2
    });
}

fn what_was_wrong_before_is_right_at_the_start<F: Guarding>() {
    let paths = numbered(30);
    let world = World::<F>::with_rows(&paths);
    let mut foreign = world.foreign();
    for path in &paths[..20] {
        foreign.set(path, path);
    }
    foreign.set(&paths[0], "wrong");
    foreign.set("ghost.py", "ghost");
    foreign.run("SADD bifrost:module:index a//b");
    let guard = Guard::start(&world, GuardOptions::default());
    guard.wait_for_the_mark(&world);
    foreign.assert_holds(&paths);
    let stats = guard.stats();
    let mended = (stats.mended.missing, stats.mended.stale, stats.mended.ghost);
    assert_eq!(mended, (10, 1, 1), "{stats:?}");
    assert_eq!(stats.mended.index_only, 1);
    assert_eq!(stats.right_after.count, stats.mended.total());
}

fn rows_that_cannot_be_cached_hold_nothing_up<F: Guarding>() {
    let paths = numbered(10);
    let world = World::<F>::with(|config| config.with_max_content_bytes(1_000));
    let mut table = world.table();
    table.fill(&paths);
    table.put("large.py", &"x".repeat(1_001));
    table.put("/absolute", "x");
    table.put("index", "x");
    let config = world.writer_config().with_max_content_bytes(1_000);
    let writer = <F::Writer as crate::support::Writer>::new(config).unwrap();
    let often = GuardOptions::default().with_poll(Duration::from_millis(50));
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), often);
    guard.wait_for_the_mark(&world);
    // One that was cached grows, another one shrinks.
    table.put(&paths[0], &"x".repeat(1_001));
    table.put("large.py", "small");
    let mut foreign = world.foreign();
    foreign.wait_for("large.py", Some("small"));
    foreign.wait_for(&paths[0], None);
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
}

fn a_table_full_of_changes_is_right_soon<F: Guarding>() {
    let paths = numbered(2_500);
    let options = GuardOptions::default().with_poll(Duration::from_millis(200));
    let (world, guard) = guarded::<F>(2_500, options);
    let mut table = world.table();
    table.run("UPDATE workspace_files SET content = 'new'");
    let mut foreign = world.foreign();
    for path in paths.iter().step_by(100) {
        foreign.wait_for(path, Some("new"));
    }
    guard.wait_until_it_rests();
    let drift = world.count_wrong();
    assert_eq!(drift, 0, "{:?}", guard.stats());
}

fn a_wide_row_is_mended<F: Guarding>() {
    let options = GuardOptions::default().with_poll(Duration::from_millis(50));
    let (world, _guard) = guarded::<F>(250, options);
    let wide = "x".repeat(2 << 20);
    let mut table = world.table();
    for path in ["m/001.py", "m/100.py", "m/200.py"] {
        table.put(path, &wide);
    }
    let mut foreign = world.foreign();
    for path in ["m/001.py", "m/100.py", "m/200.py"] {
        foreign.wait_for(path, Some(&wide));
        foreign.set(path, "narrow");
        foreign.wait_for(path, Some(&wide));
    }
}

fn its_own_writes_come_back_as_checks_and_not_as_writes<F: Guarding>() {
    let (world, guard) = guarded::<F>(20, GuardOptions::default());
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let (before, sets) = (guard.stats(), world.redis.calls("set"));
    let mut foreign = world.foreign();
    foreign.set("m/000.py", "wrong");
    foreign.wait_for("m/000.py", Some("m/000.py"));
    guard.wait_until_it_rests();
    let after = guard.stats();
    assert_eq!(after.mended.total() - before.mended.total(), 1);
    // The foreign SET and SADD, and what the guard wrote: a placeholder, the module, and the
    // messages that tell of them.
    let checked = after.checked - before.checked;
    assert!((2..=4).contains(&checked), "{checked} checks");
    // One is the foreign one, one a placeholder that was not needed, one the guard's. All others
    // are signs of life.
    let sets = world.redis.calls("set") - sets;
    assert!((3..=8).contains(&sets), "{sets} SETs");
}
