//! All modules as they were at one moment.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::cache::{BULK_PATHS, Listen, Near};
use super::coherence::clock::Tick;
use super::coherence::protocol::{Answer, Marks};
use super::coherence::rule::Rule;
use super::coherence::store::Room;
use super::coherence::value::{INDEX_PATH, Kept};
use super::instance::Life;
use crate::client::read;
use crate::command::reply;
use crate::error::{Error, Outage};
use crate::keys::validate_path;
use crate::module::CachedModule;
use crate::paths::index::PathIndex;
use crate::paths::name::Name;
use crate::resolution::Resolution;

/// The modules of a workspace as they were at one moment: no write falls between two of them.
///
/// For one execution, which must not see half of the old and half of the new code. Immutable, and
/// cheap to clone. Asking it takes no lock and no connection, also in a forked child, so workers
/// that fork for each execution take it in the parent. It shares the modules with the near cache.
///
/// ```no_run
/// # #[cfg(feature = "blocking")]
/// # fn blocking(
/// #     near: &bifrost_module_cache::blocking::NearCache,
/// # ) -> Result<(), bifrost_module_cache::Error> {
/// let snapshot = near.snapshot()?; // `.await?` in `nonblocking`
/// let module = snapshot.get("shared/halopsa.py")?;
/// let resolution = snapshot.resolve("shared.halopsa")?;
/// # Ok(())
/// # }
/// # #[cfg(feature = "nonblocking")]
/// # async fn nonblocking(
/// #     near: &bifrost_module_cache::nonblocking::NearCache,
/// # ) -> Result<(), bifrost_module_cache::Error> {
/// # let snapshot = near.snapshot().await?;
/// # snapshot.get("shared/halopsa.py")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot(Arc<Parts>);

struct Parts {
    modules: HashMap<String, Part>,
    /// All paths at that moment; `None` if only some were looked at.
    index: Option<Arc<PathIndex>>,
}

const OTHER_PATHS: &str = "the snapshot is of other paths";

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
                if self.0.index.is_some() {
                    Ok(None)
                } else {
                    Err(Error::invalid_path(path, OTHER_PATHS))
                }
            }
        }
    }

    /// What a module's name stood for at that moment, as in `ModuleReader::resolve`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). A snapshot of some paths knows of no directories, nor of a name whose
    /// paths it has not looked at.
    pub fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        let Some(name) = Name::parse(name) else {
            return Ok(Resolution::NotFound);
        };
        for path in name.candidates() {
            if let Some(module) = self.get(path)? {
                return Ok(Resolution::sourced(&name, module));
            }
        }
        let index = self.0.index.as_ref();
        let index = index.ok_or_else(|| Error::invalid_path(name.directory(), OTHER_PATHS))?;
        Ok(Resolution::without_source(&name, index))
    }

    /// The same for several names, in their order.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
        names
            .iter()
            .map(|name| self.resolve(name.as_ref()))
            .collect()
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
        let Parts { modules, index } = &*self.0;
        f.debug_struct("Snapshot")
            .field("paths", &modules.len())
            .field("is_whole", &index.is_some())
            .finish_non_exhaustive()
    }
}

/// What has been read for a snapshot.
struct Draft {
    marks: Marks,
    index: Option<Arc<PathIndex>>,
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
                None => Draft {
                    marks: life.protocol.marks(Tick::now()),
                    index: None,
                    modules: HashMap::new(),
                    at_once: HashSet::new(),
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
                    index: current.index,
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
            index.paths().iter().map(String::as_str).collect()
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
            let read = life.protocol.begin_marked(&draft.marks);
            let (entries, server) =
                read::get_each_from(&*self.transport, chunk, self.bulk_budget()).await?;
            self.hear_from(life, server);
            if !life.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let at = Tick::now();
            let answer = Answer { read, server, at };
            for (path, entry) in chunk.iter().zip(entries) {
                let kept = entry.map(Kept::module);
                if let Ok(kept) = &kept {
                    life.protocol.insert_marked(
                        path,
                        kept.clone(),
                        &draft.marks,
                        &answer,
                        Room::Find,
                    );
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
            let read = life.protocol.begin_marked(&draft.marks);
            let (kept, server) = self.ask_index(life, self.bulk_budget()).await?;
            if !life.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let at = Tick::now();
            let answer = Answer { read, server, at };
            life.protocol.insert_marked(
                INDEX_PATH,
                kept.clone(),
                &draft.marks,
                &answer,
                Room::Make,
            );
            kept
        };
        if let Kept::Index(index, _) = kept {
            draft.index = Some(index);
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
        announced.ok_or_else(reply::timed_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::stats::Monitor;
    use crate::client::transport::{Answer, Budget, Link, Transport};
    use crate::client::write_observers::Ties;
    use crate::command::request::Request;
    use crate::command::server_id::ServerId;
    use crate::config::Config;
    use crate::keys;
    use crate::near::coherence::rule::Rules;
    use crate::near::instance::Listening;
    use crate::near::options::NearCacheOptions;
    use crate::paths::listing::Listings;
    use redis::Value;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    /// A Redis in memory that announces what was written only when somebody asks for that.
    struct Fake {
        config: Config,
        monitor: Monitor,
        ties: Ties,
        listings: Listings,
        version: Mutex<&'static str>,
    }

    struct Announcing(Arc<Life>);

    impl Listening for Announcing {
        fn wake(&self) {
            for path in ["a.py", "b.py"] {
                self.0.protocol.invalidate(path);
            }
            for barrier in self.0.protocol.session.take_barriers() {
                barrier.keep(true);
            }
        }

        fn has_ended(&self) -> bool {
            false
        }
    }

    impl Listen for Fake {
        fn listen(self: &Arc<Self>, life: &Arc<Life>) -> Result<Box<dyn Listening>, Error> {
            life.protocol.begin(ServerId::new(1), Tick::now());
            Ok(Box::new(Announcing(Arc::clone(life))))
        }
    }

    impl Transport for Fake {
        type Link = Never;

        fn config(&self) -> &Config {
            &self.config
        }

        fn monitor(&self) -> &Monitor {
            &self.monitor
        }

        fn ties(&self) -> &Ties {
            &self.ties
        }

        fn listings(&self) -> &Listings {
            &self.listings
        }

        fn identify_servers(&self) {}

        fn part(&self) {}

        fn in_use(&self) -> usize {
            0
        }

        async fn exchange(&self, request: &Request, _: Budget) -> Result<Answer, Error> {
            let version = *self.version.lock().unwrap();
            let packed = request.pipeline.get_packed_pipeline();
            let asked = String::from_utf8(packed).unwrap();
            let value = |path: &str| {
                let module = CachedModule::new(path, version).unwrap();
                Value::BulkString(module.to_json())
            };
            let key = |path: &&str| asked.contains(&keys::module_key(path).unwrap());
            let values = ["a.py", "b.py"].into_iter().filter(key).map(value);
            Ok(Answer {
                replies: vec![Value::Array(values.collect())],
                server: Some(ServerId::new(1)),
            })
        }

        async fn dedicated(&self, _: Budget) -> Result<Never, Error> {
            unreachable!()
        }

        async fn pause(&self, _: Duration) {}

        async fn within<F: Future>(&self, _: Duration, future: F) -> Option<F::Output> {
            Some(future.await)
        }
    }

    struct Never;

    impl Link for Never {
        async fn begin(&mut self, _: Request, _: Budget) -> Result<(), Error> {
            unreachable!()
        }

        async fn finish(&mut self, _: Budget) -> Result<Vec<Value>, Error> {
            unreachable!()
        }
    }

    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    /// Keeps one path, has both written, and takes a snapshot before that was announced.
    fn versions(rules: Rules) -> [String; 2] {
        let fake = Fake {
            config: Config::new("redis://localhost").unwrap(),
            monitor: Monitor::default(),
            ties: Ties::default(),
            listings: Listings::default(),
            version: Mutex::new("old"),
        };
        let fake = Arc::new(fake);
        let options = NearCacheOptions::default();
        let near = Near::with_rules(Arc::clone(&fake), options, rules).unwrap();
        assert!(now(near.get_many(&["a.py"])).unwrap()[0].is_some());
        *fake.version.lock().unwrap() = "new";
        let snapshot = now(near.snapshot(Some(&["a.py", "b.py"]))).unwrap();
        ["a.py", "b.py"].map(|path| snapshot.get(path).unwrap().unwrap().content.clone())
    }

    #[test]
    fn without_the_barrier_it_would_be_of_two_moments() {
        assert_eq!(versions(Rules::default()), ["new", "new"]);
        let broken = Some(Rule::SnapshotBarrier);
        assert_eq!(versions(Rules { broken }), ["old", "new"]);
    }
}
