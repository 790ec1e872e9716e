//! Is the cache complete, and why is a module absent?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, Value};

use super::mark::{Mark, run_id};
use crate::commands::{Class, Command, Request, stored};
use crate::keys::{COMPLETE_KEY, MODULE_INDEX_KEY, module_key};
use crate::transport::Transport;
use crate::{Config, Error, call, reply};

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

/// Why a module is absent, or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Explanation {
    /// It is cached.
    Cached,
    /// The cache is complete and has never had it, or it was removed: a module that was just
    /// created and not cached, or one that does not exist.
    NeverCached,
    /// The index names it and its value is gone: it expired or was evicted, or a foreign writer
    /// is between its two commands.
    ValueGone,
    /// The whole cache is cold: it was never warmed, or flushed since.
    CacheCold,
    /// The cache was complete and its index has lost most of what it named: it was evicted or
    /// deleted, and so may this module have been. See [`Status::Incomplete`].
    IndexGone,
    /// What is stored can't be read as this module: `get` fails, or says absent if it is of
    /// another Redis type than a string.
    Corrupt,
}

pub(crate) async fn status<T: Transport>(transport: &T) -> Result<Status, Error> {
    call::read(transport, &AskStatus).await
}

pub(crate) async fn explain<T: Transport>(transport: &T, path: &str) -> Result<Explanation, Error> {
    let explanations = explain_all(transport, &[path]).await?;
    explanations
        .into_iter()
        .next()
        .ok_or_else(reply::unexpected)
}

/// The same for a few paths, in their order.
pub(crate) async fn explain_all<T: Transport>(
    transport: &T,
    paths: &[&str],
) -> Result<Vec<Explanation>, Error> {
    let keys = paths
        .iter()
        .map(|path| module_key(path))
        .collect::<Result<_, _>>()?;
    call::read(transport, &Explain { paths, keys }).await
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

struct Explain<'a> {
    paths: &'a [&'a str],
    keys: Vec<String>,
}

impl Command for Explain<'_> {
    type Reply = Vec<Explanation>;

    fn request(&self, _: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        ask_status(&mut pipeline);
        for (path, key) in self.paths.iter().zip(&self.keys) {
            // Not EXISTS: an empty value is there and means absent.
            pipeline.cmd("GET").arg(key);
            pipeline.cmd("SISMEMBER").arg(MODULE_INDEX_KEY).arg(path);
        }
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Vec<Explanation>, Error> {
        let mut replies = replies.into_iter();
        let mut reply = || replies.next().ok_or_else(reply::unexpected);
        let status = status_of([reply()?, reply()?, reply()?])?;
        let explain = |path: &&str| {
            let entry = stored(path, reply()?, config)?;
            let listed = reply::integer(reply()?)? == 1;
            Ok(match (entry, listed, &status) {
                (Some(Ok(_)), ..) => Explanation::Cached,
                (Some(Err(_)), ..) => Explanation::Corrupt,
                (None, true, _) => Explanation::ValueGone,
                (None, false, Status::Cold) => Explanation::CacheCold,
                (None, false, Status::Incomplete { .. }) => Explanation::IndexGone,
                (None, false, _) => Explanation::NeverCached,
            })
        };
        self.paths.iter().map(explain).collect()
    }
}
