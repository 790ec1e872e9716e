//! Is the cache complete, and what may make it lose modules?
//!
//! The answer is read from the mark of the last warm-up, which [`mark`](crate::sync::mark) writes,
//! and from what the server tells of itself. What may falsify a mark: docs/design/consistency.md.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, Value};
use serde::Serialize;

use super::guarded::Guarded;
use crate::client::Client;
use crate::client::call;
use crate::client::transport::Transport;
use crate::command::info::Info;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::Keys;
use crate::rfc3339;
use crate::sync::endpoints::{Endpoints, Role};
use crate::sync::mark::Mark;

/// Whether the cache is known to be complete, and what tells how well Redis keeps it: returned by
/// `ModuleReader::status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Whether it is complete.
    #[serde(rename = "status")]
    pub state: CacheState,
    /// When it was completed, by the clock of the machine that warmed it; whole seconds. `None` if
    /// it is cold.
    #[serde(serialize_with = "rfc3339::serialize_option")]
    pub since: Option<SystemTime>,
    /// How many modules it had then; 0 if it is cold.
    pub modules: usize,
    /// Whether it was compared with the database then, after all transactions of that time had
    /// ended.
    pub verified: bool,
    /// How many members the index has now; `None` where SCARD is refused.
    pub members: Option<usize>,
    /// The server's `maxmemory-policy`; `None` where INFO does not tell. With one of `allkeys-*`,
    /// Redis evicts modules when it runs out of memory.
    pub maxmemory_policy: Option<String>,
    /// How many keys Redis has evicted since the warm-up began that completed the cache, of whatever data; `None`
    /// where INFO does not tell, or the cache is not of this run of the server.
    pub evicted_keys: Option<u64>,
    /// What a guard says of itself, if one keeps the cache equal to the database now.
    pub guard: Option<Guarded>,
    /// Which servers this is about.
    pub servers: Endpoints,
}

/// Whether the cache is known to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheState {
    /// A warm-up completed it, on the server that answers now, as far as that server tells (where
    /// INFO is refused it does not).
    Warm,
    /// Nothing says that it is complete: it was never warmed, or flushed since.
    Cold,
    /// It was completed on another run of the server, or in another reign of it. So it may have come
    /// back from a snapshot on disk, or from a replica, and be older than the database: verify it or
    /// warm it again. Redis begins another reign also without that: when the first replica is
    /// attached, and when none has been for `repl-backlog-ttl` (an hour).
    Restored,
    /// It was completed, and its index has lost most of what it named since: it was evicted, or
    /// deleted. What is saved from then on names itself again, so it need not be empty. Warm it
    /// again.
    ///
    /// The index is one key, which goes as a whole, while services remove modules one by one: hence
    /// fewer than half of [`Status::modules`], rounded down, is taken for a loss. Services that did remove so many
    /// lose nothing by another warm-up. Where SCARD is refused this is not seen.
    Incomplete,
}

impl Status {
    /// True for [`CacheState::Warm`].
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.state == CacheState::Warm
    }

    /// What an operator should change about Redis, if anything: it may evict modules, or has.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let evicts = |policy: &&String| policy.starts_with("allkeys-");
        if let Some(policy) = self.maxmemory_policy.as_ref().filter(evicts) {
            return Some(format!(
                "with maxmemory-policy {policy} Redis evicts modules: set noeviction"
            ));
        }
        let evicted = self.evicted_keys.filter(|keys| *keys > 0)?;
        Some(format!(
            "Redis has evicted {evicted} keys since: give it more memory, and no time to live to modules"
        ))
    }
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Restored => "restored",
            Self::Incomplete => "incomplete",
        })
    }
}

/// In one line: `warm since 2026-01-31T23:59:59Z: 1000 modules then, verified; 1002 now`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(since) = self.since {
            let verified = if self.verified { "" } else { "un" };
            let (since, modules) = (rfc3339::text(since), self.modules);
            write!(
                f,
                " since {since}: {modules} modules then, {verified}verified"
            )?;
        }
        if let Some(members) = self.members {
            write!(f, "; {members} now")?;
        }
        if let Some(guard) = &self.guard {
            write!(f, "; guarded since {}", rfc3339::text(guard.since))?;
        }
        match self.warning() {
            Some(warning) => write!(f, "; {warning}"),
            None => Ok(()),
        }
    }
}

pub(crate) async fn status<T: Transport>(client: &Client<T>) -> Result<Status, Error> {
    call::read(client, &AskStatus).await
}

struct AskStatus;

impl Command for AskStatus {
    type Reply = Status;

    fn operation(&self) -> &'static str {
        "status"
    }

    fn request(&self, config: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        ask_status(&mut pipeline, &config.keys);
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Status, Error> {
        status_of(reply::exactly(replies)?, config)
    }
}

/// What [`status_of`] needs the answers to.
pub(super) fn ask_status(pipeline: &mut Pipeline, keys: &Keys) {
    pipeline.cmd("GET").arg(keys.complete());
    pipeline.cmd("SCARD").arg(keys.index());
    // Without a section, for all of them: several sections in one INFO are an error before Redis 7.
    pipeline.cmd("INFO");
    pipeline.cmd("GET").arg(keys.guard());
}

/// What the mark of a complete cache says, beside the size of the index and INFO.
pub(super) fn status_of(
    [mark, members, info, guard]: [Value; 4],
    config: &Config,
) -> Result<Status, Error> {
    let members = match reply::integer(members) {
        Err(Error::Refused { code: "NOPERM", .. }) => None,
        members => usize::try_from(members?).ok(),
    };
    let info = Info::new(info)?;
    let mut status = Status {
        state: CacheState::Cold,
        since: None,
        modules: 0,
        verified: false,
        members,
        maxmemory_policy: info.field("maxmemory_policy").map(str::to_owned),
        evicted_keys: None,
        // Users of older versions may not be allowed to read it.
        guard: reply::bytes(guard)
            .ok()
            .flatten()
            .and_then(|json| Guarded::read(&json)),
        servers: Endpoints::new(config, None),
    };
    status.servers.role = info.role().and_then(Role::of_info);
    let Some(json) = reply::bytes(mark)? else {
        return Ok(status);
    };
    let corrupt = |reason| Error::corrupt(config.keys.complete(), reason);
    let mark: Mark = serde_json::from_slice(&json)
        .map_err(|_| corrupt("it is not the mark of a complete cache"))?;
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(mark.completed_at));
    status.since = Some(since.ok_or_else(|| corrupt("its time is out of range"))?);
    status.modules = mark.modules;
    status.verified = mark.verified;
    // Only where both ids are known: INFO may be refused now, or have been refused then.
    let is_other =
        |then: &str, now: Option<&str>| now.is_some_and(|now| !then.is_empty() && now != then);
    let is_other_run = is_other(&mark.run_id, info.run_id());
    let is_other_reign = is_other_run || is_other(&mark.master_replid, info.replid());
    status.state = if is_other_reign {
        CacheState::Restored
    } else if members.is_some_and(|members| members < mark.modules / 2) {
        CacheState::Incomplete
    } else {
        CacheState::Warm
    };
    if !is_other_run {
        // CONFIG RESETSTAT sets the counter to 0. If it is below the mark's, all of it is new.
        let since = |then, now: u64| now.checked_sub(then).unwrap_or(now);
        let counts = mark.evicted_keys.zip(info.number("evicted_keys"));
        status.evicted_keys = counts.map(|(then, now)| since(then, now));
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty mark is none.
    fn status(mark: &str, members: i64, info: &str) -> Status {
        let text = |text: &str| match text {
            "" => Value::Nil,
            text => Value::BulkString(text.into()),
        };
        let config = Config::new(crate::config::DEFAULT_REDIS_URL).unwrap();
        let answers = [text(mark), Value::Int(members), text(info), Value::Nil];
        status_of(answers, &config).unwrap()
    }

    const MARK: &str =
        r#"{"completed_at":1000,"modules":4,"verified":true,"run_id":"a","evicted_keys":7}"#;

    #[test]
    fn evictions_count_from_the_mark_on_and_on_the_same_run_only() {
        let info = |id: &str, evicted| {
            format!("run_id:{id}\r\nevicted_keys:{evicted}\r\nmaxmemory_policy:noeviction\r\n")
        };
        let evicted = |mark, id, evicted| status(mark, 4, &info(id, evicted)).evicted_keys;
        assert_eq!(evicted(MARK, "a", 7), Some(0));
        assert_eq!(evicted(MARK, "a", 9), Some(2));
        assert_eq!(evicted(MARK, "a", 3), Some(3), "the counter was reset");
        assert_eq!(evicted(MARK, "b", 9), None);
        let older = r#"{"completed_at":1000,"modules":4,"verified":true,"run_id":"a"}"#;
        assert_eq!(evicted(older, "a", 9), None, "a mark of an older version");
    }

    #[test]
    fn it_is_shown_in_a_line_that_warns_of_eviction() {
        let of = |policy: &str, evicted| {
            let info = format!("run_id:a\r\nevicted_keys:{evicted}\r\nmaxmemory_policy:{policy}");
            status(MARK, 5, &info).to_string()
        };
        let plain = "warm since 1970-01-01T00:16:40Z: 4 modules then, verified; 5 now";
        assert_eq!(of("noeviction", 7), plain);
        assert!(of("allkeys-lru", 7).ends_with("evicts modules: set noeviction"));
        assert!(of("volatile-ttl", 8).contains("has evicted 1 keys"));
        assert_eq!(status("", 0, "").to_string(), "cold; 0 now");
    }

    #[test]
    fn each_state_has_its_sign() {
        let state = |members, info| status(MARK, members, info).state;
        assert_eq!(state(4, "run_id:a"), CacheState::Warm);
        assert_eq!(state(4, ""), CacheState::Warm);
        assert_eq!(state(4, "run_id:b"), CacheState::Restored);
        assert_eq!(state(2, "run_id:a"), CacheState::Warm);
        assert_eq!(state(1, "run_id:a"), CacheState::Incomplete);
        // Its only module was removed, as one by one is.
        let of_one = MARK.replace(r#""modules":4"#, r#""modules":1"#);
        assert_eq!(status(&of_one, 0, "").state, CacheState::Warm);
        assert_eq!(
            state(4, "run_id:a\r\nmaster_replid:x"),
            CacheState::Warm,
            "a mark of an older version"
        );
        let reign = MARK.replace('}', r#","master_replid":"x"}"#);
        let state = |info| status(&reign, 4, info).state;
        assert_eq!(state("run_id:a\r\nmaster_replid:x"), CacheState::Warm);
        assert_eq!(state("run_id:a"), CacheState::Warm);
        assert_eq!(state("run_id:a\r\nmaster_replid:y"), CacheState::Restored);
    }
}
