//! Waits until every transaction that is open now has ended.
//!
//! A foreign writer may send SET before it commits. Until then the committed row is the old one,
//! and no comparison can tell. After the barrier it has committed or rolled back.

use std::time::{Duration, Instant};

use super::workspace::{Database, Workspace};
use crate::client::Client;
use crate::client::transport::Transport;
use crate::error::Error;

/// The longest wait, even if the caller asks for more: a barrier without end would be a hang.
pub(crate) const LONGEST_BARRIER: Duration = Duration::from_secs(24 * 3_600);

/// Waits until every transaction that has an id by now has ended; `false` if one did not in time.
pub(crate) async fn barrier<T: Transport, D: Database>(
    client: &Client<T>,
    workspace: &mut Workspace<D>,
    timeout: Duration,
) -> Result<bool, Error> {
    let deadline = Instant::now() + timeout.min(LONGEST_BARRIER);
    let current = workspace.current_transaction().await?;
    let mut pause = Duration::from_millis(2);
    loop {
        // The lowest id that is still open, not `pg_snapshot_xmax`: that is one above the latest
        // *completed* transaction, so the wait would end at once.
        if workspace.oldest_open_transaction().await? > current {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        client.transport.pause(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
