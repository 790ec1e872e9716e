//! From names to sources, from memory where that is possible.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use super::cache::{Near, SpawnListener};
use super::coherence::clock::Tick;
use super::coherence::protocol::{Answer, Marks};
use super::coherence::store::Room;
use super::coherence::value::Cached;
use super::instance::Instance;
use crate::client::transport::Budget;
use crate::command::request::Class;
use crate::error::Error;
use crate::module::CachedModule;
use crate::paths::name::Name;
use crate::resolution::{Resolution, resolve};

impl<T: SpawnListener> Near<T> {
    /// The hot path: the answer, if all that it takes is stored. What can't be a name needs
    /// nothing.
    pub(crate) fn resolved(&self, name: &str) -> Option<Resolution> {
        let instance = self.instance();
        instance
            .protocol
            .resolve(name, Tick::now(), || instance.is_ours())
    }

    /// What is left to do where nothing is [`resolved`](Self::resolved); on the heap, as
    /// [`ask`](Self::ask).
    pub(crate) fn resolve(
        &self,
        name: &str,
    ) -> Pin<Box<impl Future<Output = Result<Resolution, Error>>>> {
        Box::pin(self.resolve_one(name))
    }

    async fn resolve_one(&self, name: &str) -> Result<Resolution, Error> {
        let budget = Budget::new(self.client.config(), Class::Lookup);
        let mut answers = self.resolve_rest(&[name], budget).await?;
        Ok(answers.pop().unwrap_or(Resolution::NotFound))
    }

    pub(crate) async fn resolve_many(
        &self,
        names: &[impl AsRef<str>],
    ) -> Result<Vec<Resolution>, Error> {
        let names = names.iter().map(AsRef::as_ref);
        let answers: Vec<_> = names.clone().map(|name| self.resolved(name)).collect();
        let open = names.zip(&answers).filter(|(_, answer)| answer.is_none());
        let open: Vec<&str> = open.map(|(name, _)| name).collect();
        let rest = self.resolve_rest(&open, self.bulk_budget()).await?;
        let mut rest = rest.into_iter();
        let answers = answers
            .into_iter()
            .map(|answer| answer.or_else(|| rest.next()));
        Ok(answers.flatten().collect())
    }

    /// One round trip for all modules that are not stored, and one for the index if it is not.
    async fn resolve_rest(&self, names: &[&str], budget: Budget) -> Result<Vec<Resolution>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let instance = self.own_instance();
        // What can't be a name was answered by `resolved`, so none is dropped here.
        let parsed: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
        // Taken before anything is asked: changes from now on are noticed.
        let marks = instance.protocol.marks(Tick::now());
        let answers = if marks.are_live() {
            self.resolve_cached(instance, &marks, &parsed, budget).await
        } else {
            self.resolve_uncached(instance, &marks, names, &parsed, budget)
                .await
        };
        answers.or_else(|error| {
            parsed
                .iter()
                .map(|name| last_known(instance, name, &error))
                .collect()
        })
    }

    /// Redis is followed: asks for the names of which not all is stored, and stores what comes. All
    /// paths of a name are read by one request, so that its negative answer rests on one read.
    async fn resolve_cached(
        &self,
        instance: &Instance,
        marks: &Marks,
        names: &[Name],
        budget: Budget,
    ) -> Result<Vec<Resolution>, Error> {
        // Both candidates of a name are read in one request, even if one of them is stored: an
        // older and a newer absence together prove nothing, see `Protocol::source`.
        let now = Tick::now();
        let known = names.iter().map(|name| instance.protocol.source(name, now));
        let known: Vec<_> = known.collect();
        let unknown = names
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none());
        let missing: Vec<&str> = unknown.flat_map(|(name, _)| name.candidates()).collect();
        instance.protocol.counters.misses.add(missing.len());
        let read = self
            .read(instance, marks, &missing, budget, Room::Make)
            .await?;
        let read: HashMap<&str, _> = missing.into_iter().zip(read).collect();
        let mut index = None;
        let mut answers = Vec::with_capacity(names.len());
        for (name, known) in names.iter().zip(known) {
            let module = match known {
                Some(source) => {
                    instance.protocol.count_source(&source);
                    source.module
                }
                None => first(name, &read)?,
            };
            if let Some(module) = module {
                answers.push(Resolution::sourced(name, module));
                continue;
            }
            let index = match &mut index {
                Some(index) => index,
                none => none.insert(self.directories(instance, budget).await?),
            };
            answers.push(Resolution::without_source(name, index));
        }
        Ok(answers)
    }

    /// Asks Redis, which is not followed: the answers can't be served later, but replace what an
    /// earlier session left for an outage.
    async fn resolve_uncached(
        &self,
        instance: &Instance,
        marks: &Marks,
        names: &[&str],
        parsed: &[Name],
        budget: Budget,
    ) -> Result<Vec<Resolution>, Error> {
        let protocol = &instance.protocol;
        let paths = parsed.iter().flat_map(Name::candidates);
        protocol.counters.bypasses.add(paths.count());
        let read = protocol.begin_marked(marks);
        let answers = resolve::resolve_all(&*self.client, names, budget).await?;
        // No server is known, so `insert_marked` takes this for uncertain: never a hit, only for an
        // outage.
        let (server, at) = (None, Tick::now());
        let answer = Answer { read, server, at };
        for (name, resolution) in parsed.iter().zip(&answers) {
            let module = match resolution {
                Resolution::Package(module) | Resolution::Module(module) => Some(module),
                Resolution::Namespace { .. } | Resolution::NotFound => None,
            };
            for path in name.candidates() {
                let module = module.filter(|module| module.path == path).cloned();
                let is_found = module.is_some();
                protocol.insert_marked(path, module.into(), marks, &answer, Room::Make);
                // A package was found, so whether there is a module beside it was not looked at.
                if is_found {
                    break;
                }
            }
        }
        Ok(answers)
    }
}

/// The source of a name among what was read. A module that a package hides is not looked at: it may
/// be corrupt and must not fail the lookup.
fn first(
    name: &Name,
    modules: &HashMap<&str, Result<Cached, Error>>,
) -> Result<Option<Arc<CachedModule>>, Error> {
    for path in name.candidates() {
        match modules.get(path) {
            Some(Ok(Cached::Module(module))) => return Ok(Some(Arc::clone(module))),
            Some(Err(error)) => return Err(error.copied()),
            _ => {}
        }
    }
    Ok(None)
}

/// The last known module of that name instead of an error, if `stale_if_error` is set. If nothing
/// is known of the package's path, the module is not served: a package may have hidden it.
fn last_known(instance: &Instance, name: &Name, error: &Error) -> Result<Resolution, Error> {
    if error.is_unavailable() {
        let now = Tick::now();
        for path in name.candidates() {
            match instance.protocol.last_known(path, now) {
                Some(Some(module)) => return Ok(Resolution::sourced(name, module)),
                Some(None) => {}
                None => break,
            }
        }
    }
    Err(error.copied())
}
