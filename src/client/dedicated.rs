//! A connection for one caller alone: for WATCH, and for work that must stay on one server.

use super::call::{admit, counted};
use super::transport::{Budget, Link, Transport};
use crate::command::request::{Class, Command};
use crate::config::Config;
use crate::error::Error;

/// Sends a command over a dedicated link.
pub(crate) async fn send<L: Link, C: Command>(
    link: &mut L,
    command: &C,
    config: &Config,
) -> Result<C::Reply, Error> {
    begin(link, command, config).await?;
    finish(link, command, config).await
}

/// The first half of [`send`]: Redis works while the caller does something else.
pub(crate) async fn begin<L: Link, C: Command>(
    link: &mut L,
    command: &C,
    config: &Config,
) -> Result<(), Error> {
    let request = command.request(config);
    let begun = link.begin(request, Budget::new(config, Class::Bulk)).await;
    begun.map_err(|error| failed::<C>(error, config))
}

/// The second half of [`send`].
pub(crate) async fn finish<L: Link, C: Command>(
    link: &mut L,
    command: &C,
    config: &Config,
) -> Result<C::Reply, Error> {
    let replies = link.finish(Budget::new(config, Class::Bulk)).await;
    replies
        .and_then(|replies| command.decode(replies, config))
        .map_err(|error| failed::<C>(error, config))
}

/// Where all that goes over a dedicated link ends, if it fails.
pub(crate) fn failed<C: Command>(error: Error, config: &Config) -> Error {
    let error = error.of_redis(&config.redis_address());
    if C::WRITES {
        error
    } else {
        error.not_applied()
    }
}

/// A connection for one caller alone, which is no call by itself.
pub(crate) async fn open<T: Transport>(transport: &T) -> Result<T::Link, Error> {
    let result = async {
        let admitted = admit(transport)?;
        let budget = Budget::new(transport.config(), Class::Bulk);
        let result = transport.dedicated(budget).await;
        // To connect takes no longer than for a lookup.
        admitted.ended(Class::Lookup, &result);
        result
    };
    counted(transport, result.await.map_err(Error::not_applied))
}
