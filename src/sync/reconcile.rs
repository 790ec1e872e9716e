//! Brings paths to what a source says now. A write that another writer makes in between wins.
//!
//! This is the protocol of `refresh`, and of all mending: reserve and WATCH, read the source, write
//! in MULTI/EXEC. Each step and its order: docs/design/consistency.md.

use std::collections::VecDeque;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};

use super::eviction::Evictions;
use super::inspect::{PLACEHOLDER_MS, identity};
use super::report::RefreshReport;
use super::source::Source;
use super::verdict::cacheable;
use crate::client::Client;
use crate::client::batch::BATCH_BYTES;
use crate::client::dedicated::send;
use crate::client::transport::{DedicatedConnection, Transport};
use crate::command::modules::Remove;
use crate::command::request::{Class, Command, Request};
use crate::command::{modules, reply};
use crate::config::Config;
use crate::error::Error;
use crate::module::CachedModule;
use crate::observe::Outcome;
use crate::random::random;

/// How often a path that others keep writing is tried. It is reported as `unsettled` then: the
/// caller may refresh it again, but a call must end.
const ATTEMPTS: u32 = 12;

/// After so many attempts of a path, ask Redis whether it evicts keys: an eviction of a watched key
/// aborts EXEC as a write does, so every further attempt would fail, too.
const FEW: u32 = 3;

/// Reserves and watches the paths, asks the source, and writes or removes them in a transaction. An
/// aborted batch is tried again path by path, because one busy path must not hold up 199 others; a
/// path that stays contended is reported.
///
/// Nothing is removed before all the rest is written, over all batches and retries, so that readers
/// find a moved module under its old or its new path.
///
/// The connection must be dropped after an error: a WATCH that was left behind would void the next
/// transaction on it.
pub(crate) async fn reconcile<T: Transport, Conn: DedicatedConnection, S: Source>(
    client: &Client<T>,
    connection: &mut Conn,
    source: &mut S,
    paths: Vec<String>,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<RefreshReport, Error> {
    let config = client.config();
    let plan = source.plan(paths, config).await?;
    let mut report = RefreshReport::default();
    let first = |batch| (batch, 1);
    let mut queue: VecDeque<(Vec<String>, u32)> = plan.batches.into_iter().map(first).collect();
    let mut removals: VecDeque<_> = plan.rowless.into_iter().map(first).collect();
    let (mut evictions, mut evicts) = (Evictions::default(), false);
    // What Redis had no memory for. The removals come first, because they make room; then it is
    // tried once more.
    let mut starved = VecDeque::new();
    loop {
        let last_chance = queue.is_empty() && removals.is_empty();
        let next = queue.pop_front().or_else(|| removals.pop_front());
        let Some((batch, attempt)) = next.or_else(|| starved.pop_front()) else {
            return Ok(report);
        };
        let looked_at = looked_at(source, &batch);
        let reserve = Reserve {
            paths: &batch,
            looked_at: &looked_at,
        };
        let (reserved, values) = send(connection, &reserve, config).await?;
        let batch = without_overtaken(source, batch, &looked_at, &values);
        if batch.is_empty() {
            continue;
        }
        // Fetch after WATCH, never before. Between a fetch and a later WATCH another service may
        // cache a newer row, which our EXEC would then overwrite with the older one, unnoticed.
        let fetched = source.fetch(&batch).await?;
        let (rows, too_large) = cacheable(&fetched.modules, &batch, config);
        let too_large = too_large + fetched.too_large;
        let (mut here, mut gone): (Vec<String>, Vec<String>) = batch
            .into_iter()
            .partition(|path| rows.contains_key(path.as_str()));
        // Sizes were planned before the rows were read, and a row may have grown since. What no
        // longer fits one transaction goes back to the queue, and is watched and fetched anew.
        let fitting = fitting(here.iter().map(|path| rows[path.as_str()].content.len()));
        for rest in here.split_off(fitting).chunks(fitting.max(1)) {
            queue.push_front((rest.to_vec(), attempt));
        }
        // Rows are left to write, one of which may be the new path of what is gone here.
        if !queue.is_empty() && !gone.is_empty() {
            removals.push_back((std::mem::take(&mut gone), attempt));
        }
        if here.is_empty() && gone.is_empty() {
            continue;
        }
        let write = Write {
            put: here.iter().map(|path| rows[path.as_str()]).collect(),
            remove: gone.iter().collect(),
        };
        let written = match reserved {
            Ok(true) => send(connection, &write, config).await,
            other => other,
        };
        let contended: Vec<String> = match written {
            Ok(true) => {
                report.written += write.put.len();
                report.removed += write.remove.len();
                report.skipped += if gone.is_empty() { 0 } else { too_large };
                report.bytes += write.bytes();
                write.log();
                progress(here.len() + gone.len());
                continue;
            }
            // EXEC was aborted, or a key was gone before the watch began: nothing was written.
            Ok(false) => here.into_iter().chain(gone).collect(),
            Err(error) if error.is_out_of_memory() => {
                if !here.is_empty() {
                    // All removals are done, and there is still no memory: more attempts can't
                    // help.
                    if last_chance && gone.is_empty() {
                        return Err(error);
                    }
                    starved.push_back((here, attempt));
                }
                let came = free(connection, source, &gone, config).await?;
                report.removed += gone.len() - came.len();
                report.skipped += if gone.is_empty() { 0 } else { too_large };
                progress(gone.len() - came.len());
                came
            }
            Err(error) => return Err(error),
        };
        if contended.is_empty() {
            continue;
        }
        // The first look only notes the server's counter; later ones compare with it.
        if !evicts && (attempt == 1 || attempt > FEW) {
            evicts = evictions.any(connection, config).await? == Some(true) && attempt > FEW;
        }
        if attempt == ATTEMPTS || evicts {
            progress(contended.len());
            report.unsettled.extend(contended);
        } else {
            report.retried += contended.len();
            queue.extend(contended.into_iter().map(|path| (vec![path], attempt + 1)));
            client.transport.pause(backoff(attempt)).await;
        }
    }
}

/// Which of these paths may be written only if their entries are what they were.
fn looked_at(source: &impl Source, batch: &[String]) -> Vec<String> {
    let is_expected = |path: &&String| source.expected(path).is_some();
    batch.iter().filter(is_expected).cloned().collect()
}

/// Leaves out those whose entries are not.
fn without_overtaken(
    source: &mut impl Source,
    mut batch: Vec<String>,
    looked_at: &[String],
    values: &[Option<Vec<u8>>],
) -> Vec<String> {
    for (path, value) in looked_at.iter().zip(values) {
        if source.expected(path) != Some(identity(value.as_deref())) {
            batch.retain(|other| other != path);
            source.overtaken(path.clone());
        }
    }
    batch
}

/// Removes paths that have no row from a Redis that is out of memory.
///
/// Such a Redis refuses to queue even a DEL in MULTI, so this can't be a transaction, and no WATCH
/// protects it. Instead the source is asked again afterwards. A path whose row came meanwhile is
/// returned, to be reconciled again: its writer's entry may be what was just removed.
async fn free<Conn: DedicatedConnection, S: Source>(
    connection: &mut Conn,
    source: &mut S,
    gone: &[String],
    config: &Config,
) -> Result<Vec<String>, Error> {
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    send(
        connection,
        &Remove::new(gone, Class::Bulk).one_by_one(),
        config,
    )
    .await?;
    let remove = gone.iter().collect();
    Write {
        put: Vec::new(),
        remove,
    }
    .log();
    let fetched = source.fetch(gone).await?;
    let (rows, _) = cacheable(&fetched.modules, gone, config);
    let came = gone.iter().filter(|path| rows.contains_key(path.as_str()));
    Ok(came.cloned().collect())
}

/// How many of these modules one transaction may hold: at least one, if there is one, or a module
/// larger than the limit of a batch would never be written.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let within = sizes.take_while(|size| {
        let first = bytes == 0;
        bytes += size;
        first || bytes <= BATCH_BYTES
    });
    within.count()
}

/// Jittered, so that two writers that met once don't meet again in step.
fn backoff(attempt: u32) -> Duration {
    let longest = 1_000_u64 << attempt.min(6);
    Duration::from_micros(random() % longest)
}

/// Places an empty value where there is none, and watches all.
///
/// A DEL of an absent key does not trip a WATCH. Without the placeholder, a row that a service
/// deletes after our SELECT would be cached by our EXEC as a ghost. Readers take an empty value for
/// absent, as the specification's `if data:` does.
struct Reserve<'a> {
    paths: &'a [String],
    /// Some of them, whose values are asked for once they are watched.
    looked_at: &'a [String],
}

impl Command for Reserve<'_> {
    /// Whether all keys existed when the watch began. A DEL may come between placeholder and WATCH,
    /// and then the watch is of an absent key, which protects nothing.
    ///
    /// The inner error says that there was no memory for a placeholder. It is no error of the whole
    /// request: paths without a row need no placeholder, and are removed all the same.
    ///
    /// Then the values that were looked at.
    type Reply = (Result<bool, Error>, Vec<Option<Vec<u8>>>);

    fn operation(&self) -> &'static str {
        "reserve"
    }

    fn outcome(reserved: &Self::Reply) -> Outcome {
        match &reserved.0 {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::of(error),
        }
    }

    fn request(&self, config: &Config) -> Request {
        let mut pipeline = Pipeline::new();
        // What an earlier, unfinished attempt on this connection watched must not abort this one.
        pipeline.cmd("UNWATCH");
        let (mut watch, mut exists) = (redis::cmd("WATCH"), redis::cmd("EXISTS"));
        for path in self.paths {
            let key = config.keys.module_unchecked(path);
            watch.arg(&key);
            exists.arg(&key);
            pipeline
                .cmd("SET")
                .arg(key)
                .arg("")
                .arg("NX")
                .arg("PX")
                .arg(PLACEHOLDER_MS);
        }
        pipeline.add_command(watch);
        pipeline.add_command(exists);
        for path in self.looked_at {
            pipeline.cmd("GET").arg(config.keys.module_unchecked(path));
        }
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, mut replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        let looks = replies.len().checked_sub(self.looked_at.len());
        let values = replies.split_off(looks.ok_or_else(reply::unexpected)?);
        // A key of another type has no value to be known by.
        let values = values.into_iter().map(|value| match reply::bytes(value) {
            Err(error) if error.is_wrong_type() => Ok(None),
            value => value,
        });
        let values = values.collect::<Result<_, Error>>()?;
        // Each reply is looked at, because a SET may fail alone. The last one is that of EXISTS.
        let (mut last, mut lack) = (Err(reply::unexpected()), None);
        for reply in replies {
            match reply::ok(reply) {
                Err(error) if error.is_out_of_memory() => lack = Some(error),
                reply => last = Ok(reply?),
            }
        }
        let there = reply::integer(last?)?;
        let all = usize::try_from(there).is_ok_and(|there| there == self.paths.len());
        Ok((lack.map_or(Ok(all), Err), values))
    }
}

/// Writes and removes in one transaction; answers whether it was carried out, which EXEC tells by a
/// reply that is not nil. A library that decodes an aborted EXEC as `()` reports success.
pub(crate) struct Write<'a> {
    pub(crate) put: Vec<&'a CachedModule>,
    pub(crate) remove: Vec<&'a String>,
}

impl Write<'_> {
    /// How many bytes of content it writes.
    pub(crate) fn bytes(&self) -> u64 {
        self.put
            .iter()
            .map(|module| module.content.len() as u64)
            .sum()
    }

    fn commands(&self, config: &Config) -> Vec<Cmd> {
        let mut all = Vec::with_capacity(2 * self.put.len() + 2);
        for module in &self.put {
            all.extend(modules::put(module, config));
        }
        if !self.remove.is_empty() {
            all.extend(modules::remove(&self.remove, &config.keys));
        }
        all
    }

    /// The specification's lines, once it has been carried out.
    pub(crate) fn log(&self) {
        for module in &self.put {
            log::debug!("Cached module: {}", module.path);
        }
        for path in &self.remove {
            log::debug!("Invalidated module cache: {path}");
        }
    }
}

impl Command for Write<'_> {
    type Reply = bool;
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        "write"
    }

    fn outcome(done: &bool) -> Outcome {
        Outcome::carried_out(*done)
    }

    fn request(&self, config: &Config) -> Request {
        Request::transaction(self.commands(config), Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<bool, Error> {
        reply::transaction(replies).map(|results| results.is_some())
    }
}
