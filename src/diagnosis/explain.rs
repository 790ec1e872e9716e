//! Why a module is absent, as far as Redis alone can tell.

use redis::{Pipeline, Value};

use super::status::{Status, ask_status, status_of};
use crate::client::call;
use crate::client::transport::Transport;
use crate::command::modules::stored;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::{MODULE_INDEX_KEY, module_key};

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

pub(crate) struct Explain<'a> {
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
