//! Whatever happens to Redis, calls end in time, say what is wrong, and never answer "absent".

use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Facade, Holder, Nonblocking, PATIENCE, Proxy, Reader, RedisServer, World, Writer, connect,
    fake_server, free_port, on_both_facades, patient, wait_until,
};
use bifrost_module_cache::{CachedModule, Config, Error, Outage, nonblocking};

on_both_facades! {
    a_server_that_is_not_there_is_unavailable_until_it_starts
    after_a_restart_the_first_read_succeeds
    after_a_failover_no_connection_of_the_pool_is_taken_for_alive
    no_module_is_absent_while_the_server_restarts
    a_killed_server_is_unavailable
    lookups_and_writes_end_within_600_ms_by_default
    the_deadline_bounds_a_lookup_and_a_write_as_a_whole
    the_deadline_bounds_the_wait_for_a_connection
    a_frozen_server_is_unavailable_in_time_and_the_first_call_after_it_works
    a_frozen_server_is_unavailable_in_time_while_logging_in
    a_write_without_an_answer_may_have_been_applied
    a_write_that_was_not_sent_was_not_applied
    a_late_answer_is_never_taken_for_another
    a_read_survives_a_connection_lost_in_the_middle_of_a_reply
    connections_lost_in_the_middle_of_every_reply_are_an_outage
    a_reset_connection_does_not_fail_a_read
    a_read_after_a_pause_is_one_round_trip
    a_read_after_a_pause_survives_a_silent_connection
    a_write_after_a_pause_does_not_meet_a_silent_connection
    a_full_pool_is_busy
    a_wrong_password_is_refused
    a_missing_password_is_refused
    a_wrong_database_is_refused
    a_password_that_nobody_asked_for_is_refused_as_that
    no_client_slot_is_unavailable
    what_keeps_redis_from_answering_is_said
    an_error_says_which_redis_it_is_about
    a_server_that_is_not_redis_is_unavailable
    a_server_that_closes_at_once_is_unavailable
    a_server_that_never_answers_is_unavailable
    a_reply_that_trickles_in_is_cut_off
    a_name_that_does_not_resolve_is_unavailable
}

/// How long a call with [`config`] may take, and one whose failure is plain at once: the deadline,
/// and the rest for a noisy machine.
const LIMIT: Duration = Duration::from_millis(2_500);

fn within<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = call();
    let elapsed = start.elapsed();
    assert!(elapsed < limit, "it took {elapsed:?}");
    result
}

/// The call fails as unavailable, in time.
fn unavailable<T: Debug>(call: impl FnOnce() -> Result<T, Error>) -> Error {
    let error = within(LIMIT, call).unwrap_err();
    assert!(error.is_unavailable() && error.is_transient(), "{error:?}");
    assert!(!error.is_refused() && !error.is_busy(), "{error:?}");
    error
}

/// The same, and does not claim to have been applied.
fn unavailable_read<T: Debug>(call: impl FnOnce() -> Result<T, Error>) {
    let error = unavailable(call);
    assert!(!error.may_have_been_applied(), "{error:?}");
}

/// For calls that fail by a time-out where others are to be answered: a little more than the
/// defaults, of which bulk calls have 5 s.
fn config(url: &str) -> Config {
    Config::new(url)
        .unwrap()
        .with_response_timeout(Duration::from_millis(500))
        .with_lookup_deadline(Duration::from_millis(1_100))
        .with_bulk_deadline(Duration::from_millis(1_100))
}

fn module() -> CachedModule {
    CachedModule::new("a.py", "x = 1\n").unwrap()
}

/// A server that has the module, and a reader that has used it.
fn serving<F: Facade>() -> (Holder, F::Writer) {
    let World { redis, writer, .. } = World::<F>::new();
    writer.set(&module()).unwrap();
    assert_eq!(writer.reader().get("a.py").unwrap(), Some(module()));
    (redis, writer)
}

fn a_server_that_is_not_there_is_unavailable_until_it_starts<F: Facade>() {
    let server = RedisServer::start();
    server.kill();
    let writer = F::Writer::new(patient(&server.url())).unwrap();
    let reader = writer.reader();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    unavailable_read(|| reader.get_many(&["a.py"]));
    unavailable_read(|| writer.set(&module()));
    server.restart();
    assert_eq!(reader.get("a.py").unwrap(), None);
    writer.set(&module()).unwrap();
    assert_eq!(reader.get("a.py").unwrap(), Some(module()));
}

fn after_a_restart_the_first_read_succeeds<F: Facade>() {
    let (server, writer) = serving::<F>();
    let reader = writer.reader();
    assert_eq!(reader.paths().unwrap().len(), 1);
    for _ in 0..3 {
        server.shutdown_save();
        server.restart();
        assert_eq!(reader.get("a.py").unwrap(), Some(module()));
        assert_eq!(reader.paths().unwrap().len(), 1);
    }
}

/// All connections fall silent together: a caller that meets one must not be handed the next.
fn after_a_failover_no_connection_of_the_pool_is_taken_for_alive<F: Facade>() {
    const THREADS: usize = 6;
    let (old, new) = (serving::<F>().0, serving::<F>().0);
    let proxy = Proxy::start(old.port());
    let config = patient(&proxy.url()).with_response_timeout(Duration::from_secs(1));
    let reader = F::Reader::new(config).unwrap();
    // As many connections as the facade makes, which in one is as many as there are calls.
    let ask_at_once = |server: &RedisServer| {
        let asked = server.calls("get");
        proxy.stall_replies();
        thread::scope(|scope| {
            let calls: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| reader.get("a.py")))
                .collect();
            wait_until("all have asked", PATIENCE, || {
                server.calls("get") >= asked + THREADS as u64
            });
            proxy.resume();
            for call in calls {
                assert_eq!(call.join().unwrap().unwrap(), Some(module()));
            }
        });
    };
    ask_at_once(&old);
    let asked = old.calls("get");
    old.freeze();
    proxy.set_target(new.port());
    let start = Instant::now();
    for _ in 0..THREADS {
        assert_eq!(reader.get("a.py").unwrap(), Some(module()));
    }
    // One of them has waited in vain for an answer, and that was the last to ask the old one.
    assert!(start.elapsed() >= Duration::from_secs(1));
    ask_at_once(&new);
    old.thaw();
    assert_eq!(old.calls("get"), asked + 1);
}

/// After it, a connection is no longer trusted with a write.
const PAUSE: Duration = Duration::from_millis(2_100);

fn a_read_after_a_pause_is_one_round_trip<F: Facade>() {
    let (server, writer) = serving::<F>();
    let reader = writer.reader();
    assert_eq!(reader.get("a.py").unwrap(), Some(module()));
    let commands = || {
        let stats: String = redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut server.connection())
            .unwrap();
        let ours = |line: &&str| !line.contains("_info:") && !line.contains("_client|setinfo:");
        stats.lines().filter(ours).map(str::to_owned).collect()
    };
    let before: Vec<String> = commands();
    thread::sleep(PAUSE);
    assert_eq!(reader.get("a.py").unwrap(), Some(module()));
    let after = commands();
    let changed: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        matches!(changed[..], [line] if line.starts_with("cmdstat_get:")),
        "{changed:?}"
    );
}

fn a_read_after_a_pause_survives_a_silent_connection<F: Facade>() {
    let (old, new) = (serving::<F>().0, serving::<F>().0);
    let proxy = Proxy::start(old.port());
    let config = patient(&proxy.url()).with_response_timeout(Duration::from_secs(1));
    let reader = F::Reader::new(config).unwrap();
    assert_eq!(reader.get("a.py").unwrap(), Some(module()));
    old.freeze();
    proxy.set_target(new.port());
    thread::sleep(PAUSE);
    assert_eq!(reader.get("a.py").unwrap(), Some(module()));
}

/// What is between closes idle connections without a word, and a write is not tried again.
fn a_write_after_a_pause_does_not_meet_a_silent_connection<F: Facade>() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port());
    let config = patient(&proxy.url()).with_response_timeout(Duration::from_secs(1));
    let writer = F::Writer::new(config).unwrap();
    writer.set(&module()).unwrap();
    old.freeze();
    proxy.set_target(new.port());
    thread::sleep(PAUSE);
    writer.set(&module()).unwrap();
    assert_eq!(writer.reader().get("a.py").unwrap(), Some(module()));
    assert_eq!(new.calls("ping"), 0);
}

fn no_module_is_absent_while_the_server_restarts<F: Facade>() {
    const THREADS: usize = 3;
    let (server, writer) = serving::<F>();
    let (stop, start) = (AtomicBool::new(false), Barrier::new(THREADS + 1));
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                while !stop.load(Ordering::Relaxed) {
                    match writer.reader().get("a.py") {
                        Ok(found) => assert_eq!(found, Some(module())),
                        Err(error) => {
                            assert!(error.is_unavailable(), "{error:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        start.wait();
        server.shutdown_save();
        wait_until("the outage is seen", PATIENCE, || {
            failed.load(Ordering::Relaxed) > 0
        });
        server.restart();
        wait_until("reads succeed again", PATIENCE, || {
            writer.reader().get("a.py").is_ok()
        });
        stop.store(true, Ordering::Relaxed);
    });
}

fn a_killed_server_is_unavailable<F: Facade>() {
    let (server, writer) = serving::<F>();
    let reader = writer.reader();
    reader.paths().unwrap();
    server.kill();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    unavailable_read(|| reader.get_many(&["a.py"]));
    unavailable(|| writer.invalidate("a.py"));
}

fn lookups_and_writes_end_within_600_ms_by_default<F: Facade>() {
    let (server, _) = serving::<F>();
    let new = || F::Writer::new(Config::new(server.url()).unwrap()).unwrap();
    let used = new();
    // So that there is a connection already; if it takes too long, there is none.
    let _ = used.reader().get("a.py");
    server.freeze();
    let limit = Duration::from_millis(1_500);
    for writer in [used, new()] {
        assert!(within(limit, || writer.reader().get("a.py")).is_err());
        assert!(within(limit, || writer.reader().explain("a.py")).is_err());
        assert!(within(limit, || writer.set(&module())).is_err());
    }
}

/// What each part of a call may take is a minute here.
fn hurried(url: &str) -> Config {
    patient(url).with_lookup_deadline(Duration::from_millis(500))
}

fn the_deadline_bounds_a_lookup_and_a_write_as_a_whole<F: Facade>() {
    let server = RedisServer::start_with(&["--requirepass", "pw"]);
    let new = || F::Writer::new(hurried(&server.url_as("", "pw"))).unwrap();
    let used = new();
    // So that there is a connection already; if it takes too long, there is none.
    let _ = used.reader().get("a.py");
    server.freeze();
    // The new one's connection waits for the answer to its password.
    for writer in [used, new()] {
        unavailable_read(|| writer.reader().get("a.py"));
        unavailable_read(|| writer.reader().explain("a.py"));
        unavailable(|| writer.set(&module()));
    }
}

fn the_deadline_bounds_the_wait_for_a_connection<F: Facade>() {
    let server = RedisServer::start();
    let config = hurried(&server.url())
        .with_pool_size(1)
        .with_max_in_flight(1);
    let reader = F::Reader::new(config).unwrap();
    server.freeze();
    thread::scope(|scope| {
        // It has a minute.
        let bulk = scope.spawn(|| reader.paths());
        wait_until("it has begun", PATIENCE, || reader.stats().in_use == 1);
        let error = within(LIMIT, || reader.get("a.py")).unwrap_err();
        assert!(error.is_busy(), "{error:?}");
        server.thaw();
        assert_eq!(bulk.join().unwrap().unwrap().len(), 0);
    });
}

fn a_frozen_server_is_unavailable_in_time_and_the_first_call_after_it_works<F: Facade>() {
    let (server, _) = serving::<F>();
    let writer = F::Writer::new(config(&server.url())).unwrap();
    let reader = writer.reader();
    reader.get("a.py").unwrap();
    reader.paths().unwrap();
    for _ in 0..2 {
        server.freeze();
        unavailable_read(|| reader.get("a.py"));
        unavailable_read(|| reader.paths());
        unavailable_read(|| reader.explain("a.py"));
        server.thaw();
        assert_eq!(reader.get("a.py").unwrap(), Some(module()));
        assert_eq!(reader.paths().unwrap().len(), 1);
    }
    server.freeze();
    let error = unavailable(|| writer.set(&module()));
    assert!(error.may_have_been_applied(), "{error:?}");
    let fresh = F::Reader::new(config(&server.url())).unwrap();
    unavailable_read(|| fresh.get("a.py"));
    server.thaw();
    writer.set(&module()).unwrap();
    assert_eq!(fresh.get("a.py").unwrap(), Some(module()));
}

fn a_frozen_server_is_unavailable_in_time_while_logging_in<F: Facade>() {
    let server = RedisServer::start_with(&["--requirepass", "pw"]);
    let url = server.url_as("", "pw");
    let reader = F::Reader::new(config(&format!("{url}?protocol=resp3"))).unwrap();
    let writer = F::Writer::new(config(&url)).unwrap();
    server.freeze();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    // It did not get so far as to send the write.
    unavailable_read(|| writer.set(&module()));
    server.thaw();
    assert_eq!(reader.get("a.py").unwrap(), None);
    writer.set(&module()).unwrap();
}

fn a_write_without_an_answer_may_have_been_applied<F: Facade>() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let writer = F::Writer::new(config(&proxy.url())).unwrap();
    let moved = CachedModule::new("b.py", "").unwrap();
    for done in 1..=3 {
        proxy.drop_replies();
        let error = unavailable(|| match done {
            1 => writer.set(&module()),
            2 => writer.rename("a.py", &moved),
            _ => writer.invalidate("b.py").map(drop),
        });
        assert!(error.may_have_been_applied(), "{done}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("may have been applied"), "{done}: {text}");
        // And it was, once: it is not repeated.
        wait_until("it was applied", PATIENCE, || server.calls("exec") >= done);
        // The same for a read, which never claims that.
        unavailable_read(|| writer.reader().get("a.py"));
        proxy.resume();
        // So that failures in a row stay few.
        writer.reader().get("a.py").unwrap();
        assert_eq!(server.calls("exec"), done);
    }
    assert_eq!(writer.reader().paths().unwrap().len(), 0);
}

fn a_write_that_was_not_sent_was_not_applied<F: Facade>() {
    let (server, writer) = serving::<F>();
    let fresh = F::Writer::new(patient(&server.url())).unwrap();
    drop(writer);
    server.kill();
    for error in [
        unavailable(|| fresh.set(&module())),
        unavailable(|| fresh.invalidate("a.py")),
        unavailable(|| fresh.rename("a.py", &module())),
        unavailable(|| fresh.clear()),
    ] {
        assert!(!error.may_have_been_applied(), "{error:?}");
        assert!(
            matches!(
                error,
                Error::Unavailable {
                    cause: Outage::Connect,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

fn a_late_answer_is_never_taken_for_another<F: Facade>() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let writer = F::Writer::new(config(&proxy.url())).unwrap();
    let module = |i: usize| CachedModule::new(format!("{i}.py"), format!("{i}")).unwrap();
    for i in 0..8 {
        writer.set(&module(i)).unwrap();
    }
    let reader = writer.reader();
    for i in (0..8).step_by(2) {
        proxy.stall_replies();
        unavailable_read(|| reader.get(&module(i).path));
        // Now the answers come.
        proxy.resume();
        assert_eq!(
            reader.get(&module(i + 1).path).unwrap(),
            Some(module(i + 1))
        );
    }
}

fn a_read_survives_a_connection_lost_in_the_middle_of_a_reply<F: Facade>() {
    let (world, proxy) = World::<F>::proxied(|config| config);
    let writer = &world.writer;
    writer.set(&module()).unwrap();
    let reader = writer.reader();
    let whole = module().to_json().len();
    for bytes in [1, 2, 3, 4, 5, 6, whole / 2, whole, whole + 5] {
        proxy.cut_one_reply_after(bytes);
        assert_eq!(reader.get("a.py").unwrap(), Some(module()), "{bytes}");
        proxy.cut_one_reply_after(bytes);
        let found = reader.get_many(&["none.py", "a.py"]).unwrap();
        assert_eq!(found, [None, Some(module())], "{bytes}");
        proxy.resume();
    }
}

fn connections_lost_in_the_middle_of_every_reply_are_an_outage<F: Facade>() {
    let (world, proxy) = World::<F>::proxied(|config| config);
    let writer = &world.writer;
    writer.set(&module()).unwrap();
    for bytes in [1, 4, 20] {
        proxy.cut_replies_after(bytes);
        unavailable_read(|| writer.reader().get("a.py"));
        unavailable_read(|| writer.reader().get_many(&["a.py"]));
        proxy.resume();
        assert_eq!(writer.reader().get("a.py").unwrap(), Some(module()));
    }
    proxy.cut_replies_after(6);
    let error = unavailable(|| writer.set(&module()));
    assert!(error.may_have_been_applied(), "{error:?}");
}

fn a_reset_connection_does_not_fail_a_read<F: Facade>() {
    let (world, proxy) = World::<F>::proxied(|config| config);
    let writer = &world.writer;
    writer.set(&module()).unwrap();
    for _ in 0..10 {
        proxy.reset_all();
        assert_eq!(writer.reader().get("a.py").unwrap(), Some(module()));
        proxy.reset_all();
        assert_eq!(writer.reader().paths().unwrap().len(), 1);
    }
}

fn a_full_pool_is_busy<F: Facade>() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let config = patient(&proxy.url())
        .with_pool_size(1)
        .with_max_in_flight(1)
        .with_pool_timeout(Duration::from_millis(50));
    let reader = F::Reader::new(config).unwrap();
    proxy.stall_replies();
    thread::scope(|scope| {
        let first = scope.spawn(|| reader.get("a.py"));
        // From then on it holds the connection until there is an answer.
        wait_until("the first has asked", PATIENCE, || server.calls("get") == 1);
        let error = within(LIMIT, || reader.get("a.py")).unwrap_err();
        assert!(error.is_busy() && error.is_transient(), "{error:?}");
        assert!(!error.is_unavailable(), "{error:?}");
        proxy.resume();
        assert_eq!(first.join().unwrap().unwrap(), None);
    });
    assert_eq!(reader.get("a.py").unwrap(), None);
}

/// The call is refused, which no waiting helps against.
fn refused<T: Debug>(expected: &str, call: impl FnOnce() -> Result<T, Error>) {
    let error = within(LIMIT, call).unwrap_err();
    assert!(error.is_refused() && !error.is_unavailable(), "{error:?}");
    assert!(!error.is_transient(), "{error:?}");
    assert!(
        matches!(error, Error::Refused { code, .. } if code == expected),
        "{error:?}"
    );
}

fn a_wrong_password_is_refused<F: Facade>() {
    let server = RedisServer::start_with(&["--requirepass", "pw"]);
    for (user, password) in [("", "wrong"), ("default", "wrong"), ("nobody", "pw")] {
        for parameter in ["", "?protocol=resp3"] {
            let url = server.url_as(user, password) + parameter;
            let writer = F::Writer::new(patient(&url)).unwrap();
            refused("WRONGPASS", || writer.reader().get("a.py"));
            refused("WRONGPASS", || writer.reader().paths());
            refused("WRONGPASS", || writer.set(&module()));
        }
    }
    let right = F::Reader::new(patient(&server.url_as("", "pw"))).unwrap();
    assert_eq!(right.get("a.py").unwrap(), None);
}

fn a_missing_password_is_refused<F: Facade>() {
    let server = RedisServer::start_with(&["--requirepass", "pw"]);
    for parameter in ["", "?protocol=resp3"] {
        let writer = F::Writer::new(patient(&(server.url() + parameter))).unwrap();
        refused("NOAUTH", || writer.reader().get("a.py"));
        refused("NOAUTH", || writer.set(&module()));
    }
}

fn a_wrong_database_is_refused<F: Facade>() {
    let server = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}/99", server.port());
    let writer = F::Writer::new(patient(&url)).unwrap();
    refused("ERR", || writer.reader().get("a.py"));
    refused("ERR", || writer.set(&module()));
}

fn a_password_that_nobody_asked_for_is_refused_as_that<F: Facade>() {
    let server = RedisServer::start();
    let writer = F::Writer::new(patient(&server.url_as("", "hunter2"))).unwrap();
    for error in [
        writer.reader().get("a.py").unwrap_err(),
        writer.reader().paths().unwrap_err(),
        writer.set(&module()).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("it asks for no password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// The call was answered with this, and changed nothing.
#[track_caller]
fn answered<T: Debug>(cause: Outage, word: &str, call: impl FnOnce() -> Result<T, Error>) {
    let error = call().unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { cause: seen, .. } if seen == cause),
        "{error:?}"
    );
    assert!(error.to_string().contains(word), "{error}");
    assert!(
        error.is_transient() && !error.may_have_been_applied(),
        "{error:?}"
    );
}

fn what_keeps_redis_from_answering_is_said<F: Facade>() {
    let each = |server: &RedisServer, cause, word| {
        let writer = F::Writer::new(patient(&server.url())).unwrap();
        answered(cause, word, || writer.reader().get("a.py"));
        answered(cause, word, || writer.reader().paths());
        // More than one command at once.
        answered(cause, word, || writer.reader().status());
        answered(cause, word, || writer.set(&module()));
    };
    let replica = RedisServer::start_with(&[
        "--replica-serve-stale-data",
        "no",
        "--replica-read-only",
        "no",
    ]);
    replica.command(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
    each(&replica, Outage::PrimaryDown, "MASTERDOWN");

    let busy = RedisServer::start();
    busy.command("CONFIG SET lua-time-limit 10");
    let (url, mut other) = (busy.url(), busy.connection());
    let script = thread::spawn(move || {
        let mut redis = connect(&url);
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .exec(&mut redis)
    });
    wait_until("the script keeps it busy", PATIENCE, || {
        redis::cmd("PING").exec(&mut other).is_err()
    });
    each(&busy, Outage::Scripting, "SCRIPT KILL");
    redis::cmd("SCRIPT").arg("KILL").exec(&mut other).unwrap();
    script.join().unwrap().unwrap_err();

    let full = RedisServer::start_with(&["--maxclients", "1"]);
    let _only = full.connection();
    each(&full, Outage::TooManyClients, "maxclients");
}

fn an_error_says_which_redis_it_is_about<F: Facade>() {
    let server = RedisServer::start();
    let address = format!("127.0.0.1:{}/1", server.port());
    let url = |login: &str| format!("redis://{login}{address}");
    server.command("ACL SETUSER hunter2 on >hunter2 +@all -get ~*");
    let writer = F::Writer::new(patient(&url("hunter2:hunter2@"))).unwrap();
    let foreign = || connect(&url(""));
    let names = |error: Error, words: &str| {
        assert_eq!(error.server(), Some(&*address), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("{words}{address}")), "{text}");
        assert!(
            !format!("{text} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    };
    names(writer.reader().get("a.py").unwrap_err(), "redis ");
    server.command("ACL SETUSER hunter2 +get");
    let key = "bifrost:module:a.py";
    redis::cmd("SET")
        .arg(key)
        .arg("{")
        .exec(&mut foreign())
        .unwrap();
    names(writer.reader().get("a.py").unwrap_err(), "in redis ");
    names(
        writer.reader().get_many(&["a.py"]).unwrap_err(),
        "in redis ",
    );
    // Over a connection of its own.
    server.command("ACL SETUSER hunter2 -set");
    names(writer.publish_exact(&[module()]).unwrap_err(), "redis ");
    server.kill();
    names(writer.reader().get("a.py").unwrap_err(), "redis ");
    names(writer.set(&module()).unwrap_err(), "redis ");
    names(writer.publish_exact(&[module()]).unwrap_err(), "redis ");
}

fn no_client_slot_is_unavailable<F: Facade>() {
    let server = RedisServer::start_with(&["--maxclients", "1"]);
    let only = server.connection();
    let reader = F::Reader::new(patient(&server.url())).unwrap();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    drop(only);
    // The server has yet to notice.
    wait_until("a slot is free", PATIENCE, || reader.get("a.py").is_ok());
}

/// For servers whose every byte is awaited: what is promised is tested elsewhere.
fn impatient(url: &str) -> Config {
    Config::new(url)
        .unwrap()
        .with_response_timeout(Duration::from_millis(50))
        // A new pool waits for its thread to start.
        .with_lookup_deadline(Duration::from_millis(200))
        .with_bulk_deadline(Duration::from_millis(200))
}

fn all_fail<F: Facade>(url: &str, config: fn(&str) -> Config) {
    let writer = || F::Writer::new(config(url)).unwrap();
    unavailable_read(|| writer().reader().get("a.py"));
    unavailable_read(|| writer().reader().get_many(&["a.py"]));
    unavailable_read(|| writer().reader().paths());
    unavailable(|| writer().set(&module()));
    unavailable(|| writer().invalidate("a.py"));
    let url = url.replace("//", "//user:pw@");
    for parameter in ["", "?protocol=resp3"] {
        let reader = F::Reader::new(config(&format!("{url}{parameter}"))).unwrap();
        unavailable_read(|| reader.get("a.py"));
    }
}

fn a_server_that_is_not_redis_is_unavailable<F: Facade>() {
    let rubbish: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\x01\x02\xff\xfe",
        b"hello\r\n",
        b"$10\r\nshort\r\n",
        b"$99999999999999\r\nx",
        b"*2147483647\r\n",
    ];
    for bytes in rubbish {
        let url = fake_server(move |mut stream| {
            let _ = stream.write_all(bytes);
            listen_until_closed(stream);
        });
        all_fail::<F>(&url, impatient);
    }
}

fn listen_until_closed(mut stream: TcpStream) {
    let mut buffer = [0; 4_096];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn a_server_that_closes_at_once_is_unavailable<F: Facade>() {
    all_fail::<F>(&fake_server(drop), patient);
}

fn a_server_that_never_answers_is_unavailable<F: Facade>() {
    let url = fake_server(listen_until_closed);
    let reader = F::Reader::new(config(&url)).unwrap();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    all_fail::<F>(&url, impatient);
}

fn a_reply_that_trickles_in_is_cut_off<F: Facade>() {
    // Each byte comes long before any time-out, the whole never.
    let url = fake_server(|mut stream| {
        let _ = stream.write_all(b"$1000000\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let reader = F::Reader::new(config(&url)).unwrap();
    unavailable_read(|| reader.get("a.py"));
    unavailable_read(|| reader.paths());
    all_fail::<F>(&url, impatient);
}

fn a_name_that_does_not_resolve_is_unavailable<F: Facade>() {
    let reader = F::Reader::new(config("redis://no-such-host.invalid/0")).unwrap();
    unavailable_read(|| reader.get("a.py"));
}

#[tokio::test]
async fn a_dropped_future_leaves_no_answer_behind() {
    let (world, proxy) = World::<Nonblocking>::proxied(|config| config);
    let (server, writer) = (&world.redis, &world.writer);
    let module = |i: usize| CachedModule::new(format!("{i}.py"), format!("{i}")).unwrap();
    for i in 0..20 {
        writer.set(&module(i)).await.unwrap();
    }
    let reader = writer.reader();
    for i in (0..20).step_by(2) {
        proxy.stall_replies();
        let path = module(i).path;
        let asked = server.calls("get");
        let sent = async {
            while server.calls("get") == asked {
                tokio::task::yield_now().await;
            }
        };
        // The losing future is dropped.
        tokio::select! {
            result = reader.get(&path) => panic!("nobody answered: {result:?}"),
            () = sent => {}
        }
        proxy.resume();
        let found = reader.get(&module(i + 1).path).await.unwrap();
        assert_eq!(found, Some(module(i + 1)));
    }
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_is_not_left_to_the_next_call() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let reader = nonblocking::ModuleReader::new(patient(&proxy.url())).unwrap();
    for round in 1..=3 {
        assert_eq!(reader.get("a.py").await.unwrap(), None);
        assert_eq!(reader.paths().await.unwrap().len(), 0);
        assert_eq!(proxy.connections(), 2 * round);
        proxy.drop_replies();
        // The caller has less patience than we have.
        let limit = Duration::from_millis(300);
        let given_up = tokio::time::timeout(limit, reader.get("a.py")).await;
        assert!(given_up.is_err());
        let given_up = tokio::time::timeout(limit, reader.paths()).await;
        assert!(given_up.is_err());
        proxy.resume();
    }
    assert_eq!(reader.stats().retries, 0);
}

#[test]
fn a_connection_does_not_outlive_its_runtime() {
    let server = RedisServer::start();
    let reader = nonblocking::ModuleReader::new(patient(&server.url())).unwrap();
    for _ in 0..3 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        assert_eq!(runtime.block_on(reader.get("a.py")).unwrap(), None);
        assert_eq!(runtime.block_on(reader.paths()).unwrap().len(), 0);
    }
}
