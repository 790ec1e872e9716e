//! The set of all cached paths, and what else a foreign writer put into it.

use std::collections::HashSet;

use redis::{Cmd, Value};

use super::reply;
use super::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::{Keys, validate_path};

/// Everything that the index names.
pub(crate) struct Members;

/// The members of the index, paths and others apart.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) paths: HashSet<String>,
    /// Members that can't be paths. A foreign writer put them there; they have no key, so only the
    /// index is to be rid of them.
    pub(crate) bad: Vec<Vec<u8>>,
}

impl Members {
    /// Also a part of other requests, such as that of a name.
    pub(crate) fn command(keys: &Keys) -> Cmd {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(keys.index());
        command
    }
}

impl Command for Members {
    type Reply = Index;

    fn operation(&self) -> &'static str {
        "paths"
    }

    fn request(&self, config: &Config) -> Request {
        Request::one(Self::command(&config.keys), Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Index, Error> {
        let members = reply::sequence(reply::single(replies)?)?;
        let mut index = Index {
            paths: HashSet::with_capacity(members.len()),
            bad: Vec::new(),
        };
        for member in members {
            match String::from_utf8(reply::bytes(member)?.unwrap_or_default()) {
                Ok(path) if validate_path(&path).is_ok() => {
                    index.paths.insert(path);
                }
                Ok(text) => index.bad.push(text.into_bytes()),
                Err(error) => index.bad.push(error.into_bytes()),
            }
        }
        Ok(index)
    }
}

/// Takes members out of the index and touches nothing else.
pub(crate) struct Unlist<'a> {
    pub(crate) members: &'a [Vec<u8>],
}

impl Command for Unlist<'_> {
    type Reply = ();
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        "unlist"
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("SREM");
        command.arg(config.keys.index()).arg(self.members);
        Request::one(command, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        reply::integer(reply::single(replies)?).map(drop)
    }
}

/// How many members the index has.
#[cfg(all(feature = "postgres", feature = "near-cache"))]
pub(crate) struct Size;

#[cfg(all(feature = "postgres", feature = "near-cache"))]
impl Command for Size {
    type Reply = usize;

    fn operation(&self) -> &'static str {
        "count"
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("SCARD");
        command.arg(config.keys.index());
        Request::one(command, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<usize, Error> {
        let size = reply::integer(reply::single(replies)?)?;
        usize::try_from(size).map_err(|_| reply::unexpected())
    }
}
