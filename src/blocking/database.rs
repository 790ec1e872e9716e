//! The synchronous Postgres client, as the core's [`Database`].
//!
//! The core runs in a single poll here, so the client may block. Its own bridge to async panics
//! inside an async task, which every method that takes it documents.

pub(super) use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Row, RowIter};

use crate::database::workspace::{Database, Rows, query_failed};
use crate::error::Error;

/// A borrowed client. The core's futures end within one poll, so the borrow need not cross threads.
pub(crate) struct BlockingDatabase<'c>(&'c mut Client);

/// Runs a call over `client`.
pub(super) async fn with<'c, F: Future>(
    client: &'c mut Client,
    call: impl FnOnce(BlockingDatabase<'c>) -> F,
) -> F::Output {
    call(BlockingDatabase(client)).await
}

impl Database for BlockingDatabase<'_> {
    type Rows<'a>
        = BlockingRows<'a>
    where
        Self: 'a;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<BlockingRows<'_>, Error> {
        // The typed form sends an unnamed statement, which PgBouncer's transaction mode bears.
        let parameters = paths.map(|paths| (paths, Type::TEXT_ARRAY));
        self.0
            .query_typed_raw(statement, parameters)
            .map(BlockingRows)
            .map_err(query_failed)
    }
}

pub(crate) struct BlockingRows<'a>(RowIter<'a>);

impl Rows for BlockingRows<'_> {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.next().map_err(query_failed)
    }
}

#[cfg(feature = "tls")]
pub(super) async fn connect<T>(
    config: &tokio_postgres::Config,
    limit: std::time::Duration,
    connector: T,
) -> Result<Client, Error>
where
    T: postgres::tls::MakeTlsConnect<postgres::Socket> + Send + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as postgres::tls::TlsConnect<postgres::Socket>>::Future: Send,
{
    use std::time::Instant;

    use crate::blocking::socket::within;
    use crate::database::workspace::{connect_failed, connect_timed_out};

    // The client's own time-out covers the TCP connection alone, so a thread does it: see `within`.
    let config = postgres::Config::from(config.clone());
    within(
        Instant::now() + limit,
        move || Ok(config.connect(connector)),
    )
    .map_err(|_| connect_timed_out())?
    .map_err(connect_failed)
}
