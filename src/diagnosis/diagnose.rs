//! Why a module is absent or old, with the database's word for what it should be.

use std::time::{Duration, SystemTime};

use redis::{Pipeline, Value};

use super::status::{Status, ask_status, status_of};
use crate::client::call;
use crate::client::transport::Transport;
use crate::command::modules::stored;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::database::barrier::barrier;
use crate::database::row::{Row, RowState};
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;
use crate::keys::{MODULE_INDEX_KEY, module_key};
use crate::module::CachedModule;

/// How long to wait for open transactions before what looks wrong is looked at again.
const BARRIER: Duration = Duration::from_secs(5);

/// What cache and database say about a path, and what follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What follows.
    pub cause: Cause,
    /// What a reader gets: `None` where there is no entry, or none that can be read.
    pub cached: Option<CachedModule>,
    /// What the database has.
    pub row: RowState,
    /// When the row was last changed: by its `updated_at`, if there is one, and by our clock. A
    /// plain `timestamp` is taken for UTC.
    pub changed: Option<SystemTime>,
    /// Whether the cache is complete, and since when.
    pub status: Status,
}

/// Why a module is absent or old, or that it is neither. The specification's three causes are the
/// first three; its "bug in invalidation" has more than one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The row was changed after the cache was completed, and is not cached: whoever saved it did
    /// not bring it to the cache.
    JustCreated,
    /// The whole cache is cold: it was never warmed, or flushed since.
    CacheCleared,
    /// The row is older than the complete cache, so its entry was there and was removed: a bug in
    /// invalidation.
    WronglyRemoved,
    /// One of the two: the cache is complete and has no entry, and when the row was changed can't
    /// be told.
    NotCached,
    /// The entry says something else than its row: a bug in invalidation.
    Stale,
    /// An entry, or a place in the index, without a row: a bug in invalidation.
    Ghost,
    /// The cache came back from disk or from a replica, without this module.
    CacheRestored,
    /// The cache was complete and its index has lost most of what it named: it was evicted or
    /// deleted. See [`Status::Incomplete`].
    IndexGone,
    /// The index names it and its value is gone: it expired or was evicted, or a foreign writer
    /// is between its two commands.
    ValueGone,
    /// The entry can't be read: it is not this module's JSON, or of another Redis type than a
    /// string.
    Corrupt,
    /// The entry equals its row and has no place in the index.
    Unlisted,
    /// The row is larger than the limit, so it can't be cached.
    TooLarge,
    /// The database has no such module, and neither has the cache.
    NoSuchModule,
    /// The entry equals its row: nothing is wrong.
    Right,
}

impl Cause {
    /// True if the cache does not hold what the database says.
    #[must_use]
    pub fn is_drift(self) -> bool {
        !matches!(self, Self::Right | Self::NoSuchModule | Self::TooLarge)
    }
}

pub(crate) async fn diagnose<T: Transport, D: Database>(
    transport: &T,
    database: D,
    path: &str,
) -> Result<Diagnosis, Error> {
    let config = transport.config();
    let ask = AskEntry {
        path,
        key: module_key(path)?,
    };
    let mut workspace = Workspace::open(database, config).await?;
    let mut looked_twice = false;
    loop {
        let entry = call::read(transport, &ask).await?;
        let row = workspace.row(path).await?;
        let diagnosis = judge(entry, row, SystemTime::now());
        // A writer between its commit and its write looks like drift: a second look, once all of
        // that time are done, tells.
        if looked_twice || !diagnosis.cause.is_drift() {
            return Ok(diagnosis);
        }
        barrier(transport, &mut workspace, BARRIER).await?;
        looked_twice = true;
    }
}

/// What Redis has at a path.
struct Entry {
    /// Unless absent or empty; an error if it can't be read.
    module: Option<Result<CachedModule, Error>>,
    listed: bool,
    status: Status,
}

fn judge(entry: Entry, row: Row, now: SystemTime) -> Diagnosis {
    let index_gone = matches!(entry.status, Status::Incomplete { .. });
    let changed = row.age.and_then(|age| {
        let age = Duration::try_from_secs_f64(age.max(0.0)).ok()?;
        now.checked_sub(age)
    });
    let cause = match (&entry.module, &row.state) {
        (Some(Err(_)), _) => Cause::Corrupt,
        (Some(Ok(cached)), RowState::Module(row)) if cached != row => Cause::Stale,
        (Some(Ok(_)), RowState::Module(_)) if entry.listed => Cause::Right,
        (Some(Ok(_)), RowState::Module(_)) if index_gone => Cause::IndexGone,
        (Some(Ok(_)), RowState::Module(_)) => Cause::Unlisted,
        (Some(Ok(_)), _) => Cause::Ghost,
        (None, RowState::TooLarge) => Cause::TooLarge,
        (None, RowState::Module(_)) if entry.listed => Cause::ValueGone,
        (None, RowState::Module(_)) => match (&entry.status, changed) {
            (Status::Cold, _) => Cause::CacheCleared,
            (Status::Restored { .. }, _) => Cause::CacheRestored,
            (Status::Incomplete { .. }, _) => Cause::IndexGone,
            (Status::Warm { since, .. }, Some(changed)) if changed <= *since => {
                Cause::WronglyRemoved
            }
            (Status::Warm { .. }, Some(_)) => Cause::JustCreated,
            (Status::Warm { .. }, None) => Cause::NotCached,
        },
        (None, _) if entry.listed => Cause::Ghost,
        (None, _) => Cause::NoSuchModule,
    };
    Diagnosis {
        cause,
        cached: entry.module.and_then(Result::ok),
        row: row.state,
        changed,
        status: entry.status,
    }
}

struct AskEntry<'a> {
    path: &'a str,
    key: String,
}

impl Command for AskEntry<'_> {
    type Reply = Entry;

    fn request(&self, _: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(&self.key);
        pipeline
            .cmd("SISMEMBER")
            .arg(MODULE_INDEX_KEY)
            .arg(self.path);
        ask_status(&mut pipeline);
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Entry, Error> {
        let [value, listed, mark, members, info] = reply::exactly(replies)?;
        Ok(Entry {
            module: stored(self.path, value, config)?,
            listed: reply::integer(listed)? == 1,
            status: status_of([mark, members, info])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const SINCE: u64 = 1_000;
    const NOW: u64 = 2_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn module(content: &str) -> CachedModule {
        CachedModule::new("a.py", content).unwrap()
    }

    fn warm() -> Status {
        Status::Warm {
            since: at(SINCE),
            modules: 1,
            verified: true,
        }
    }

    fn restored() -> Status {
        Status::Restored {
            since: at(SINCE),
            modules: 1,
        }
    }

    fn incomplete() -> Status {
        Status::Incomplete {
            since: at(SINCE),
            modules: 4,
            members: 1,
        }
    }

    fn diagnosis(
        value: Option<&[u8]>,
        listed: bool,
        status: Status,
        state: RowState,
        age: Option<f64>,
    ) -> Diagnosis {
        let entry = Entry {
            module: value.map(|json| CachedModule::from_json("a.py", json)),
            listed,
            status,
        };
        judge(entry, Row { state, age }, at(NOW))
    }

    fn cause(value: Option<&[u8]>, listed: bool, status: Status, row: RowState, age: f64) -> Cause {
        diagnosis(value, listed, status, row, Some(age)).cause
    }

    #[test]
    fn the_three_causes_of_the_specification_are_told_apart() {
        let row = || RowState::Module(module("1"));
        // Changed at 1,500, after the warm-up.
        assert_eq!(cause(None, false, warm(), row(), 500.0), Cause::JustCreated);
        assert_eq!(
            cause(None, false, Status::Cold, row(), 500.0),
            Cause::CacheCleared
        );
        // Changed at 500, before it.
        assert_eq!(
            cause(None, false, warm(), row(), 1_500.0),
            Cause::WronglyRemoved
        );
        let other = module("2").to_json();
        assert_eq!(cause(Some(&other), true, warm(), row(), 0.0), Cause::Stale);
        for gone in [RowState::Absent, RowState::Deleted, RowState::NotAModule] {
            assert_eq!(cause(Some(&other), true, warm(), gone, 0.0), Cause::Ghost);
        }
        assert_eq!(
            cause(None, true, warm(), RowState::Absent, 0.0),
            Cause::Ghost
        );
    }

    #[test]
    fn what_else_there_is_has_its_name() {
        let (row, json) = (|| RowState::Module(module("1")), module("1").to_json());
        let cause = |value, listed, status, row| cause(value, listed, status, row, 0.0);
        assert_eq!(cause(Some(&json), true, warm(), row()), Cause::Right);
        assert_eq!(cause(Some(&json), false, warm(), row()), Cause::Unlisted);
        assert_eq!(cause(Some(b"{"), true, warm(), row()), Cause::Corrupt);
        assert_eq!(cause(None, true, warm(), row()), Cause::ValueGone);
        assert_eq!(cause(None, false, restored(), row()), Cause::CacheRestored);
        for value in [None, Some(&json[..])] {
            assert_eq!(cause(value, false, incomplete(), row()), Cause::IndexGone);
        }
        assert_eq!(cause(Some(&json), true, incomplete(), row()), Cause::Right);
        assert_eq!(
            diagnosis(None, false, warm(), row(), None).cause,
            Cause::NotCached
        );
        for status in [warm(), Status::Cold] {
            assert_eq!(
                cause(None, false, status.clone(), RowState::Deleted),
                Cause::NoSuchModule
            );
            assert_eq!(
                cause(None, false, status, RowState::TooLarge),
                Cause::TooLarge
            );
        }
    }

    #[test]
    fn a_time_that_makes_no_sense_is_none() {
        let row = || RowState::Module(module("1"));
        for age in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let changed = diagnosis(None, false, Status::Cold, row(), Some(age)).changed;
            // What lies in the future was changed now.
            assert!(changed.is_none_or(|changed| changed == at(NOW)), "{age}");
        }
    }
}
