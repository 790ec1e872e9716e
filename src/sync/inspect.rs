//! What Redis holds for a batch of paths.

use std::time::Duration;

use redis::{Pipeline, Value};

use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;

/// How long a placeholder lives, in milliseconds, if the process that placed it dies. Longer than a
/// batch of `refresh` takes: its expiry trips the watch, and costs an attempt.
pub(super) const PLACEHOLDER_MS: i64 = 10_000;

/// The state of these paths in Redis. With `watch` their keys are watched from before they are read
/// until the next EXEC, which then fails if one changed.
pub(crate) struct Inspect<'a> {
    pub(crate) paths: &'a [String],
    pub(crate) watch: bool,
    /// Whether to fetch the values. Without them every entry counts as one that can't be read,
    /// which is enough to find what has no row.
    pub(crate) values: bool,
}

impl<'a> Inspect<'a> {
    pub(crate) fn of(paths: &'a [String]) -> Self {
        Self {
            paths,
            watch: false,
            values: true,
        }
    }

    /// Watched before they are read: what changes afterwards aborts the next EXEC.
    #[cfg(feature = "postgres")]
    pub(crate) fn watching(paths: &'a [String]) -> Self {
        Self {
            watch: true,
            ..Self::of(paths)
        }
    }
}

/// The state of one path in Redis.
pub(crate) struct Cached {
    /// The stored value, unless absent or empty. `Some` of no bytes stands for a key that is there
    /// and has no string: of another type, or not fetched. It can't be read either.
    pub(super) value: Option<Vec<u8>>,
    /// Whether the index names the path.
    pub(super) listed: bool,
    /// How long it has to live, if not for ever.
    pub(crate) ttl: Option<Duration>,
}

/// A hash of a stored value, by which it is known again; that of an absent one is 0.
pub(crate) fn identity(value: Option<&[u8]>) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return 0;
    };
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Command for Inspect<'_> {
    type Reply = Vec<Cached>;

    fn operation(&self) -> &'static str {
        "inspect"
    }

    fn request(&self, config: &Config) -> Request {
        let keys: Vec<String> = self
            .paths
            .iter()
            .map(|path| config.keys.module_unchecked(path))
            .collect();
        let mut pipeline = Pipeline::new();
        if self.watch {
            // What an earlier batch of this connection watched no longer counts.
            pipeline.cmd("UNWATCH");
            pipeline.cmd("WATCH").arg(&keys);
        }
        if self.values {
            pipeline.cmd("MGET").arg(&keys);
        }
        pipeline
            .cmd("SMISMEMBER")
            .arg(config.keys.index())
            .arg(self.paths);
        for key in &keys {
            pipeline.cmd("PTTL").arg(key);
        }
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let mut replies = replies.into_iter();
        let mut next = || reply::ok(replies.next().ok_or_else(reply::unexpected)?);
        if self.watch {
            next()?;
            next()?;
        }
        let values = if self.values {
            reply::sequence(next()?)?.into_iter().map(Some).collect()
        } else {
            vec![None; self.paths.len()]
        };
        let members = reply::sequence(next()?)?;
        if values.len() != self.paths.len() || members.len() != self.paths.len() {
            return Err(reply::unexpected());
        }
        values
            .into_iter()
            .zip(members)
            .map(|(value, member)| {
                // -1: for ever; -2: no such key.
                let ttl = reply::integer(next()?)?;
                let listed = reply::integer(member)? == 1;
                let value = match value.map(reply::bytes).transpose()?.flatten() {
                    Some(value) => Some(value).filter(|value| !value.is_empty()),
                    // A key that the index does not name and that expires within 10 s may be the
                    // placeholder of a `refresh` under way: absent, as for readers.
                    None if ttl == -2 || (!listed && (0..=PLACEHOLDER_MS).contains(&ttl)) => None,
                    // Not asked for, or of another type, of which MGET says nil.
                    None => Some(Vec::new()),
                };
                Ok(Cached {
                    value,
                    listed,
                    ttl: u64::try_from(ttl).ok().map(Duration::from_millis),
                })
            })
            .collect()
    }
}
