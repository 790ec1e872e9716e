//! A server that is gone, frozen or another one than before ends nothing.

use std::time::Duration;

use crate::support::{
    Blocking, Foreign, Guard, Guarding, LIMIT, Nonblocking, Proxy, Reader, RedisServer, World,
    Writer, numbered, on_both_facades, patient, wait_until,
};
use bifrost_module_cache::Error;
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    it_never_ends_for_an_outage
    what_waiting_does_not_mend_ends_it_before_it_has_guarded
    it_waits_for_servers_that_are_not_up_yet
    it_ends_when_it_is_told_to_whatever_it_waits_for
    a_demoted_redis_is_left
    a_redis_that_does_not_know_of_its_successor_is_left
    a_redis_that_comes_back_empty_is_filled_and_marked
    it_guards_where_sentinels_name_the_server
    it_guards_a_cluster
    a_redis_that_is_full_is_relieved_and_guarded
}

fn often() -> GuardOptions {
    GuardOptions::default()
        .with_poll(Duration::from_millis(50))
        .with_answer_timeout(Duration::from_millis(500))
}

/// A writer with the usual deadlines: the guard has to get over a frozen Redis.
fn writer<F: Guarding>(world: &World<F>) -> F::Writer {
    let config = patient(&world.writer_url)
        .with_connect_timeout(Duration::from_millis(500))
        .with_bulk_deadline(Duration::from_secs(1))
        .with_response_timeout(Duration::from_millis(500))
        .with_namespace(world.namespace);
    F::Writer::new(config).unwrap()
}

#[track_caller]
fn assert_all_is_right<F: Guarding>(world: &World<F>, guard: &Guard<F>, what: &str) {
    wait_until(&format!("all is right after {what}"), 2 * LIMIT, || {
        world.count_wrong() == 0
    });
    guard.wait_until_it_guards();
    guard.wait_for_the_mark(world);
}

fn it_never_ends_for_an_outage<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(50));
    world.install_triggers();
    for listen in [false, true] {
        let options = often().with_listen(listen);
        let guard = Guard::<F>::begin(writer(&world), &world.postgres.url(), options);
        guard.wait_until_it_guards();
        let go_wrong = |n: &str| {
            world.table().put("m/000.py", n);
            world.table().delete("m/001.py");
            world.table().put("m/001.py", n);
        };

        world.redis.kill();
        wait_until("it misses Redis", LIMIT, || !guard.stats().redis_up);
        assert_eq!(guard.stats().since, None);
        go_wrong("while Redis was gone");
        world.redis.restart();
        assert_all_is_right(&world, &guard, "Redis was gone");

        world.postgres.kill();
        wait_until("it misses the database", LIMIT, || {
            !guard.stats().database_up
        });
        assert_eq!(guard.stats().since, None);
        world.foreign().set("m/002.py", "wrong");
        world.foreign().del("m/003.py");
        world.postgres.restart();
        assert_all_is_right(&world, &guard, "the database was gone");

        world.redis.freeze();
        go_wrong("while Redis was frozen");
        wait_until("it misses Redis", LIMIT, || !guard.stats().redis_up);
        world.redis.thaw();
        assert_all_is_right(&world, &guard, "Redis was frozen");

        world.postgres.freeze();
        world.foreign().set("m/002.py", "wrong");
        wait_until("it misses the database", LIMIT, || {
            !guard.stats().database_up
        });
        world.postgres.thaw();
        assert_all_is_right(&world, &guard, "the database was frozen");

        world.postgres.kill();
        world.redis.kill();
        wait_until("it misses both", LIMIT, || {
            !guard.stats().database_up && !guard.stats().redis_up
        });
        world.redis.restart();
        world.foreign().set("m/004.py", "wrong");
        world.postgres.restart();
        go_wrong("while both were gone");
        assert_all_is_right(&world, &guard, "both were gone");
        guard.stop().unwrap();
    }
}

fn what_waiting_does_not_mend_ends_it_before_it_has_guarded<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    let begin = |config, url: &str| {
        let writer = F::Writer::new(config).unwrap();
        Guard::<F>::begin(writer, url, often()).ended().unwrap_err()
    };
    let url = world.postgres.url();
    let no_table = world.writer_config().with_workspace_table("nowhere");
    let error = begin(no_table, &url);
    assert!(error.is_database() && !error.is_transient(), "{error}");
    let no_user = url.replace("postgres@", "nobody@");
    let error = begin(world.writer_config(), &no_user);
    assert!(error.is_database() && !error.is_transient(), "{error}");
    world.redis.command("CONFIG SET requirepass hunter2");
    let error = begin(world.writer_config(), &url);
    assert!(error.is_refused(), "{error}");
}

fn it_waits_for_servers_that_are_not_up_yet<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    world.redis.kill();
    world.postgres.kill();
    let guard = Guard::<F>::begin(writer(&world), &world.postgres.url(), often());
    wait_until("it has failed", LIMIT, || guard.stats().failures > 1);
    world.redis.restart();
    world.postgres.restart();
    guard.wait_until_it_guards();
    world.foreign().assert_holds(&numbered(5));
}

fn it_ends_when_it_is_told_to_whatever_it_waits_for<F: Guarding>() {
    let world = World::<F>::with_rows(&numbered(5));
    let start = || Guard::<F>::begin(writer(&world), &world.postgres.url(), often());
    let guard = start();
    guard.wait_until_it_guards();
    guard.stop().unwrap();
    world.postgres.freeze();
    let guard = start();
    guard.stop().unwrap();
    world.postgres.thaw();
    world.redis.freeze();
    let guard = start();
    wait_until("it reads the database", LIMIT, || guard.stats().database_up);
    guard.stop().unwrap();
    world.redis.thaw();
}

/// The old server keeps its connections and knows that it is no primary any more; the address leads
/// to its successor.
fn a_demoted_redis_is_left<F: Guarding>() {
    let paths = numbered(20);
    let world = World::<F>::with_rows(&paths);
    let proxy = Proxy::start(world.redis.port());
    let writer = F::Writer::new(patient(&proxy.url())).unwrap();
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), often());
    guard.wait_for_the_mark(&world);
    let new = RedisServer::start();
    new.replicate(&world.redis);
    proxy.set_target(new.port());
    new.promote();
    world.redis.demote();
    let (mut foreign, mut table) = (Foreign::new(new.connection()), world.table());
    table.put(&paths[0], "after the failover");
    foreign.set(&paths[1], "wrong");
    foreign.wait_for(&paths[0], Some("after the failover"));
    foreign.wait_for(&paths[1], Some(&paths[1]));
    // In another reign the cache is complete again, because everything was compared.
    let reader = F::Reader::new(patient(&new.url())).unwrap();
    wait_until("the mark is of the new reign", LIMIT, || {
        reader.status().is_ok_and(|status| status.is_warm())
    });
    guard.wait_until_it_guards();
}

/// The address leads to another primary from now on, and the old one lives on as it was: the guard
/// must not listen to the one and write to the other.
fn a_redis_that_does_not_know_of_its_successor_is_left<F: Guarding>() {
    let paths = numbered(20);
    let world = World::<F>::with_rows(&paths);
    let proxy = Proxy::start(world.redis.port());
    let writer = F::Writer::new(patient(&proxy.url())).unwrap();
    let options = often().with_sweep(Duration::from_secs(3_600));
    let guard = Guard::<F>::begin(writer, &world.postgres.url(), options);
    guard.wait_for_the_mark(&world);
    // With its first replica, the old one begins another history, and so the guard another session.
    let (new, sweeps) = (RedisServer::start(), guard.stats().sweeps);
    new.replicate(&world.redis);
    wait_until("the guard has compared everything anew", LIMIT, || {
        guard.stats().sweeps > sweeps
    });
    guard.wait_until_it_guards();
    guard.wait_until_it_rests();
    new.promote();
    proxy.set_target(new.port());
    // No row changes: only the new server can tell of this.
    let mut foreign = Foreign::new(new.connection());
    foreign.set(&paths[1], "wrong");
    foreign.wait_for(&paths[1], Some(&paths[1]));
    foreign.set(&paths[2], "wrong");
    foreign.wait_for(&paths[2], Some(&paths[2]));
    guard.wait_until_it_guards();
}

fn a_redis_that_comes_back_empty_is_filled_and_marked<F: Guarding>() {
    let paths = numbered(300);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    world.redis.kill();
    world.redis.forget();
    world.redis.restart();
    wait_until("it is warm again", LIMIT, || {
        world
            .writer
            .reader()
            .status()
            .is_ok_and(|status| status.is_warm())
    });
    world.foreign().assert_holds(&paths);
    drop(guard);
}

fn it_guards_where_sentinels_name_the_server<F: Guarding>() {
    it_guards_in(&World::<F>::of_sentinels());
}

fn it_guards_a_cluster<F: Guarding>() {
    it_guards_in(&World::<F>::of_cluster());
}

fn it_guards_in<F: Guarding>(world: &World<F>) {
    let paths = numbered(20);
    world.table().fill(&paths);
    let guard = Guard::start(world, often());
    guard.wait_for_the_mark(world);
    let mut foreign = world.foreign();
    foreign.assert_holds(&paths);
    foreign.set(&paths[0], "wrong");
    foreign.wait_for(&paths[0], Some(&paths[0]));
    world.table().put(&paths[1], "new");
    foreign.wait_for(&paths[1], Some("new"));
    assert!(world.status().guard.is_some());
}

/// Both can be spawned, and given up by being dropped.
#[test]
fn a_guard_can_run_in_a_task() {
    let world = World::<Nonblocking>::with_rows(&numbered(5));
    let (guard, url) = (
        <Nonblocking as Guarding>::guard(world.writer::<Nonblocking>(), often()).unwrap(),
        world.postgres.url(),
    );
    let run = {
        let guard = guard.clone();
        async move {
            use bifrost_module_cache::tokio_postgres::{NoTls, connect};
            guard.run(|| connect(&url, NoTls)).await
        }
    };
    let task = crate::support::spawn(run);
    wait_until("it guards", LIMIT, || guard.stats().since.is_some());
    task.abort();
    wait_until("it has ended", LIMIT, || !guard.stats().running);
    let mut foreign = world.foreign();
    wait_until("its connections are gone", LIMIT, || foreign.others() <= 1);
    // And a second time.
    let again = Guard::<Nonblocking>::start(&world, often());
    again.stop().unwrap();
}

#[test]
fn the_same_guard_runs_once_at_a_time() {
    let world = World::<Blocking>::with_rows(&numbered(5));
    let guard = <Blocking as Guarding>::guard(world.writer::<Blocking>(), often()).unwrap();
    let url = world.postgres.url();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| Blocking::run(&guard, &url));
        wait_until("it guards", LIMIT, || guard.stats().since.is_some());
        let error = Blocking::run(&guard, &url).unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
        assert!(guard.stats().running);
        guard.stop();
        running.join().unwrap().unwrap();
    });
    assert!(!guard.stats().running);
    // A guard that was stopped may run again.
    std::thread::scope(|scope| {
        let running = scope.spawn(|| Blocking::run(&guard, &url));
        wait_until("it guards again", LIMIT, || guard.stats().since.is_some());
        guard.stop();
        running.join().unwrap().unwrap();
    });
}

/// What can't be written must not keep from being removed what has no row.
fn a_redis_that_is_full_is_relieved_and_guarded<F: Guarding>() {
    let paths = numbered(60);
    let world = World::<F>::with_rows(&paths);
    let guard = Guard::start(&world, often());
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let sweeps = guard.stats().sweeps;
    world.redis.command("CONFIG SET maxmemory 1");
    let (mut table, mut foreign) = (world.table(), world.foreign());
    table.put(&paths[0], "new");
    wait_until("it can't be written", LIMIT, || guard.stats().failures > 0);
    // With another one that can't be written, so that they are looked at together.
    table.run(
        "UPDATE workspace_files SET is_deleted = path >= 'm/050.py', content = content || '!'
         WHERE path >= 'm/049.py'",
    );
    // A full Redis takes no MULTI, which `Foreign::entry` is.
    for path in &paths[50..] {
        wait_until("it is removed", LIMIT, || {
            world.get(path).is_none() && !foreign.entry_listed(path)
        });
    }
    let stats = guard.stats();
    assert!(
        stats.since.is_some() && stats.sweeps <= sweeps + 1,
        "{stats:?}"
    );
    world.redis.command("CONFIG SET maxmemory 0");
    foreign.wait_for(&paths[0], Some("new"));
    foreign.wait_for(&paths[49], Some("m/049.py!"));
}

/// Redis is followed before the database has been connected to.
#[test]
fn a_database_that_is_slow_to_connect_to_does_not_hide_that_it_guards() {
    let world = World::<Blocking>::with_rows(&numbered(5));
    let options = often()
        .with_answer_timeout(LIMIT)
        .with_sweep(Duration::from_secs(3_600));
    let guard = <Blocking as Guarding>::guard(world.writer::<Blocking>(), options).unwrap();
    let (theirs, url) = (guard.clone(), world.postgres.url());
    let run = std::thread::spawn(move || {
        theirs.run(move || {
            use bifrost_module_cache::postgres::{Client, NoTls};
            std::thread::sleep(Duration::from_millis(1_500));
            Client::connect(&url, NoTls)
        })
    });
    wait_until("it guards", LIMIT, || guard.stats().since.is_some());
    guard.stop();
    run.join().unwrap().unwrap();
}
