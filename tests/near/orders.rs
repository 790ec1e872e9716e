//! The near cache against a server that says everything in the worst order.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::scripted::{
    Gate, HEARTBEAT, Held, Peer, RUN_ID, Reply, ScriptedRedis, bulk, changed, changed_keys,
    flushed, info, replication, tracking,
};
use crate::support::{
    Blocking, Near, Nearby, Nonblocking, PATIENCE, Reader, block_on, content, on_both_facades,
    patient, wait_until,
};
use bifrost_module_cache::near::{Invalidation, NearCacheOptions};
use bifrost_module_cache::{CachedModule, nonblocking};

on_both_facades! {
    an_answer_overtaken_by_a_change_is_not_kept
    an_absence_overtaken_by_a_creation_is_not_kept
    a_bulk_answer_overtaken_by_a_change_is_not_kept
    an_index_overtaken_by_a_change_is_not_kept
    a_change_before_the_answer_costs_no_more_than_a_request
    what_was_asked_before_the_session_is_not_kept
    what_was_asked_in_the_session_before_is_not_kept
    a_sign_of_life_may_precede_a_change_of_its_turn
    the_first_sign_of_life_may_precede_a_change_of_its_turn
    a_flush_may_overtake_changes
    a_busy_server_renews_nothing_and_loses_nothing
    a_server_that_stays_busy_is_not_followed
    a_late_sign_of_life_counts_from_when_it_was_asked_for
    a_message_may_come_in_two_pieces_cut_anywhere
    messages_may_come_byte_by_byte
    several_messages_may_come_at_once
    ten_thousand_changes_may_come_in_one_message
    who_lies_about_tracking_is_not_followed
    answers_of_another_server_are_not_kept_and_end_the_session
    an_answer_of_another_server_voids_what_is_kept
    a_server_that_does_not_tell_who_it_is_to_readers_fills_nothing
    who_joined_asks_for_itself_when_the_other_one_runs_out_of_time
    it_may_be_lost_at_each_step_of_the_greeting
    it_may_be_lost_right_after_the_greeting
    garbage_ends_the_session
    unrelated_messages_change_nothing
    a_hook_that_hangs_holds_nothing_up
    a_snapshot_waits_for_what_is_still_to_be_announced
    a_flush_during_a_snapshot_starts_it_anew
    dropped_it_stops_following
    dropped_while_it_connects_it_stops_following
}

/// No sign of life is asked for, unless a caller wants one.
fn options() -> NearCacheOptions {
    NearCacheOptions::default().with_staleness_bound(10 * PATIENCE)
}

fn start<F: Nearby>(server: &ScriptedRedis, options: NearCacheOptions) -> F::Near {
    let reader = F::Reader::new(patient(&server.url())).unwrap();
    F::Near::new(reader, options).unwrap()
}

fn following<F: Nearby>() -> (ScriptedRedis, F::Near) {
    let server = ScriptedRedis::start();
    let near = start::<F>(&server, options());
    near.until_live();
    (server, near)
}

/// A read that has been sent, and whose answer waits.
fn asking<'a, N: Near>(
    near: &'a N,
    path: &'a str,
    gate: &Gate,
    scope: &'a thread::Scope<'a, '_>,
) -> (thread::ScopedJoinHandle<'a, Option<String>>, Held) {
    let reading = scope.spawn(move || content(near.get(path)));
    (reading, gate.next())
}

fn shows<N: Near>(near: &N, path: &str, expected: Option<&str>) {
    for _ in 0..2 {
        assert_eq!(content(near.get(path)).as_deref(), expected, "{path}");
    }
}

fn an_answer_overtaken_by_a_change_is_not_kept<F: Nearby>() {
    let (server, near) = following::<F>();
    // What it asks for is kept from now on.
    near.hear_all();
    for version in 0..50 {
        let (old, new) = (format!("old {version}"), format!("new {version}"));
        let path = format!("{version}.py");
        server.set(&path, &old);
        let gate = server.hold("GET");
        thread::scope(|scope| {
            let (reading, held) = asking(&near, &path, &gate, scope);
            server.no_hold("GET");
            server.set(&path, &new);
            server.tell(&changed(&[&path]));
            near.hear_all();
            held.release();
            // It was right when it was asked for.
            assert_eq!(reading.join().unwrap(), Some(old));
        });
        shows(&near, &path, Some(&new));
    }
    assert_eq!(near.stats().rejected_inserts, 50);
}

fn an_absence_overtaken_by_a_creation_is_not_kept<F: Nearby>() {
    let (server, near) = following::<F>();
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        server.set("a.py", "new");
        server.tell(&changed(&["a.py"]));
        near.hear_all();
        held.release();
        assert_eq!(reading.join().unwrap(), None);
    });
    shows(&near, "a.py", Some("new"));
    let gate = server.hold("GET");
    server.tell(&changed(&["a.py"]));
    near.hear_all();
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        server.remove("a.py");
        server.tell(&changed(&["a.py"]));
        near.hear_all();
        held.release();
        assert_eq!(reading.join().unwrap().as_deref(), Some("new"));
    });
    shows(&near, "a.py", None);
}

fn a_bulk_answer_overtaken_by_a_change_is_not_kept<F: Nearby>() {
    let (server, near) = following::<F>();
    let paths: Vec<String> = (0..20).map(|n| format!("{n}.py")).collect();
    for path in &paths {
        server.set(path, "old");
    }
    let gate = server.hold("MGET");
    let (sender, told) = mpsc::channel();
    near.on_invalidate(move |what: &Invalidation| _ = sender.send(what.clone()))
        .unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| near.get_many(&paths).unwrap());
        let held = gate.next();
        server.no_hold("MGET");
        server.set("7.py", "new");
        server.tell(&changed(&["7.py"]));
        // To read it, another bulk request would have to wait for the first.
        while !told.recv().unwrap().concerns("7.py") {}
        held.release();
        assert_eq!(reading.join().unwrap().len(), 20);
    });
    shows(&near, "7.py", Some("new"));
    let kept = near.stats().modules;
    assert!((10..=20).contains(&kept), "the others stay: {kept}");
}

fn an_index_overtaken_by_a_change_is_not_kept<F: Nearby>() {
    let (server, near) = following::<F>();
    server.set("a.py", "");
    let gate = server.hold("SMEMBERS");
    let (sender, told) = mpsc::channel();
    near.on_invalidate(move |what: &Invalidation| _ = sender.send(what.clone()))
        .unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| near.paths().unwrap());
        let held = gate.next();
        server.no_hold("SMEMBERS");
        server.set("b.py", "");
        server.tell(&changed(&["b.py", "index"]));
        while !told.recv().unwrap().concerns("b.py") {}
        held.release();
        assert_eq!(reading.join().unwrap().len(), 1);
    });
    for _ in 0..2 {
        assert_eq!(near.paths().unwrap().len(), 2);
    }
}

fn a_change_before_the_answer_costs_no_more_than_a_request<F: Nearby>() {
    let (server, near) = following::<F>();
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        server.set("a.py", "new");
        server.tell(&changed(&["a.py"]));
        near.hear_all();
        // Redis read after it had announced.
        let module = CachedModule::new("a.py", "new").unwrap();
        held.answer(bulk(&module.to_json()));
        assert_eq!(reading.join().unwrap().as_deref(), Some("new"));
    });
    shows(&near, "a.py", Some("new"));
    assert!(server.calls("GET") <= 2);
}

fn what_was_asked_before_the_session_is_not_kept<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.set("a.py", "old");
    let (gate, signs) = (server.hold("GET"), server.hold(HEARTBEAT));
    let near = start::<F>(&server, options());
    let greeting = signs.next();
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        server.no_hold(HEARTBEAT);
        // Redis has not announced it yet.
        server.set("a.py", "new");
        greeting.release();
        near.until_live();
        held.release();
        assert_eq!(reading.join().unwrap().as_deref(), Some("old"));
    });
    shows(&near, "a.py", Some("new"));
    assert_eq!(near.stats().bypasses, 1);
}

fn what_was_asked_in_the_session_before_is_not_kept<F: Nearby>() {
    let (server, near) = following::<F>();
    server.set("a.py", "old");
    server.set("b.py", "old");
    shows(&near, "b.py", Some("old"));
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        server.set("a.py", "new");
        server.set("b.py", "new");
        server.follower().close();
        wait_until("a new session begins", PATIENCE, || {
            near.stats().sessions == 2 && near.is_live()
        });
        held.release();
        assert_eq!(reading.join().unwrap().as_deref(), Some("old"));
    });
    shows(&near, "a.py", Some("new"));
    shows(&near, "b.py", Some("new"));
}

fn a_sign_of_life_may_precede_a_change_of_its_turn<F: Nearby>() {
    let (server, near) = following::<F>();
    for version in 0..20 {
        let (old, new) = (format!("old {version}"), format!("new {version}"));
        server.set("a.py", &old);
        server.tell(&changed(&["a.py"]));
        near.hear_all();
        shows(&near, "a.py", Some(&old));
        let signs = server.hold(HEARTBEAT);
        thread::scope(|scope| {
            let hearing = scope.spawn(|| near.hear_all());
            let pong = signs.next();
            server.no_hold(HEARTBEAT);
            server.set("a.py", &new);
            pong.release();
            hearing.join().unwrap();
        });
        server.tell(&changed(&["a.py"]));
        near.hear_all();
        shows(&near, "a.py", Some(&new));
    }
    assert_eq!(near.stats().sessions, 1);
}

fn the_first_sign_of_life_may_precede_a_change_of_its_turn<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.set("a.py", "old");
    let signs = server.hold(HEARTBEAT);
    let near = start::<F>(&server, options());
    let greeting = signs.next();
    assert_eq!(content(near.get("a.py")).as_deref(), Some("old"));
    server.no_hold(HEARTBEAT);
    server.set("a.py", "new");
    greeting.release();
    near.until_live();
    shows(&near, "a.py", Some("new"));
    server.tell(&changed(&["a.py"]));
    near.hear_all();
    shows(&near, "a.py", Some("new"));
    assert_eq!(near.stats().sessions, 1);
}

fn a_flush_may_overtake_changes<F: Nearby>() {
    let (server, near) = following::<F>();
    for path in ["a.py", "b.py", "c.py"] {
        server.set(path, "old");
    }
    shows(&near, "a.py", Some("old"));
    shows(&near, "b.py", Some("old"));
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let (reading, held) = asking(&near, "c.py", &gate, scope);
        server.no_hold("GET");
        for path in ["a.py", "b.py", "c.py"] {
            server.set(path, "new");
        }
        server.tell(&[flushed(), changed(&["a.py"])].concat());
        near.hear_all();
        assert_eq!(near.stats().modules, 0);
        held.release();
        assert_eq!(reading.join().unwrap().as_deref(), Some("old"));
    });
    for path in ["a.py", "b.py", "c.py"] {
        shows(&near, path, Some("new"));
    }
    let stats = near.stats();
    assert_eq!((stats.flushes, stats.sessions), (1, 1));
}

fn busy(_: &Peer) -> Reply {
    Reply::Raw(b"-BUSY Redis is busy running a script.\r\n".to_vec())
}

fn a_busy_server_renews_nothing_and_loses_nothing<F: Nearby>() {
    let (server, near) = following::<F>();
    server.set("a.py", "old");
    shows(&near, "a.py", Some("old"));
    server.rule(HEARTBEAT, busy);
    let pings = server.calls(HEARTBEAT);
    thread::scope(|scope| {
        // It can't be had while the server is busy.
        let snapshot = scope.spawn(|| near.snapshot_of(&["a.py"]));
        wait_until("the server was asked", PATIENCE, || {
            server.calls(HEARTBEAT) > pings
        });
        server.no_rule(HEARTBEAT);
        snapshot.join().unwrap().unwrap();
    });
    assert!(near.is_live());
    let asked = server.calls("GET");
    shows(&near, "a.py", Some("old"));
    assert_eq!((near.stats().sessions, server.calls("GET")), (1, asked));
}

fn a_server_that_stays_busy_is_not_followed<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.set("a.py", "old");
    let bound = Duration::from_millis(400);
    let near = start::<F>(
        &server,
        NearCacheOptions::default().with_staleness_bound(bound),
    );
    near.until_live();
    shows(&near, "a.py", Some("old"));
    let sessions = near.stats().sessions;
    // As Redis does: nothing else is answered either.
    for command in [HEARTBEAT, "CLIENT TRACKING", "CLIENT TRACKINGINFO"] {
        server.rule(command, busy);
    }
    let pings = server.calls(HEARTBEAT);
    wait_until("the lease lapses", PATIENCE, || !near.is_live());
    assert!(server.calls(HEARTBEAT) > pings, "it was asked meanwhile");
    server.set("a.py", "new");
    shows(&near, "a.py", Some("new"));
    for command in [HEARTBEAT, "CLIENT TRACKING", "CLIENT TRACKINGINFO"] {
        server.no_rule(command);
    }
    near.until_live();
    shows(&near, "a.py", Some("new"));
    assert!(near.stats().sessions > sessions);
}

fn a_late_sign_of_life_counts_from_when_it_was_asked_for<F: Nearby>() {
    let server = ScriptedRedis::start();
    let bound = Duration::from_secs(4);
    let near = start::<F>(
        &server,
        NearCacheOptions::default().with_staleness_bound(bound),
    );
    near.until_live();
    let signs = server.hold(HEARTBEAT);
    let pong = signs.next();
    let asked_at_the_latest = Instant::now();
    // There is no new session.
    let greetings = server.hold("HELLO");
    thread::sleep(bound * 3 / 5);
    pong.release();
    // The next one is asked for when that one has come. On a slow machine it has come too late.
    let mut unanswered = None;
    wait_until("the next one is asked for", PATIENCE, || {
        unanswered = signs.try_next();
        unanswered.is_some() || !near.is_live()
    });
    let end = asked_at_the_latest + bound + Duration::from_millis(100);
    thread::sleep(end.saturating_duration_since(Instant::now()));
    assert!(!near.is_live());
    drop((unanswered, greetings));
}

/// Two keys are kept; the message names one of them.
fn a_message_may_come_in_two_pieces_cut_anywhere<F: Nearby>() {
    let (server, near) = following::<F>();
    for message in [changed(&["a.py"]), flushed()] {
        for cut in 1..message.len() {
            server.set("a.py", &format!("old {cut}"));
            server.tell(&changed(&["a.py"]));
            near.hear_all();
            assert!(near.get("a.py").unwrap().is_some());
            server.set("a.py", &format!("new {cut}"));
            let (first, second) = message.split_at(cut);
            server.follower().write_in_pieces([first, second]);
            near.hear_all();
            shows(&near, "a.py", Some(&format!("new {cut}")));
        }
    }
    assert_eq!(near.stats().sessions, 1);
}

fn messages_may_come_byte_by_byte<F: Nearby>() {
    let (server, near) = following::<F>();
    for path in ["a.py", "b.py", "c.py"] {
        server.set(path, "old");
        shows(&near, path, Some("old"));
        server.set(path, "new");
    }
    let signs = server.hold(HEARTBEAT);
    thread::scope(|scope| {
        let hearing = scope.spawn(|| near.hear_all());
        let pong = signs.next();
        server.no_hold(HEARTBEAT);
        let unrelated = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n".to_vec();
        let messages = [changed(&["a.py", "b.py"]), unrelated, changed(&["c.py"])];
        let follower = server.follower();
        follower.write_in_pieces(messages.concat().chunks(1));
        // Not byte by byte: on a busy machine each piece takes its time.
        follower.write_in_pieces(replication("master").chunks(16));
        pong.forget();
        hearing.join().unwrap();
    });
    for path in ["a.py", "b.py", "c.py"] {
        shows(&near, path, Some("new"));
    }
    assert_eq!(near.stats().sessions, 1);
}

/// A near cache that keeps so many modules, all of which have just changed.
fn about_to_hear_of<F: Nearby>(count: usize) -> (ScriptedRedis, F::Near, Vec<String>) {
    let (server, near) = following::<F>();
    let paths: Vec<String> = (0..count).map(|n| format!("{n}.py")).collect();
    for path in &paths {
        server.set(path, "old");
    }
    assert_eq!(near.prefetch().unwrap(), count);
    for path in &paths {
        server.set(path, "new");
    }
    (server, near, paths)
}

fn several_messages_may_come_at_once<F: Nearby>() {
    let (server, near, paths) = about_to_hear_of::<F>(200);
    let messages: Vec<u8> = paths.iter().flat_map(|path| changed(&[path])).collect();
    // The last one in two pieces, so that the first read ends within it.
    let (most, rest) = messages.split_at(messages.len() - 5);
    server.follower().write_in_pieces([most, rest]);
    near.hear_all();
    assert_eq!(near.stats().modules, 0);
    for path in &paths {
        shows(&near, path, Some("new"));
    }
    assert_eq!(near.stats().invalidations, 200);
}

fn ten_thousand_changes_may_come_in_one_message<F: Nearby>() {
    let (server, near, paths) = about_to_hear_of::<F>(10_000);
    server.tell(&changed(&paths));
    near.hear_all();
    let stats = near.stats();
    assert_eq!((stats.modules, stats.invalidations), (0, 10_000));
    assert_eq!(near.prefetch().unwrap(), 10_000);
    for found in near.get_many(&paths).unwrap() {
        assert_eq!(found.unwrap().content, "new");
    }
    assert_eq!(near.stats().sessions, 1);
}

type Lie = (&'static str, Vec<u8>);

fn who_lies_about_tracking_is_not_followed<F: Nearby>() {
    const OURS: &str = "bifrost:module:";
    let error = |text: &str| format!("-{text}\r\n").into_bytes();
    let lies: Vec<Vec<Lie>> = vec![
        vec![("CLIENT TRACKINGINFO", tracking('%', &["off"], OURS))],
        vec![("CLIENT TRACKINGINFO", tracking('%', &["on"], OURS))],
        vec![("CLIENT TRACKINGINFO", tracking('%', &["on", "bcast"], ""))],
        vec![(
            "CLIENT TRACKINGINFO",
            tracking('%', &["on", "bcast"], "bifrost:module-cache:"),
        )],
        vec![("CLIENT TRACKINGINFO", b"+OK\r\n".to_vec())],
        vec![("CLIENT TRACKINGINFO", error("ERR unknown subcommand"))],
        vec![("CLIENT TRACKING", error("ERR syntax error"))],
        vec![("CLIENT TRACKING", error("NOPERM no"))],
        vec![("INFO", bulk(b"# Server\r\nredis_version:7.0.0\r\n"))],
        vec![("INFO", info("0000000000000000"))],
        vec![("INFO", error("NOPERM no"))],
        vec![(HEARTBEAT, error("ERR unknown command"))],
        vec![("HELLO", error("NOPROTO sorry"))],
        vec![("HELLO", error("ERR unknown command 'HELLO'"))],
        // A proxy that answers for itself, before a connection that speaks RESP2: there, changes
        // are announced to nobody.
        vec![
            ("HELLO", b"+OK\r\n".to_vec()),
            ("CLIENT TRACKINGINFO", tracking('*', &["on", "bcast"], OURS)),
        ],
    ];
    for lies in lies {
        let server = ScriptedRedis::start();
        let shown = format!("{:?}", lies[0]);
        for (command, answer) in lies {
            server.rule(command, move |peer| {
                // Before it follows, HELLO is asked only by who wants to.
                if peer.follows() || command == "HELLO" {
                    Reply::Raw(answer.clone())
                } else {
                    Reply::Usual
                }
            });
        }
        let near = start::<F>(&server, options());
        wait_until("it is known that it can't be followed", PATIENCE, || {
            near.stats().last_failure.is_some() || near.is_live()
        });
        assert!(!near.is_live(), "{shown}");
        for version in 0..3 {
            let version = version.to_string();
            server.set("a.py", &version);
            shows(&near, "a.py", Some(&version));
            assert_eq!(near.get("b.py").unwrap(), None);
        }
        let stats = near.stats();
        assert_eq!((stats.sessions, stats.bytes), (0, 0), "{shown}");
        assert_eq!((stats.bypasses, stats.reads()), (9, 9), "{shown}");
    }
}

const OTHER_RUN_ID: &str = "00000000000000bb00000000000000000000dead";

fn answers_of_another_server_are_not_kept_and_end_the_session<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.rule("INFO", |peer| {
        let run_id = if peer.follows() { RUN_ID } else { OTHER_RUN_ID };
        Reply::Raw(info(run_id))
    });
    // It looks whether it was told so as often as it asks for a sign of life.
    let bound = Duration::from_secs(2);
    let near = start::<F>(&server, options().with_staleness_bound(bound));
    for version in 0..2 {
        near.until_live();
        let sessions = near.stats().sessions;
        server.set("a.py", &version.to_string());
        assert_eq!(content(near.get("a.py")), Some(version.to_string()));
        assert_eq!(near.stats().modules, 0);
        wait_until("another session begins", PATIENCE, || {
            near.stats().sessions > sessions
        });
    }
}

fn an_answer_of_another_server_voids_what_is_kept<F: Nearby>() {
    let server = ScriptedRedis::start();
    let failed_over = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&failed_over);
    server.rule("INFO", move |peer| {
        let run_id = match (peer.follows(), state.load(SeqCst)) {
            (true, 0 | 1) | (false, 0) => RUN_ID,
            _ => OTHER_RUN_ID,
        };
        Reply::Raw(info(run_id))
    });
    let near = start::<F>(&server, options());
    near.until_live();
    server.set("a.py", "old");
    server.set("b.py", "old");
    shows(&near, "a.py", Some("old"));
    // Readers get to a new server; the one that announces changes is the old one.
    failed_over.store(1, SeqCst);
    server.set("a.py", "new");
    for reader in server.readers() {
        reader.close();
    }
    wait_until("the connections are closed", PATIENCE, || {
        server.readers().is_empty()
    });
    wait_until("a reader is connected anew", PATIENCE, || {
        near.get("b.py").is_ok()
    });
    // Nothing announced it.
    shows(&near, "a.py", Some("new"));
    failed_over.store(2, SeqCst);
    server.followers().iter().for_each(|peer| peer.close());
    wait_until("the new server is followed", PATIENCE, || {
        near.is_live() && content(near.get("a.py")).is_some() && near.stats().modules > 0
    });
    let hits = near.stats().hits;
    shows(&near, "a.py", Some("new"));
    assert!(near.stats().hits > hits);
}

fn a_server_that_does_not_tell_who_it_is_to_readers_fills_nothing<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.rule("INFO", |peer| {
        if peer.follows() {
            Reply::Usual
        } else {
            Reply::Raw(bulk(b"# Server\r\n"))
        }
    });
    let near = start::<F>(&server, options());
    near.until_live();
    for version in 0..5 {
        server.set("a.py", &version.to_string());
        shows(&near, "a.py", Some(&version.to_string()));
    }
    let stats = near.stats();
    assert_eq!((stats.hits, stats.modules, stats.sessions), (0, 0, 1));
    assert!(near.is_live());
}

fn who_joined_asks_for_itself_when_the_other_one_runs_out_of_time<F: Nearby>() {
    let server = ScriptedRedis::start();
    server.set("a.py", "a");
    // Twice the time that may pass between the two.
    let deadline = Duration::from_secs(3);
    let config = patient(&server.url()).with_lookup_deadline(deadline);
    let near = F::Near::new(F::Reader::new(config).unwrap(), options()).unwrap();
    near.until_live();
    // The connection is made before anything is held.
    near.get("other.py").unwrap();
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let first = scope.spawn(|| near.get("a.py"));
        let _held = gate.next();
        thread::sleep(deadline / 2);
        let second = scope.spawn(|| near.get("a.py"));
        assert!(first.join().unwrap().unwrap_err().is_unavailable());
        gate.next().release();
        assert_eq!(content(second.join().unwrap()).as_deref(), Some("a"));
    });
    let stats = near.stats();
    assert_eq!((stats.misses, server.calls("GET")), (3, 3));
}

const GREETING: [&str; 5] = [
    "HELLO",
    "CLIENT TRACKING",
    "CLIENT TRACKINGINFO",
    "INFO",
    HEARTBEAT,
];

fn it_may_be_lost_at_each_step_of_the_greeting<F: Nearby>() {
    for step in GREETING {
        for cut_short in [false, true] {
            let server = ScriptedRedis::start();
            server.set("a.py", "a");
            let losses = Arc::new(AtomicUsize::new(0));
            let lost = Arc::clone(&losses);
            server.rule(step, move |peer| {
                let concerned = peer.follows() || step == "HELLO";
                if !concerned || lost.fetch_add(1, SeqCst) >= 3 {
                    return Reply::Usual;
                }
                if cut_short {
                    // In the middle of an answer.
                    let _ = peer.write(b"$100\r\nabc");
                }
                Reply::Close
            });
            let near = start::<F>(&server, options());
            wait_until("it was lost", PATIENCE, || losses.load(SeqCst) > 0);
            assert_eq!(content(near.get("a.py")).as_deref(), Some("a"));
            near.until_live();
            shows(&near, "a.py", Some("a"));
            assert_eq!(near.stats().sessions, 1);
            server.set("a.py", "b");
            server.tell(&changed(&["a.py"]));
            near.hear_all();
            shows(&near, "a.py", Some("b"));
        }
    }
}

fn it_may_be_lost_right_after_the_greeting<F: Nearby>() {
    let server = ScriptedRedis::start();
    let losses = Arc::new(AtomicUsize::new(0));
    let lost = Arc::clone(&losses);
    server.rule(HEARTBEAT, move |peer| {
        if peer.follows() && lost.fetch_add(1, SeqCst) < 3 {
            let _ = peer.write(&replication("master"));
            return Reply::Close;
        }
        Reply::Usual
    });
    server.set("a.py", "old");
    let near = start::<F>(&server, options());
    wait_until("it has begun anew", PATIENCE, || losses.load(SeqCst) >= 4);
    near.until_live();
    shows(&near, "a.py", Some("old"));
    server.set("a.py", "new");
    server.tell(&changed(&["a.py"]));
    near.hear_all();
    shows(&near, "a.py", Some("new"));
}

fn garbage_ends_the_session<F: Nearby>() {
    let garbage: [&[u8]; 5] = [
        b"garbage\r\n",
        b"$abc\r\n",
        b"\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        b">2\r\n$10\r\ninvalidate\r\n@@@\r\n",
    ];
    for bytes in garbage {
        let (server, near) = following::<F>();
        server.set("a.py", "old");
        shows(&near, "a.py", Some("old"));
        server.set("a.py", "new");
        server.tell(bytes);
        wait_until("another session begins", PATIENCE, || {
            near.stats().sessions == 2 && near.is_live()
        });
        shows(&near, "a.py", Some("new"));
    }
}

fn unrelated_messages_change_nothing<F: Nearby>() {
    let (server, near) = following::<F>();
    server.set("a.py", "a");
    shows(&near, "a.py", Some("a"));
    let asked = server.calls("GET");
    let messages = [
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$6\r\nhello!\r\n".to_vec(),
        b">1\r\n$7\r\nunknown\r\n".to_vec(),
        b">2\r\n$7\r\nunknown\r\n_\r\n".to_vec(),
        b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".to_vec(),
        changed_keys(&["a.py", "module:a.py", "bifrost:modul", "bifrost:module", ""]),
        changed_keys(&["bifrost:module-cache:complete"]),
        changed_keys::<&str>(&[]),
        changed(&["b.py", "", "index", "a.p", "a.py "]),
    ];
    for message in messages {
        server.tell(&message);
    }
    near.hear_all();
    shows(&near, "a.py", Some("a"));
    assert_eq!(server.calls("GET"), asked, "it is still kept");
    assert_eq!(near.stats().sessions, 1);
}

fn a_hook_that_hangs_holds_nothing_up<F: Nearby>() {
    let (server, near) = following::<F>();
    let (go_on, gone_on) = mpsc::channel::<()>();
    let (sender, told) = mpsc::channel();
    let gone_on = std::sync::Mutex::new(gone_on);
    near.on_invalidate(move |what: &Invalidation| {
        let _ = sender.send(what.clone());
        let _ = gone_on.lock().unwrap().recv();
    })
    .unwrap();
    for version in 0..2_000 {
        server.set("a.py", &version.to_string());
        server.tell(&changed(&["a.py"]));
        if version % 100 == 0 {
            near.hear_all();
            shows(&near, "a.py", Some(&version.to_string()));
        }
    }
    near.hear_all();
    shows(&near, "a.py", Some("1999"));
    // What came meanwhile is not a thousand calls.
    drop(go_on);
    let first = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first, Invalidation::Paths(vec!["a.py".to_owned()]));
    let second = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(second, Invalidation::Everything);
}

/// One part is kept, the other is read after both were changed at once.
fn a_snapshot_waits_for_what_is_still_to_be_announced<F: Nearby>() {
    let (server, near) = following::<F>();
    for version in 0..20 {
        let (old, new) = (format!("old {version}"), format!("new {version}"));
        server.set("a.py", &old);
        server.set("b.py", &old);
        server.tell(&changed(&["a.py", "b.py"]));
        near.hear_all();
        shows(&near, "a.py", Some(&old));
        server.set("a.py", &new);
        server.set("b.py", &new);
        server.tell_late(&changed(&["a.py", "b.py"]));
        let snapshot = near.snapshot_of(&["a.py", "b.py"]).unwrap();
        let found = ["a.py", "b.py"].map(|path| content(snapshot.get(path)));
        assert_eq!(found, [Some(new.clone()), Some(new)]);
    }
}

fn a_flush_during_a_snapshot_starts_it_anew<F: Nearby>() {
    let (server, near) = following::<F>();
    server.set("a.py", "old");
    server.set("b.py", "old");
    shows(&near, "a.py", Some("old"));
    let bulk = server.hold("MGET");
    thread::scope(|scope| {
        let taking = scope.spawn(|| near.snapshot().unwrap());
        let held = bulk.next();
        server.no_hold("MGET");
        server.remove("a.py");
        server.set("b.py", "new");
        server.tell_late(&flushed());
        held.release();
        let snapshot = taking.join().unwrap();
        assert_eq!(snapshot.get("a.py").unwrap(), None);
        assert_eq!(content(snapshot.get("b.py")).as_deref(), Some("new"));
    });
}

fn dropped_it_stops_following<F: Nearby>() {
    let (server, near) = following::<F>();
    let clone = near.clone();
    drop(near);
    clone.hear_all();
    assert_eq!(server.followers().len(), 1);
    drop(clone);
    wait_until("the connection is closed", PATIENCE, || {
        server.followers().is_empty()
    });
}

fn dropped_while_it_connects_it_stops_following<F: Nearby>() {
    for step in GREETING {
        let server = ScriptedRedis::start();
        let gate = server.hold(step);
        let near = start::<F>(&server, options());
        let held = gate.next();
        server.no_hold(step);
        drop(near);
        held.release();
        wait_until("no connection is left", PATIENCE, || {
            server.followers().is_empty() && server.readers().is_empty()
        });
        assert_eq!(server.accepted(), 1, "it is not tried again");
    }
}

/// The first reader's request was overtaken; a second one asks, and the first one's answer comes
/// when the second one's is still under way, or after it.
#[test]
fn an_overtaken_answer_that_comes_late_is_not_kept_in_threads() {
    type F = Blocking;
    for old_one_last in [false, true] {
        let (server, near) = following::<F>();
        server.set("a.py", "old");
        let gate = server.hold("GET");
        thread::scope(|scope| {
            let (first, old) = asking(&near, "a.py", &gate, scope);
            server.set("a.py", "new");
            server.tell(&changed(&["a.py"]));
            near.hear_all();
            let (second, new) = asking(&near, "a.py", &gate, scope);
            server.no_hold("GET");
            if old_one_last {
                new.release();
                assert_eq!(second.join().unwrap().as_deref(), Some("new"));
                old.release();
                assert_eq!(first.join().unwrap().as_deref(), Some("old"));
            } else {
                old.release();
                assert_eq!(first.join().unwrap().as_deref(), Some("old"));
                new.release();
                assert_eq!(second.join().unwrap().as_deref(), Some("new"));
            }
        });
        shows(&near, "a.py", Some("new"));
        assert_eq!(near.stats().rejected_inserts, 1);
        assert_eq!(server.calls("GET"), 2, "the newer answer is kept");
    }
}

/// What it asked for may be older than the session: a caller that asks now asks anew.
#[test]
fn nobody_joins_a_request_of_the_session_before_in_threads() {
    type F = Blocking;
    let (server, near) = following::<F>();
    server.set("a.py", "old");
    let gate = server.hold("GET");
    thread::scope(|scope| {
        let (first, old) = asking(&near, "a.py", &gate, scope);
        server.set("a.py", "new");
        server.follower().close();
        wait_until("a new session begins", PATIENCE, || {
            near.stats().sessions == 2 && near.is_live()
        });
        let (second, new) = asking(&near, "a.py", &gate, scope);
        server.no_hold("GET");
        new.release();
        assert_eq!(second.join().unwrap().as_deref(), Some("new"));
        old.release();
        assert_eq!(first.join().unwrap().as_deref(), Some("old"));
    });
    shows(&near, "a.py", Some("new"));
}

/// Polls a future until the server has been asked; the future sees no answer.
async fn asked<T>(mut read: Pin<&mut impl Future<Output = T>>, gate: &Gate) -> Held {
    loop {
        poll_fn(|context| {
            assert!(read.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        if let Some(held) = gate.try_next() {
            return held;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same where answers come over one connection, in their order: whose task runs first lands
/// first.
#[test]
fn an_overtaken_answer_that_comes_late_is_not_kept_in_tasks() {
    type F = Nonblocking;
    for old_one_last in [false, true] {
        let (server, near) = following::<F>();
        server.set("a.py", "old");
        let gate = server.hold("GET");
        let inner: &nonblocking::NearCache = &near;
        block_on(async {
            let mut first = pin!(inner.get("a.py"));
            asked(first.as_mut(), &gate).await.release();
            server.set("a.py", "new");
            server.tell(&changed(&["a.py"]));
            inner.snapshot_of(&["no such path"]).await.unwrap();
            let mut second = pin!(inner.get("a.py"));
            asked(second.as_mut(), &gate).await.release();
            server.no_hold("GET");
            if old_one_last {
                assert_eq!(content(second.await).as_deref(), Some("new"));
                assert_eq!(content(first.await).as_deref(), Some("old"));
            } else {
                assert_eq!(content(first.await).as_deref(), Some("old"));
                assert_eq!(content(second.await).as_deref(), Some("new"));
            }
        });
        shows(&near, "a.py", Some("new"));
        assert_eq!(near.stats().rejected_inserts, 1);
        assert_eq!(server.calls("GET"), 2, "the newer answer is kept");
    }
}

/// One of those who wait takes over, and asks once more.
#[test]
fn when_the_one_who_asked_is_cancelled_another_one_asks() {
    type F = Nonblocking;
    let (server, near) = following::<F>();
    for rounds in 1..4 {
        let path = format!("{rounds}.py");
        server.set(&path, "a");
        let gate = server.hold("GET");
        let asked_before = server.calls("GET");
        block_on(async {
            let mut leader = Box::pin(near.get(&path));
            let held = asked(leader.as_mut(), &gate).await;
            let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(near.get(&path))).collect();
            for reader in &mut waiting {
                poll_fn(|context| {
                    assert!(reader.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            drop(leader);
            held.release();
            server.no_hold("GET");
            poll_fn(|context| {
                waiting.retain_mut(|reader| match reader.as_mut().poll(context) {
                    Poll::Ready(found) => {
                        assert_eq!(content(found).as_deref(), Some("a"));
                        false
                    }
                    Poll::Pending => true,
                });
                if waiting.is_empty() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        });
        assert_eq!(server.calls("GET") - asked_before, 2);
    }
}
