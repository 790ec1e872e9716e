//! Brings paths to what their source says now: what a service calls after its commit.

use super::reconcile::settle;
use super::report::{Endpoints, RefreshReport};
use super::source::Source;
use crate::client::dedicated;
use crate::client::transport::Transport;
use crate::error::Error;
use crate::keys::validate_path;

/// The specification's `refresh`: these paths, each as the source has it after this call began.
pub(crate) async fn refresh<T: Transport, S: Source>(
    transport: &T,
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
    let _tied = transport.ties().writing(|| unique.clone());
    let mut link = dedicated::open(transport).await?;
    let report = settle(transport, &mut link, source, unique, &mut |_| {}).await?;
    Ok(RefreshReport {
        servers: Endpoints::new(transport.config(), source.server()),
        ..report
    })
}
