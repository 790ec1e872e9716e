//! Compares the whole cache with the database, and changes nothing.
//!
//! [`repair`](super::repair) is what mends.

use super::compare::{compare_all, compare_any};
use super::inventory::Inventory;
use super::options::{Stage, SyncOptions};
use super::report::{Drift, Unverified};
use crate::client::Client;
use crate::client::dedicated;
use crate::client::transport::Transport;
use crate::database::barrier::barrier;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;

/// Over a dedicated connection, so that all is read from one server, even during a failover.
pub(crate) async fn verify<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<Drift, Error> {
    let config = client.config();
    let connection = &mut dedicated::open(client).await?;
    let workspace = &mut Workspace::open(database, config).await?;
    let inventory = Inventory::take(connection, workspace, config).await?;
    let mut drift = compare_all(&inventory, connection, workspace, config, &mut options)
        .await?
        .drift;
    let mut held = true;
    if !drift.is_empty() {
        // A writer between its commit and its write to Redis looks like drift. So what differs is
        // looked at once more, after every transaction that was open has ended.
        held = barrier(client, workspace, options.barrier_timeout()).await?;
        let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
        let mut progress = options.counted(Stage::Compare, paths.len());
        drift = compare_any(connection, workspace, &paths, config, &mut progress)
            .await?
            .drift;
    }
    // Without drift there is nothing to doubt, even if a transaction is still open.
    let unsure = !held && !drift.is_empty();
    Ok(Drift {
        unverified: unsure.then_some(Unverified::OpenTransaction),
        ..inventory.report(drift)
    })
}
