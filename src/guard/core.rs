//! What all clones of a guard share, and what a facade gives it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::inbox::Inbox;
use super::options::GuardOptions;
use super::stats::{GuardStats, Record};
use crate::client::Client;
use crate::database::workspace::Database;
use crate::error::Error;
use crate::near::cache::SpawnListener;

/// What a facade gives a guard: connections to the database.
pub(crate) trait GuardIo {
    type Database: Database;
    /// A connection that listens, until it is dropped.
    type Listening;

    /// A connection, each of whose answers comes within `limit` or is an error.
    async fn connect(&self, limit: Duration) -> Result<Self::Database, Error>;

    /// Another connection, which listens to this channel and tells the inbox what it hears.
    async fn listen(
        &self,
        channel: &str,
        limit: Duration,
        inbox: &Arc<Inbox>,
    ) -> Result<Self::Listening, Error>;
}

/// What all clones of a guard share.
pub(crate) struct Core<T> {
    pub(super) client: Arc<Client<T>>,
    pub(super) options: GuardOptions,
    pub(super) inbox: Arc<Inbox>,
    pub(super) record: Record,
    pub(super) runs: AtomicBool,
}

impl<T: SpawnListener> Core<T> {
    pub(crate) fn new(client: Arc<Client<T>>, options: GuardOptions) -> Result<Self, Error> {
        Ok(Self {
            client,
            options: options.checked()?,
            inbox: Arc::default(),
            record: Record::default(),
            runs: AtomicBool::new(false),
        })
    }

    pub(crate) fn stats(&self) -> GuardStats {
        self.record.stats(self.inbox.len())
    }

    pub(crate) fn stop(&self) {
        self.inbox.stop();
    }
}
