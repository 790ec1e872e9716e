//! Modules and their places in the index: reading, writing, removing and moving them.

use redis::{Cmd, Pipeline, Value};

use super::reply;
use super::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::{Keys, validate_path};
use crate::module::CachedModule;
use crate::observe::Outcome;

/// The module at one path.
pub(crate) struct Get<'a> {
    path: &'a str,
}

impl<'a> Get<'a> {
    pub(crate) fn new(path: &'a str) -> Result<Self, Error> {
        validate_path(path)?;
        Ok(Self { path })
    }
}

impl Command for Get<'_> {
    type Reply = Option<CachedModule>;

    fn operation(&self) -> &'static str {
        "get"
    }

    fn outcome(module: &Self::Reply) -> Outcome {
        match module {
            Some(_) => Outcome::Done,
            None => Outcome::Absent,
        }
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("GET");
        command.arg(config.keys.module_unchecked(self.path));
        Request::one(command, Class::Lookup)
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Self::Reply, Error> {
        let [value] = reply::exactly(replies)?;
        entry(self.path, value, config)
    }
}

/// The modules at many paths, in their order. With no paths there is nothing to send.
pub(crate) struct GetMany<'a, S> {
    paths: &'a [S],
    class: Class,
}

impl<'a, S: AsRef<str>> GetMany<'a, S> {
    pub(crate) fn new(paths: &'a [S], class: Class) -> Result<Self, Error> {
        paths
            .iter()
            .try_for_each(|path| validate_path(path.as_ref()))?;
        Ok(Self { paths, class })
    }
}

impl<S: AsRef<str>> Command for GetMany<'_, S> {
    /// A corrupt entry is an error in its own place: it must not hide the others.
    type Reply = Vec<Result<Option<CachedModule>, Error>>;

    fn operation(&self) -> &'static str {
        "get_many"
    }

    fn outcome(entries: &Self::Reply) -> Outcome {
        let failed = entries.iter().find_map(|entry| entry.as_ref().err());
        match failed {
            Some(error) => Outcome::of(error),
            None if entries.iter().all(|entry| matches!(entry, Ok(None))) => Outcome::Absent,
            None => Outcome::Done,
        }
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("MGET");
        for path in self.paths {
            command.arg(config.keys.module_unchecked(path.as_ref()));
        }
        Request::one(command, self.class)
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Self::Reply, Error> {
        let values = reply::sequence(reply::single(replies)?)?;
        // One value for each key: with another count, values would go to wrong paths.
        if values.len() != self.paths.len() {
            return Err(reply::unexpected());
        }
        let entries = self.paths.iter().zip(values);
        Ok(entries
            .map(|(path, value)| entry(path.as_ref(), value, config))
            .collect())
    }
}

/// Writes a module and its place in the index.
pub(crate) struct Set<'a> {
    module: &'a CachedModule,
    old_path: Option<&'a str>,
}

impl<'a> Set<'a> {
    pub(crate) fn new(module: &'a CachedModule, config: &Config) -> Result<Self, Error> {
        checked_module(module, config)?;
        Ok(Self {
            module,
            old_path: None,
        })
    }

    /// The same, and the old path's removal with it: a move that readers see at once.
    pub(crate) fn moved_from(
        old_path: &'a str,
        module: &'a CachedModule,
        config: &Config,
    ) -> Result<Self, Error> {
        validate_path(old_path)?;
        let set = Self::new(module, config)?;
        // A move to the same path is a plain `set`: there is nothing to remove.
        let old_path = (old_path != module.path).then_some(old_path);
        Ok(Self { old_path, ..set })
    }
}

impl Command for Set<'_> {
    type Reply = ();
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        match self.old_path {
            Some(_) => "rename",
            None => "set",
        }
    }

    fn request(&self, config: &Config) -> Request {
        let removal = self
            .old_path
            .into_iter()
            .flat_map(|old| remove(&[old], &config.keys));
        let commands = removal.chain(put(self.module, config));
        let class = if self.module.content.len() > LARGE_WRITE {
            Class::Bulk
        } else {
            Class::Lookup
        };
        Request::transaction(commands, class)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        executed(replies)?;
        if let Some(old_path) = self.old_path {
            log::debug!("Invalidated module cache: {old_path}");
        }
        log::debug!("Cached module: {}", self.module.path);
        Ok(())
    }
}

/// Checks a module before it is sent. The fields of [`CachedModule`] are public, so what its
/// constructor checked may have changed.
pub(crate) fn checked_module(module: &CachedModule, config: &Config) -> Result<(), Error> {
    validate_path(&module.path)?;
    if module.content.len() > config.max_content_bytes {
        return Err(Error::TooLarge {
            path: module.path.clone(),
            size: module.content.len(),
            limit: config.max_content_bytes,
        });
    }
    Ok(())
}

/// A write of more bytes of content than this has the deadline of a bulk call: over a slow network
/// its transfer alone may take longer than a lookup.
pub(crate) const LARGE_WRITE: usize = 256 * 1024;

/// Removes modules and their places in the index; answers how many modules there were.
pub(crate) struct Remove<'a, S> {
    paths: &'a [S],
    class: Class,
    atomic: bool,
}

impl<'a, S: AsRef<str>> Remove<'a, S> {
    /// The paths must be valid: checked by the caller, or members of the index.
    pub(crate) fn new(paths: &'a [S], class: Class) -> Self {
        Self {
            paths,
            class,
            atomic: true,
        }
    }

    /// The same without MULTI, which Redis refuses when it is out of memory.
    pub(crate) fn one_by_one(self) -> Self {
        Self {
            atomic: false,
            ..self
        }
    }
}

impl<S: AsRef<str>> Command for Remove<'_, S> {
    type Reply = u64;
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        match self.class {
            // One path that a writer was asked to remove.
            Class::Lookup => "invalidate",
            Class::Bulk => "remove",
        }
    }

    fn request(&self, config: &Config) -> Request {
        let commands = remove(self.paths, &config.keys);
        if self.atomic {
            return Request::transaction(commands, self.class);
        }
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        Request {
            pipeline,
            class: self.class,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<u64, Error> {
        let mut results = if self.atomic {
            executed(replies)?
        } else {
            replies
                .into_iter()
                .map(reply::part)
                .collect::<Result<Vec<_>, _>>()?
        };
        if results.is_empty() {
            return Err(reply::unexpected());
        }
        // That of DEL, which comes first. What SREM removed may be a leftover without a module.
        let removed = reply::integer(results.swap_remove(0))?;
        u64::try_from(removed).map_err(|_| reply::unexpected())
    }
}

/// SET and SADD: a module is never without its place in the index.
pub(crate) fn put(module: &CachedModule, config: &Config) -> [Cmd; 2] {
    let mut set = redis::cmd("SET");
    set.arg(config.keys.module_unchecked(&module.path))
        .arg(module.as_argument());
    if let Some(ttl) = config.ttl {
        // Only if asked for: the specification's entries live for ever. The index never expires.
        set.arg("PX")
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    }
    let mut sadd = redis::cmd("SADD");
    sadd.arg(config.keys.index()).arg(&module.path);
    [set, sadd]
}

/// DEL and SREM of valid paths.
pub(crate) fn remove<S: AsRef<str>>(paths: &[S], keys: &Keys) -> [Cmd; 2] {
    let mut del = redis::cmd("DEL");
    let mut srem = redis::cmd("SREM");
    srem.arg(keys.index());
    for path in paths {
        let path = path.as_ref();
        del.arg(keys.module_unchecked(path));
        srem.arg(path);
    }
    [del, srem]
}

/// The results of a transaction that watched nothing. It can't have been aborted, so a nil is no
/// answer of Redis.
pub(crate) fn executed(replies: Vec<Value>) -> Result<Vec<Value>, Error> {
    reply::transaction(replies)?.ok_or_else(reply::unexpected)
}

/// What readers get for a stored value.
///
/// A key of another type is absent. MGET answers nil for it, where GET answers an error; `get` and
/// `get_many` must not answer the same question differently.
pub(crate) fn entry(
    path: &str,
    value: Value,
    config: &Config,
) -> Result<Option<CachedModule>, Error> {
    match reply::bytes(value) {
        Err(error) if error.is_wrong_type() => Ok(None),
        value => module(path, value?, config).transpose(),
    }
}

/// The same for a diagnosis, which looks for what is wrong: there, another type is corrupt.
pub(crate) fn stored(
    path: &str,
    value: Value,
    config: &Config,
) -> Result<Option<Result<CachedModule, Error>>, Error> {
    match reply::bytes(value) {
        Err(error) if error.is_wrong_type() => Ok(Some(Err(error))),
        value => Ok(module(path, value?, config)),
    }
}

/// A stored value as its module. An empty value is absent, by the specification's `if data:`.
pub(crate) fn module(
    path: &str,
    value: Option<Vec<u8>>,
    config: &Config,
) -> Option<Result<CachedModule, Error>> {
    let json = value.filter(|json| !json.is_empty())?;
    let (size, limit) = (json.len(), config.max_entry_bytes());
    let module = if size > limit {
        let reason = format!("it has {size} bytes, more than the limit of {limit}");
        Err(Error::corrupt(path, reason))
    } else {
        CachedModule::from_json(path, &json)
    };
    Some(module.map_err(|error| error.of_redis(&config.redis_address())))
}
