//! Compares the whole cache with the database, and mends what differs.

use super::options::{Stage, SyncOptions};
use super::report::{Drift, Unverified};
use super::survey::{Survey, compare_any};
use crate::client::Client;
use crate::client::dedicated;
use crate::client::transport::Transport;
use crate::database::barrier::barrier;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;

pub(crate) async fn verify<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    mut options: SyncOptions<'_>,
) -> Result<Drift, Error> {
    let config = client.config();
    let mut connection = dedicated::open(client).await?;
    let mut workspace = Workspace::open(database, config).await?;
    let survey = Survey::take(&mut connection, &mut workspace, config).await?;
    let mut drift = survey
        .compare(&mut connection, &mut workspace, config, &mut options)
        .await?
        .drift;
    let mut held = true;
    if !drift.is_empty() {
        // A writer between its commit and its write looks like drift: a second look, once all of
        // that time are done, tells.
        held = barrier(client, &mut workspace, options.barrier_timeout()).await?;
        let paths: Vec<String> = drift.into_iter().map(|(path, _)| path).collect();
        let mut progress = options.counted(Stage::Compare, paths.len());
        drift = compare_any(
            &mut connection,
            &mut workspace,
            &paths,
            config,
            &mut progress,
        )
        .await?
        .drift;
    }
    let unsure = !held && !drift.is_empty();
    Ok(Drift {
        unverified: unsure.then_some(Unverified::OpenTransaction),
        ..survey.report(drift)
    })
}
