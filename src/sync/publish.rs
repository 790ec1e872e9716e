//! Many changes that readers see at once, in one transaction as long as they fit 4 MiB.

use std::collections::HashMap;

use super::endpoints::Endpoints;
use super::reconcile::Write;
use super::report::PublishReport;
use crate::client::Client;
use crate::client::batch::{BATCH_BYTES, batches};
use crate::client::transport::Transport;
use crate::client::{call, write};
use crate::command::modules::checked_module;
use crate::command::reply;
use crate::command::request::Class;
use crate::config::Config;
use crate::error::Error;
use crate::keys::validate_path;
use crate::module::CachedModule;

/// One change of `ModuleWriter::publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Cache this module.
    Set(CachedModule),
    /// Remove the module at this path.
    Remove(String),
}

impl Change {
    /// The path that it changes.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Set(module) => &module.path,
            Self::Remove(path) => path,
        }
    }
}

/// Checks all changes before the first is sent, so that a bad one leaves nothing half done.
pub(crate) async fn publish<T: Transport>(
    client: &Client<T>,
    changes: &[Change],
) -> Result<PublishReport, Error> {
    for change in changes {
        match change {
            Change::Set(module) => checked_module(module, client.config())?,
            Change::Remove(path) => validate_path(path)?,
        }
    }
    let paths = || changes.iter().map(|change| change.path().to_owned());
    let _observed = client.observers.writing(|| paths().collect());
    // Of several changes of one path only the last counts. Removing and writing it in one
    // transaction would depend on the order of the two.
    let last: HashMap<&str, usize> = changes
        .iter()
        .enumerate()
        .map(|(at, change)| (change.path(), at))
        .collect();
    let edits = changes
        .iter()
        .enumerate()
        .filter(|(at, change)| last[change.path()] == *at)
        .map(|(_, change)| match change {
            Change::Set(module) => Edit::Put(module),
            Change::Remove(path) => Edit::Remove(path),
        });
    let mut report = PublishReport::new(client.config());
    for write in writes(edits) {
        // What only removes must also work on a Redis that is out of memory, which refuses MULTI:
        // `write::remove` falls back then.
        let done = if write.put.is_empty() {
            write::remove(client, &write.remove, Class::Bulk).await?;
            true
        } else {
            call::write(client, &write).await?
        };
        report.count(&write, done)?;
    }
    // Which server it was is known when it has been written.
    report.servers = Endpoints::new(client.config(), None);
    Ok(report)
}

/// A change that has been checked, and is the only one of its path.
pub(crate) enum Edit<'a> {
    Put(&'a CachedModule),
    Remove(&'a String),
}

impl Edit<'_> {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Put(module) => &module.path,
            Self::Remove(path) => path,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put(module) => module.path.len() + module.content.len(),
            Self::Remove(path) => path.len(),
        }
    }
}

/// One transaction, or several where one would hold up the server, which runs nothing else during
/// an EXEC, for too long.
pub(crate) fn writes<'a>(edits: impl IntoIterator<Item = Edit<'a>>) -> Vec<Write<'a>> {
    let batches = batches(edits, usize::MAX, BATCH_BYTES, Edit::bytes);
    let write = |batch: Vec<Edit<'a>>| {
        let mut write = Write {
            put: Vec::new(),
            remove: Vec::new(),
        };
        for edit in batch {
            match edit {
                Edit::Put(module) => write.put.push(module),
                Edit::Remove(path) => write.remove.push(path),
            }
        }
        write
    };
    batches.into_iter().map(write).collect()
}

impl PublishReport {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            servers: Endpoints::new(config, None),
            ..Self::default()
        }
    }

    /// Counts a transaction that was sent; `done` is its answer.
    pub(crate) fn count(&mut self, write: &Write<'_>, done: bool) -> Result<(), Error> {
        if !done {
            // It watched nothing, so Redis had no reason to abort it.
            return Err(reply::unexpected());
        }
        write.log();
        self.written += write.put.len();
        self.removed += write.remove.len();
        self.bytes += write.bytes();
        Ok(())
    }
}
