//! A call from its first attempt to its answer: what is retried, and what a failure may claim.

use crate::commands::Command;
use crate::error::{Error, Outage};
use crate::transport::{Budget, Transport};

/// A read: tried again once, on a fresh connection, if the first one was lost or silent.
pub(crate) async fn read<T: Transport, C: Command>(
    transport: &T,
    command: &C,
) -> Result<C::Reply, Error> {
    let config = transport.config();
    let request = command.request(config);
    let budget = Budget::new(config, request.class);
    let replies = match transport.exchange(&request, budget).await {
        Err(error) if worth_a_retry(&error) && !budget.left().is_zero() => {
            transport.exchange(&request, budget).await
        }
        replies => replies,
    };
    command.decode(replies.map_err(Error::not_applied)?, config)
}

/// A write: never repeated blindly, because a late repeat could cover a newer one.
pub(crate) async fn write<T: Transport, C: Command>(
    transport: &T,
    command: &C,
) -> Result<C::Reply, Error> {
    let config = transport.config();
    let request = command.request(config);
    let budget = Budget::new(config, request.class);
    command.decode(transport.exchange(&request, budget).await?, config)
}

/// A connection that could not be made now can't be made in the next instant either.
fn worth_a_retry(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable {
            cause: Outage::TimedOut | Outage::Lost | Outage::Protocol,
            ..
        }
    )
}
