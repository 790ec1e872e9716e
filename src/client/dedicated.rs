//! A connection for one caller alone: for WATCH, and for work that must stay on one server.

use super::Client;
use super::call::{admit, counted};
use super::transport::{Budget, DedicatedConnection, Transport};
use crate::command::request::{Class, Command};
use crate::config::Config;
use crate::error::Error;

/// Sends a command over a dedicated connection.
pub(crate) async fn send<Conn: DedicatedConnection, C: Command>(
    connection: &mut Conn,
    command: &C,
    config: &Config,
) -> Result<C::Reply, Error> {
    begin(connection, command, config).await?;
    finish(connection, command, config).await
}

/// The first half of [`send`]: Redis works while the caller does something else.
pub(crate) async fn begin<Conn: DedicatedConnection, C: Command>(
    connection: &mut Conn,
    command: &C,
    config: &Config,
) -> Result<(), Error> {
    let request = command.request(config);
    let begun = connection
        .begin(request, Budget::new(config, Class::Bulk))
        .await;
    begun.map_err(|error| failed::<C>(error, config))
}

/// The second half of [`send`].
pub(crate) async fn finish<Conn: DedicatedConnection, C: Command>(
    connection: &mut Conn,
    command: &C,
    config: &Config,
) -> Result<C::Reply, Error> {
    let replies = connection.finish(Budget::new(config, Class::Bulk)).await;
    replies
        .and_then(|replies| command.decode(replies, config))
        .map_err(|error| failed::<C>(error, config))
}

/// Where all that goes over a dedicated connection ends, if it fails.
pub(crate) fn failed<C: Command>(error: Error, config: &Config) -> Error {
    let error = error.of_redis(&config.redis_address());
    if C::WRITES {
        error
    } else {
        error.not_applied()
    }
}

/// A connection for one caller alone, which is no call by itself.
pub(crate) async fn open<T: Transport>(client: &Client<T>) -> Result<T::Dedicated, Error> {
    let result = async {
        let admitted = admit(client)?;
        let budget = Budget::new(client.config(), Class::Bulk);
        let result = client.transport.dedicated(budget).await;
        // To connect takes no longer than for a lookup.
        admitted.ended(Class::Lookup, &result);
        result
    };
    counted(client, result.await.map_err(Error::not_applied))
}
