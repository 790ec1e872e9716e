//! Waits until every transaction of now has ended.

use std::time::{Duration, Instant};

use super::workspace::{Database, Workspace};
use crate::client::Client;
use crate::client::transport::Transport;
use crate::error::Error;

/// A barrier without end would be a hang.
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
