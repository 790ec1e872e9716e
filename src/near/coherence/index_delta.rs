//! The index, brought up to date by what Redis announces: after a change, only those paths are
//! asked for that were announced, not all.
//!
//! Redis says that the index changed, not how. But a writer that puts a path into it or takes it
//! out writes or removes the module at that path, too, and that is announced by its name: with the
//! same command or, by a foreign writer, with another one. What is changed in the index alone is
//! seen when all of it is asked for, as it is from time to time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;

use super::clock::Tick;
use super::value::INDEX_PATH;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::validate_path;
use crate::paths::index::PathIndex;

/// For how long the index may rest on one listing. It bounds how long a change of the index alone
/// goes unseen. A foreign writer is assumed to send its second command sooner after its first.
pub(super) const RELIST: Duration = Duration::from_secs(30);

/// After so many announced paths the whole index is asked for, which bounds the list and the
/// question.
const MOST: usize = 1_000;

/// What was announced, and the index that it applies to.
#[derive(Debug, Default)]
pub(crate) struct IndexDelta(Mutex<State>);

/// What is known of the index and of its changes. Not a copy of it: that is stored with the
/// entries, this only brings it up to date.
#[derive(Debug, Default)]
struct State {
    base: Option<Base>,
    /// What may have changed since the base, and when that was announced last.
    recent: HashMap<String, Tick>,
    /// How often the list of changes was lost. An index that was asked for before the last loss
    /// can't be a base.
    losses: u64,
    /// Redis does not say whether paths are in the index.
    is_refused: bool,
}

/// An index that was right when it was asked for, but for what is recent.
#[derive(Debug)]
struct Base {
    index: Arc<PathIndex>,
    epoch: u64,
    /// When the whole of it was asked for.
    listed: Tick,
}

/// When a question was asked, and what was known then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) epoch: u64,
    pub(crate) at: Tick,
    losses: u64,
}

/// What to ask for.
#[derive(Debug)]
pub(crate) enum Question {
    /// The whole index.
    Whole(Asked),
    /// Whether these paths are in it.
    Update(Asked, Update),
}

/// The question for single paths, with the index that the answer is to be applied to.
#[derive(Debug)]
pub(crate) struct Update {
    base: Base,
    pub(crate) paths: Vec<String>,
}

impl IndexDelta {
    /// A session begins: from now on all changes are announced, and what came before is not known.
    pub(crate) fn begin(&self) {
        let mut state = self.lock();
        state.is_refused = false;
        state.lose();
    }

    /// Notes that these paths changed, whether [`INDEX_PATH`] is among them or not. To be called
    /// before the entries are invalidated: a reader that then asks for the index must find them
    /// here.
    pub(crate) fn add(&self, paths: &[String], now: Tick) {
        let mut state = self.lock();
        for path in paths.iter().filter(|path| *path != INDEX_PATH) {
            if state.recent.len() == MOST && !state.recent.contains_key(path) {
                state.lose();
            }
            state.recent.insert(path.clone(), now);
        }
    }

    /// What to ask for now, in that session.
    pub(crate) fn question(&self, epoch: u64, now: Tick) -> Question {
        let mut state = self.lock();
        let asked = Asked {
            epoch,
            at: now,
            losses: state.losses,
        };
        // The base is taken out of the state, so that `updated` owns it and need not copy it. Where
        // the request fails, it is gone, and the next one asks for the whole index.
        match state.base.take() {
            Some(base)
                if base.epoch == epoch
                    && now.since(base.listed) < RELIST
                    && !state.recent.is_empty()
                    && !state.is_refused =>
            {
                let paths = state.recent.keys().cloned().collect();
                Question::Update(asked, Update { base, paths })
            }
            _ => Question::Whole(asked),
        }
    }

    /// Takes the whole index, which was the answer, for the new base.
    pub(crate) fn listed(&self, asked: Asked, index: &Arc<PathIndex>) {
        let base = Base {
            index: Arc::clone(index),
            epoch: asked.epoch,
            listed: asked.at,
        };
        self.insert(asked, base);
    }

    /// Applies the answer, which says for each of the paths whether it is in the index. Returns the
    /// index, and when the whole of it was asked for.
    pub(crate) fn updated(
        &self,
        asked: Asked,
        update: Update,
        members: &[bool],
    ) -> (Arc<PathIndex>, Tick) {
        let Update { mut base, paths } = update;
        for (path, is_member) in paths.into_iter().zip(members) {
            // Redis's index may have members that can't be paths; ours never has.
            if validate_path(&path).is_ok() && base.index.contains(&path) != *is_member {
                // Copies the index at its first change if a reader still holds it.
                let index = Arc::make_mut(&mut base.index);
                if *is_member {
                    index.insert(path);
                } else {
                    index.remove(&path);
                }
            }
        }
        let answer = (Arc::clone(&base.index), base.listed);
        self.insert(asked, base);
        answer
    }

    /// Redis refused SMISMEMBER (an ACL, or a version before 6.2): from now on ask for all.
    pub(crate) fn refused(&self) {
        self.lock().is_refused = true;
    }

    /// Makes this index the base that later announcements apply to, unless the list of changes was
    /// lost meanwhile.
    fn insert(&self, asked: Asked, base: Base) {
        let mut state = self.lock();
        if asked.losses != state.losses {
            return;
        }
        // What was announced just before the question stays, too. A foreign writer sends SET and
        // SADD one after the other: the answer may be from between the two, and the index changes
        // unnamed.
        state.recent.retain(|_, at| at.plus(RELIST) > asked.at);
        state.base = Some(base);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the base: it is not known any more what changed since.
    fn lose(&mut self) {
        self.base = None;
        self.recent.clear();
        self.losses += 1;
    }
}

/// Asks which of these paths the index names.
pub(crate) struct AskMembership<'a> {
    pub(crate) paths: &'a [String],
}

impl Command for AskMembership<'_> {
    /// For each path, in their order.
    type Reply = Vec<bool>;

    fn operation(&self) -> &'static str {
        "membership"
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("SMISMEMBER");
        command.arg(config.keys.index()).arg(self.paths);
        Request::one(command, Class::Lookup)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Vec<bool>, Error> {
        let members = reply::sequence(reply::single(replies)?)?;
        if members.len() != self.paths.len() {
            return Err(reply::unexpected());
        }
        let is_member = |member| reply::integer(member).map(|member| member == 1);
        members.into_iter().map(is_member).collect()
    }
}

#[cfg(test)]
mod tests;
