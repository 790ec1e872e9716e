//! What the guard says of itself in Redis, as a sign of life for `status` and `explain`.

use std::time::Duration;

use redis::{Pipeline, Value};

use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::diagnosis::guarded::GuardEntry;
use crate::error::Error;

/// How many intervals the entry outlives its guard.
const INTERVALS: u32 = 3;

/// Writes the entry, unless another guard's is there that has as good a right: one that stands by
/// leaves it to one that does not, and of two equals the first one keeps it.
pub(super) async fn beat<Conn: DedicatedConnection>(
    connection: &mut Conn,
    entry: &GuardEntry,
    interval: Duration,
    config: &Config,
) -> Result<(), Error> {
    let other = send(connection, &Look, config).await?;
    if other.is_some_and(|other| other.id != entry.id && other.standby_ms <= entry.standby_ms) {
        return Ok(());
    }
    let lives = interval * INTERVALS;
    send(connection, &Beat { entry, lives }, config).await
}

/// Takes the entry away, if it is this guard's.
pub(super) async fn end<Conn: DedicatedConnection>(
    connection: &mut Conn,
    id: &str,
    config: &Config,
) -> Result<(), Error> {
    let entry = send(connection, &Look, config).await?;
    if entry.is_some_and(|entry| entry.id == id) {
        send(connection, &End, config).await?;
    }
    Ok(())
}

struct Look;

impl Command for Look {
    type Reply = Option<GuardEntry>;

    fn operation(&self) -> &'static str {
        "beat"
    }

    fn request(&self, config: &Config) -> Request {
        let mut get = redis::cmd("GET");
        get.arg(config.keys.guard());
        Request::one(get, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let json = reply::bytes(reply::single(replies)?)?;
        // What can't be read is replaced.
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }
}

struct Beat<'a> {
    entry: &'a GuardEntry,
    lives: Duration,
}

impl Command for Beat<'_> {
    type Reply = ();

    fn operation(&self) -> &'static str {
        "beat"
    }

    fn request(&self, config: &Config) -> Request {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline
            .cmd("SET")
            .arg(config.keys.guard())
            .arg(serde_json::to_string(self.entry).unwrap_or_default())
            .arg("PX")
            .arg(u64::try_from(self.lives.as_millis()).unwrap_or(u64::MAX));
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        reply::ok(reply::single(replies)?).map(drop)
    }
}

struct End;

impl Command for End {
    type Reply = ();

    fn operation(&self) -> &'static str {
        "beat"
    }

    fn request(&self, config: &Config) -> Request {
        let mut del = redis::cmd("DEL");
        del.arg(config.keys.guard());
        Request::one(del, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        reply::integer(reply::single(replies)?).map(drop)
    }
}
