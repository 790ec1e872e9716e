//! All modules as they were at one moment.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::cache::{BULK_PATHS, Listen, Near};
use super::clock::Tick;
use super::kept::{INDEX_PATH, Kept};
use super::life::Life;
use super::protocol::Marks;
use super::rule::Rule;
use crate::keys::validate_path;
use crate::{CachedModule, Error, Outage, operations, reply};

/// The modules of a workspace as they were at one moment: no write falls between two of them.
///
/// For one execution, which must not see half of the old and half of the new code. Immutable, and
/// cheap to clone. Asking it takes no lock and no connection, also in a forked child, so workers
/// that fork for each execution take it in the parent. It shares the modules with the near cache.
#[derive(Clone)]
pub struct Snapshot(Arc<Parts>);

struct Parts {
    modules: HashMap<String, Part>,
    /// Whether what is not among them was absent, or not looked at.
    is_whole: bool,
}

/// A corrupt entry fails whoever asks for it, and nobody else.
type Part = Result<Option<Arc<CachedModule>>, Error>;

impl Snapshot {
    /// The module at `path` at that moment, or `None` if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], also if the snapshot is of other paths; [`Error::Corrupt`] if what
    /// was stored is not this module.
    pub fn get(&self, path: &str) -> Result<Option<Arc<CachedModule>>, Error> {
        match self.0.modules.get(path) {
            Some(Ok(module)) => Ok(module.clone()),
            Some(Err(error)) => Err(error.copied()),
            None => {
                validate_path(path)?;
                if self.0.is_whole {
                    Ok(None)
                } else {
                    Err(Error::invalid_path(path, "the snapshot is of other paths"))
                }
            }
        }
    }

    /// The paths of all modules in it, those with a corrupt entry included; in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let modules = self.0.modules.iter();
        modules
            .filter(|(_, part)| !matches!(part, Ok(None)))
            .map(|(path, _)| path.as_str())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { modules, is_whole } = &*self.0;
        f.debug_struct("Snapshot")
            .field("paths", &modules.len())
            .field("is_whole", is_whole)
            .finish_non_exhaustive()
    }
}

/// What has been read for a snapshot.
struct Draft {
    marks: Marks,
    index: Option<Arc<HashSet<String>>>,
    modules: HashMap<String, Part>,
    /// What Redis read last, if it did so at once. That is of one moment, whatever came after it;
    /// all else must not have moved until then.
    at_once: HashSet<String>,
}

impl<T: Listen> Near<T> {
    /// Of all modules that the index names, or of these paths.
    pub(crate) async fn snapshot(&self, paths: Option<&[&str]>) -> Result<Snapshot, Error> {
        for path in paths.unwrap_or_default() {
            validate_path(path)?;
        }
        let life = self.own_life();
        let deadline = Tick::now().plus(self.transport.config().bulk_deadline);
        let mut draft = None;
        // What has moved is read again.
        while Tick::now() < deadline {
            self.until_live(life).await?;
            let mut current = match draft.take() {
                Some(draft) => draft,
                None => match life.protocol.marks(Tick::now()) {
                    Some(marks) => Draft {
                        marks,
                        index: None,
                        modules: HashMap::new(),
                        at_once: HashSet::new(),
                    },
                    None => continue,
                },
            };
            if !self.complete(life, &mut current, paths).await? || !self.announced(life).await? {
                continue;
            }
            let Some(moved) = life.protocol.moved(&mut current.marks) else {
                continue;
            };
            let index_moved = paths.is_none() && moved(INDEX_PATH);
            let stands = |path: &String| !moved(path) || current.at_once.contains(path);
            if !index_moved && current.modules.keys().all(stands) {
                return Ok(Snapshot(Arc::new(Parts {
                    modules: current.modules,
                    is_whole: paths.is_none(),
                })));
            }
            current.modules.retain(|path, _| !moved(path));
            if index_moved {
                current.index = None;
            }
            draft = Some(current);
        }
        Err(reply::outage(Outage::Contended, None))
    }

    /// Reads what the draft lacks. False if what was read is not of the session.
    async fn complete(
        &self,
        life: &Life,
        draft: &mut Draft,
        paths: Option<&[&str]>,
    ) -> Result<bool, Error> {
        let index;
        let wanted: Vec<&str> = if let Some(paths) = paths {
            paths.to_vec()
        } else {
            if draft.index.is_none() && !self.read_index(life, draft).await? {
                return Ok(false);
            }
            index = draft.index.clone().unwrap_or_default();
            draft.modules.retain(|path, _| index.contains(path));
            index.iter().map(String::as_str).collect()
        };
        let now = Tick::now();
        let mut missing = Vec::new();
        for path in wanted {
            if draft.modules.contains_key(path) {
                continue;
            }
            match life.protocol.kept(path, now) {
                Some(kept) => {
                    let module = kept.into_module();
                    draft.modules.insert(path.to_owned(), Ok(module));
                }
                None => missing.push(path),
            }
        }
        draft.at_once.clear();
        if missing.len() <= BULK_PATHS {
            draft
                .at_once
                .extend(missing.iter().map(|path| (*path).to_owned()));
        }
        for chunk in missing.chunks(BULK_PATHS) {
            let (entries, server) = operations::get_each_from(&*self.transport, chunk).await?;
            if !life.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let now = Tick::now();
            for (path, entry) in chunk.iter().zip(entries) {
                let kept = entry.map(Kept::module);
                if let Ok(kept) = &kept
                    && life.protocol.has_room(path, kept)
                {
                    life.protocol
                        .insert_marked(path, kept.clone(), &draft.marks, server, now);
                }
                let module = kept.map(Kept::into_module);
                draft.modules.insert((*path).to_owned(), module);
            }
        }
        Ok(true)
    }

    async fn read_index(&self, life: &Life, draft: &mut Draft) -> Result<bool, Error> {
        let kept = life.protocol.kept(INDEX_PATH, Tick::now());
        let kept = if let Some(kept) = kept {
            kept
        } else {
            let (paths, server) = operations::paths_from(&*self.transport).await?;
            if !life.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let kept = Kept::Index(Arc::new(paths));
            let now = Tick::now();
            life.protocol
                .insert_marked(INDEX_PATH, kept.clone(), &draft.marks, server, now);
            kept
        };
        if let Kept::Index(paths) = kept {
            draft.index = Some(paths);
        }
        Ok(draft.index.is_some())
    }

    /// Waits until all that Redis had done when it answered our reads has been announced. Without
    /// that, a write could fall between two reads and its announcement after both. False if the
    /// session ended first.
    async fn announced(&self, life: &Life) -> Result<bool, Error> {
        if !self.rules.keep(Rule::SnapshotBarrier) {
            return Ok(true);
        }
        let barrier = life.protocol.session.barrier();
        life.wake();
        let limit = self.transport.config().bulk_deadline;
        let announced = self.transport.within(limit, barrier.wait()).await;
        announced.ok_or_else(|| reply::outage(Outage::TimedOut, None))
    }
}
