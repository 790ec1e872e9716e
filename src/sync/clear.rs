//! Removes every module, and the claim that the cache is complete.

use super::endpoints::Endpoints;
use super::report::ClearReport;
use super::scan::cached_paths;
use crate::client::Client;
use crate::client::batch::BATCH_MODULES;
use crate::client::transport::Transport;
use crate::client::write::remove;
use crate::client::{call, dedicated};
use crate::command::index::Unlist;
use crate::command::mark::Unmark;
use crate::command::request::Class;
use crate::error::Error;

/// Removes path by path, never the index key as a whole: a module that another writer adds
/// meanwhile must stay in the index. Redis deletes a set that has become empty by itself.
pub(crate) async fn clear<T: Transport>(client: &Client<T>) -> Result<ClearReport, Error> {
    let _observed = client.observers.writing_everything();
    // The mark goes first, because a half-cleared cache is not complete, even if this call dies
    // here. It goes once more at the end, because a warm-up may have written it meanwhile.
    let unmark = Unmark { generation: true };
    call::write(client, &unmark).await?;
    let mut connection = dedicated::open(client).await?;
    let found = cached_paths(&mut connection, true, client.config()).await?;
    let paths: Vec<String> = found.paths.into_iter().collect();
    let mut removed = 0;
    for batch in paths.chunks(BATCH_MODULES) {
        removed += remove(client, batch, Class::Bulk).await?;
    }
    for members in found.bad.chunks(BATCH_MODULES) {
        call::write(client, &Unlist { members }).await?;
    }
    call::write(client, &unmark).await?;
    Ok(ClearReport {
        removed,
        scanned: found.scanned,
        servers: Endpoints::new(client.config(), None),
    })
}
