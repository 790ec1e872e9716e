//! `Guard::run`: a function that returns a client here, and one that returns a client and its
//! connection in `nonblocking`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator as _;

use super::facade::Guard;
#[cfg(feature = "tls")]
use super::facade::connect_postgres;
use super::guard_database::{Connect, ThreadDatabase, failed_to_start};
use super::run;
use crate::database::workspace::{connect_timed_out, not_connected, query_failed};
use crate::error::Error;
use crate::guard::core::GuardIo;
use crate::guard::inbox::Inbox;
use crate::guard::listening::notified;
use crate::guard::run::run as guard;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How long the thread that listens waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

impl Guard {
    #[doc = include_str!("../facade/guard_run.md")]
    ///
    /// The clients live in threads of their own, so that one which gets no answer holds nothing up,
    /// and it may run inside an async task, whose thread it blocks.
    ///
    /// # Errors
    ///
    /// What waiting does not mend, such as a wrong password or a table that is not there, until it
    /// has guarded for the first time; nothing afterwards. [`Error::InvalidConfig`] where it runs
    /// already.
    pub fn run<E>(
        &self,
        connect: impl Fn() -> Result<Client, E> + Send + Sync + 'static,
    ) -> Result<(), Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connect: Connect = Arc::new(move || connect().map_err(not_connected));
        run(guard(&self.core, &ThreadIo { connect }))
    }

    #[doc = include_str!("../facade/guard_run_encrypted.md")]
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    #[cfg(feature = "tls")]
    pub fn run_encrypted(&self, url: &str, tls: &Tls) -> Result<(), Error> {
        let (url, tls) = (url.to_owned(), tls.clone());
        self.run(move || connect_postgres(&url, &tls))
    }
}

struct ThreadIo {
    connect: Connect,
}

impl GuardIo for ThreadIo {
    type Database = ThreadDatabase;
    type Listening = ListeningThread;

    async fn connect(&self, limit: Duration) -> Result<ThreadDatabase, Error> {
        ThreadDatabase::connect(&self.connect, limit)
    }

    async fn listen(
        &self,
        channel: &str,
        limit: Duration,
        inbox: &Arc<Inbox>,
    ) -> Result<ListeningThread, Error> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (sender, started) = mpsc::sync_channel(1);
        let statement = format!("LISTEN {channel:?}");
        let (connect, inbox) = (Arc::clone(&self.connect), Arc::clone(inbox));
        let their_end = Arc::clone(&is_over);
        let work = move || {
            let begin = || {
                let mut client = connect()?;
                client.batch_execute(&statement).map_err(query_failed)?;
                Ok(client)
            };
            match begin() {
                Ok(client) => {
                    // Without a receiver: it came too late.
                    if sender.send(Ok(())).is_ok() {
                        hear(client, &their_end, &inbox);
                    }
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        };
        thread::Builder::new()
            .name("bifrost-guard-listen".to_owned())
            .spawn(work)
            .map_err(failed_to_start)?;
        let handle = ListeningThread { is_over };
        let started = started.recv_timeout(limit);
        started.map_err(|_| connect_timed_out())?.map(|()| handle)
    }
}

/// The thread ends when this is dropped, some time later: nobody waits for it.
struct ListeningThread {
    is_over: Arc<AtomicBool>,
}

impl Drop for ListeningThread {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
    }
}

fn hear(mut client: Client, is_over: &AtomicBool, inbox: &Inbox) {
    while !is_over.load(SeqCst) {
        let begin = Instant::now();
        let next = client.notifications().timeout_iter(LOOK).next();
        match next {
            Ok(Some(notification)) => notified(inbox, notification.payload()),
            // An end before the time is the end of the connection.
            Ok(None) if !client.is_closed() && begin.elapsed() >= LOOK / 2 => {}
            _ => break,
        }
    }
    if !is_over.load(SeqCst) {
        inbox.deaf();
    }
}
