//! `refresh`, `rm`, `mv` and `clear`.

use std::time::Duration;

use bifrost_module_cache::CachedModule;
use bifrost_module_cache::keys::module_key;
use serde_json::json;

use super::{get, text};
use crate::args::Removals;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::screen::Screen;
use crate::servers::Servers;

pub fn rm(servers: &Servers<'_>, output: &mut Output, paths: &[String]) -> Result<Exit, Failure> {
    // All or nothing, as far as that can be known before.
    for path in paths {
        module_key(path)?;
    }
    let writer = servers.writer()?;
    let mut all = true;
    for path in paths {
        let removed = writer.invalidate(path);
        let removed = removed.map_err(|error| servers.failure(error))?;
        all &= removed;
        if output.json {
            output.json(&json!({"path": path, "removed": removed}))?;
        } else if output.reports() {
            let what = if removed { "removed" } else { "was not there" };
            output.line(format_args!("{path}: {what}"))?;
        }
    }
    Ok(Exit::fine_if(all))
}

/// Moves what is there when it is read.
pub fn mv(
    servers: &Servers<'_>,
    output: &mut Output,
    old: &str,
    new: &str,
) -> Result<Exit, Failure> {
    if old == new {
        return Err(Failure::usage("the old and the new path are the same"));
    }
    let writer = servers.writer()?;
    let reader = writer.reader();
    let failed = |error| servers.failure(error);
    let mut found = reader.get_many(&[old, new]).map_err(failed)?;
    let (there, module) = (found.pop().flatten(), found.pop().flatten());
    let Some(module) = module else {
        return Err(get::absent(servers, reader, old)?);
    };
    if there.is_some() {
        return Err(Failure::refused(format!(
            "{new} is there already: remove it first"
        )));
    }
    let module = CachedModule::with_hash(new, module.content, module.hash)?;
    writer.rename(old, &module).map_err(failed)?;
    if output.json {
        output.json(&json!({"old": old, "new": new, "moved": true}))?;
    } else if output.reports() {
        output.line(format_args!("{old}: moved to {new}"))?;
    }
    Ok(Exit::Fine)
}

/// Brings paths to what the database has.
pub fn refresh(
    servers: &Servers<'_>,
    screen: &Screen,
    output: &mut Output,
    paths: &[String],
) -> Result<Exit, Failure> {
    for path in paths {
        module_key(path)?;
    }
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let (writer, paths) = (servers.writer()?, paths.to_vec());
    let report = database.work(screen, Removals::default(), Duration::MAX, move |_| {
        writer.refresh(&mut client, &paths)
    })?;
    if output.json {
        output.json(&report)?;
    } else if output.reports() {
        let mut rows = text::servers(&report.servers);
        rows.push(("written", report.written.to_string()));
        rows.push(("removed", report.removed.to_string()));
        output.table(&rows)?;
    }
    if report.skipped > 0 {
        let count = text::counted(report.skipped, "module");
        output.hint(&format!("{count} of them can't be cached: too large"))?;
    }
    if report.unsettled.is_empty() {
        return Ok(Exit::Fine);
    }
    let paths = report.unsettled.join(", ");
    let message = format!("others keep writing {paths}: run it again");
    Err(Failure::new(Exit::Unavailable, message))
}

pub fn clear(servers: &Servers<'_>, output: &mut Output) -> Result<Exit, Failure> {
    let report = servers
        .writer()?
        .clear()
        .map_err(|error| servers.failure(error))?;
    if output.json {
        output.json(&report)?;
    } else if output.reports() {
        let count = text::counted(
            usize::try_from(report.removed).unwrap_or(usize::MAX),
            "module",
        );
        output.line(format_args!("removed {count}: the cache is cold now"))?;
        if !report.scanned {
            output.hint("entries that the index does not name stay: this user may not SCAN")?;
        }
        output.hint("`bifrost-modules warm` completes it from the database, `publish --exact` from a directory")?;
    }
    Ok(Exit::Fine)
}
