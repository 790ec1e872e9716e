//! Warm-up, verification and everybody at once where sentinels or a cluster say where Redis is.

use crate::support::{
    Facade, Protocol, Size, Syncing, World, module, numbered, on_both_facades, round,
};
use bifrost_module_cache::sync::{Found, Role, SyncOptions};

on_both_facades! {
    cache_and_database_are_kept_in_step_wherever_redis_is
    everybody_at_once_converges_wherever_redis_is
}

fn cache_and_database_are_kept_in_step_wherever_redis_is<F: Facade<Writer: Syncing>>() {
    for world in [World::<F>::of_sentinels(), World::of_cluster()] {
        let paths = numbered(300);
        world.table().fill(&paths);
        let report = world.warm(SyncOptions::default());
        assert!(report.complete && report.verified(), "{report}");
        assert_eq!((report.written, report.scanned), (300, true), "{report}");
        let servers = report.servers;
        assert_ne!(servers.found, Found::Address);
        let server = format!("127.0.0.1:{}", world.redis.port());
        assert_eq!(servers.server.as_deref(), Some(&*server));
        assert_eq!(servers.role, Some(Role::Primary));
        let status = world.status();
        assert!(status.is_warm(), "{status}");
        assert_eq!(status.servers.role, Some(Role::Primary));
        world.foreign().assert_holds(&paths);
        let mut foreign = world.foreign();
        foreign.set(&paths[0], "stale");
        foreign.del(&paths[1]);
        foreign.set_key("ghost.py", "{}");
        let drift = world.verify();
        assert_eq!(
            (drift.stale.len(), drift.missing.len(), drift.ghost.len()),
            (1, 1, 1)
        );
        let report = world.repair(SyncOptions::default());
        assert_eq!((report.written, report.removed), (2, 1), "{report:?}");
        world.foreign().assert_holds(&paths);
        world.table().put("m/000.py", "new");
        assert_eq!(world.refresh(&["m/000.py"]).written, 1);
        assert_eq!(world.get("m/000.py").as_deref(), Some("new"));
        let options = SyncOptions::default().with_max_prune(1.0);
        let report = world
            .writer
            .publish_exact_with(&[module("a.py", "1")], options);
        let report = report.unwrap();
        assert!(report.complete, "{report:?}");
        assert_eq!(report.servers.server, Some(server));
    }
}

fn everybody_at_once_converges_wherever_redis_is<F: Facade<Writer: Syncing>>() {
    let size = Size {
        modules: 300,
        changes: 40,
    };
    for (world, protocol) in [
        (World::<F>::of_sentinels(), Protocol::Refresh),
        (World::of_cluster(), Protocol::Mixed),
    ] {
        let round = round(&world, protocol, size, 20_250_314);
        println!("{protocol:?}: {round}");
        assert_eq!(round.faults.lasting(), 0, "{round}");
        assert!(round.killed > 0, "{round}");
    }
}
