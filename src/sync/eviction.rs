//! Whether Redis evicts what is written. If it does, writing again never ends, and the remedy is a
//! setting of Redis, which the report must name.

use redis::Value;

#[cfg(feature = "postgres")]
use super::verdict::Verdict;
use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::command::info::Info;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;

/// So many modules that are missing again at once have been evicted: services remove modules one by
/// one. Counted only where INFO is refused and its counter can't be had.
#[cfg(feature = "postgres")]
const MANY: usize = 20;

/// Compares the server's counter of evicted keys with its value at the first look.
#[derive(Default)]
pub(crate) struct Evictions {
    first: Option<u64>,
}

impl Evictions {
    /// Whether there were any since the first look; `None` where Redis does not tell.
    pub(crate) async fn any<Conn: DedicatedConnection>(
        &mut self,
        connection: &mut Conn,
        config: &Config,
    ) -> Result<Option<bool>, Error> {
        let now = send(connection, &EvictedKeys, config).await?;
        self.first = self.first.or(now);
        Ok(self.first.zip(now).map(|(first, now)| now > first))
    }

    /// Whether evictions explain this drift: most of it is missing, and was `written` by an earlier
    /// pass. Before anything is written, missing modules are just what a cold cache looks like.
    #[cfg(feature = "postgres")]
    pub(crate) async fn have_taken<Conn: DedicatedConnection>(
        &mut self,
        connection: &mut Conn,
        drift: &[(String, Verdict)],
        written: bool,
        config: &Config,
    ) -> Result<bool, Error> {
        let evicted = self.any(connection, config).await?;
        let is_missing = |(_, verdict): &&(String, Verdict)| *verdict == Verdict::Missing;
        let missing = drift.iter().filter(is_missing).count();
        Ok(written && 2 * missing > drift.len() && evicted.unwrap_or(missing >= MANY))
    }
}

struct EvictedKeys;

impl Command for EvictedKeys {
    type Reply = Option<u64>;

    fn operation(&self) -> &'static str {
        "evictions"
    }

    fn request(&self, _: &Config) -> Request {
        let mut command = redis::cmd("INFO");
        command.arg("stats");
        Request::one(command, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let [info] = reply::exactly(replies)?;
        Ok(Info::new(info)?.number("evicted_keys"))
    }
}
