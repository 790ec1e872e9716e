//! The index, kept up to date by what Redis announces: after a change, only those paths are asked
//! for that were announced, not all.
//!
//! Redis says that the index changed, not how. But whoever puts a path into it or takes it out has
//! just written or removed the module at that path, and that is announced by its name. A foreign
//! writer does the two with two commands; so paths are asked for again until that is long over. And
//! whoever changes the index alone is found out by how many members it has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, Value};

use super::clock::Tick;
use super::kept::INDEX_PATH;
use crate::commands::{Class, Command, Request};
use crate::keys::{MODULE_INDEX_KEY, validate_path};
use crate::resolution::PathIndex;
use crate::{Config, Error, reply};

/// Longer than a writer takes between its two commands.
const GRACE: Duration = Duration::from_secs(2);

/// How long after the whole index was asked for it is asked for again, if it still changes: for one
/// path that came and one that went in the index alone, of which the number of members tells nothing.
const RELIST: Duration = Duration::from_secs(30);

/// So many announced paths are worth a new index.
const MOST: usize = 1_000;

/// What was announced, and the index that it applies to.
#[derive(Debug, Default)]
pub(crate) struct Announcements(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    base: Option<Base>,
    /// When the base was asked for, or brought up to date.
    asked: Tick,
    /// What may have changed since the base, and when that was announced.
    recent: HashMap<String, Tick>,
    /// Until then, something may change of which the first half is not known. An index from before
    /// is no base.
    blind_until: Tick,
}

/// An index that was right when it was asked for.
#[derive(Debug)]
struct Base {
    index: Arc<PathIndex>,
    /// Members that can't be paths: Redis counts them too.
    bad: HashSet<Vec<u8>>,
    epoch: u64,
    /// When the whole of it was asked for.
    listed: Tick,
}

/// When a question was asked, and what was known then.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) epoch: u64,
    at: Tick,
}

/// What to ask for.
#[derive(Debug)]
pub(crate) enum Question {
    /// The whole index.
    Whole(Asked),
    /// Whether these paths are in it.
    Update(Asked, Update),
}

#[derive(Debug)]
pub(crate) struct Update {
    base: Base,
    pub(crate) paths: Vec<String>,
}

impl Announcements {
    /// From now on all changes are announced.
    pub(crate) fn begin(&self, now: Tick) {
        self.lock().lose(now);
    }

    /// To be told before anybody learns that these changed, [`INDEX_PATH`] among them or not.
    pub(crate) fn add(&self, paths: &[String], now: Tick) {
        let mut state = self.lock();
        for path in paths.iter().filter(|path| *path != INDEX_PATH) {
            if state.recent.len() == MOST && !state.recent.contains_key(path) {
                state.lose(now);
            }
            state.recent.insert(path.clone(), now);
        }
        let explains = |at: &Tick| at.plus(GRACE) > now;
        if paths.iter().any(|path| path == INDEX_PATH) && !state.recent.values().any(explains) {
            state.lose(now);
        }
    }

    /// What to ask for now, in that session.
    pub(crate) fn question(&self, epoch: u64, now: Tick) -> Question {
        let mut state = self.lock();
        let asked = Asked { epoch, at: now };
        // Taken out, so that it can be changed without being copied.
        match state.base.take() {
            Some(base)
                if base.epoch == epoch
                    && base.listed >= state.blind_until
                    && now.since(base.listed) < RELIST
                    && !state.recent.is_empty() =>
            {
                let paths = state.recent.keys().cloned().collect();
                Question::Update(asked, Update { base, paths })
            }
            _ => Question::Whole(asked),
        }
    }

    /// The whole index was the answer, and these members that can't be paths.
    pub(crate) fn listed(&self, asked: &Asked, index: &Arc<PathIndex>, bad: HashSet<Vec<u8>>) {
        let base = Base {
            index: Arc::clone(index),
            bad,
            epoch: asked.epoch,
            listed: asked.at,
        };
        self.keep(asked, base);
    }

    /// For each of the paths, whether it is in the index, was the answer, and how many members
    /// there are. `None` if something else has changed too.
    pub(crate) fn updated(
        &self,
        asked: &Asked,
        update: Update,
        answer: &Membership,
    ) -> Option<Arc<PathIndex>> {
        let Membership { members, count } = answer;
        let Update { mut base, paths } = update;
        for (path, is_member) in paths.into_iter().zip(members) {
            if validate_path(&path).is_err() {
                if *is_member {
                    base.bad.insert(path.into_bytes());
                } else {
                    base.bad.remove(path.as_bytes());
                }
            } else if base.index.contains(&path) != *is_member {
                // Copied at the first change, if somebody uses it.
                let index = Arc::make_mut(&mut base.index);
                if *is_member {
                    index.insert(path);
                } else {
                    index.remove(&path);
                }
            }
        }
        if *count != Some(base.index.paths().len() + base.bad.len()) {
            return None;
        }
        let index = Arc::clone(&base.index);
        self.keep(asked, base);
        Some(index)
    }

    /// From now on, what is announced applies to this index.
    fn keep(&self, asked: &Asked, base: Base) {
        let mut state = self.lock();
        if asked.at < state.asked {
            return;
        }
        state.asked = asked.at;
        // What had begun so long before was over when it was asked for.
        state.recent.retain(|_, at| at.plus(GRACE) > asked.at);
        state.base = Some(base);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What began before now is not known any more.
    fn lose(&mut self, now: Tick) {
        *self = Self {
            blind_until: now.plus(GRACE),
            ..Self::default()
        };
    }
}

/// Asks which of these paths the index names, and how many members it has.
pub(crate) struct AskMembership<'a> {
    pub(crate) paths: &'a [String],
}

#[derive(Debug)]
pub(crate) struct Membership {
    /// For each path, in their order.
    members: Vec<bool>,
    /// `None` where an ACL forbids to ask for it.
    count: Option<usize>,
}

impl Command for AskMembership<'_> {
    type Reply = Membership;

    fn request(&self, _: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        pipeline
            .cmd("SMISMEMBER")
            .arg(MODULE_INDEX_KEY)
            .arg(self.paths);
        pipeline.cmd("SCARD").arg(MODULE_INDEX_KEY);
        Request {
            pipeline,
            class: Class::Lookup,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Membership, Error> {
        let [members, count] = reply::exactly(replies)?;
        let members = reply::sequence(members)?;
        if members.len() != self.paths.len() {
            return Err(reply::unexpected());
        }
        let members = members.into_iter().map(reply::integer);
        let members = members.map(|member| member.map(|member| member == 1));
        let count = match reply::integer(count) {
            Ok(count) => usize::try_from(count).ok(),
            Err(error) if error.is_refused() => None,
            Err(error) => return Err(error),
        };
        Ok(Membership {
            members: members.collect::<Result<_, _>>()?,
            count,
        })
    }
}

#[cfg(test)]
mod tests;
