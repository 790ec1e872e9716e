//! What the facades offer, where it is more than one command.

use std::collections::HashSet;

use crate::call;
use crate::commands::{Class, Get, GetMany, Index, Members, Remove, Set, Unlist, Unmark};
use crate::consistency::BATCH_MODULES;
use crate::error::shown;
use crate::identity::ServerId;
use crate::keys::validate_path;
use crate::transport::{Budget, Transport};
use crate::{CachedModule, Error, Integrity};

pub(crate) async fn get<T: Transport>(
    transport: &T,
    path: &str,
) -> Result<Option<CachedModule>, Error> {
    let budget = Budget::new(transport.config(), Class::Lookup);
    let found = get_from(transport, path, budget).await;
    found.map(|(module, _)| module)
}

/// The same as a part of a larger call, and who answered.
pub(crate) async fn get_from<T: Transport>(
    transport: &T,
    path: &str,
    budget: Budget,
) -> Result<(Option<CachedModule>, Option<ServerId>), Error> {
    let (module, server) = call::read_within(transport, &Get::new(path)?, budget).await?;
    served(transport, module.as_ref())?;
    Ok((module, server))
}

pub(crate) async fn get_many<T: Transport, S: AsRef<str>>(
    transport: &T,
    paths: &[S],
) -> Result<Vec<Option<CachedModule>>, Error> {
    let budget = Budget::new(transport.config(), Class::Bulk);
    let (entries, _) = get_each_from(transport, paths, budget).await?;
    entries.into_iter().collect()
}

/// The modules, an error for each that is corrupt, and who answered.
pub(crate) async fn get_each_from<T: Transport, S: AsRef<str>>(
    transport: &T,
    paths: &[S],
    budget: Budget,
) -> Result<(Vec<Result<Option<CachedModule>, Error>>, Option<ServerId>), Error> {
    // MGET without keys is an error.
    if paths.is_empty() {
        return Ok((Vec::new(), None));
    }
    let command = GetMany::new(paths, budget.class)?;
    let (mut entries, server) = call::read_within(transport, &command, budget).await?;
    for entry in &mut entries {
        match entry {
            Ok(module) => {
                if let Err(error) = served(transport, module.as_ref()) {
                    *entry = Err(error);
                }
            }
            Err(error) => transport.monitor().failed(error),
        }
    }
    Ok((entries, server))
}

/// Counts what is absent, and checks what is not, where that is wanted.
pub(crate) fn served<T: Transport>(
    transport: &T,
    module: Option<&CachedModule>,
) -> Result<(), Error> {
    let (config, monitor) = (transport.config(), transport.monitor());
    let Some(module) = module else {
        monitor.absent.add(1);
        return Ok(());
    };
    if config.integrity == Integrity::Off || module.matches_hash() {
        return Ok(());
    }
    monitor.mismatched.add(1);
    if config.integrity == Integrity::Enforce {
        let error = Error::corrupt(&module.path, "its content does not match its hash");
        return call::counted(transport, Err(error));
    }
    log::warn!(
        "The content of module {} does not match its hash",
        module.path
    );
    Ok(())
}

pub(crate) async fn paths<T: Transport>(transport: &T) -> Result<HashSet<String>, Error> {
    let index = call::read(transport, &Members).await?;
    Ok(listed(transport, index))
}

/// The paths of the index; counts what can't be one.
pub(crate) fn listed<T: Transport>(transport: &T, index: Index) -> HashSet<String> {
    if let Some(example) = index.bad.first() {
        // One line however many there are: this may run at every import.
        let (count, example) = (index.bad.len(), shown(&String::from_utf8_lossy(example)));
        transport.monitor().bad_members.add(count);
        log::warn!("Skipped {count} invalid paths in the module index, such as {example}");
    }
    index.paths
}

pub(crate) async fn set<T: Transport>(transport: &T, module: &CachedModule) -> Result<(), Error> {
    let _tied = transport.ties().writing(|| vec![module.path.clone()]);
    call::write(transport, &Set::new(module, transport.config())?).await
}

pub(crate) async fn rename<T: Transport>(
    transport: &T,
    old_path: &str,
    module: &CachedModule,
) -> Result<(), Error> {
    let moved = || vec![old_path.to_owned(), module.path.clone()];
    let _tied = transport.ties().writing(moved);
    call::write(
        transport,
        &Set::moved_from(old_path, module, transport.config())?,
    )
    .await
}

pub(crate) async fn invalidate<T: Transport>(transport: &T, path: &str) -> Result<bool, Error> {
    validate_path(path)?;
    let _tied = transport.ties().writing(|| vec![path.to_owned()]);
    let removed = remove(transport, &[path], Class::Lookup).await?;
    log::debug!("Invalidated module cache: {path}");
    Ok(removed > 0)
}

/// Goes by the index and takes every member out of it, so that a module which somebody adds
/// meanwhile keeps its place: an index without members is no key.
pub(crate) async fn clear<T: Transport>(transport: &T) -> Result<u64, Error> {
    let _tied = transport.ties().writing_everything();
    // First: a cache that is half cleared is not complete. And last: nor is one that somebody
    // found complete before.
    let unmark = Unmark { generation: true };
    call::write(transport, &unmark).await?;
    let index = call::read(transport, &Members).await?;
    let paths: Vec<String> = index.paths.into_iter().collect();
    let mut cleared = 0;
    for batch in paths.chunks(BATCH_MODULES) {
        cleared += remove(transport, batch, Class::Bulk).await?;
    }
    for members in index.bad.chunks(BATCH_MODULES) {
        call::write(transport, &Unlist { members }).await?;
    }
    call::write(transport, &unmark).await?;
    Ok(cleared)
}

/// Removes valid paths; answers how many modules there were.
pub(crate) async fn remove<T: Transport, S: AsRef<str>>(
    transport: &T,
    paths: &[S],
    class: Class,
) -> Result<u64, Error> {
    match call::write(transport, &Remove::new(paths, class)).await {
        // Out of memory, Redis refuses to queue even what frees some.
        Err(error) if error.is_out_of_memory() => {
            call::write(transport, &Remove::new(paths, class).one_by_one()).await
        }
        result => result,
    }
}
