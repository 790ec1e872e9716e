//! A connection for one caller alone: for WATCH, and for work that must stay on one server.
//!
//! WATCH belongs to a connection. On a shared one, a WATCH that was left behind silently voids the
//! next caller's transaction.

use super::Client;
use super::call::{admit, counted};
use super::ending::Ending;
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
    let ending = begin(connection, command, config).await?;
    finish(connection, command, ending, config).await
}

/// The first half of [`send`]: Redis works while the caller does something else. What is returned
/// belongs to [`finish`].
pub(crate) async fn begin<'a, Conn: DedicatedConnection, C: Command>(
    connection: &mut Conn,
    command: &C,
    config: &'a Config,
) -> Result<Ending<'a>, Error> {
    let mut ending = Ending::of(command, config);
    let request = command.request(config);
    ending.sending(&request);
    let begun = connection
        .begin(request, Budget::new(config, Class::Bulk))
        .await;
    match begun.map_err(|error| failed::<C>(error, config)) {
        Ok(()) => Ok(ending),
        Err(error) => {
            ending.with::<C>(Err(&error));
            Err(error)
        }
    }
}

/// The second half of [`send`].
pub(crate) async fn finish<Conn: DedicatedConnection, C: Command>(
    connection: &mut Conn,
    command: &C,
    mut ending: Ending<'_>,
    config: &Config,
) -> Result<C::Reply, Error> {
    let replies = connection.finish(Budget::new(config, Class::Bulk)).await;
    let result = replies
        .inspect(|replies| ending.received(replies))
        .and_then(|replies| command.decode(replies, config))
        .map_err(|error| failed::<C>(error, config));
    ending.with::<C>(result.as_ref());
    result
}

/// Completes an error of a dedicated connection: which server it is about, and whether the command
/// may have been applied, which only a write can be.
pub(crate) fn failed<C: Command>(error: Error, config: &Config) -> Error {
    let error = error.of_redis(&config.redis_address());
    if C::WRITES {
        error
    } else {
        error.not_applied()
    }
}

/// Opens a connection for one caller alone. The breaker is asked, because connecting to a dead
/// server takes as long as a call; the counter of calls is not, because the work itself reports.
pub(crate) async fn open<T: Transport>(client: &Client<T>) -> Result<T::Dedicated, Error> {
    let result = async {
        let admitted = admit(client)?;
        let budget = Budget::new(client.config(), Class::Bulk);
        let result = client.transport.dedicated(budget).await;
        // Told as a lookup: connecting takes no longer for bulk work, so a time-out counts.
        admitted.ended(Class::Lookup, &result);
        result
    };
    counted(client, result.await.map_err(Error::not_applied))
}
