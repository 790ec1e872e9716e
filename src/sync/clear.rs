//! Removes everything.

use super::report::{ClearReport, Endpoints};
use super::scan::cached_paths;
use crate::client::batch::BATCH_MODULES;
use crate::client::transport::Transport;
use crate::client::write::remove;
use crate::client::{call, dedicated};
use crate::command::index::Unlist;
use crate::command::mark::Unmark;
use crate::command::request::Class;
use crate::error::Error;

/// Takes every path that is found out of the index, so that a module which another writer adds
/// meanwhile keeps its place: an index without members is no key.
pub(crate) async fn clear<T: Transport>(transport: &T) -> Result<ClearReport, Error> {
    let _tied = transport.ties().writing_everything();
    // First: a cache that is half cleared is not complete. And last: nor is one that a warm-up
    // found complete before.
    let unmark = Unmark { generation: true };
    call::write(transport, &unmark).await?;
    let mut link = dedicated::open(transport).await?;
    let found = cached_paths(&mut link, transport.config()).await?;
    let paths: Vec<String> = found.paths.into_iter().collect();
    let mut removed = 0;
    for batch in paths.chunks(BATCH_MODULES) {
        removed += remove(transport, batch, Class::Bulk).await?;
    }
    for members in found.bad.chunks(BATCH_MODULES) {
        call::write(transport, &Unlist { members }).await?;
    }
    call::write(transport, &unmark).await?;
    Ok(ClearReport {
        removed,
        scanned: found.scanned,
        servers: Endpoints::new(transport.config(), None),
    })
}
