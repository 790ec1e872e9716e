//! The mark of a complete cache, and the token and generation that keep it honest.
//!
//! Without a mark a half-filled index can't be told from a complete one. With a mark that may lie,
//! it would be worse: docs/design/consistency.md lists each event and what it does to the mark.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, Value};
use serde::{Deserialize, Serialize};

use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::command::info::Info;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::observe::Outcome;
use crate::random::random;

/// How long the token of a warm-up and the generation live, in milliseconds: longer than any
/// warm-up, and not for ever, because a warm-up that is killed leaves its token behind.
const TOKEN_MS: u64 = 24 * 3_600 * 1_000;

/// What is stored under [`COMPLETE_KEY`](crate::keys::COMPLETE_KEY).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Seconds since 1970.
    pub(crate) completed_at: u64,
    pub(crate) modules: usize,
    pub(crate) verified: bool,
    /// The run id of the server that was warmed; empty where INFO is refused. A server that comes
    /// back from a snapshot on disk brings the mark along, and has another run id.
    #[serde(default)]
    pub(crate) run_id: String,
    /// The id of the history that it held, which is new at each promotion: a server that was
    /// demoted and promoted again has the same run id and may have lost writes. Marks of older
    /// versions lack it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) master_replid: String,
    /// How many keys the server had evicted when the warm-up began, if it told: evictions since
    /// then may have taken modules. Marks of older versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evicted_keys: Option<u64>,
}

/// A cache being completed.
///
/// Only FLUSHALL, FLUSHDB or a loss of data remove the token: if it is gone at the end, so is what
/// was written before. `clear` removes modules one by one and can't know the tokens of others, so
/// it removes the generation, which all warm-ups share.
pub(crate) struct Completion {
    key: String,
    generation: Option<Vec<u8>>,
    info: Info,
}

impl Completion {
    pub(crate) async fn begin<Conn: DedicatedConnection>(
        connection: &mut Conn,
        config: &Config,
    ) -> Result<Self, Error> {
        let key = format!(
            "{}{:016x}{:016x}",
            config.keys.warming_prefix,
            random(),
            random()
        );
        let (generation, info) = send(connection, &Begin { key: &key }, config).await?;
        Ok(Self {
            key,
            generation,
            info,
        })
    }

    /// Writes the mark, unless the token is gone or the generation another one: then the answer is
    /// `false`. Both are watched, so that a flush between the look and the EXEC aborts it.
    ///
    /// The mark expires with the first entry, at `expires`: the cache is not complete any more
    /// then.
    pub(crate) async fn finish<Conn: DedicatedConnection>(
        self,
        connection: &mut Conn,
        modules: usize,
        verified: bool,
        expires: Option<Instant>,
        config: &Config,
    ) -> Result<bool, Error> {
        let generation = send(connection, &Guard { key: &self.key }, config).await?;
        // The generation may also have expired, if an earlier warm-up made it a day ago: then the
        // caller begins anew.
        if generation.is_none() || generation != self.generation {
            return Ok(false);
        }
        let completed_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mark = Mark {
            completed_at,
            modules,
            verified,
            run_id: self.info.run_id().unwrap_or_default().to_owned(),
            master_replid: self.info.replid().unwrap_or_default().to_owned(),
            evicted_keys: self.info.number("evicted_keys"),
        };
        send(
            connection,
            &Finish {
                key: &self.key,
                mark,
                expires,
            },
            config,
        )
        .await
    }
}

/// Places the token, and makes a generation unless there is one. INFO comes along: the run id and
/// the history of the beginning, because a failover during the warm-up counts, and the evictions,
/// because what is evicted during the warm-up counts.
struct Begin<'a> {
    key: &'a str,
}

impl Command for Begin<'_> {
    /// The generation, and what INFO tells of the server.
    type Reply = (Option<Vec<u8>>, Info);

    fn operation(&self) -> &'static str {
        "begin_mark"
    }

    fn request(&self, config: &Config) -> Request {
        let generation = &config.keys.generation;
        let mut pipeline = Pipeline::new();
        let set = |key: &str, value: &str| {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(value).arg("PX").arg(TOKEN_MS);
            set
        };
        pipeline.add_command(set(self.key, "1"));
        let mut generate = set(generation, &format!("{:016x}", random()));
        // Warm-ups that run at the same time share one generation: each must survive the other.
        generate.arg("NX");
        pipeline.add_command(generate);
        pipeline.cmd("GET").arg(generation);
        // All sections: a request for several at once is an error before Redis 7.
        pipeline.cmd("INFO");
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let [set, generated, generation, info] = reply::exactly(replies)?;
        reply::ok(set)?;
        if generated != Value::Nil {
            reply::ok(generated)?;
        }
        Ok((reply::bytes(generation)?, Info::new(info)?))
    }
}

/// Watches token and generation, and looks at both.
struct Guard<'a> {
    key: &'a str,
}

impl Command for Guard<'_> {
    /// The generation, if the token is there.
    type Reply = Option<Vec<u8>>;

    fn operation(&self) -> &'static str {
        "check_mark"
    }

    fn request(&self, config: &Config) -> Request {
        let generation = &config.keys.generation;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("UNWATCH");
        pipeline.cmd("WATCH").arg(self.key).arg(generation);
        pipeline.cmd("EXISTS").arg(self.key);
        pipeline.cmd("GET").arg(generation);
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let [unwatched, watched, exists, generation] = reply::exactly(replies)?;
        reply::ok(unwatched)?;
        reply::ok(watched)?;
        let exists = reply::integer(exists)? == 1;
        Ok(reply::bytes(generation)?.filter(|_| exists))
    }
}

/// Writes the mark and removes the token, unless one of the two that are watched changed.
struct Finish<'a> {
    key: &'a str,
    mark: Mark,
    expires: Option<Instant>,
}

impl Command for Finish<'_> {
    type Reply = bool;
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        "mark"
    }

    fn outcome(done: &bool) -> Outcome {
        Outcome::carried_out(*done)
    }

    fn request(&self, config: &Config) -> Request {
        let mut set = redis::cmd("SET");
        set.arg(config.keys.complete())
            .arg(serde_json::to_string(&self.mark).unwrap_or_default());
        if let Some(expires) = self.expires {
            let left = expires.saturating_duration_since(Instant::now());
            set.arg("PX")
                // PX 0 is an error.
                .arg(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        let mut del = redis::cmd("DEL");
        del.arg(self.key);
        Request::transaction([set, del], Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<bool, Error> {
        reply::transaction(replies).map(|results| results.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_has_the_documented_form() {
        let mark = Mark {
            completed_at: 1_700_000_000,
            modules: 3,
            verified: true,
            run_id: "r".into(),
            master_replid: "h".into(),
            evicted_keys: Some(7),
        };
        let json = serde_json::to_string(&mark).unwrap();
        assert_eq!(
            json,
            r#"{"completed_at":1700000000,"modules":3,"verified":true,"run_id":"r","master_replid":"h","evicted_keys":7}"#
        );
        assert_eq!(serde_json::from_str::<Mark>(&json).unwrap(), mark);
    }
}
