//! Another server holds the keys from now on, and the old one lives on and answers.

use std::thread;

use crate::support::scripted::{Reply, ScriptedRedis};
use crate::support::{
    Facade, Proxy, Reader, RedisServer, Writer, module, on_both_facades, patient,
};
use bifrost_module_cache::diagnosis::CacheState;
use bifrost_module_cache::sync::Change;

on_both_facades! {
    a_primary_that_was_demoted_in_place_gets_no_more_writes
    a_server_that_says_that_the_keys_are_elsewhere_is_left
    what_is_refused_half_way_is_not_repeated
    a_server_that_reigns_again_has_no_complete_cache
}

fn a_primary_that_was_demoted_in_place_gets_no_more_writes<F: Facade>() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(old.port());
    let writer = F::Writer::new(patient(&proxy.url())).unwrap();
    // More than one connection, where there can be more than one.
    thread::scope(|scope| {
        for n in 0..8 {
            let writer = &writer;
            scope.spawn(move || writer.set(&module(&format!("{n}.py"), "old")).unwrap());
        }
    });
    writer.reader().get_many(&["0.py"]).unwrap();
    new.replicate(&old);
    new.promote();
    proxy.set_target(new.port());
    // It closes no connection.
    old.replicate(&new);
    writer.set(&module("a.py", "1")).unwrap();
    assert!(writer.invalidate("0.py").unwrap());
    writer.rename("1.py", &module("b.py", "2")).unwrap();
    let change = Change::Set(module("c.py", "3"));
    writer.publish(&[change]).unwrap();
    let modules = [module("d.py", "4")];
    writer.refresh_to(&["d.py"], &modules).unwrap();
    let there = F::Reader::new(patient(&new.url())).unwrap();
    for (path, content) in [("a.py", "1"), ("b.py", "2"), ("c.py", "3"), ("d.py", "4")] {
        let found = there.get(path).unwrap().expect("it is written");
        assert_eq!(found.content, content);
        assert_eq!(writer.reader().get(path).unwrap(), Some(found));
    }
    assert_eq!(there.get("0.py").unwrap(), None);
    let stats = writer.reader().stats();
    assert_eq!((stats.refused, stats.unavailable), (0, 0), "{stats:?}");
}

fn a_server_that_says_that_the_keys_are_elsewhere_is_left<F: Facade>() {
    for says in [
        "MOVED 1 127.0.0.1:1",
        "CLUSTERDOWN The cluster is down",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "READONLY You can't write against a read only replica.",
    ] {
        let server = ScriptedRedis::start();
        server.set("a.py", "1");
        let reader = F::Reader::new(patient(&server.url())).unwrap();
        reader.get("a.py").unwrap();
        server.rule("GET", move |_| {
            Reply::Raw(format!("-{says}\r\n").into_bytes())
        });
        let accepted = server.accepted();
        assert!(reader.get("a.py").is_err(), "{says}");
        // Asked once more, over a connection of its own.
        assert_eq!(server.accepted(), accepted + 1, "{says}");
        assert_eq!(reader.stats().retries, 1, "{says}");
        server.no_rule("GET");
        assert!(reader.get("a.py").unwrap().is_some());
        assert_eq!(server.accepted(), accepted + 2, "{says}");
    }
}

/// An answer of another kind among those of a write: the rest of it was carried out.
fn what_is_refused_half_way_is_not_repeated<F: Facade>() {
    let server = ScriptedRedis::start();
    let writer = F::Writer::new(patient(&server.url())).unwrap();
    server.rule("MULTI", |_| Reply::Raw(b"+OK\r\n".to_vec()));
    server.rule("SET", |_| Reply::Raw(b"+QUEUED\r\n".to_vec()));
    server.rule("SADD", |_| Reply::Raw(b"+QUEUED\r\n".to_vec()));
    let late = b"*2\r\n+OK\r\n-READONLY You can't write against a read only replica.\r\n";
    server.rule("EXEC", |_| Reply::Raw(late.to_vec()));
    let error = writer.set(&module("a.py", "1")).unwrap_err();
    assert!(
        error.may_have_been_applied() && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(server.calls("EXEC"), 1);
}

/// From A to B and back: A has the same run id, and what was written to it last may be lost.
fn a_server_that_reigns_again_has_no_complete_cache<F: Facade>() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    second.replicate(&first);
    let writer = F::Writer::new(patient(&first.url())).unwrap();
    writer.publish_exact(&[module("a.py", "1")]).unwrap();
    let status = || writer.reader().status().unwrap();
    assert_eq!(status().state, CacheState::Warm);
    let run = first.info("run_id");
    second.replicate(&first);
    second.promote();
    first.replicate(&second);
    first.promote();
    assert_eq!(first.info("run_id"), run);
    assert_eq!(
        writer.reader().get("a.py").unwrap(),
        Some(module("a.py", "1"))
    );
    assert_eq!(status().state, CacheState::Restored);
    writer.publish_exact(&[module("a.py", "1")]).unwrap();
    assert_eq!(status().state, CacheState::Warm);
}
