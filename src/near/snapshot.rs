//! All modules as they were at one moment.
//!
//! A snapshot reads, waits until all that it could have seen has been announced, and looks which
//! generations moved meanwhile. What moved is read again. Why the wait is needed:
//! docs/design/near-cache.md.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::cache::{BULK_PATHS, Near, SpawnListener};
use super::coherence::clock::Tick;
use super::coherence::protocol::{Answer, Marks};
use super::coherence::rule::Rule;
use super::coherence::store::Room;
use super::coherence::value::{Cached, INDEX_PATH};
use super::instance::Instance;
use crate::client::read;
use crate::command::reply;
use crate::diagnosis::Diagnosis;
use crate::diagnosis::cause::Cause;
use crate::diagnosis::explain::{chain, judge};
use crate::error::{Error, Outage};
use crate::keys::validate_path;
use crate::module::CachedModule;
use crate::paths::index::PathIndex;
use crate::paths::name::Name;
use crate::resolution::Resolution;

/// The modules of a workspace as they were at one moment: no write falls between two of them. Taken
/// by `NearCache::snapshot` or `NearCache::snapshot_of`.
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
    modules: HashMap<String, Part, RandomState>,
    /// All paths at that moment; `None` if only some were looked at.
    index: Option<Arc<PathIndex>>,
}

const OTHER_PATHS: &str = "the snapshot is of other paths";

/// One path of a snapshot. A corrupt entry fails a caller that asks for it, and not the snapshot.
type Part = Result<Option<Arc<CachedModule>>, Error>;

impl Snapshot {
    /// The module at `path` at that moment, or `None` if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], also if the snapshot is of other paths; [`Error::Corrupt`] if what
    /// was stored is not this module.
    pub fn get(&self, path: &str) -> Result<Option<Arc<CachedModule>>, Error> {
        match self.look_up(path) {
            Ok(None) | Err(Error::InvalidPath { .. }) => {
                validate_path(path)?;
                self.look_up(path)
            }
            found => found,
        }
    }

    /// What a module's name stood for at that moment, as in `ModuleReader::resolve`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). A snapshot of some paths knows of no directories, nor of a name whose
    /// paths it has not looked at.
    pub fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        if self.is_foreign(name) {
            return Ok(Resolution::NotFound);
        }
        let Some(name) = Name::parse(name) else {
            return Ok(Resolution::NotFound);
        };
        for path in name.candidates() {
            if let Some(module) = self.look_up(path)? {
                return Ok(Resolution::sourced(&name, module));
            }
        }
        let index = self.0.index.as_ref();
        let index = index.ok_or_else(|| Error::invalid_path(name.directory(), OTHER_PATHS))?;
        Ok(Resolution::without_source(&name, index))
    }

    /// Whether the first segment of a name tells that it is not of this workspace: most names that an
    /// import hook is asked for are not, so this is the hot path.
    fn is_foreign(&self, name: &str) -> bool {
        let Some(index) = &self.0.index else {
            return false;
        };
        match name.split_once('.') {
            Some((top, _)) => !index.has_directory(top),
            None => !index.has_directory(name) && !index.contains(&format!("{name}.py")),
        }
    }

    /// What there is at a path that is valid.
    fn look_up(&self, path: &str) -> Part {
        match self.0.modules.get(path) {
            Some(Ok(module)) => Ok(module.clone()),
            Some(Err(error)) => Err(error.copied()),
            None if self.0.index.is_some() => Ok(None),
            None => Err(Error::invalid_path(path, OTHER_PATHS)),
        }
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

    /// Why a name was not found at that moment, as far as the snapshot can tell. It asks no server.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve), except that a corrupt entry is a
    /// [`Cause`](crate::diagnosis::Cause).
    pub fn explain_name(&self, name: &str) -> Result<Diagnosis, Error> {
        if Name::parse(name).is_none() {
            return Ok(Diagnosis::of_name(Cause::NotAPath, name, None));
        }
        let mut answers = Vec::new();
        for part in chain(name) {
            match self.resolve(part) {
                Ok(answer) => answers.push((part, answer)),
                Err(Error::Corrupt { path, .. }) => {
                    return Ok(Diagnosis::of_name(Cause::Corrupt, name, Some(&path)));
                }
                Err(error) => return Err(error),
            }
        }
        let missing = |part| Diagnosis::of_name(Cause::NotCached, part, None);
        Ok(judge(name, answers).unwrap_or_else(missing))
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
    modules: HashMap<String, Part, RandomState>,
    /// The paths of the last request, if one request read all that was missing. Redis answers it at
    /// one moment, which then is the snapshot's: these may have changed afterwards. All that was
    /// read before must not have moved until then.
    at_once: HashSet<String>,
}

impl<T: SpawnListener> Near<T> {
    /// A snapshot of all modules that the index names.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.snapshot_at(None).await
    }

    pub(crate) async fn snapshot_of(&self, paths: &[impl AsRef<str>]) -> Result<Snapshot, Error> {
        let paths: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        paths.iter().try_for_each(|path| validate_path(path))?;
        self.snapshot_at(Some(&paths)).await
    }

    /// A snapshot of these paths, or of all.
    async fn snapshot_at(&self, paths: Option<&[&str]>) -> Result<Snapshot, Error> {
        let instance = self.own_instance();
        let deadline = Tick::now().plus(self.client.config().bulk_deadline);
        let mut draft = None;
        // What moved is read again, until nothing does or the time is over.
        while Tick::now() < deadline {
            self.until_live(instance).await?;
            let mut current = match draft.take() {
                Some(draft) => draft,
                None => Draft {
                    marks: instance.protocol.marks(Tick::now()),
                    index: None,
                    modules: HashMap::default(),
                    at_once: HashSet::new(),
                },
            };
            // The session ended meanwhile, or another server answered: nothing that was read can be
            // trusted to be of one moment, so begin anew.
            if !self.complete(instance, &mut current, paths).await?
                || !self.announced(instance).await?
            {
                continue;
            }
            let Some(moved) = instance.protocol.moved(&mut current.marks) else {
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
        instance: &Instance,
        draft: &mut Draft,
        paths: Option<&[&str]>,
    ) -> Result<bool, Error> {
        let index;
        let wanted: Vec<&str> = if let Some(paths) = paths {
            paths.to_vec()
        } else {
            if draft.index.is_none() && !self.read_index(instance, draft).await? {
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
            match instance.protocol.cached(path, now) {
                Some(cached) => {
                    let module = cached.into_module();
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
            let read = instance.protocol.begin_marked(&draft.marks);
            let (entries, server) =
                read::get_each_from(&*self.client, chunk, self.bulk_budget()).await?;
            self.check_server(instance, server);
            if !instance.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let at = Tick::now();
            let answer = Answer { read, server, at };
            for (path, entry) in chunk.iter().zip(entries) {
                let cached = entry.map(Cached::module);
                if let Ok(cached) = &cached {
                    instance.protocol.insert_marked(
                        path,
                        cached.clone(),
                        &draft.marks,
                        &answer,
                        Room::Find,
                    );
                }
                let module = cached.map(Cached::into_module);
                draft.modules.insert((*path).to_owned(), module);
            }
        }
        Ok(true)
    }

    /// Reads the index, from memory if it is stored. False if the answer is not of the session of
    /// the marks.
    async fn read_index(&self, instance: &Instance, draft: &mut Draft) -> Result<bool, Error> {
        let cached = instance.protocol.cached(INDEX_PATH, Tick::now());
        let cached = if let Some(cached) = cached {
            cached
        } else {
            let read = instance.protocol.begin_marked(&draft.marks);
            let (cached, server) = self.ask_index(instance, self.bulk_budget()).await?;
            if !instance.protocol.accepts(&draft.marks, server) {
                return Ok(false);
            }
            let at = Tick::now();
            let answer = Answer { read, server, at };
            instance.protocol.insert_marked(
                INDEX_PATH,
                cached.clone(),
                &draft.marks,
                &answer,
                Room::Make,
            );
            cached
        };
        if let Cached::Index(index, _) = cached {
            draft.index = Some(index);
        }
        Ok(draft.index.is_some())
    }

    /// Waits until all that Redis had done when it answered our reads has been announced, and the
    /// generations tell it. Without that, a write could fall between two reads and its announcement
    /// after both, and the snapshot would be a mixture. False if the session ended first.
    async fn announced(&self, instance: &Instance) -> Result<bool, Error> {
        if !self.rules.enforces(Rule::SnapshotBarrier) {
            return Ok(true);
        }
        let barrier = instance.protocol.session.barrier();
        instance.wake();
        let limit = self.client.config().bulk_deadline;
        let announced = self.client.transport.within(limit, barrier.wait()).await;
        announced.ok_or_else(reply::timed_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::client::transport::{Answer, Budget, DedicatedConnection, Transport};
    use crate::command::request::Request;
    use crate::command::server_id::ServerId;
    use crate::config::Config;
    use crate::keys;
    use crate::near::coherence::rule::Rules;
    use crate::near::instance::ListenerHandle;
    use crate::near::options::NearCacheOptions;
    use redis::Value;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    /// A Redis in memory that announces what was written only when it is asked for a heartbeat.
    struct Fake {
        version: Mutex<&'static str>,
    }

    struct Announcing(Arc<Instance>);

    impl ListenerHandle for Announcing {
        fn wake(&self) {
            for path in ["a.py", "b.py"] {
                self.0.protocol.invalidate(path);
            }
            for barrier in self.0.protocol.session.take_barriers() {
                barrier.fulfil(true);
            }
        }

        fn has_ended(&self) -> bool {
            false
        }
    }

    impl SpawnListener for Fake {
        fn spawn_listener(
            &self,
            instance: &Arc<Instance>,
        ) -> Result<Box<dyn ListenerHandle>, Error> {
            instance.protocol.begin(ServerId::new(1), Tick::now());
            Ok(Box::new(Announcing(Arc::clone(instance))))
        }
    }

    impl Transport for Fake {
        type Dedicated = Never;

        fn identify_servers(&self) {}

        fn reconnect(&self) {}

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

    impl DedicatedConnection for Never {
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
            version: Mutex::new("old"),
        };
        let config = Arc::new(Config::new("redis://localhost").unwrap());
        let client = Arc::new(Client::new(config, fake));
        let options = NearCacheOptions::default();
        let near = Near::with_rules(Arc::clone(&client), options, rules).unwrap();
        assert!(now(near.get_many(&["a.py"])).unwrap()[0].is_some());
        *client.transport.version.lock().unwrap() = "new";
        let snapshot = now(near.snapshot_of(&["a.py", "b.py"])).unwrap();
        ["a.py", "b.py"].map(|path| snapshot.get(path).unwrap().unwrap().content.clone())
    }

    #[test]
    fn without_the_barrier_it_would_be_of_two_moments() {
        assert_eq!(versions(Rules::default()), ["new", "new"]);
        let broken = Some(Rule::SnapshotBarrier);
        assert_eq!(versions(Rules { broken }), ["old", "new"]);
    }
}
