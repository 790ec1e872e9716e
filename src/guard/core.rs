//! What all clones of a guard share, and its run from the beginning to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use super::inbox::Inbox;
use super::options::GuardOptions;
use super::patrol::Patrol;
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
    runs: AtomicBool,
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

    /// Guards until it is stopped.
    pub(crate) async fn run<Io: GuardIo>(&self, io: &Io) -> Result<(), Error> {
        if self.runs.swap(true, SeqCst) {
            return Err(Error::invalid_config(
                "this guard runs already: make another one",
            ));
        }
        // Dropped with the future that was given up, too.
        let _runs = Running(self);
        self.record.begin();
        let mut patrol = Patrol::start(self, io)?;
        while !self.inbox.is_stopped() {
            self.record.lock().active = Some(SystemTime::now());
            if let Err(error) = patrol.step().await {
                patrol.failed(error)?;
            }
            let sleep = patrol.sleep();
            let news = self.inbox.news();
            self.client.transport.within(sleep, news).await;
        }
        patrol.farewell().await;
        Ok(())
    }
}

/// A guard that runs, until this is dropped.
struct Running<'a, T>(&'a Core<T>);

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        let mut record = self.0.record.lock();
        (record.running, record.since) = (false, None);
        (record.redis_up, record.database_up) = (false, false);
        drop(record);
        self.0.inbox.clear();
        self.0.runs.store(false, SeqCst);
    }
}
