//! How a guard learns what changes, wherever its database is.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{
    Blocking, Guard, Guarding, LIMIT, PgBouncer, World, numbered, on_both_facades, wait_until,
};
use bifrost_module_cache::blocking;
use bifrost_module_cache::guard::{DatabaseFeed, GuardOptions, trigger_sql};
use bifrost_module_cache::postgres::{Client, NoTls};

on_both_facades! {
    notifications_that_do_not_come_through_are_found_out
    it_polls_through_pgbouncer
    without_triggers_it_asks_and_with_them_it_listens
    triggers_for_another_spelling_of_the_table_are_none_of_ours
    a_path_like_a_nonce_hides_no_other
    a_connection_that_listens_is_made_again_when_it_is_lost
    changes_by_the_thousand_and_a_truncation_are_told
    a_view_is_compared_by_content
    a_user_that_may_only_select_is_enough
    a_redis_that_announces_nothing_is_swept
    what_came_since_the_last_listing_is_missed_in_the_index
}

const HOUR: Duration = Duration::from_secs(3_600);

fn often() -> GuardOptions {
    GuardOptions::default().with_poll(Duration::from_millis(50))
}

fn notifications_that_do_not_come_through_are_found_out<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    world.install_triggers();
    let bouncer = PgBouncer::start(&world.postgres);
    let options = often().with_listen(true);
    let guard = Guard::<F>::begin(world.writer::<F>(), &bouncer.url(), options);
    guard.wait_for_the_mark(&world);
    // Others use the server's connections, one of which listens.
    let mut table = world.table();
    let mut foreign = world.foreign();
    for n in 0..20 {
        let content = format!("{n}");
        table.put("m/000.py", &content);
        foreign.wait_for("m/000.py", Some(&content));
        assert_eq!(guard.stats().database_feed, DatabaseFeed::Poll);
        // Until after the time that a notification may take.
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn it_polls_through_pgbouncer<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let bouncer = PgBouncer::start(&world.postgres);
    let guard = Guard::<F>::begin(world.writer::<F>(), &bouncer.url(), often());
    guard.wait_for_the_mark(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("m/000.py", "new");
    foreign.wait_for("m/000.py", Some("new"));
    foreign.set("m/001.py", "wrong");
    foreign.wait_for("m/001.py", Some("m/001.py"));
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
}

fn without_triggers_it_asks_and_with_them_it_listens<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let options = often().with_sweep(Duration::from_secs(1));
    let guard = Guard::start(&world, options.with_listen(true));
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("m/000.py", "asked");
    foreign.wait_for("m/000.py", Some("asked"));
    assert_eq!(guard.stats().database_feed, DatabaseFeed::Poll);
    world.install_triggers();
    guard.wait_until_it_listens();
    table.put("m/000.py", "told");
    foreign.wait_for("m/000.py", Some("told"));
    table.run("ALTER TABLE workspace_files DISABLE TRIGGER USER");
    wait_until("it asks again", LIMIT, || {
        guard.stats().database_feed == DatabaseFeed::Poll
    });
    table.put("m/000.py", "asked again");
    foreign.wait_for("m/000.py", Some("asked again"));
}

fn a_connection_that_listens_is_made_again_when_it_is_lost<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let guard = Guard::start_listening(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let sweeps = guard.stats().sweeps;
    for n in 0..3 {
        guard.wait_until_it_listens();
        let content = format!("before {n}");
        table.put("m/000.py", &content);
        foreign.wait_for("m/000.py", Some(&content));
        table.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%';
             UPDATE workspace_files SET content = content || ' lost' WHERE path = 'm/001.py'",
        );
        // Nobody was told of this.
        let content = format!("m/001.py{}", " lost".repeat(n + 1));
        foreign.wait_for("m/001.py", Some(&content));
    }
    assert_eq!(guard.stats().sweeps, sweeps);
}

fn changes_by_the_thousand_and_a_truncation_are_told<F: Guarding>() {
    let paths = numbered(1_500);
    let world = World::<F>::with_rows(&paths);
    world.install_triggers();
    let options = GuardOptions::default().with_poll(HOUR).with_sweep(HOUR);
    let options = options.with_listen(true).with_allow_empty(true);
    let guard = Guard::start(&world, options);
    guard.wait_until_it_listens();
    guard.wait_for_the_mark(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    // By name, in more than one notification.
    table.run("UPDATE workspace_files SET content = 'some' WHERE path < 'm/900.py'");
    foreign.wait_for("m/899.py", Some("some"));
    foreign.wait_for("m/000.py", Some("some"));
    // As "everything".
    table.run("UPDATE workspace_files SET content = 'all'");
    foreign.wait_for("m/1499.py", Some("all"));
    foreign.wait_for("m/000.py", Some("all"));
    table.run("TRUNCATE workspace_files");
    foreign.wait_for("m/1499.py", None);
    foreign.wait_for("m/000.py", None);
    // A name that holds what ends a line, and one too long for a notification.
    table.put("a\nb.py", "x");
    table.put(&"é".repeat(999), "x");
    foreign.wait_for(&"é".repeat(999), Some("x"));
}

/// A view has no `xmin`.
fn a_view_is_compared_by_content<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let mut table = world.table();
    table.run("CREATE VIEW modules AS SELECT * FROM workspace_files WHERE path <> 'm/009.py'");
    let config = world.writer_config().with_workspace_table("modules");
    let writer = <F::Writer as crate::support::Writer>::new(config).unwrap();
    let options = often().with_sweep(HOUR).with_listen(true);
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    let mut foreign = world.foreign();
    table.put("m/000.py", "new");
    foreign.wait_for("m/000.py", Some("new"));
    table.run("UPDATE workspace_files SET content_hash = 'h' WHERE path = 'm/001.py'");
    wait_until("the hash is new", LIMIT, || {
        let entry = foreign.entry("m/001.py").value;
        entry.is_some_and(|json| json.contains("\"h\""))
    });
    table.run("DELETE FROM workspace_files WHERE path = 'm/002.py'");
    foreign.wait_for("m/002.py", None);
    foreign.wait_for("m/009.py", None);
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
}

/// Of some columns only: these users have no `xmin` either.
fn a_user_that_may_only_select_is_enough<F: Guarding>() {
    for (user, right) in [
        ("reads_all", "SELECT"),
        (
            "reads_some",
            "SELECT (path, content, content_hash, entity_type, is_deleted)",
        ),
    ] {
        let world = World::<F>::with_rows(&numbered(10));
        world.install_triggers();
        let mut table = world.table();
        table.run(&format!(
            "DROP ROLE IF EXISTS {user}; CREATE ROLE {user} LOGIN;
             GRANT USAGE ON SCHEMA public TO {user};
             GRANT {right} ON workspace_files TO {user};
             ALTER ROLE {user} SET default_transaction_read_only = on"
        ));
        let url = world
            .postgres
            .url()
            .replace("postgres@", &format!("{user}@"));
        let mut denied = Client::connect(&url, NoTls).unwrap();
        assert!(denied.batch_execute("DELETE FROM workspace_files").is_err());
        for listen in [false, true] {
            let guard = Guard::<F>::begin(world.writer::<F>(), &url, often().with_listen(listen));
            guard.wait_until_it_guards();
            if listen {
                guard.wait_until_it_listens();
            }
            let mut foreign = world.foreign();
            let content = format!("{listen}");
            table.put("m/000.py", &content);
            foreign.wait_for("m/000.py", Some(&content));
            foreign.set("m/001.py", "wrong");
            foreign.wait_for("m/001.py", Some("m/001.py"));
            table.run(&format!(
                "DELETE FROM workspace_files WHERE path = 'm/00{}.py'",
                2 + i32::from(listen)
            ));
            foreign.wait_for(&format!("m/00{}.py", 2 + i32::from(listen)), None);
            assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
        }
        drop(denied);
        table.run(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
    }
}

/// An ACL without CLIENT TRACKING: only the database tells, and the sweeps find the rest.
fn a_redis_that_announces_nothing_is_swept<F: Guarding>() {
    let world = World::<F>::acl();
    world.table().fill(&numbered(10));
    world
        .redis
        .command("ACL SETUSER bifrost_writer -client|tracking -client|trackinginfo");
    let options = often().with_sweep(Duration::from_secs(1));
    let guard = Guard::<F>::begin(world.writer::<F>(), &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("m/000.py", "new");
    foreign.wait_for("m/000.py", Some("new"));
    foreign.set("m/001.py", "wrong");
    foreign.wait_for("m/001.py", Some("m/001.py"));
    let stats = guard.stats();
    assert!(!stats.redis_up && stats.since.is_none(), "{stats:?}");
    assert!(stats.last_failure.is_some(), "{stats:?}");
}

fn what_came_since_the_last_listing_is_missed_in_the_index<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let guard = Guard::start_listening(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("m/new.py", "new");
    foreign.wait_for("m/new.py", Some("new"));
    guard.wait_until_it_rests();
    foreign.run("SREM bifrost:module:index m/new.py");
    foreign.wait_for("m/new.py", Some("new"));
}

/// They notify on another channel, where this guard hears nothing.
fn triggers_for_another_spelling_of_the_table_are_none_of_ours<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let config = world.writer_config();
    let sql = trigger_sql(&config.with_workspace_table("public.workspace_files")).unwrap();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.run(&sql);
    let options = often().with_listen(true).with_sweep(Duration::from_secs(1));
    let guard = Guard::start(&world, options);
    table.put("m/000.py", "new");
    foreign.wait_for("m/000.py", Some("new"));
    guard.wait_for_a_sweep();
    assert_eq!(guard.stats().database_feed, DatabaseFeed::Poll);
    // And those that fire on a replica only.
    world.install_triggers();
    guard.wait_until_it_listens();
    table.run("ALTER TABLE workspace_files ENABLE REPLICA TRIGGER bifrost_modules_on_update");
    wait_until("it asks", LIMIT, || {
        guard.stats().database_feed == DatabaseFeed::Poll
    });
}

fn a_path_like_a_nonce_hides_no_other<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(10));
    let _guard = Guard::start_listening(&world);
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put("/nonce/ff", "x");
    table.run("UPDATE workspace_files SET content = 'new' WHERE path IN ('/nonce/ff', 'm/000.py')");
    foreign.wait_for("m/000.py", Some("new"));
}

/// A pool without a free connection, for the one that would listen.
#[test]
fn a_second_connection_that_hangs_holds_nothing_up_for_long() {
    let world = World::<Blocking>::with_rows(&numbered(10));
    world.install_triggers();
    let options = often().with_listen(true);
    let guard = blocking::Guard::new(world.writer::<Blocking>(), options).unwrap();
    let (connects, url) = (AtomicUsize::new(0), world.postgres.url());
    let connect = move || {
        if connects.fetch_add(1, SeqCst) > 0 {
            std::thread::sleep(HOUR);
        }
        Client::connect(&url, NoTls)
    };
    let theirs = guard.clone();
    let run = std::thread::spawn(move || theirs.run(connect));
    wait_until("it guards", LIMIT, || guard.stats().since.is_some());
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for n in 0..30 {
        let content = n.to_string();
        table.put("m/000.py", &content);
        foreign.wait_for("m/000.py", Some(&content));
    }
    assert_eq!(guard.stats().failures, 0);
    guard.stop();
    run.join().unwrap().unwrap();
}
