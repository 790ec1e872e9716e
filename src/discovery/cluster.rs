//! The nodes of a cluster name the owner of a slot: whichever is asked for a key of ours answers,
//! or says who owns it. That needs no permission beyond those that a reader has.

use redis::{ConnectionAddr, Value};

use super::{Dial, Opened, Said, Search};
use crate::command::owner::{self, Owner};
use crate::command::reply;
use crate::config::place::shown;
use crate::error::{Error, Outage};

/// So many times in a row a node may name another one, before all are asked anew.
const HOPS: usize = 5;

/// Asks all of them once, and those whom they name, until one owns our slot.
pub(super) async fn round<D: Dial>(
    search: &Search<'_, D>,
    nodes: &[ConnectionAddr],
    said: &mut Said,
) -> Option<Opened<D::Connection>> {
    let known = &search.config.known;
    let mut tried: Vec<ConnectionAddr> = Vec::new();
    // The owner that is known, then the nodes of the URL: after a failover any may be gone.
    let holder = known.holder();
    let first = known.first();
    let seeds = search.order(nodes.len()).map(|at| &nodes[at]);
    for node in holder.as_deref().into_iter().chain(seeds) {
        let mut next = Some(node.clone());
        for _ in 0..HOPS {
            let Some(node) = next.take().filter(|node| !tried.contains(node)) else {
                break;
            };
            // Each node that is still to be asked needs its time.
            let parts = 2 + nodes.len().saturating_sub(tried.len());
            let asked = ask(search, &node, parts).await;
            tried.push(node.clone());
            match asked {
                Ok(Found::Here(connection)) => {
                    let moves = known.found(&node);
                    return Some(Opened { connection, moves });
                }
                Ok(Found::At(host, port)) => {
                    let owner = search.announced(&host, port);
                    said.add(&node, format_args!("names {}", shown(&owner)));
                    next = Some(owner);
                }
                Err(error) => said.failed(&node, error),
            }
        }
    }
    // The next round begins with another one.
    known.set_first(first.wrapping_add(1));
    None
}

enum Found<Conn> {
    Here(Conn),
    At(String, u16),
}

/// Whether a node owns our slot, or who does.
async fn ask<D: Dial>(
    search: &Search<'_, D>,
    node: &ConnectionAddr,
    parts: usize,
) -> Result<Found<D::Connection>, Error> {
    let mut connection = search.holder(node, parts).await?;
    let request = owner::ask(&search.config.keys);
    let limit = search.share(parts);
    let mut replies = search.dial.ask(&mut connection, &request, limit).await?;
    let answer = replies.pop().unwrap_or(Value::Nil);
    match owner::answer(&answer) {
        // A node that does not know its own name gives none: then it is reached as it was.
        Some(Owner::At { host, port }) if host.is_empty() => {
            let host = match node {
                ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
                _ => return Err(reply::unexpected()),
            };
            Ok(Found::At(host, port))
        }
        Some(Owner::At { host, port }) => Ok(Found::At(host, port)),
        Some(Owner::Here) => Ok(Found::Here(connection)),
        None => match reply::ok(answer) {
            Ok(_) => Err(reply::unexpected()),
            Err(Error::Refused { code: "MOVED", .. }) => {
                Err(reply::outage(Outage::Elsewhere, None))
            }
            Err(error) => Err(error),
        },
    }
}
