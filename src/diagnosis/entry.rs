//! What Redis has at a few paths, and what follows from that.

use std::time::SystemTime;

use redis::{Pipeline, Value};

use super::cause::Cause;
use super::status::{CacheState, Status, ask_status, status_of};
use crate::client::Client;
use crate::client::call;
use crate::client::read::mismatched;
use crate::client::transport::Transport;
use crate::command::modules::stored;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::{Config, Integrity};
use crate::database::row::RowState;
use crate::error::Error;
use crate::keys::validate_path;
use crate::module::CachedModule;

/// What Redis has at a path.
pub(super) struct Entry {
    /// `None` if it is absent or empty; an error if it can't be read.
    pub(super) module: Option<Result<CachedModule, Error>>,
    pub(super) listed: bool,
}

/// The entries at a few paths, in their order, and the whole cache's status. One round trip.
pub(super) async fn ask<T: Transport>(
    client: &Client<T>,
    paths: &[&str],
) -> Result<(Status, Vec<Entry>), Error> {
    paths.iter().try_for_each(|path| validate_path(path))?;
    call::read(client, &AskEntries { paths }).await
}

struct AskEntries<'a> {
    paths: &'a [&'a str],
}

impl Command for AskEntries<'_> {
    type Reply = (Status, Vec<Entry>);

    fn operation(&self) -> &'static str {
        "explain"
    }

    fn request(&self, config: &Config) -> Request {
        let keys = &config.keys;
        let mut pipeline = Pipeline::new();
        ask_status(&mut pipeline, keys);
        for path in self.paths {
            // GET and not EXISTS: an empty value exists and means absent.
            pipeline.cmd("GET").arg(keys.module_unchecked(path));
            pipeline.cmd("SISMEMBER").arg(keys.index()).arg(path);
        }
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Self::Reply, Error> {
        let mut replies = replies.into_iter();
        let mut reply = || replies.next().ok_or_else(reply::unexpected);
        let status = status_of([reply()?, reply()?, reply()?, reply()?], config)?;
        let entry = |path: &&str| {
            let module = stored(path, reply()?, config)?;
            // A reader that enforces integrity gets no such module either.
            let served = |module: CachedModule| match config.integrity {
                Integrity::Enforce if !module.matches_hash() => Err(mismatched(path)),
                _ => Ok(module),
            };
            Ok(Entry {
                module: module.map(|module| module.and_then(served)),
                listed: reply::integer(reply()?)? == 1,
            })
        };
        let entries = self.paths.iter().map(entry).collect::<Result<_, Error>>()?;
        Ok((status, entries))
    }
}

/// What is the matter with an entry. `row` is `None` if the database was not asked; `changed` is
/// when the row was last changed.
///
/// A row that is older than the complete cache was cached with it, so its absence means that a
/// writer removed it wrongly. A newer one never came.
pub(super) fn cause(
    entry: &Entry,
    status: &Status,
    row: Option<&RowState>,
    changed: Option<SystemTime>,
) -> Cause {
    let index_gone = status.state == CacheState::Incomplete;
    match (&entry.module, row) {
        (Some(Err(_)), _) => Cause::Corrupt,
        // Without the database, an entry that can be read is all that can be asked for.
        (Some(Ok(_)), None) => Cause::Cached,
        (Some(Ok(cached)), Some(RowState::Module(row))) if cached != row => Cause::Stale,
        (Some(Ok(_)), Some(RowState::Module(_))) if entry.listed => Cause::Cached,
        (Some(Ok(_)), Some(RowState::Module(_))) if index_gone => Cause::IndexGone,
        (Some(Ok(_)), Some(RowState::Module(_))) => Cause::Unlisted,
        (Some(Ok(_)), Some(_)) => Cause::Ghost,
        (None, Some(RowState::TooLarge)) => Cause::TooLarge,
        // Named by the index, so it was there: it expired or was evicted.
        (None, None | Some(RowState::Module(_))) if entry.listed => Cause::ValueGone,
        // Nothing tells of this module, so what is known of the whole cache decides.
        (None, None | Some(RowState::Module(_))) => match status.state {
            CacheState::Cold => Cause::CacheCold,
            CacheState::Restored => Cause::CacheRestored,
            CacheState::Incomplete => Cause::IndexGone,
            CacheState::Warm => match (row, changed) {
                (Some(_), Some(changed)) if Some(changed) <= status.since => Cause::WronglyRemoved,
                (Some(_), Some(_)) => Cause::JustCreated,
                _ => Cause::NotCached,
            },
        },
        (None, Some(_)) if entry.listed => Cause::Ghost,
        (None, Some(_)) => Cause::NoSuchModule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::endpoints::Endpoints;
    use std::time::{Duration, UNIX_EPOCH};

    const SINCE: u64 = 1_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn module(content: &str) -> CachedModule {
        CachedModule::new("a.py", content).unwrap()
    }

    fn found(
        value: Option<&[u8]>,
        listed: bool,
        state: CacheState,
        row: Option<&RowState>,
        changed: Option<u64>,
    ) -> Cause {
        let entry = Entry {
            module: value.map(|json| CachedModule::from_json("a.py", json)),
            listed,
        };
        let status = Status {
            state,
            since: (state != CacheState::Cold).then(|| at(SINCE)),
            modules: 4,
            verified: true,
            members: None,
            maxmemory_policy: None,
            evicted_keys: None,
            guard: None,
            servers: Endpoints::default(),
        };
        cause(&entry, &status, row, changed.map(at))
    }

    use CacheState::{Cold, Incomplete, Restored, Warm};

    #[test]
    fn the_three_causes_of_the_specification_are_told_apart() {
        let row = RowState::Module(module("1"));
        let cause = |value, listed, state, row: &RowState, changed| {
            found(value, listed, state, Some(row), Some(changed))
        };
        assert_eq!(cause(None, false, Warm, &row, 1_500), Cause::JustCreated);
        assert_eq!(cause(None, false, Cold, &row, 1_500), Cause::CacheCold);
        assert_eq!(cause(None, false, Warm, &row, 500), Cause::WronglyRemoved);
        assert_eq!(cause(None, false, Warm, &row, SINCE), Cause::WronglyRemoved);
        let other = module("2").to_json();
        assert_eq!(cause(Some(&other), true, Warm, &row, 0), Cause::Stale);
        for gone in [RowState::Absent, RowState::Deleted, RowState::NotAModule] {
            assert_eq!(cause(Some(&other), true, Warm, &gone, 0), Cause::Ghost);
            assert_eq!(cause(None, true, Warm, &gone, 0), Cause::Ghost);
        }
    }

    #[test]
    fn what_else_there_is_has_its_name() {
        let (row, json) = (RowState::Module(module("1")), module("1").to_json());
        let cause = |value, listed, state, row: &RowState| {
            found(value, listed, state, Some(row), Some(2_000))
        };
        assert_eq!(cause(Some(&json), true, Warm, &row), Cause::Cached);
        assert_eq!(cause(Some(&json), false, Warm, &row), Cause::Unlisted);
        assert_eq!(cause(Some(b"{"), true, Warm, &row), Cause::Corrupt);
        assert_eq!(cause(None, true, Warm, &row), Cause::ValueGone);
        assert_eq!(cause(None, false, Restored, &row), Cause::CacheRestored);
        for value in [None, Some(&json[..])] {
            assert_eq!(cause(value, false, Incomplete, &row), Cause::IndexGone);
        }
        assert_eq!(cause(Some(&json), true, Incomplete, &row), Cause::Cached);
        assert_eq!(found(None, false, Warm, Some(&row), None), Cause::NotCached);
        for state in [Warm, Cold] {
            assert_eq!(
                cause(None, false, state, &RowState::Deleted),
                Cause::NoSuchModule
            );
            assert_eq!(
                cause(None, false, state, &RowState::TooLarge),
                Cause::TooLarge
            );
        }
    }

    #[test]
    fn redis_alone_tells_what_it_knows() {
        let json = module("1").to_json();
        let cause = |value, listed, state| found(value, listed, state, None, None);
        for state in [Warm, Cold, Restored, Incomplete] {
            assert_eq!(cause(Some(&json), false, state), Cause::Cached);
            assert_eq!(cause(Some(b"{"), true, state), Cause::Corrupt);
            assert_eq!(cause(None, true, state), Cause::ValueGone);
        }
        assert_eq!(cause(None, false, Warm), Cause::NotCached);
        assert_eq!(cause(None, false, Cold), Cause::CacheCold);
        assert_eq!(cause(None, false, Restored), Cause::CacheRestored);
        assert_eq!(cause(None, false, Incomplete), Cause::IndexGone);
    }
}
