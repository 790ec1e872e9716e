//! What a near cache promises when the network, the server or both fail, on both facades.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Aim, Near, Nearby, PATIENCE, Proxy, RedisServer, World, Writer, content, on_both_facades,
    patient, usual, wait_until,
};
use bifrost_module_cache::near::{Invalidation, NearCacheOptions, NearCacheStats};
use bifrost_module_cache::{CachedModule, Config};

on_both_facades! {
    a_reply_held_back_past_its_invalidation_is_not_kept
    a_bulk_reply_held_back_past_an_invalidation_is_not_kept
    a_snapshot_waits_for_what_is_held_back
    no_hit_is_older_than_the_bound_when_announcements_vanish
    no_hit_is_older_than_the_bound_when_signs_of_life_vanish
    no_hit_is_older_than_the_bound_when_the_server_freezes
    an_outage_is_an_error_and_never_an_absence
    a_killed_connection_is_made_anew_and_nothing_is_missed
    after_a_flush_all_is_gone
    a_flush_of_another_database_does_no_harm
    after_a_restart_without_data_all_is_gone
    what_the_server_evicts_goes
    a_reader_that_is_slow_takes_in_everything
    after_a_failover_nothing_of_the_new_server_is_kept_before_it_is_followed
    where_the_address_moves_both_sides_follow_it
    reconnects_are_not_more_than_a_second_apart
    sessions_that_never_last_are_not_begun_in_a_hurry
    the_last_known_module_is_served_if_that_is_wanted
    the_last_known_module_is_not_served_when_it_is_too_old
    what_was_invalidated_is_not_served_in_an_outage
    what_redis_said_while_it_was_not_followed_is_known_in_an_outage
}

const BOUND: Duration = Duration::from_millis(500);

/// Promised beyond the bound, for a slow clock and a slow machine.
const ROOM: Duration = Duration::from_millis(100);

fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::new(path, content).unwrap()
}

/// A world whose writer goes straight to Redis, and a near cache behind a proxy.
struct Proxied<F: Nearby> {
    world: World<F>,
    proxy: Proxy,
    near: F::Near,
}

impl<F: Nearby> Deref for Proxied<F> {
    type Target = World<F>;

    fn deref(&self) -> &World<F> {
        &self.world
    }
}

fn world<F: Nearby>(config: fn(&str) -> Config, options: NearCacheOptions) -> Proxied<F> {
    let world = World::new();
    let proxy = Proxy::start(world.redis.port());
    Proxied {
        near: F::Near::live(config(&proxy.url()), options),
        world,
        proxy,
    }
}

fn bounded() -> NearCacheOptions {
    NearCacheOptions::default().with_staleness_bound(BOUND)
}

fn unbounded() -> NearCacheOptions {
    NearCacheOptions::default().with_staleness_bound(PATIENCE)
}

fn heard(near: &impl Near) -> NearCacheStats {
    near.hear_all();
    near.stats()
}

/// redis-rs's own cache keeps all fifty.
fn a_reply_held_back_past_its_invalidation_is_not_kept<F: Nearby>() {
    const KEYS: usize = 50;
    let world = world::<F>(patient, unbounded());
    let paths: Vec<String> = (0..KEYS).map(|n| format!("{n}.py")).collect();
    for path in &paths {
        world.writer.set(&module(path, "old")).unwrap();
    }
    heard(&world.near);
    // The connection for lookups is made before anything is held.
    world.near.get("other.py").unwrap();
    let rejected = world.near.stats().rejected_inserts;
    world.proxy.aim(Aim::Others);
    for path in &paths {
        let asked = world.redis.calls("get");
        world.proxy.stall_replies();
        thread::scope(|scope| {
            let reading = scope.spawn(|| content(world.near.get(path)));
            wait_until("it was asked for", PATIENCE, || {
                world.redis.calls("get") > asked
            });
            let before = world.near.stats().invalidations;
            world.writer.set(&module(path, "new")).unwrap();
            wait_until("the change was heard of", PATIENCE, || {
                world.near.stats().invalidations > before
            });
            world.proxy.resume();
            // It was right when it was asked for.
            assert_eq!(reading.join().unwrap().as_deref(), Some("old"));
        });
    }
    for path in &paths {
        assert_eq!(content(world.near.get(path)).as_deref(), Some("new"));
    }
    let stats = world.near.stats();
    assert_eq!(stats.rejected_inserts - rejected, KEYS as u64);
}

fn a_bulk_reply_held_back_past_an_invalidation_is_not_kept<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    let paths = ["a.py", "b.py", "c.py"];
    for path in paths {
        world.writer.set(&module(path, "old")).unwrap();
    }
    heard(&world.near);
    world.proxy.aim(Aim::Others);
    let asked = world.redis.calls("mget");
    world.proxy.stall_replies();
    thread::scope(|scope| {
        let reading = scope.spawn(|| world.near.get_many(&paths).unwrap());
        wait_until("they were asked for", PATIENCE, || {
            world.redis.calls("mget") > asked
        });
        let before = world.near.stats().invalidations;
        world.writer.set(&module("b.py", "new")).unwrap();
        wait_until("the change was heard of", PATIENCE, || {
            world.near.stats().invalidations > before
        });
        world.proxy.resume();
        reading.join().unwrap();
    });
    let found = world.near.get_many(&paths).unwrap();
    let found = found.iter().flatten().map(|module| module.content.as_str());
    assert_eq!(found.collect::<Vec<_>>(), ["old", "new", "old"]);
}

/// Without its barrier, it would be of two moments: nothing has been announced when it looks.
fn a_snapshot_waits_for_what_is_held_back<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    for path in ["a.py", "b.py"] {
        world.writer.set(&module(path, "old")).unwrap();
    }
    heard(&world.near);
    // One is kept, the other will be asked for.
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    world.proxy.aim(Aim::Followers);
    world.proxy.stall_replies();
    for path in ["a.py", "b.py"] {
        world.writer.set(&module(path, "new")).unwrap();
    }
    let asked = world.redis.calls("mget");
    thread::scope(|scope| {
        let taking = scope.spawn(|| world.near.snapshot_of(&["a.py", "b.py"]).unwrap());
        wait_until("the other one was asked for", PATIENCE, || {
            world.redis.calls("mget") > asked
        });
        // Time for a snapshot that does not wait.
        thread::sleep(Duration::from_millis(50));
        assert!(!taking.is_finished());
        world.proxy.resume();
        let snapshot = taking.join().unwrap();
        for path in ["a.py", "b.py"] {
            assert_eq!(content(snapshot.get(path)).as_deref(), Some("new"));
        }
    });
}

/// Asks without pause from when the old value was overwritten; it must not be seen after the bound.
fn no_hit_is_old<F: Nearby>(world: &Proxied<F>, overwritten: Instant, fails: bool) {
    let limit = overwritten + BOUND + ROOM;
    let mut hits = 0;
    loop {
        let asked = Instant::now();
        match world.near.get("a.py") {
            Ok(found) if found.as_ref().is_some_and(|module| module.content == "old") => {
                assert!(
                    asked < limit,
                    "{:?} after it was overwritten",
                    asked - overwritten
                );
                hits += 1;
            }
            Ok(found) => assert!(!fails && found.unwrap().content == "new"),
            Err(error) => assert!(fails && error.is_unavailable()),
        }
        if asked > limit + BOUND {
            break;
        }
        thread::sleep(Duration::from_micros(100));
    }
    assert!(hits > 0, "the old value was never seen: nothing was shown");
    assert!(!world.near.is_live());
}

fn no_hit_is_older_than_the_bound_when_announcements_vanish<F: Nearby>() {
    let world = world::<F>(patient, bounded());
    world.writer.set(&module("a.py", "old")).unwrap();
    heard(&world.near);
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    world.proxy.aim(Aim::Followers);
    world.proxy.drop_replies();
    world.writer.set(&module("a.py", "new")).unwrap();
    no_hit_is_old(&world, Instant::now(), false);
    world.proxy.resume();
    world.near.until_live();
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("new"));
}

fn no_hit_is_older_than_the_bound_when_signs_of_life_vanish<F: Nearby>() {
    let world = world::<F>(patient, bounded());
    world.writer.set(&module("a.py", "old")).unwrap();
    heard(&world.near);
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    world.proxy.aim(Aim::Followers);
    world.proxy.stall();
    world.writer.set(&module("a.py", "new")).unwrap();
    no_hit_is_old(&world, Instant::now(), false);
    world.proxy.resume();
    world.near.until_live();
    // Only what is asked of the server is swallowed: announcements still come.
    world.proxy.blackhole_requests();
    wait_until("the lease lapses", PATIENCE, || !world.near.is_live());
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("new"));
    world.proxy.resume();
    world.near.until_live();
}

fn no_hit_is_older_than_the_bound_when_the_server_freezes<F: Nearby>() {
    let world = world::<F>(usual, bounded());
    world.writer.set(&module("a.py", "old")).unwrap();
    heard(&world.near);
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    world.redis.freeze();
    no_hit_is_old(&world, Instant::now(), true);
    world.redis.thaw();
    world.near.until_live();
    world.near.until("a.py", Some("old"));
}

fn an_outage_is_an_error_and_never_an_absence<F: Nearby>() {
    let world = world::<F>(usual, bounded());
    world.writer.set(&module("a.py", "a")).unwrap();
    heard(&world.near);
    world.near.get("a.py").unwrap();
    world.near.get("absent.py").unwrap();
    world.redis.kill();
    wait_until("the loss is seen", PATIENCE, || !world.near.is_live());
    for path in ["a.py", "absent.py", "other.py"] {
        assert!(world.near.get(path).unwrap_err().is_unavailable());
        assert!(world.near.get_many(&[path]).unwrap_err().is_unavailable());
    }
    assert!(world.near.paths().unwrap_err().is_unavailable());
    let stats = world.near.stats();
    assert!(
        stats.last_failure.is_some() && stats.bytes == 0,
        "{stats:?}"
    );
}

fn a_killed_connection_is_made_anew_and_nothing_is_missed<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    for round in 0..8 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        world.writer.set(&module("a.py", &old)).unwrap();
        heard(&world.near);
        assert_eq!(content(world.near.get("a.py")), Some(old));
        let sessions = world.near.stats().sessions;
        world.proxy.aim(Aim::Followers);
        // Nothing of the change is heard.
        world.proxy.stall_replies();
        world.writer.set(&module("a.py", &new)).unwrap();
        world.redis.command("CLIENT KILL TYPE normal SKIPME yes");
        world.proxy.reset_all();
        world.proxy.resume();
        wait_until("it is followed again", PATIENCE, || {
            let stats = world.near.stats();
            stats.live && stats.sessions > sessions
        });
        assert_eq!(content(world.near.get("a.py")), Some(new));
    }
}

fn after_a_flush_all_is_gone<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    for command in ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC"] {
        world.writer.set(&module("a.py", "a")).unwrap();
        heard(&world.near);
        world.near.get("a.py").unwrap().unwrap();
        assert_eq!(world.near.paths().unwrap().len(), 1);
        world.redis.command(command);
        world.near.until("a.py", None);
        assert!(world.near.paths().unwrap().is_empty());
    }
    assert_eq!(world.near.stats().flushes, 3);
}

fn a_flush_of_another_database_does_no_harm<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    world.writer.set(&module("a.py", "a")).unwrap();
    heard(&world.near);
    let mut redis = world.redis.connection();
    redis::cmd("SELECT").arg(5).exec(&mut redis).unwrap();
    redis::cmd("FLUSHDB").exec(&mut redis).unwrap();
    for _ in 0..3 {
        assert_eq!(content(world.near.get("a.py")).as_deref(), Some("a"));
    }
}

fn after_a_restart_without_data_all_is_gone<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    world.writer.set(&module("a.py", "a")).unwrap();
    heard(&world.near);
    world.near.get("a.py").unwrap().unwrap();
    world.redis.restart();
    wait_until("it is seen", PATIENCE, || world.near.stats().sessions == 2);
    assert_eq!(world.near.get("a.py").unwrap(), None);
}

fn what_the_server_evicts_goes<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    let paths: Vec<String> = (0..50).map(|n| format!("{n}.py")).collect();
    for path in &paths {
        world
            .writer
            .set(&module(path, &"x".repeat(10_000)))
            .unwrap();
    }
    heard(&world.near);
    assert_eq!(world.near.prefetch().unwrap(), 50);
    world
        .redis
        .command("CONFIG SET maxmemory-policy allkeys-random");
    world.redis.command("CONFIG SET maxmemory 1");
    world.redis.command("CONFIG SET maxmemory 0");
    heard(&world.near);
    let mut redis = world.redis.connection();
    let mut gone = 0;
    for path in &paths {
        let key = format!("bifrost:module:{path}");
        let exists: bool = redis::cmd("EXISTS").arg(key).query(&mut redis).unwrap();
        assert_eq!(world.near.get(path).unwrap().is_some(), exists, "{path}");
        gone += usize::from(!exists);
    }
    assert!(gone > 0, "the server evicted nothing");
}

/// Ten thousand announcements come at once, and slowly.
fn a_reader_that_is_slow_takes_in_everything<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    let modules = |version: &str| -> Vec<CachedModule> {
        (0..10_000)
            .map(|n| module(&format!("{n}.py"), version))
            .collect()
    };
    world.writer.publish_exact(&modules("old")).unwrap();
    heard(&world.near);
    assert_eq!(world.near.prefetch().unwrap(), 10_000);
    world.proxy.aim(Aim::Followers);
    world.proxy.stall_replies();
    world.writer.publish_exact(&modules("new")).unwrap();
    world.proxy.resume();
    heard(&world.near);
    assert_eq!(world.near.prefetch().unwrap(), 10_000);
    for n in [0, 1, 4_999, 9_999] {
        let found = content(world.near.get(&format!("{n}.py")));
        assert_eq!(found.as_deref(), Some("new"));
    }
    assert!(world.near.stats().sessions == 1);
}

/// The connection to the old server stays up, and nothing comes over it any more.
fn after_a_failover_nothing_of_the_new_server_is_kept_before_it_is_followed<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    let new = RedisServer::start();
    let new_writer = F::Writer::new(patient(&new.url())).unwrap();
    world.writer.set(&module("a.py", "old")).unwrap();
    heard(&world.near);
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    // The proxy holds what comes from new followers, so that the session can't begin yet.
    new_writer.set(&module("a.py", "new")).unwrap();
    new_writer.set(&module("b.py", "1")).unwrap();
    world.proxy.set_target(new.port());
    world.proxy.aim(Aim::Others);
    world.proxy.reset_all();
    let sessions = world.near.stats().sessions;
    // A reader that misses is answered by the new server; all that is known of the old one is void.
    assert_eq!(content(world.near.get("b.py")).as_deref(), Some("1"));
    new_writer.set(&module("b.py", "2")).unwrap();
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("new"));
    world.near.until("b.py", Some("2"));
    wait_until("the new server is followed", PATIENCE, || {
        let stats = world.near.stats();
        stats.live && stats.sessions > sessions
    });
    new_writer.set(&module("a.py", "newer")).unwrap();
    world.near.until("a.py", Some("newer"));
}

/// The old server lives on, and so do the connections to it.
fn where_the_address_moves_both_sides_follow_it<F: Nearby>() {
    let world = world::<F>(patient, bounded());
    let new = RedisServer::start();
    let new_writer = F::Writer::new(patient(&new.url())).unwrap();
    world.writer.set(&module("a.py", "old")).unwrap();
    new_writer.set(&module("a.py", "new")).unwrap();
    // On the connection for lookups, and on that for many.
    heard(&world.near);
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("old"));
    assert_eq!(world.near.get_many(&["b.py"]).unwrap(), [None]);
    let flushed = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&flushed);
    let count = move |change: &Invalidation| {
        told.fetch_add(usize::from(*change == Invalidation::Everything), SeqCst);
    };
    world.near.on_invalidate(count).unwrap();
    let sessions = world.near.stats().sessions;
    world.proxy.set_target(new.port());
    world.proxy.aim(Aim::Followers);
    world.proxy.cut_one_reply_after(1);
    wait_until("the new server is followed", PATIENCE, || {
        let stats = world.near.stats();
        stats.live && stats.sessions > sessions
    });
    world.near.until("a.py", Some("new"));
    wait_until("it is kept", PATIENCE, || {
        world.near.get("a.py").unwrap();
        world.near.stats().modules == 1
    });
    // One that followed the new server and met the old one, and one that met the new one.
    let begun = world.near.stats().sessions;
    assert!(begun <= sessions + 2, "{begun}");
    for version in ["newer", "newest"] {
        new_writer.set(&module("a.py", version)).unwrap();
        world.near.until("a.py", Some(version));
        assert_eq!(world.near.get_many(&[version]).unwrap(), [None]);
    }
    // The end and the beginning of each session.
    let stats = world.near.stats();
    assert!(stats.live && stats.sessions == begun, "{stats:?}");
    assert!(flushed.load(SeqCst) <= 4);
}

fn reconnects_are_not_more_than_a_second_apart<F: Nearby>() {
    let world = world::<F>(usual, bounded());
    let before = world.proxy.connections();
    world.redis.kill();
    let start = Instant::now();
    thread::sleep(Duration::from_secs(4));
    let tries = world.proxy.connections() - before;
    // 50, 100, 200, 400, 800 ms and then one second, each shortened by up to a half.
    assert!((5..30).contains(&tries), "{tries} in {:?}", start.elapsed());
    world.redis.restart();
    world.near.until_live();
}

fn sessions_that_never_last_are_not_begun_in_a_hurry<F: Nearby>() {
    let world = world::<F>(patient, unbounded());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        if world.near.is_live() {
            world.proxy.reset_all();
        }
        thread::sleep(Duration::from_millis(1));
    }
    // At least 25 + 50 + 100 + 200 + 400 + 500 + 500 ms.
    let sessions = world.near.stats().sessions;
    assert!((2..=12).contains(&sessions), "{sessions}");
    world.near.until_live();
}

fn the_last_known_module_is_served_if_that_is_wanted<F: Nearby>() {
    let options = bounded().with_stale_if_error(PATIENCE);
    let world = world::<F>(usual, options);
    for path in ["a.py", "b.py"] {
        world.writer.set(&module(path, path)).unwrap();
    }
    heard(&world.near);
    assert_eq!(world.near.get_many(&["a.py", "b.py"]).unwrap().len(), 2);
    assert_eq!(world.near.get("absent.py").unwrap(), None);
    world.redis.kill();
    wait_until("the loss is seen", PATIENCE, || !world.near.is_live());
    assert_eq!(content(world.near.get("a.py")).as_deref(), Some("a.py"));
    let many = world.near.get_many(&["b.py", "a.py"]).unwrap();
    assert!(many.iter().all(Option::is_some));
    // What is not known is an outage, and so is what was absent.
    assert!(world.near.get("absent.py").unwrap_err().is_unavailable());
    assert!(
        world
            .near
            .get_many(&["a.py", "absent.py"])
            .unwrap_err()
            .is_unavailable()
    );
    assert!(
        world
            .near
            .snapshot_of(&["a.py"])
            .unwrap_err()
            .is_unavailable()
    );
    assert_eq!(world.near.stats().stale_served, 4);
    // Redis is back, without its data: what was known is not served again.
    world.redis.restart();
    wait_until("it is followed again", PATIENCE, || world.near.is_live());
    assert_eq!(world.near.get("a.py").unwrap(), None);
}

fn the_last_known_module_is_not_served_when_it_is_too_old<F: Nearby>() {
    let age = Duration::from_secs(2);
    let world = world::<F>(usual, bounded().with_stale_if_error(age));
    world.writer.set(&module("a.py", "a")).unwrap();
    heard(&world.near);
    world.near.get("a.py").unwrap();
    // Its age counts from when it was last known to be right, not from when it came.
    thread::sleep(age);
    let killed = Instant::now();
    world.redis.kill();
    wait_until("the loss is seen", PATIENCE, || !world.near.is_live());
    let mut served = 0;
    loop {
        let asked = killed.elapsed();
        match world.near.get("a.py") {
            Ok(found) => {
                assert!(found.is_some() && asked < age + ROOM, "{asked:?}");
                served += 1;
            }
            Err(error) => {
                assert!(error.is_unavailable());
                break;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(served > 0 && killed.elapsed() + BOUND > age, "{served}");
}

fn what_was_invalidated_is_not_served_in_an_outage<F: Nearby>() {
    let options = bounded().with_stale_if_error(PATIENCE);
    let world = world::<F>(usual, options);
    world.writer.set(&module("a.py", "a")).unwrap();
    heard(&world.near);
    world.near.get("a.py").unwrap();
    world.writer.invalidate("a.py").unwrap();
    heard(&world.near);
    world.redis.kill();
    wait_until("the loss is seen", PATIENCE, || !world.near.is_live());
    assert!(world.near.get("a.py").unwrap_err().is_unavailable());
}

fn what_redis_said_while_it_was_not_followed_is_known_in_an_outage<F: Nearby>() {
    let options = bounded().with_stale_if_error(PATIENCE);
    let world = world::<F>(usual, options);
    let paths = ["a.py", "b.py", "c.py", "d.py"];
    for path in paths {
        world.writer.set(&module(path, "old")).unwrap();
    }
    heard(&world.near);
    assert!(
        world
            .near
            .get_many(&paths)
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
    // It is not followed any more, nor again.
    world.proxy.aim(Aim::Followers);
    world.proxy.cut_replies_after(1);
    wait_until("the loss is seen", PATIENCE, || !world.near.is_live());
    for path in ["a.py", "b.py"] {
        world.writer.invalidate(path).unwrap();
    }
    world.writer.set(&module("c.py", "new")).unwrap();
    assert_eq!(world.near.get("a.py").unwrap(), None);
    assert_eq!(world.near.get_many(&["b.py"]).unwrap(), [None]);
    assert_eq!(content(world.near.get("c.py")).as_deref(), Some("new"));
    world.redis.kill();
    for path in ["a.py", "b.py"] {
        assert!(world.near.get(path).unwrap_err().is_unavailable());
        assert!(world.near.get_many(&[path]).unwrap_err().is_unavailable());
    }
    assert_eq!(content(world.near.get("c.py")).as_deref(), Some("new"));
    assert_eq!(content(world.near.get("d.py")).as_deref(), Some("old"));
}
