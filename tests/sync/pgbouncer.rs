//! All that reads the database, through `PgBouncer` in transaction mode.

use crate::support::{Facade, PgBouncer, Syncing, World, Writer, after, numbered, on_both_facades};
use bifrost_module_cache::sync::{Stage, SyncOptions};

on_both_facades! {
    everything_works_through_pgbouncer
    many_clients_share_few_server_connections
    a_warm_up_shares_its_server_connection_with_others
}

fn everything_works_through_pgbouncer<F: Facade<Writer: Syncing>>() {
    let paths = numbered(450);
    let world = World::<F>::with_rows(&paths);
    let bouncer = PgBouncer::start(&world.postgres);
    let mut client = F::Writer::connect(&bouncer.url());
    let (writer, default) = (&world.writer, SyncOptions::default);
    for written in [450, 0] {
        let report = writer.warm_with(&mut client, default()).unwrap();
        assert_eq!((report.modules, report.written), (450, written));
        assert!(report.verified() && report.complete, "{report}");
    }
    let mut table = world.table();
    table.put(&paths[0], "changed");
    table.delete(&paths[1]);
    let drift = writer.verify_with(&mut client, default()).unwrap();
    assert_eq!((drift.stale.len(), drift.ghost.len()), (1, 1));
    let report = writer.refresh(&mut client, &paths[..1]).unwrap();
    assert_eq!(report.written, 1);
    let report = writer.repair_with(&mut client, default()).unwrap();
    assert_eq!((report.removed, report.unverified), (1, None));
    world.foreign().assert_is(&paths[0], Some("changed"));
    world.foreign().assert_is(&paths[1], None);
}

/// Statements with names would meet those of others there.
fn many_clients_share_few_server_connections<F: Facade<Writer: Syncing>>() {
    let paths = numbered(40);
    let world = World::<F>::with_rows(&paths);
    let bouncer = PgBouncer::start(&world.postgres);
    std::thread::scope(|scope| {
        for own in paths.chunks(5) {
            let (world, url) = (&world, bouncer.url());
            scope.spawn(move || {
                let mut client = F::Writer::connect(&url);
                for _ in 0..10 {
                    let report = world.writer.refresh(&mut client, own).unwrap();
                    assert_eq!((report.written, report.retried), (5, 0));
                }
            });
        }
    });
    world.foreign().assert_holds(&paths);
}

fn a_warm_up_shares_its_server_connection_with_others<F: Facade<Writer: Syncing>>() {
    let paths = numbered(450);
    let world = World::<F>::with_rows(&paths);
    let bouncer = PgBouncer::start(&world.postgres);
    let mut other = bouncer.client();
    // The other one holds one of the two, and changes a row on the other.
    let mut holder = bouncer.client();
    holder.batch_execute("BEGIN").unwrap();
    let mut client = F::Writer::connect(&bouncer.url());
    let options = after(Stage::Load, || {
        other
            .batch_execute("UPDATE workspace_files SET content = 'new' WHERE path = 'm/007.py'")
            .unwrap();
    });
    let report = world.writer.warm_with(&mut client, options).unwrap();
    assert!(report.verified() && report.complete, "{report}");
    world.foreign().assert_is("m/007.py", Some("new"));
    holder.batch_execute("COMMIT").unwrap();
}
