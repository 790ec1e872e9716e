//! Asks Redis for names, and for the index where it is needed, in one round trip.

use redis::{Pipeline, Value};

use crate::command::index::{Index, Members};
use crate::command::modules::entry;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::module::CachedModule;
use crate::observe::Outcome;
use crate::paths::name::Name;

/// Both paths of all names, in one command, and the whole index, if that is wanted too.
pub(super) struct Lookup<'a> {
    pub(super) names: &'a [Name],
    pub(super) with_index: bool,
    pub(super) class: Class,
}

pub(super) struct Reply {
    /// What Python would find first for each name, in order.
    pub(super) modules: Vec<Option<CachedModule>>,
    /// The index, if it was asked for. Its error is kept apart: an index that can't be read (of
    /// another type, forbidden by an ACL) must not fail a call that finds all of its modules.
    pub(super) index: Option<Result<Index, Error>>,
}

impl Lookup<'_> {
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flat_map(Name::candidates)
    }
}

impl Command for Lookup<'_> {
    type Reply = Reply;

    fn operation(&self) -> &'static str {
        if self.names.is_empty() {
            // The index alone.
            Members.operation()
        } else {
            "resolve"
        }
    }

    fn outcome(reply: &Reply) -> Outcome {
        let Reply { modules, index } = reply;
        match index {
            // What was found needs no index, see `Reply::index`.
            Some(Err(error)) if modules.is_empty() || modules.iter().any(Option::is_none) => {
                Outcome::of(error)
            }
            _ if !modules.is_empty() && modules.iter().all(Option::is_none) => Outcome::Absent,
            _ => Outcome::Done,
        }
    }

    fn request(&self, config: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        let keys: Vec<String> = self
            .paths()
            .map(|path| config.keys.module_unchecked(path))
            .collect();
        // MGET without keys is an error.
        if !keys.is_empty() {
            pipeline.cmd("MGET").arg(keys);
        }
        if self.with_index {
            pipeline.add_command(Members::command(&config.keys));
        }
        // The index may be large: it goes over the connection on which it holds up no lookup.
        let class = if self.with_index {
            Class::Bulk
        } else {
            self.class
        };
        Request { pipeline, class }
    }

    fn decode(&self, mut replies: Vec<Value>, config: &Config) -> Result<Reply, Error> {
        let members = self.with_index.then(|| replies.pop());
        let index = members.map(|members| Members.decode(members.into_iter().collect(), config));
        let asked = self.paths().count();
        let values = match asked {
            0 => Vec::new(),
            _ => reply::sequence(reply::single(replies)?)?,
        };
        if values.len() != asked {
            return Err(reply::unexpected());
        }
        let mut values = values.into_iter();
        let mut modules = Vec::with_capacity(self.names.len());
        for name in self.names {
            let mut module = None;
            for (path, value) in name.candidates().zip(&mut values) {
                // A module that a package hides is not looked at: it may be corrupt, and Python
                // would never read it.
                if module.is_none() {
                    module = entry(path, value, config)?;
                }
            }
            modules.push(module);
        }
        Ok(Reply { modules, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Name> {
        names
            .iter()
            .map(|name| Name::parse(name).unwrap())
            .collect()
    }

    fn lookup(names: &[Name], with_index: bool) -> Lookup<'_> {
        Lookup {
            names,
            with_index,
            class: Class::Lookup,
        }
    }

    fn config() -> Config {
        Config::new(crate::config::DEFAULT_REDIS_URL).unwrap()
    }

    fn stored(path: &str) -> Value {
        Value::BulkString(CachedModule::new(path, "").unwrap().to_json())
    }

    #[test]
    fn one_command_asks_for_all_and_one_more_for_the_index() {
        let names = names(&["a", "b.c"]);
        let request = lookup(&names, false).request(&config());
        assert_eq!((request.replies(), request.class), (1, Class::Lookup));
        let packed = request.pipeline.get_packed_pipeline();
        let text = String::from_utf8(packed).unwrap();
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("bifrost:module:"))
            .collect();
        assert_eq!(keys, ["a/__init__.py", "a.py", "b/c/__init__.py", "b/c.py"]);
        let request = lookup(&names, true).request(&config());
        assert_eq!((request.replies(), request.class), (2, Class::Bulk));
        assert_eq!(lookup(&[], true).request(&config()).replies(), 1);
    }

    #[test]
    fn a_package_hides_a_module_even_a_corrupt_one() {
        let names = names(&["a", "b", "c"]);
        let bad = Value::BulkString(b"{".to_vec());
        let values = [
            stored("a/__init__.py"),
            bad.clone(),
            Value::Nil,
            stored("b.py"),
            Value::Nil,
            Value::Nil,
        ];
        let decode = |values: &[Value]| {
            let replies = vec![Value::Array(values.to_vec())];
            lookup(&names, false).decode(replies, &config())
        };
        let modules = decode(&values).map(|reply| reply.modules);
        let paths: Vec<_> = modules
            .as_ref()
            .unwrap()
            .iter()
            .map(|module| module.as_ref().map(|module| module.path.as_str()))
            .collect();
        assert_eq!(paths, [Some("a/__init__.py"), Some("b.py"), None]);
        let mut corrupt = values.clone();
        corrupt[2] = bad;
        let error = decode(&corrupt).map(drop).unwrap_err();
        assert_eq!(error.path(), Some("b/__init__.py"));
        assert!(decode(&values[1..]).is_err_and(|error| error.is_unavailable()));
    }

    #[test]
    fn too_few_or_too_many_replies_are_no_answer() {
        let names = names(&["a"]);
        let pair = Value::Array(vec![Value::Nil, Value::Nil]);
        let index = Value::Array(Vec::new());
        for replies in [
            vec![],
            vec![pair.clone()],
            vec![index.clone(), index.clone()],
            vec![pair.clone(), pair.clone(), index.clone()],
        ] {
            let reply = lookup(&names, true).decode(replies, &config());
            assert!(reply.is_err_and(|error| error.is_unavailable()));
        }
    }

    #[test]
    fn modules_are_told_without_an_index() {
        let names = names(&["a"]);
        let pair = Value::Array(vec![Value::Nil, stored("a.py")]);
        let index = Value::Array(Vec::new());
        for (index, is_index) in [(index, true), (Value::Int(1), false)] {
            let reply = lookup(&names, true).decode(vec![pair.clone(), index], &config());
            let Reply { modules, index } = reply.ok().unwrap();
            assert!(matches!(&modules[..], [Some(_)]));
            assert_eq!(index.unwrap().is_ok(), is_index);
        }
        let reply = lookup(&names, false).decode(vec![pair], &config());
        assert!(reply.ok().unwrap().index.is_none());
    }
}
