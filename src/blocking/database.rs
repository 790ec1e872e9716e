//! The synchronous Postgres client.

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Client, Row, RowIter};

use crate::database::workspace::{Database, Rows, query_failed};
use crate::error::Error;

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
pub fn connect_postgres(url: &str, tls: &crate::tls::Tls) -> Result<Client, Error> {
    let (config, limit) = crate::database::url::encrypted(url)?;
    connect(config, limit, tls.postgres_connector()?)
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
///
/// # Panics
///
/// The client panics inside an async task.
#[cfg(feature = "tls")]
pub fn connect_postgres_by_sslmode(
    url: &str,
    tls: &crate::tls::Tls,
    limit: std::time::Duration,
) -> Result<Client, Error> {
    let (config, limit) = crate::database::url::by_sslmode(url, limit)?;
    if crate::database::url::wants_tls(&config) {
        connect(config, limit, tls.postgres_connector()?)
    } else {
        connect(config, limit, postgres::NoTls)
    }
}

#[cfg(feature = "tls")]
fn connect<T>(
    config: tokio_postgres::Config,
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

    let config = postgres::Config::from(config);
    within(
        Instant::now() + limit,
        move || Ok(config.connect(connector)),
    )
    .map_err(|_| connect_timed_out())?
    .map_err(connect_failed)
}
