//! `Guard::run`: a function that returns a client and its connection here, and one that returns a
//! client in `blocking`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Connection};

use super::connection::Task;
use super::facade::Guard;
use super::guard_database::LimitedDatabase;
#[cfg(feature = "tls")]
use crate::database::url::{encrypted, postgres_address};
#[cfg(feature = "tls")]
use crate::database::workspace::connect_failed;
use crate::database::workspace::{connect_timed_out, not_connected, query_failed, silent};
use crate::error::Error;
use crate::guard::core::GuardIo;
use crate::guard::inbox::Inbox;
use crate::guard::listening::notified;
use crate::guard::run::run;
#[cfg(feature = "tls")]
use crate::tls::Tls;

impl Guard {
    #[doc = include_str!("../facade/guard_run.md")]
    ///
    /// `connect` returns what [`tokio_postgres::connect`] and [`tokio_postgres::Config::connect`]
    /// return; the guard drives the connection itself.
    ///
    /// # Errors
    ///
    /// What waiting does not mend, such as a wrong password or a table that is not there, until it
    /// has guarded for the first time; nothing afterwards. [`Error::InvalidConfig`] where it runs
    /// already.
    pub async fn run<Answer, S, T, E>(&self, connect: impl Fn() -> Answer) -> Result<(), Error>
    where
        Answer: Future<Output = Result<(Client, Connection<S, T>), E>>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connect = || {
            let connected = connect();
            async { connected.await.map_err(not_connected) }
        };
        // On the heap: some 20 KB are too much for the caller's own future.
        Box::pin(run(&self.core, &TaskIo { connect })).await
    }

    #[doc = include_str!("../facade/guard_run_encrypted.md")]
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    #[cfg(feature = "tls")]
    pub async fn run_encrypted(&self, url: &str, tls: &Tls) -> Result<(), Error> {
        let (config, limit) = encrypted(url)?;
        let (connector, address) = (tls.postgres_connector()?, postgres_address(url)?);
        let connect = || {
            let connected = timeout(limit, config.connect(connector.clone()));
            async {
                let connected = connected.await.map_err(|_| connect_timed_out());
                let connected = connected.and_then(|connected| connected.map_err(connect_failed));
                connected.map_err(|error| error.of_database(&address))
            }
        };
        self.run(connect).await
    }
}

struct TaskIo<C> {
    connect: C,
}

impl<C> TaskIo<C> {
    /// A client, and the task that drives it and tells the inbox, if there is one, what it hears.
    async fn open<Answer, S, T>(
        &self,
        limit: Duration,
        inbox: Option<Arc<Inbox>>,
    ) -> Result<(Client, Task<()>), Error>
    where
        C: Fn() -> Answer,
        Answer: Future<Output = Result<(Client, Connection<S, T>), Error>>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connected = timeout(limit, (self.connect)()).await;
        let (client, connection) = connected.map_err(|_| connect_timed_out())??;
        let driver = tokio::spawn(drive(connection, inbox));
        Ok((client, Task(driver)))
    }
}

async fn drive<S, T>(connection: Connection<S, T>, inbox: Option<Arc<Inbox>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    loop {
        match poll_fn(|context| connection.as_mut().poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(inbox) = &inbox {
                    notified(inbox, notification.payload());
                }
            }
            Some(Ok(_)) => {}
            // Whoever queries over the client is told by the query.
            Some(Err(_)) | None => break,
        }
    }
    if let Some(inbox) = inbox {
        inbox.deaf();
    }
}

impl<C, Answer, S, T> GuardIo for TaskIo<C>
where
    C: Fn() -> Answer,
    Answer: Future<Output = Result<(Client, Connection<S, T>), Error>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Database = LimitedDatabase;
    type Listening = (Client, Task<()>);

    async fn connect(&self, limit: Duration) -> Result<LimitedDatabase, Error> {
        let (client, driver) = self.open(limit, None).await?;
        Ok(LimitedDatabase::new(client, driver, limit))
    }

    async fn listen(
        &self,
        channel: &str,
        limit: Duration,
        inbox: &Arc<Inbox>,
    ) -> Result<(Client, Task<()>), Error> {
        let (client, driver) = self.open(limit, Some(Arc::clone(inbox))).await?;
        let statement = format!("LISTEN {channel:?}");
        let listens = timeout(limit, client.batch_execute(&statement)).await;
        let listens = listens.map_err(|_| silent("the database did not answer in time"))?;
        listens.map_err(query_failed)?;
        Ok((client, driver))
    }
}
