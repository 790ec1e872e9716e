//! What the share of removals is measured by: what others cached, and not what guards brought.
//!
//! It is kept in Redis, because several guards bring the same, and one may be started anew.

use redis::{Pipeline, Value};

use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::command::index::Size;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;

/// Bringing more than so many at once is noted beforehand.
pub(super) const MANY: usize = 20;

/// For how long that is remembered, in milliseconds: longer than it takes to see what else there is.
const LIVES_MS: u64 = 60_000;

/// What a guard knows of it by itself.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// Whether the cache was incomplete at the last sweep: then what is missing is no news.
    pub(super) is_cold: bool,
    /// How many modules the guard has brought that were not there, in this sweep or since the hints
    /// were taken that it looks at.
    pub(super) added: usize,
}

impl Baseline {
    /// The guard has brought so many that were missing.
    pub(super) fn added(&mut self, modules: usize) {
        if !self.is_cold {
            self.added += modules;
        }
    }

    /// Notes how many are cached, before so many are brought that are missing.
    pub(super) async fn before_adding<Conn: DedicatedConnection>(
        &self,
        connection: &mut Conn,
        modules: usize,
        config: &Config,
    ) -> Result<(), Error> {
        if self.is_cold || modules <= MANY {
            return Ok(());
        }
        let cached = send(connection, &Size, config).await?;
        let note = Note {
            cached,
            lasts: false,
        };
        send(connection, &note, config).await
    }
}

/// What guards have noted.
pub(super) struct Noted;

/// A note that lasts begins with this.
const LASTING: &str = "lasting ";

impl Command for Noted {
    /// How many, if anything is noted, and whether that lasts.
    type Reply = (Option<usize>, bool);

    fn operation(&self) -> &'static str {
        "baseline"
    }

    fn request(&self, config: &Config) -> Request {
        let mut get = redis::cmd("GET");
        get.arg(&config.keys.baseline);
        Request::one(get, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let text = reply::bytes(reply::single(replies)?)?;
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        let lasting = text.strip_prefix(LASTING);
        let cached = lasting.unwrap_or(&text).parse().ok();
        Ok((cached, lasting.is_some()))
    }
}

/// Notes how many modules were cached: for a minute, unless something is noted; or until it is
/// [forgotten](Forget).
pub(super) struct Note {
    pub(super) cached: usize,
    pub(super) lasts: bool,
}

impl Command for Note {
    type Reply = ();

    fn operation(&self) -> &'static str {
        "baseline"
    }

    fn request(&self, config: &Config) -> Request {
        let mut pipeline = Pipeline::with_capacity(1);
        let set = pipeline.cmd("SET").arg(&config.keys.baseline);
        if self.lasts {
            set.arg(format!("{LASTING}{}", self.cached));
        } else {
            set.arg(self.cached).arg("NX").arg("PX").arg(LIVES_MS);
        }
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        // Nil where something is noted already.
        match reply::single(replies)? {
            Value::Nil => Ok(()),
            set => reply::ok(set).map(drop),
        }
    }
}

/// Forgets what was noted.
pub(super) struct Forget;

impl Command for Forget {
    type Reply = ();

    fn operation(&self) -> &'static str {
        "baseline"
    }

    fn request(&self, config: &Config) -> Request {
        let mut del = redis::cmd("DEL");
        del.arg(&config.keys.baseline);
        Request::one(del, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        reply::integer(reply::single(replies)?).map(drop)
    }
}
