//! Removes everything.

use crate::client::batch::BATCH_MODULES;
use crate::client::call;
use crate::client::transport::Transport;
use crate::client::write::remove;
use crate::command::index::{Members, Unlist};
use crate::command::mark::Unmark;
use crate::command::request::Class;
use crate::error::Error;

/// Goes by the index and takes every member out of it, so that a module which somebody adds
/// meanwhile keeps its place: an index without members is no key.
pub(crate) async fn clear<T: Transport>(transport: &T) -> Result<u64, Error> {
    let _tied = transport.ties().writing_everything();
    // First: a cache that is half cleared is not complete. And last: nor is one that somebody
    // found complete before.
    let unmark = Unmark { generation: true };
    call::write(transport, &unmark).await?;
    let index = call::read(transport, &Members).await?;
    let paths: Vec<String> = index.paths.into_iter().collect();
    let mut cleared = 0;
    for batch in paths.chunks(BATCH_MODULES) {
        cleared += remove(transport, batch, Class::Bulk).await?;
    }
    for members in index.bad.chunks(BATCH_MODULES) {
        call::write(transport, &Unlist { members }).await?;
    }
    call::write(transport, &unmark).await?;
    Ok(cleared)
}
