//! Is the cache complete, and why is a module absent?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, Value};

use crate::client::call;
use crate::client::transport::Transport;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::command::server_id::run_id;
use crate::config::Config;
use crate::error::Error;
use crate::keys::{COMPLETE_KEY, MODULE_INDEX_KEY};
use crate::sync::mark::Mark;

/// Whether the cache is known to be complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// A warm-up completed it, on the server that answers now, as far as that server tells (where
    /// INFO is refused it does not).
    #[non_exhaustive]
    Warm {
        /// When, by the clock of the machine that warmed it; whole seconds.
        since: SystemTime,
        /// How many modules it had then.
        modules: usize,
        /// Whether it was compared with the database after all transactions of that time had
        /// ended.
        verified: bool,
    },
    /// Nothing says that it is complete: it was never warmed, or flushed since.
    Cold,
    /// It was completed on another run of the server, so it came back from a snapshot on disk, or
    /// from a replica, and may be older than the database: verify it or warm it again.
    #[non_exhaustive]
    Restored {
        /// When it was completed; whole seconds.
        since: SystemTime,
        /// How many modules it had then.
        modules: usize,
    },
    /// It was completed, and its index has lost most of what it named since: it was evicted, or
    /// deleted. What is saved from then on names itself again, so it need not be empty. Warm it
    /// again.
    ///
    /// The index is one key, which goes as a whole, while services remove modules one by one:
    /// hence fewer than half of [`modules`](Self::Incomplete::modules) is taken for a loss.
    /// Services that did remove so many lose nothing by another warm-up. Where SCARD is refused
    /// this is not seen.
    #[non_exhaustive]
    Incomplete {
        /// When it was completed; whole seconds.
        since: SystemTime,
        /// How many modules it had then.
        modules: usize,
        /// How many members the index has now.
        members: usize,
    },
}

impl Status {
    /// True for [`Status::Warm`].
    #[must_use]
    pub fn is_warm(&self) -> bool {
        matches!(self, Self::Warm { .. })
    }
}

pub(crate) async fn status<T: Transport>(transport: &T) -> Result<Status, Error> {
    call::read(transport, &AskStatus).await
}

struct AskStatus;

impl Command for AskStatus {
    type Reply = Status;

    fn request(&self, _: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        ask_status(&mut pipeline);
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Status, Error> {
        status_of(reply::exactly(replies)?)
    }
}

/// What [`status_of`] needs the answers to.
pub(super) fn ask_status(pipeline: &mut Pipeline) {
    pipeline.cmd("GET").arg(COMPLETE_KEY);
    pipeline.cmd("SCARD").arg(MODULE_INDEX_KEY);
    pipeline.cmd("INFO").arg("server");
}

/// What the mark of a complete cache says, beside the size of the index and `INFO server`.
pub(super) fn status_of([mark, members, info]: [Value; 3]) -> Result<Status, Error> {
    let members = match reply::integer(members) {
        Err(Error::Refused { code: "NOPERM", .. }) => None,
        members => usize::try_from(members?).ok(),
    };
    let Some(json) = reply::bytes(mark)? else {
        return Ok(Status::Cold);
    };
    let mark: Mark = serde_json::from_slice(&json)
        .map_err(|_| Error::corrupt(COMPLETE_KEY, "it is not the mark of a complete cache"))?;
    let since = UNIX_EPOCH
        .checked_add(Duration::from_secs(mark.completed_at))
        .ok_or_else(|| Error::corrupt(COMPLETE_KEY, "its time is out of range"))?;
    let modules = mark.modules;
    match run_id(info)? {
        Some(id) if !mark.run_id.is_empty() && id != mark.run_id => {
            Ok(Status::Restored { since, modules })
        }
        _ if members.is_some_and(|members| members < modules / 2) => Ok(Status::Incomplete {
            since,
            modules,
            members: members.unwrap_or_default(),
        }),
        _ => Ok(Status::Warm {
            since,
            modules,
            verified: mark.verified,
        }),
    }
}
