//! The asynchronous Postgres client.

use std::pin::{Pin, pin};

use futures_util::TryStreamExt as _;
use futures_util::future::{Either, select};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, RowStream};

use crate::database::workspace::{Database, Rows, query_failed};
use crate::error::Error;

/// Asks the client that [`with`] lends it. It borrows nothing: over a borrowed client, the
/// compiler could not tell that the futures of the core can cross threads
/// (<https://github.com/rust-lang/rust/issues/100013>).
pub(crate) struct AsyncDatabase {
    queries: mpsc::UnboundedSender<Query>,
}

struct Query {
    statement: String,
    paths: Option<Vec<String>>,
    answer: oneshot::Sender<Result<RowStream, tokio_postgres::Error>>,
}

const SERVED: &str = "queries are served for as long as the call runs";

/// Runs a call over `client`, in the caller's task.
pub(crate) async fn with<F: Future>(
    client: &Client,
    call: impl FnOnce(AsyncDatabase) -> F,
) -> F::Output {
    let (queries, mut queue) = mpsc::unbounded_channel();
    let serve = async {
        while let Some(query) = queue.recv().await {
            let Query {
                statement,
                paths,
                answer,
            } = query;
            let parameters = paths.iter().map(|paths| (paths, Type::TEXT_ARRAY));
            // If the call has given up, nobody waits for the answer.
            let _ = answer.send(client.query_typed_raw(&statement, parameters).await);
        }
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
        Ok(AsyncRows(Box::pin(rows.map_err(query_failed)?)))
    }
}

pub(crate) struct AsyncRows(Pin<Box<RowStream>>);

impl Rows for AsyncRows {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.try_next().await.map_err(query_failed)
    }
}

/// Connects to the Postgres at `url` over TLS, which is required whatever the URL says.
///
/// A task of the current runtime drives the connection until the client is dropped. Takes at
/// most 10 s altogether, or the URL's `connect_timeout`.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a URL that can't be parsed (the error does not contain it), or for
/// settings that can't be used; [`Error::Database`] if no trusted connection could be made.
#[cfg(feature = "tls")]
pub async fn connect_postgres(url: &str, tls: &crate::tls::Tls) -> Result<Client, Error> {
    let (config, limit) = crate::database::url::encrypted(url)?;
    connect(&config, limit, tls.postgres_connector()?).await
}

/// Connects to the Postgres at `url` as its `sslmode` says: over TLS where that is `require`,
/// `verify-ca` or `verify-full` (a certificate is always checked), and otherwise in plain text.
///
/// Takes at most `limit` altogether, or the URL's `connect_timeout` if that is shorter. The URL may
/// name a driver, as those of Python do: `postgresql+asyncpg://`. A peer that is gone is noticed
/// within a minute or so, unless the URL says otherwise.
///
/// # Errors
///
/// As [`connect_postgres`].
#[cfg(feature = "tls")]
pub async fn connect_postgres_by_sslmode(
    url: &str,
    tls: &crate::tls::Tls,
    limit: std::time::Duration,
) -> Result<Client, Error> {
    let (config, limit) = crate::database::url::by_sslmode(url, limit)?;
    if crate::database::url::wants_tls(&config) {
        connect(&config, limit, tls.postgres_connector()?).await
    } else {
        connect(&config, limit, tokio_postgres::NoTls).await
    }
}

#[cfg(feature = "tls")]
async fn connect<T>(
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
        // Whoever uses the client is told as well.
        if let Err(error) = connection.await {
            log::debug!("The connection to the database ended: {error}");
        }
    });
    Ok(client)
}
