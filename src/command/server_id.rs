//! Which server answers. After a failover, connections to the old and to the new one can be open at
//! the same time, and a near cache must not store answers of the one while it follows the other.

use std::num::NonZeroU64;
#[cfg(feature = "near-cache")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use redis::{Pipeline, Value};

use super::info::Info;
use super::request::{Class, Request};
use super::{reign, reply};
use crate::error::Error;

/// A server in one of its reigns: its run id, which is new at each of its starts, and the id of its
/// history, which is new at each promotion. Each is cut to 64 of its 160 random bits, and the two
/// are joined: that fits an atomic, which each answer is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerId(NonZeroU64);

impl ServerId {
    #[cfg(feature = "near-cache")]
    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }

    #[cfg(test)]
    pub(crate) fn new(number: u64) -> Self {
        Self(NonZeroU64::new(number).expect("not zero"))
    }
}

/// What is known of the server behind one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It was not asked.
    #[default]
    Unasked,
    /// What it said, if anything.
    Asked(Option<ServerId>),
}

/// Whether new connections ask their server for its run id. Only a near cache needs it, and it
/// costs one request for each connection.
#[derive(Default)]
pub(crate) struct Servers {
    #[cfg(feature = "near-cache")]
    identify: AtomicBool,
}

impl Servers {
    #[cfg(feature = "near-cache")]
    pub(crate) fn identify(&self) {
        self.identify.store(true, Relaxed);
    }

    #[cfg(feature = "near-cache")]
    fn are_to_tell(&self) -> bool {
        self.identify.load(Relaxed)
    }

    #[cfg(not(feature = "near-cache"))]
    #[allow(clippy::unused_self, reason = "with the feature, it says")]
    fn are_to_tell(&self) -> bool {
        false
    }

    /// The server behind a connection. Asks it if that is wanted and was not done yet: also on a
    /// connection that was open before the first near cache was made.
    pub(crate) async fn ask(
        &self,
        identity: &mut Identity,
        exchange: impl AsyncFnOnce(&Request) -> Result<Vec<Value>, Error>,
    ) -> Result<Option<ServerId>, Error> {
        match *identity {
            Identity::Asked(server) => Ok(server),
            Identity::Unasked if self.are_to_tell() => {
                let replies = exchange(&info()).await?;
                let server = server_id(reply::exactly(replies)?)?;
                *identity = Identity::Asked(server);
                Ok(server)
            }
            Identity::Unasked => Ok(None),
        }
    }
}

/// Asks a server who it is.
fn info() -> Request {
    let mut pipeline = Pipeline::new();
    ask_server_id(&mut pipeline);
    Request {
        pipeline,
        class: Class::Lookup,
    }
}

/// What [`server_id`] needs the answers to. Two commands: a request for several sections at once is
/// an error before Redis 7.
pub(crate) fn ask_server_id(pipeline: &mut Pipeline) {
    pipeline.cmd("INFO").arg("server");
    pipeline.add_command(reign::ask());
}

/// The id of the server that answered; `None` if INFO is refused or lacks it.
pub(crate) fn server_id([server, replication]: [Value; 2]) -> Result<Option<ServerId>, Error> {
    let Some(run) = Info::new(server)?.run_id().and_then(parse) else {
        return Ok(None);
    };
    let history = Info::new(replication)?.replid().and_then(parse);
    // Turned, so that a run and a history of the same number do not make zero.
    let history = history.map_or(0, |id| id.0.get().rotate_left(32));
    Ok(NonZeroU64::new(run.0.get() ^ history).map(ServerId))
}

/// The first 16 hex digits. Zero stands for none in an atomic, so it is no id: one in 2⁶⁴ servers
/// goes unfollowed.
fn parse(run_id: &str) -> Option<ServerId> {
    let number = u64::from_str_radix(run_id.get(..16)?, 16).ok()?;
    NonZeroU64::new(number).map(ServerId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_a_number_or_none() {
        assert_eq!(parse("00000000000000ff3aed"), Some(ServerId::new(255)));
        for odd in ["", "xyz", "0000000000000000aa", "é23456789012345678"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn each_reign_of_a_server_is_another_one() {
        let id = |run: &str, history: &str| {
            let text = |field, value| Value::BulkString(format!("{field}:{value}\r\n").into());
            server_id([text("run_id", run), text("master_replid", history)]).unwrap()
        };
        let (one, two) = ("00000000000000ff3aed", "00000000000000aa3aed");
        assert_eq!(id(one, one), id(one, one));
        assert!(id(one, one) != id(one, two) && id(one, one) != id(two, one));
        assert_eq!(id(one, "none"), Some(ServerId::new(255)));
        assert_eq!(id("none", one), None);
    }
}
