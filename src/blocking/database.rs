//! The synchronous Postgres client.

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Client, Row, RowIter};

use crate::Error;
use crate::workspace::{Database, Rows, query_failed};

pub(crate) struct BlockingDatabase<'c>(pub(crate) &'c mut Client);

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

/// Connects to the Postgres at `url` over TLS, which is required whatever the URL says.
///
/// Takes at most 10 s altogether, or the URL's `connect_timeout`.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a URL that can't be parsed (the error does not contain it), or for
/// settings that can't be used; [`Error::Database`] if no trusted connection could be made.
///
/// # Panics
///
/// The client panics inside an async task.
#[cfg(feature = "tls")]
pub fn connect_postgres(url: &str, tls: &crate::Tls) -> Result<Client, Error> {
    use std::time::Instant;

    use super::socket::within;
    use crate::workspace::{connect_failed, connect_timed_out, encrypted};

    let (config, limit) = encrypted(url)?;
    let (config, connector) = (postgres::Config::from(config), tls.postgres_connector()?);
    within(
        Instant::now() + limit,
        move || Ok(config.connect(connector)),
    )
    .map_err(|_| connect_timed_out())?
    .map_err(connect_failed)
}
