//! `explain`.

use bifrost_module_cache::{CachedModule, Cause, Diagnosis, Explanation, RowState, Status};
use serde_json::{Value, json};

use super::text;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output, harmless};
use crate::servers::{Database, Servers};

/// What is to be said of a path.
struct Finding {
    /// For scripts.
    cause: &'static str,
    title: &'static str,
    why: &'static str,
    remedy: &'static str,
    exit: Exit,
}

pub fn explain(servers: &Servers<'_>, output: &mut Output, path: &str) -> Result<Exit, Failure> {
    let Some(database) = servers.database()? else {
        return with_redis(servers, output, path);
    };
    match diagnose(servers, &database, path) {
        Ok(diagnosis) => with_both(output, path, &diagnosis),
        // Redis alone still tells something.
        Err(failure) if failure.is_unavailable() => {
            with_redis(servers, output, path).and(Err(failure))
        }
        Err(failure) => Err(failure),
    }
}

pub fn diagnose(
    servers: &Servers<'_>,
    database: &Database<'_>,
    path: &str,
) -> Result<Diagnosis, Failure> {
    let mut client = database.connect()?;
    servers
        .reader()?
        .diagnose(&mut client, path)
        .map_err(|error| database.failure(error))
}

fn with_redis(servers: &Servers<'_>, output: &mut Output, path: &str) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    let failed = |error| servers.failure(error);
    let explanation = reader.explain(path).map_err(failed)?;
    let status = reader.status().map_err(failed)?;
    let (finding, cached) = match reader.get(path) {
        Ok(cached) => (from_redis(explanation), cached),
        Err(error) if error.is_corrupt() => (from_both(Cause::Corrupt), None),
        Err(error) => return Err(failed(error)),
    };
    print(output, path, &finding, cached.as_ref(), None, &status)?;
    if output.reports() && finding.cause == "never_cached" {
        output.hint("with a database (--database-url-file or DATABASE_URL) it tells whether there should be one")?;
    }
    Ok(finding.exit)
}

fn with_both(output: &mut Output, path: &str, diagnosis: &Diagnosis) -> Result<Exit, Failure> {
    let finding = from_both(diagnosis.cause);
    let cached = diagnosis.cached.as_ref();
    print(
        output,
        path,
        &finding,
        cached,
        Some(diagnosis),
        &diagnosis.status,
    )?;
    Ok(finding.exit)
}

fn print(
    output: &mut Output,
    path: &str,
    finding: &Finding,
    cached: Option<&CachedModule>,
    diagnosis: Option<&Diagnosis>,
    status: &Status,
) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({
            "path": path,
            "cause": finding.cause,
            "why": finding.why,
            "remedy": finding.remedy,
            "cached": cached.map(module_object),
            "database": diagnosis.map(row_object),
            "status": text::status_name(status),
            "since": text::since(status).map(text::time),
        }));
    }
    if !output.reports() {
        return Ok(());
    }
    let style = if finding.exit == Exit::Fine {
        GOOD
    } else {
        BAD
    };
    let title = output.paint(style, finding.title);
    output.line(format_args!("{path}: {title}"))?;
    let entry = match cached {
        Some(module) => described(module),
        None if finding.cause == "corrupt" => "an entry that can't be read".to_owned(),
        None => "no module".to_owned(),
    };
    let completed = match text::since(status) {
        Some(since) => format!(
            "{} since {}",
            text::status_name(status),
            text::time_and_age(since)
        ),
        None => text::status_name(status).to_owned(),
    };
    let mut rows = vec![("redis", entry), ("cache", completed)];
    if let Some(diagnosis) = diagnosis {
        let row = match &diagnosis.row {
            RowState::Module(module) => described(module),
            other => row_state(other).1.to_owned(),
        };
        rows.push(("database", row));
        let changed = diagnosis.changed.map(text::time_and_age);
        rows.extend(changed.map(|changed| ("changed", changed)));
    }
    rows.push(("why", finding.why.to_owned()));
    if !finding.remedy.is_empty() {
        rows.push(("remedy", finding.remedy.to_owned()));
    }
    output.table(&rows)
}

fn described(module: &CachedModule) -> String {
    let hash = if module.hash.is_empty() {
        "no hash".to_owned()
    } else {
        format!("hash {}", harmless(&module.hash))
    };
    let bytes = text::counted(module.content.len(), "byte");
    format!("{bytes}, {hash}")
}

fn module_object(module: &CachedModule) -> Value {
    json!({"bytes": module.content.len(), "hash": module.hash})
}

fn row_object(diagnosis: &Diagnosis) -> Value {
    let module = match &diagnosis.row {
        RowState::Module(module) => Some(module),
        _ => None,
    };
    json!({
        "state": row_state(&diagnosis.row).0,
        "bytes": module.map(|module| module.content.len()),
        "hash": module.map(|module| &module.hash),
        "changed": diagnosis.changed.map(text::time),
    })
}

/// For scripts, and for people.
fn row_state(row: &RowState) -> (&'static str, &'static str) {
    match row {
        RowState::Module(_) => ("module", "a module"),
        RowState::Absent => ("absent", "no row"),
        RowState::Deleted => ("deleted", "a row that is marked as deleted"),
        RowState::NotAModule => ("not_a_module", "a row of another kind, or without content"),
        RowState::TooLarge => ("too_large", "a module that is larger than the limit"),
        _ => ("unknown", "a row"),
    }
}

const TELL_SERVICE: &str = "`bifrost-modules repair` mends it now; the service that saves, deletes or moves must call refresh after its commit";

fn from_redis(explanation: Explanation) -> Finding {
    match explanation {
        Explanation::Cached => Finding {
            cause: "cached",
            title: "cached",
            why: "workers get it",
            remedy: "",
            exit: Exit::Fine,
        },
        Explanation::ValueGone => from_both(Cause::ValueGone),
        Explanation::CacheCold => from_both(Cause::CacheCleared),
        _ => Finding {
            cause: "never_cached",
            title: "not cached, though the cache is complete",
            why: "there is no such module, or it was just created and not cached, or wrongly removed",
            remedy: "",
            exit: Exit::No,
        },
    }
}

fn from_both(cause: Cause) -> Finding {
    let (cause, title, why, remedy) = match cause {
        Cause::Right => (
            "right",
            "cached as the database has it",
            "workers that see something else have loaded it before, or read another Redis",
            "",
        ),
        Cause::JustCreated => (
            "just_created",
            "just created or saved, and not cached",
            "the row was changed after the cache was completed, and nobody brought it to the cache",
            TELL_SERVICE,
        ),
        Cause::CacheCleared => (
            "cache_cleared",
            "not cached, because the whole cache is cold",
            "the cache was never completed, or cleared or flushed since",
            "`bifrost-modules warm` completes it from the database",
        ),
        Cause::CacheRestored => (
            "cache_restored",
            "not cached, because the cache came back without it",
            "Redis was restarted from disk, or a replica took over, older than the database",
            "`bifrost-modules warm` completes it from the database",
        ),
        Cause::WronglyRemoved => (
            "wrongly_removed",
            "removed, though the database has it: a bug in invalidation",
            "the row is older than the complete cache, so it was cached, and somebody removed it",
            TELL_SERVICE,
        ),
        Cause::Stale => (
            "stale",
            "the cache has another version: a bug in invalidation",
            "whoever saved it last did not bring it to the cache, or an older write came later",
            TELL_SERVICE,
        ),
        Cause::Ghost => (
            "ghost",
            "still in the cache, though the database has no such module: a bug in invalidation",
            "whoever deleted or moved it did not tell the cache",
            TELL_SERVICE,
        ),
        Cause::ValueGone => (
            "value_gone",
            "in the index, without its value",
            "it expired (a writer sets a time to live) or was evicted (maxmemory-policy)",
            "`bifrost-modules repair` brings it back; give Redis more memory, or warm more often",
        ),
        Cause::Corrupt => (
            "corrupt",
            "an entry that can't be read",
            "what is stored is not this module's JSON, so every import of it fails",
            "`bifrost-modules repair` replaces it",
        ),
        Cause::Unlisted => (
            "unlisted",
            "cached, and missing in the index",
            "a foreign writer is between its two commands, or failed there",
            "`bifrost-modules repair` adds it",
        ),
        Cause::TooLarge => (
            "too_large",
            "too large to be cached",
            "its content is larger than the limit",
            "split the module, or raise the limit everywhere: --max-content-bytes here",
        ),
        Cause::NoSuchModule => (
            "no_such_module",
            "neither cached nor a module of the database",
            "there is no such module: look at the spelling, and at the row",
            "",
        ),
        _ => (
            "unknown",
            "unknown",
            "this tool does not know that cause",
            "",
        ),
    };
    let exit = match cause {
        "right" => Exit::Fine,
        "corrupt" => Exit::Corrupt,
        _ => Exit::No,
    };
    Finding {
        cause,
        title,
        why,
        remedy,
        exit,
    }
}
