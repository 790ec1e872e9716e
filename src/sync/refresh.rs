//! Brings paths to what their source says now: what a service calls after its commit.
//!
//! `set` writes what its caller knows, and of two services that save one path, the first to commit
//! may be the last to write. Here the source is read under a WATCH, so their order does not matter.

use super::endpoints::Endpoints;
use super::reconcile::reconcile;
use super::report::RefreshReport;
use super::source::Source;
use crate::client::Client;
use crate::client::dedicated;
use crate::client::transport::Transport;
use crate::error::Error;
use crate::keys::validate_path;

/// Brings these paths to what the source says, each read after this call began.
pub(crate) async fn refresh<T: Transport, S: Source>(
    client: &Client<T>,
    source: &mut S,
    paths: &[impl AsRef<str>],
) -> Result<RefreshReport, Error> {
    let mut unique: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        validate_path(path.as_ref())?;
        unique.push(path.as_ref().to_owned());
    }
    // A path that is given twice is written, and counted, once.
    unique.sort_unstable();
    unique.dedup();
    if unique.is_empty() {
        return Ok(RefreshReport::default());
    }
    let _observed = client.observers.writing(|| unique.clone());
    let mut connection = dedicated::open(client).await?;
    let report = reconcile(client, &mut connection, source, unique, &mut |_| {}).await?;
    Ok(RefreshReport {
        servers: Endpoints::new(client.config(), source.server()),
        ..report
    })
}
