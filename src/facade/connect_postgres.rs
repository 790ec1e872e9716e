//! Connecting to Postgres over TLS, in both facades.
//!
//! `sslmode=prefer`, the default of Postgres clients, falls back to plain text without a word, so
//! one of these functions requires encryption, and the other has to be asked by `sslmode`.

use std::time::Duration;

use super::database::{Client, connect};
use crate::database::url::{by_sslmode, encrypted, postgres_address, wants_tls};
use crate::error::Error;
use crate::tls::Tls;

facade! {
    /// Connects to the Postgres at `url` over TLS, which is required whatever the URL says: a
    /// service's choice. The client is what `warm_from_db`, `refresh` and `diagnose` take.
    ///
    /// Takes at most 10 s altogether, or the URL's `connect_timeout`. In `nonblocking`, a task of
    /// the current runtime drives the connection until the client is dropped.
    ///
    #[doc = example!("connect_postgres")]
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a URL that can't be parsed (the error does not contain it), or
    /// for settings that can't be used; [`Error::Database`] if no trusted connection could be made.
    ///
    #[doc = panics_in_a_task!()]
    pub async fn connect_postgres(url: &str, tls: &Tls) -> Result<Client, Error> {
        async {
            let (config, limit) = encrypted(url)?;
            let connected = connect(&config, limit, tls.postgres_connector()?).await;
            let address = postgres_address(url)?;
            connected.map_err(|error| error.of_database(&address))
        }
    }

    /// Connects to the Postgres at `url` as its `sslmode` says: over TLS where that is `require`,
    /// `verify-ca` or `verify-full` (a certificate is always checked), and otherwise in plain text.
    ///
    /// Takes at most `limit` altogether, or the URL's `connect_timeout` if that is shorter. The URL
    /// may name a driver, as those of Python do: `postgresql+asyncpg://`. A peer that is gone is
    /// noticed within a minute or so, unless the URL says otherwise.
    ///
    /// # Errors
    ///
    /// As [`connect_postgres`].
    ///
    #[doc = panics_in_a_task!()]
    pub async fn connect_postgres_by_sslmode(
        url: &str,
        tls: &Tls,
        limit: Duration,
    ) -> Result<Client, Error> {
        async {
            let (config, limit) = by_sslmode(url, limit)?;
            let connected = if wants_tls(&config) {
                connect(&config, limit, tls.postgres_connector()?).await
            } else {
                connect(&config, limit, tokio_postgres::NoTls).await
            };
            let address = postgres_address(url)?;
            connected.map_err(|error| error.of_database(&address))
        }
    }
}
