//! The near cache where sentinels or a cluster say where Redis is.

use std::sync::mpsc;

use crate::support::{
    Foreign, Near, Nearby, PATIENCE, World, Writer, content, module, numbered, on_both_facades,
    wait_until,
};
use bifrost_module_cache::Resolution;
use bifrost_module_cache::near::NearCacheOptions;

on_both_facades! {
    hits_misses_and_changes_are_as_at_a_fixed_address
    names_the_index_and_snapshots_are_as_at_a_fixed_address
}

fn on_all<F: Nearby>(test: impl Fn(&World<F>)) {
    for world in [World::tenant, World::of_sentinels, World::of_cluster] {
        test(&world());
    }
}

fn hits_misses_and_changes_are_as_at_a_fixed_address<F: Nearby>() {
    on_all::<F>(|world| {
        let near = world.near(NearCacheOptions::default());
        let writer = world.writer::<F>();
        let (sender, told) = mpsc::channel();
        near.on_invalidate(move |change| sender.send(change.clone()).unwrap_or(()))
            .unwrap();
        assert_eq!(near.get("a.py").unwrap(), None);
        writer.set(&module("a.py", "1")).unwrap();
        near.until("a.py", Some("1"));
        assert!(told.recv_timeout(PATIENCE).unwrap().concerns("a.py"));
        let stats = near.stats();
        for _ in 0..10 {
            assert_eq!(content(near.get("a.py")).as_deref(), Some("1"));
        }
        assert_eq!(near.stats().hits, stats.hits + 10);
        let mut foreign: Foreign = world.foreign();
        foreign.set("a.py", "2");
        near.until("a.py", Some("2"));
        foreign.del("a.py");
        near.until("a.py", None);
        near.tie(&writer);
        for version in 0..50 {
            let version = version.to_string();
            writer.set(&module("a.py", &version)).unwrap();
            assert_eq!(content(near.get("a.py")), Some(version));
        }
        foreign.flush();
        near.until("a.py", None);
        let stats = near.stats();
        assert!(stats.live && stats.sessions == 1, "{stats:?}");
    });
}

fn names_the_index_and_snapshots_are_as_at_a_fixed_address<F: Nearby>() {
    on_all::<F>(|world| {
        let near = world.near(NearCacheOptions::default());
        let writer = world.writer::<F>();
        let paths = numbered(700);
        let modules: Vec<_> = paths.iter().map(|path| module(path, path)).collect();
        writer.publish_exact(&modules).unwrap();
        near.hear_all();
        assert_eq!(near.prefetch().unwrap(), 700);
        assert_eq!(near.paths().unwrap().len(), 700);
        let path = "m".to_owned();
        assert_eq!(near.resolve("m").unwrap(), Resolution::Namespace { path });
        assert_eq!(near.resolve("n").unwrap(), Resolution::NotFound);
        writer.set(&module("n.py", "n")).unwrap();
        wait_until("the new name is found", PATIENCE, || {
            near.resolve("n").unwrap() != Resolution::NotFound
        });
        let snapshot = near.snapshot().unwrap();
        assert_eq!(snapshot.paths().count(), 701);
        assert!(near.is_live());
    });
}
