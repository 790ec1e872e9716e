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
    /// The hot path: the answer, if all that it takes is cached. What can't be a name needs nothing.
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

    /// One round trip for all modules that are not cached, and one for the index if it is not.
    async fn resolve_rest(&self, names: &[&str], budget: Budget) -> Result<Vec<Resolution>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let instance = self.own_instance();
        // What can't be a name was answered before.
        let parsed: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
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

    async fn resolve_cached(
        &self,
        instance: &Instance,
        marks: &Marks,
        names: &[Name],
        budget: Budget,
    ) -> Result<Vec<Resolution>, Error> {
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
                Some(source) => source.module,
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

    /// Redis is not followed.
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
                // What a package hides was not looked at.
                if is_found {
                    break;
                }
            }
        }
        Ok(answers)
    }
}

/// What a package hides is not looked at, and may be corrupt.
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

/// The last known module of that name, where that is wanted. Where it is not known whether there
/// was a package, it may have hidden the module.
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
