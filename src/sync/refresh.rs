//! Brings paths to what their source says now: what a service calls after its commit.

use super::reconcile::settle;
use super::report::{Endpoints, RefreshReport};
use super::source::Source;
use crate::client::Client;
use crate::client::dedicated;
use crate::client::transport::Transport;
use crate::error::Error;
use crate::keys::validate_path;

/// The specification's `refresh`: these paths, each as the source has it after this call began.
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
    unique.sort_unstable();
    unique.dedup();
    if unique.is_empty() {
        return Ok(RefreshReport::default());
    }
    let _observed = client.observers.writing(|| unique.clone());
    let mut connection = dedicated::open(client).await?;
    let report = settle(client, &mut connection, source, unique, &mut |_| {}).await?;
    Ok(RefreshReport {
        servers: Endpoints::new(client.config(), source.server()),
        ..report
    })
}
