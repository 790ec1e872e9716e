//! What a reader asks Redis for, over any transport. Names have a file of their own:
//! [`resolve`](crate::resolution).

use std::collections::HashSet;

use super::Client;
use super::call;
use super::transport::{Budget, Transport};
use crate::command::index::{Index, Members};
use crate::command::modules::{Get, GetMany};
use crate::command::request::Class;
use crate::command::server_id::ServerId;
use crate::config::Integrity;
use crate::error::{Error, shown};
use crate::module::CachedModule;

pub(crate) async fn get<T: Transport>(
    client: &Client<T>,
    path: &str,
) -> Result<Option<CachedModule>, Error> {
    let budget = Budget::new(client.config(), Class::Lookup);
    let found = get_from(client, path, budget).await;
    found.map(|(module, _)| module)
}

/// The same as a part of a larger call; and which server answered, for the near cache.
pub(crate) async fn get_from<T: Transport>(
    client: &Client<T>,
    path: &str,
    budget: Budget,
) -> Result<(Option<CachedModule>, Option<ServerId>), Error> {
    let (module, server) = call::read_within(client, &Get::new(path)?, budget).await?;
    served(client, module.as_ref())?;
    Ok((module, server))
}

pub(crate) async fn get_many<T: Transport, S: AsRef<str>>(
    client: &Client<T>,
    paths: &[S],
) -> Result<Vec<Option<CachedModule>>, Error> {
    let budget = Budget::new(client.config(), Class::Bulk);
    let (entries, _) = get_each_from(client, paths, budget).await?;
    entries.into_iter().collect()
}

/// The modules, with an error in the place of each that is corrupt; and which server answered.
pub(crate) async fn get_each_from<T: Transport, S: AsRef<str>>(
    client: &Client<T>,
    paths: &[S],
    budget: Budget,
) -> Result<(Vec<Result<Option<CachedModule>, Error>>, Option<ServerId>), Error> {
    // MGET without keys is an error.
    if paths.is_empty() {
        return Ok((Vec::new(), None));
    }
    let command = GetMany::new(paths, budget.class)?;
    let (mut entries, server) = call::read_within(client, &command, budget).await?;
    for entry in &mut entries {
        match entry {
            Ok(module) => {
                if let Err(error) = served(client, module.as_ref()) {
                    *entry = Err(error);
                }
            }
            // The call succeeded, so `counted` will not see this error.
            Err(error) => client.monitor.failed(error),
        }
    }
    Ok((entries, server))
}

/// Counts an absence, and checks the hash of a module if [`Integrity`] asks for it. Every module
/// that a caller gets from Redis passes here.
pub(crate) fn served<T: Transport>(
    client: &Client<T>,
    module: Option<&CachedModule>,
) -> Result<(), Error> {
    let (config, monitor) = (client.config(), &client.monitor);
    let Some(module) = module else {
        monitor.absent.add(1);
        return Ok(());
    };
    if config.integrity == Integrity::Off || module.matches_hash() {
        return Ok(());
    }
    // Counted also where it is only a warning: an operator should see it in the counters.
    monitor.mismatched.add(1);
    if config.integrity == Integrity::Enforce {
        let error = mismatched(&module.path);
        return call::counted(client, Err(error));
    }
    log::warn!(
        "The content of module {} does not match its hash",
        module.path
    );
    Ok(())
}

/// The content of the module at `path` does not match its hash.
pub(crate) fn mismatched(path: &str) -> Error {
    Error::corrupt(path, "its content does not match its hash")
}

pub(crate) async fn paths<T: Transport>(client: &Client<T>) -> Result<HashSet<String>, Error> {
    let index = call::read(client, &Members).await?;
    Ok(listed(client, index))
}

/// The paths of the index. Members that can't be paths are counted and skipped: a foreign member
/// must not stop every import.
pub(crate) fn listed<T: Transport>(client: &Client<T>, index: Index) -> HashSet<String> {
    if let Some(example) = index.bad.first() {
        // One line for all of them: this may run at every import, and a foreign writer may have put
        // thousands there.
        let (count, example) = (index.bad.len(), shown(&String::from_utf8_lossy(example)));
        client.monitor.bad_members.add(count);
        log::warn!("Skipped {count} invalid paths in the module index, such as {example}");
    }
    index.paths
}
