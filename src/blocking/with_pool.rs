//! Readers and writers on an r2d2 pool of the caller's: only a synchronous facade has one.

use std::sync::Arc;

use super::connections::Connections;
use super::facade::{ModuleReader, ModuleWriter};
use super::pool::ConnectionManager;
use crate::client::Client;
use crate::config::Config;
use crate::error::Error;

impl ModuleReader {
    /// A reader on an r2d2 pool of the caller's, for a service that brings sizes, lifetimes or an
    /// event handler: `builder` begins as `r2d2::Pool::builder()`.
    ///
    /// For processes that do not fork: the pool's threads wait in a process-wide table, whose
    /// entries a child inherits and may walk for ever. The pool of [`new`](Self::new) avoids that.
    ///
    /// The builder's `max_size` takes the place of [`Config::with_pool_size`]. Not used are its
    /// `connection_timeout` (see [`Config::with_pool_timeout`]) and `test_on_check_out` (an idle
    /// connection is looked at before it is used). What r2d2 makes ahead of time, by `min_idle`,
    /// are [slots](super::Slot): a connection is made by a slot's first borrower.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bifrost_module_cache::blocking::ModuleReader;
    /// use bifrost_module_cache::{Config, r2d2};
    ///
    /// let pool = r2d2::Pool::builder()
    ///     .max_size(16)
    ///     .max_lifetime(Some(Duration::from_secs(600)));
    /// let reader = ModuleReader::with_pool(Config::from_env()?, pool)?;
    /// # drop(reader);
    /// # Ok::<(), bifrost_module_cache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// As r2d2, if `min_idle` is larger than `max_size`, or if no thread can be started.
    pub fn with_pool(
        config: Config,
        builder: r2d2::Builder<ConnectionManager>,
    ) -> Result<Self, Error> {
        let connections = Connections::with_pool(config.checked()?, builder);
        let config = Arc::clone(&connections.config);
        Ok(Self {
            client: Arc::new(Client::new(config, connections)),
        })
    }
}

impl ModuleWriter {
    /// A writer on an r2d2 pool of the caller's, as [`ModuleReader::with_pool`].
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// As [`ModuleReader::with_pool`].
    pub fn with_pool(
        config: Config,
        builder: r2d2::Builder<ConnectionManager>,
    ) -> Result<Self, Error> {
        Ok(Self {
            reader: ModuleReader::with_pool(config, builder)?,
        })
    }
}
