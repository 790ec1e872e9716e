//! A call from its first attempt to its answer: what is let through, what is retried, what is
//! counted, and what a failure may claim.

use std::time::{Duration, Instant};

use super::Client;
use super::breaker::{Breaker, Pass};
use super::ending::Ending;
use super::transport::{Answer, Budget, Transport};
use crate::command::migrating::was_refused_meanwhile;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::command::server_id::ServerId;
use crate::error::{Error, Outage};
use crate::random::random;

/// A read: tried again once, on a fresh connection, if the first one was lost or silent. After a
/// restart of Redis every idle connection is dead, and no caller should notice.
pub(crate) async fn read<T: Transport, C: Command>(
    client: &Client<T>,
    command: &C,
) -> Result<C::Reply, Error> {
    let answer = attempt(client, command, None).await;
    answer.map(|(reply, _)| reply)
}

/// The same as a part of a larger call, whose budget it shares; and which server answered.
pub(crate) async fn read_within<T: Transport, C: Command>(
    client: &Client<T>,
    command: &C,
    budget: Budget,
) -> Result<(C::Reply, Option<ServerId>), Error> {
    attempt(client, command, Some(budget)).await
}

/// A read, with a budget of its own or that of the larger call.
async fn attempt<T: Transport, C: Command>(
    client: &Client<T>,
    command: &C,
    budget: Option<Budget>,
) -> Result<(C::Reply, Option<ServerId>), Error> {
    let mut ending = Ending::of(command, client.config());
    let answer = guarded(client, command, budget, async |request, budget| {
        ending.sending(request);
        match client.transport.exchange(request, budget).await {
            // `exchange` takes a fresh connection after a failure, see `Transport::exchange`.
            Err(error) if worth_a_retry(&error) && !budget.left().is_zero() => {
                again(client, request, budget, &mut ending).await
            }
            Ok(answer) if answer.replies.iter().any(reply::leads_elsewhere) => {
                sent_elsewhere(client, answer, request, budget, &mut ending).await
            }
            answer => answer,
        }
    });
    let result = counted(
        client,
        answer.await.map_err(Error::not_applied).and_then(|answer| {
            ending.received(&answer.replies);
            let reply = command.decode(answer.replies, client.config())?;
            Ok((reply, answer.server))
        }),
    );
    ending.with::<C>(result.as_ref().map(|(reply, _)| reply));
    result
}

/// A write: never repeated blindly. The first attempt may have been applied though its answer was
/// lost, and a late repeat could cover a newer write of another service. Only what a server refused
/// as a whole, because another one holds the keys now, is sent once more.
pub(crate) async fn write<T: Transport, C: Command>(
    client: &Client<T>,
    command: &C,
) -> Result<C::Reply, Error> {
    let mut ending = Ending::of(command, client.config());
    let answer = guarded(client, command, None, async |request, budget| {
        ending.sending(request);
        let answer = client.transport.exchange(request, budget.once()).await?;
        if reply::was_sent_elsewhere(&answer.replies) {
            return sent_elsewhere(client, answer, request, budget.once(), &mut ending).await;
        }
        on_its_way(client, answer, request, budget.once(), &mut ending).await
    });
    let result = counted(
        client,
        answer.await.and_then(|answer| {
            ending.received(&answer.replies);
            command.decode(answer.replies, client.config())
        }),
    );
    ending.with::<C>(result.as_ref());
    result
}

/// Sends a request once more, to where the address leads now, if there is time for it.
async fn sent_elsewhere<T: Transport>(
    client: &Client<T>,
    answer: Answer,
    request: &Request,
    budget: Budget,
    ending: &mut Ending<'_>,
) -> Result<Answer, Error> {
    if budget.left().is_zero() {
        return Ok(answer);
    }
    again(client, request, budget, ending).await
}

/// Sends a request once more, and counts that.
async fn again<T: Transport>(
    client: &Client<T>,
    request: &Request,
    budget: Budget,
    ending: &mut Ending<'_>,
) -> Result<Answer, Error> {
    client.monitor.retries.add(1);
    ending.sending_again();
    client.transport.exchange(request, budget).await
}

/// Sends a write again while it is refused as a whole because its keys are on their way to another
/// node of a cluster, as long as there is time: a small workspace arrives in milliseconds.
async fn on_its_way<T: Transport>(
    client: &Client<T>,
    mut answer: Answer,
    request: &Request,
    budget: Budget,
    ending: &mut Ending<'_>,
) -> Result<Answer, Error> {
    while was_refused_meanwhile(&answer.replies) && budget.left() > 2 * ARRIVAL {
        client.transport.pause(ARRIVAL).await;
        answer = again(client, request, budget, ending).await?;
        if reply::was_sent_elsewhere(&answer.replies) {
            // They have arrived.
            return sent_elsewhere(client, answer, request, budget, ending).await;
        }
    }
    Ok(answer)
}

/// How long to wait for keys that are on their way.
const ARRIVAL: Duration = Duration::from_millis(20);

/// Makes a call if the breaker lets it through, and tells the breaker how it went.
async fn guarded<T: Transport, C: Command>(
    client: &Client<T>,
    command: &C,
    budget: Option<Budget>,
    exchange: impl AsyncFnOnce(&Request, Budget) -> Result<Answer, Error>,
) -> Result<Answer, Error> {
    let config = client.config();
    client.monitor.calls.add(1);
    let admitted = admit(client)?;
    let request = command.request(config);
    let budget = budget.unwrap_or_else(|| Budget::new(config, request.class));
    let result = exchange(&request, budget).await;
    admitted.ended(request.class, &result);
    result
}

/// Asks the breaker. A rejected call fails at once, without connecting, and counts as `rejected`.
pub(super) fn admit<T: Transport>(client: &Client<T>) -> Result<Admitted<'_>, Error> {
    let (config, monitor) = (client.config(), &client.monitor);
    let breaker = &monitor.breaker;
    // What failed before says nothing about another server.
    if monitor.has_moved(config.known.moves()) {
        breaker.answered();
    }
    let Some(pass) = breaker.admit(Instant::now(), config.lookup_deadline) else {
        monitor.rejected.add(1);
        return Err(reply::outage(Outage::Rejected, None));
    };
    Ok(Admitted {
        breaker,
        pass: Some(pass),
    })
}

/// A call that the breaker let through. It tells the breaker how the call went, or, where the
/// caller drops its future, that nothing was learnt.
pub(super) struct Admitted<'a> {
    breaker: &'a Breaker,
    pass: Option<Pass>,
}

impl Admitted<'_> {
    /// Tells the breaker how it went.
    pub(super) fn ended<R>(mut self, class: Class, result: &Result<R, Error>) {
        let (Some(pass), breaker) = (self.pass.take(), self.breaker) else {
            return;
        };
        match result {
            Err(Error::Unavailable { cause, .. }) => match cause {
                cause if cause.was_answered() => breaker.answered(),
                // That a large answer takes long says nothing about lookups, so it must not open
                // the breaker for them. A probe has to end in one way or the other.
                Outage::TimedOut if class == Class::Bulk && !pass.is_probe() => {}
                cause => breaker.failed(pass, *cause, Instant::now(), random()),
            },
            // All connections were in use by our own calls: nothing was learnt about Redis.
            Err(Error::Busy { .. }) => breaker.unused(pass),
            _ => breaker.answered(),
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        // The caller dropped the future. A probe that is not given back would block the next one.
        if let Some(pass) = self.pass.take() {
            self.breaker.unused(pass);
        }
    }
}

/// Where every call ends: an error is counted, and says which Redis it is about.
pub(crate) fn counted<T: Transport, R>(
    client: &Client<T>,
    result: Result<R, Error>,
) -> Result<R, Error> {
    result
        .inspect_err(|error| client.monitor.failed(error))
        .map_err(|error| error.of_redis(&client.config().redis_address()))
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
