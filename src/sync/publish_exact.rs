//! Makes the cache hold exactly the given modules: the warm-up of those without a database.
//!
//! There is no second source to compare with, so the result is complete and never *verified*.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::inspect::Inspect;
use super::mark::Completion;
use super::options::{Stage, SyncOptions};
use super::publish::{Edit, writes};
use super::report::{DryRun, PublishReport};
use super::scan::cached_paths;
use super::verdict::Verdict;
use crate::client::Client;
use crate::client::batch::{BATCH_BYTES, BATCH_MODULES, batches};
use crate::client::dedicated;
use crate::client::dedicated::send;
use crate::client::transport::Transport;
use crate::command::index::Unlist;
use crate::command::mark::Unmark;
use crate::command::modules::checked_module;
use crate::error::Error;
use crate::module::CachedModule;

/// Compares, checks how much would be removed, and only then writes. New and changed modules come
/// before removals, so that a moved one is found under one of its two paths.
pub(crate) async fn publish_exact<T: Transport>(
    client: &Client<T>,
    modules: &[CachedModule],
    mut options: SyncOptions<'_>,
) -> Result<PublishReport, Error> {
    let config = client.config();
    for module in modules {
        checked_module(module, config)?;
    }
    if modules.is_empty() && !options.allows_empty() {
        return Err(Error::Empty);
    }
    // A dry run changes nothing, so near caches that observe this writer have nothing to drop.
    let _observed = (!options.dry_run).then(|| client.observers.writing_everything());
    // Where a path is given twice, the last one wins, as with writes one after the other.
    let wanted: HashMap<&str, &CachedModule> = modules
        .iter()
        .map(|module| (module.path.as_str(), module))
        .collect();
    let mut connection = dedicated::open(client).await?;
    let completion = if options.dry_run {
        None
    } else {
        Some(Completion::begin(&mut connection, config).await?)
    };

    let paths = wanted.keys().map(|path| (*path).to_owned());
    let size = |path: &String| wanted[path.as_str()].content.len();
    let mut edits = Vec::new();
    let mut done = 0;
    // What is written from now on expires later than this, so it is the upper bound.
    let mut expires = config.ttl.map(|ttl| Instant::now() + ttl);
    for batch in batches(paths, BATCH_MODULES, BATCH_BYTES, size) {
        let now = Instant::now();
        let cached = send(&mut connection, &Inspect::of(&batch), config).await?;
        for (path, cached) in batch.iter().zip(cached) {
            let module = wanted[path.as_str()];
            if cached.compare(Some(module), config, path) != Verdict::Right {
                edits.push(Edit::Put(module));
            } else if let Some(left) = cached.ttl {
                expires = expires.map(|first| first.min(now + left));
            }
        }
        done += batch.len();
        options.report(Stage::Compare, done, wanted.len());
    }
    let unchanged = wanted.len() - edits.len();
    let cached = cached_paths(&mut connection, true, config).await?;
    let surplus: HashSet<&String> = cached
        .paths
        .iter()
        .filter(|path| !wanted.contains_key(path.as_str()))
        .collect();
    let removed = surplus.len();
    edits.extend(surplus.into_iter().map(Edit::Remove));
    let Some(completion) = completion else {
        let (written, removed) = edits.iter().partition(|edit| matches!(edit, Edit::Put(_)));
        let paths =
            |edits: Vec<&Edit<'_>>| edits.iter().map(|edit| edit.path().to_owned()).collect();
        return Ok(PublishReport {
            unchanged,
            dry_run: Some(DryRun::new(paths(written), paths(removed))),
            ..PublishReport::new(config)
        });
    };
    // A dry run has returned above: it reports what this refuses.
    options.check_removals(removed, cached.paths.len())?;

    // Readers see a large publication in parts: until its end nothing may claim that all is there.
    if edits.iter().map(Edit::bytes).sum::<usize>() > BATCH_BYTES {
        send(&mut connection, &Unmark { generation: false }, config).await?;
    }
    // Over the same connection as the comparison and the mark: after a failover a new connection
    // may lead to another server, which the mark would then not be true of.
    let mut report = PublishReport::new(config);
    for write in writes(edits) {
        let done = send(&mut connection, &write, config).await?;
        report.count(&write, done)?;
    }
    for members in cached.bad.chunks(BATCH_MODULES) {
        send(&mut connection, &Unlist { members }, config).await?;
    }
    report.unchanged = unchanged;
    // Nothing here can be compared with a database, so it is complete and unverified.
    report.complete = completion
        .finish(&mut connection, wanted.len(), false, expires, config)
        .await?;
    options.report(Stage::Load, wanted.len(), wanted.len());
    Ok(report)
}
