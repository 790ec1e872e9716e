//! The asynchronous Postgres client, as the core's [`Database`].

use std::pin::{Pin, pin};

use futures_util::TryStreamExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{mpsc, oneshot};
pub(super) use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, RowStream};

use crate::database::workspace::{Database, Rows, query_failed};
use crate::error::Error;

/// Asks the client that [`with`] lends it. It borrows nothing: over a borrowed client, the
/// compiler could not tell that the futures of the core can cross threads
/// (<https://github.com/rust-lang/rust/issues/100013>).
pub(crate) struct AsyncDatabase {
    queries: mpsc::UnboundedSender<Query>,
}

/// A statement on its way from the core to the client, in the same task.
struct Query {
    statement: String,
    paths: Option<Vec<String>>,
    answer: oneshot::Sender<Result<RowStream, tokio_postgres::Error>>,
}

const SERVED: &str = "queries are served for as long as the call runs";

/// Runs a call over `client`, in the caller's task.
pub(super) async fn with<F: Future>(
    client: &Client,
    call: impl FnOnce(AsyncDatabase) -> F,
) -> F::Output {
    let (queries, mut queue) = mpsc::unbounded_channel();
    // Runs only while the call waits for it: both are polled by the caller's own task.
    let serve = async {
        while let Some(query) = queue.recv().await {
            let Query {
                statement,
                paths,
                answer,
            } = query;
            let parameters = paths.iter().map(|paths| (paths, Type::TEXT_ARRAY));
            // Without a receiver: the call was dropped while it waited.
            let _ = answer.send(client.query_typed_raw(&statement, parameters).await);
        }
        // The core has dropped its sender and goes on without the database: only `call` may end
        // this.
        std::future::pending().await
    };
    let call = call(AsyncDatabase { queries });
    match select(pin!(call), pin!(serve)).await {
        Either::Left((output, _)) | Either::Right((output, _)) => output,
    }
}

impl Database for AsyncDatabase {
    type Rows<'a> = AsyncRows;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<AsyncRows, Error> {
        let (answer, answered) = oneshot::channel();
        let query = Query {
            statement: statement.to_owned(),
            paths: paths.map(<[String]>::to_vec),
            answer,
        };
        self.queries.send(query).expect(SERVED);
        let rows = answered.await.expect(SERVED);
        Ok(AsyncRows::new(rows.map_err(query_failed)?))
    }
}

pub(crate) struct AsyncRows(Pin<Box<RowStream>>);

impl AsyncRows {
    pub(super) fn new(rows: RowStream) -> Self {
        Self(Box::pin(rows))
    }
}

impl Rows for AsyncRows {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.try_next().await.map_err(query_failed)
    }
}

#[cfg(feature = "tls")]
pub(super) async fn connect<T>(
    config: &tokio_postgres::Config,
    limit: std::time::Duration,
    connector: T,
) -> Result<Client, Error>
where
    T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>,
    T::Stream: Send + 'static,
{
    use crate::database::workspace::{connect_failed, connect_timed_out};

    let (client, connection) = tokio::time::timeout(limit, config.connect(connector))
        .await
        .map_err(|_| connect_timed_out())?
        .map_err(connect_failed)?;
    tokio::spawn(async move {
        // A caller that queries over the client is told by its query, so this is for a log only.
        if let Err(error) = connection.await {
            log::debug!("The connection to the database ended: {error}");
        }
    });
    Ok(client)
}
