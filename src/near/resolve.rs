//! From names to sources, from memory where that is possible.

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::{Listen, Near, Room, last_known};
use super::clock::Tick;
use super::kept::Kept;
use super::life::Life;
use super::protocol::Marks;
use crate::commands::Class;
use crate::resolution::Name;
use crate::{CachedModule, Error, Resolution, resolution};

impl<T: Listen> Near<T> {
    /// The hot path: the answer, if all that it takes is kept.
    pub(crate) fn resolved(&self, name: &str) -> Option<Resolution> {
        self.life().protocol.resolve(name, Tick::now())
    }

    /// What is left to do where nothing is [`resolved`](Self::resolved).
    pub(crate) async fn resolve(&self, name: &str) -> Result<Resolution, Error> {
        let mut answers = self.resolve_rest(&[name], Class::Lookup).await?;
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
        let mut rest = self.resolve_rest(&open, Class::Bulk).await?.into_iter();
        let answers = answers
            .into_iter()
            .map(|answer| answer.or_else(|| rest.next()));
        Ok(answers.flatten().collect())
    }

    /// One round trip for all modules that are not kept, and one for the index if it is not.
    async fn resolve_rest(&self, names: &[&str], class: Class) -> Result<Vec<Resolution>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let life = self.own_life();
        let parsed: Vec<Option<Name>> = names.iter().map(|name| Name::parse(name)).collect();
        let answers = if let Some(marks) = life.protocol.marks(Tick::now()) {
            self.resolve_kept(life, &marks, &parsed, class).await
        } else {
            // Redis is not followed.
            let paths = parsed.iter().flatten().flat_map(Name::candidates);
            life.protocol.counters.bypasses.add(paths.count());
            resolution::resolve_all(&*self.transport, names, class).await
        };
        answers.or_else(|error| {
            let names = parsed.iter().flatten();
            names
                .map(|name| last_known_name(life, name, &error))
                .collect()
        })
    }

    async fn resolve_kept(
        &self,
        life: &Life,
        marks: &Marks,
        names: &[Option<Name>],
        class: Class,
    ) -> Result<Vec<Resolution>, Error> {
        let now = Tick::now();
        let mut modules = HashMap::new();
        let mut missing = Vec::new();
        for path in names.iter().flatten().flat_map(Name::candidates) {
            match life.protocol.kept(path, now) {
                Some(kept) => _ = modules.insert(path, Ok(kept)),
                None => missing.push(path),
            }
        }
        life.protocol.counters.misses.add(missing.len());
        let read = self.read(life, Some(marks), &missing, class, Room::Make);
        modules.extend(missing.iter().copied().zip(read.await?));
        let mut index = None;
        let mut answers = Vec::with_capacity(names.len());
        for name in names {
            let Some(name) = name else {
                answers.push(Resolution::NotFound);
                continue;
            };
            if let Some(module) = first(name, &modules)? {
                answers.push(Resolution::sourced(name, module));
                continue;
            }
            let index = match &mut index {
                Some(index) => index,
                none => none.insert(self.index(class).await?),
            };
            answers.push(Resolution::without_source(name, index));
        }
        Ok(answers)
    }
}

/// What a package hides is not looked at, and may be corrupt.
fn first(
    name: &Name,
    modules: &HashMap<&str, Result<Kept, Error>>,
) -> Result<Option<Arc<CachedModule>>, Error> {
    for path in name.candidates() {
        match modules.get(path) {
            Some(Ok(Kept::Module(module))) => return Ok(Some(Arc::clone(module))),
            Some(Err(error)) => return Err(error.copied()),
            _ => {}
        }
    }
    Ok(None)
}

/// The last known module of that name, where that is wanted.
fn last_known_name(life: &Life, name: &Name, error: &Error) -> Result<Resolution, Error> {
    let known = |path| last_known(life, path, error.copied()).ok().flatten();
    let module = name.candidates().find_map(known);
    let module = module.ok_or_else(|| error.copied())?;
    Ok(Resolution::sourced(name, module))
}
