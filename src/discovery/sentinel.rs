//! Sentinels name the primary. The first that answers counts, and what it says counts when the
//! named server says itself that it is one.

use redis::{ConnectionAddr, Value};

use super::{Dial, Opened, Said, Search, Server};
use crate::command::reign::{self, Answer};
use crate::command::reply;
use crate::command::request::{Class, Request};
use crate::config::place::{Sentinels, shown};
use crate::error::{Error, Outage};

/// A connection to the primary that is known, if that was said just now: then it need not be asked
/// for again.
pub(super) async fn known<D: Dial>(search: &Search<'_, D>) -> Option<Opened<D::Connection>> {
    let (known, max_age) = (&search.config.known, search.config.discovery_max_age);
    let holder = known.holder()?;
    if !known.was_asked_within(max_age) {
        return None;
    }
    let connection = primary(search, &holder, 3).await.ok()?;
    let moves = known.found(&holder);
    Some(Opened { connection, moves })
}

/// Asks all of them once, until one names a server that says that it is the primary.
pub(super) async fn round<D: Dial>(
    search: &Search<'_, D>,
    sentinels: &Sentinels,
    said: &mut Said,
) -> Option<Opened<D::Connection>> {
    let known = &search.config.known;
    // Several name the same server: it is tried once a round.
    let mut tried: Vec<ConnectionAddr> = Vec::new();
    for (asked, at) in search.order(sentinels.addresses.len()).enumerate() {
        let sentinel = &sentinels.addresses[at];
        let parts = 1 + sentinels.addresses.len() - asked;
        let named = match ask(search, sentinels, sentinel, parts).await {
            Ok(Some(named)) => named,
            Ok(None) => {
                let service = &sentinels.service;
                said.add(sentinel, format_args!("knows no primary named {service}"));
                said.has_hope = true;
                continue;
            }
            Err(error) => {
                said.failed(sentinel, sentinel_s(error));
                continue;
            }
        };
        said.add(sentinel, format_args!("names {}", shown(&named)));
        if tried.contains(&named) {
            continue;
        }
        match primary(search, &named, 2).await {
            Ok(connection) => {
                known.set_first(at);
                known.was_asked();
                let moves = known.found(&named);
                return Some(Opened { connection, moves });
            }
            Err(error) => said.failed(&named, error),
        }
        tried.push(named);
    }
    None
}

/// Asks again, and looks for the holder anew if another one is named.
pub(super) async fn confirm<D: Dial>(search: &Search<'_, D>, sentinels: &Sentinels) {
    for (asked, at) in search.order(sentinels.addresses.len()).enumerate() {
        let sentinel = &sentinels.addresses[at];
        let parts = sentinels.addresses.len() - asked;
        if let Ok(Some(named)) = ask(search, sentinels, sentinel, parts).await {
            search.config.known.set_first(at);
            search.config.known.named(&named);
            return;
        }
    }
}

/// Which server a sentinel names; `None` if it knows no such service.
async fn ask<D: Dial>(
    search: &Search<'_, D>,
    sentinels: &Sentinels,
    addr: &ConnectionAddr,
    parts: usize,
) -> Result<Option<ConnectionAddr>, Error> {
    let login = &sentinels.login;
    let limit = search.share(parts);
    let mut connection = search.dial.dial(Server { addr, login }, limit).await?;
    let request = question(&sentinels.service);
    let limit = search.share(parts);
    let replies = search.dial.ask(&mut connection, &request, limit).await?;
    let named = named(reply::single(replies)?)?;
    Ok(named.map(|(host, port)| search.announced(&host, port)))
}

fn question(service: &str) -> Request {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    Request::one(command, Class::Lookup)
}

/// Host and port; nil for a service that it does not know.
fn named(answer: Value) -> Result<Option<(String, u16)>, Error> {
    if answer == Value::Nil {
        return Ok(None);
    }
    let [host, port] = reply::exactly(reply::sequence(answer)?)?;
    let text = |value| {
        let bytes = reply::bytes(value)?.ok_or_else(reply::unexpected)?;
        String::from_utf8(bytes).map_err(|_| reply::unexpected())
    };
    let port = text(port)?.parse().map_err(|_| reply::unexpected())?;
    Ok(Some((text(host)?, port)))
}

/// The hint for a login that is not the data's.
fn sentinel_s(error: Error) -> Error {
    match error {
        Error::Refused {
            code: code @ ("NOAUTH" | "WRONGPASS" | "NOPERM"),
            ..
        } => reply::refusal(
            code,
            "the sentinels have users of their own: give sentinel_username and sentinel_password in the redis URL",
        ),
        error => error,
    }
}

/// Connects to a server that says that it is a primary.
async fn primary<D: Dial>(
    search: &Search<'_, D>,
    addr: &ConnectionAddr,
    parts: usize,
) -> Result<D::Connection, Error> {
    let mut connection = search.holder(addr, parts).await?;
    let request = Request::one(reign::ask(), Class::Lookup);
    let limit = search.share(parts);
    let replies = search.dial.ask(&mut connection, &request, limit).await?;
    match reign::answer(reply::single(replies)?)? {
        Answer::Reign(reign) if reign.is_primary() => Ok(connection),
        // Where INFO is refused, its own refusals of writes will tell.
        Answer::Silent => Ok(connection),
        _ => Err(reply::outage(Outage::Elsewhere, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_address_or_none() {
        let text = |text: &str| Value::BulkString(text.into());
        let both = |host, port| named(Value::Array(vec![text(host), text(port)]));
        assert_eq!(both("::1", "6379").unwrap(), Some(("::1".into(), 6379)));
        assert_eq!(named(Value::Nil).unwrap(), None);
        for bad in [
            both("h", ""),
            both("h", "99999"),
            named(text("h")),
            named(Value::Int(1)),
        ] {
            assert!(bad.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_login_says_whose() {
        let error = sentinel_s(reply::refusal("NOAUTH", "put it into the redis URL"));
        assert!(error.to_string().contains("sentinel_password"), "{error}");
        let other = sentinel_s(reply::refusal("ERR", "it failed"));
        assert!(other.to_string().contains("it failed"), "{other}");
    }
}
