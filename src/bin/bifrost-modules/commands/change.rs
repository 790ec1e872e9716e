//! `rm`, `mv` and `clear`.

use std::collections::HashSet;

use bifrost_module_cache::{CachedModule, Change, Explanation};
use serde_json::json;

use super::{get, text};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;

pub fn rm(servers: &Servers<'_>, output: &mut Output, paths: &[String]) -> Result<Exit, Failure> {
    let writer = servers.writer()?;
    let failed = |error| servers.failure(error);
    let mut there = HashSet::new();
    for path in paths {
        let found = writer.reader().explain(path).map_err(failed)?;
        if matches!(found, Explanation::Cached | Explanation::ValueGone) {
            there.insert(path.as_str());
        }
    }
    let changes: Vec<Change> = paths.iter().cloned().map(Change::Remove).collect();
    writer.publish(&changes).map_err(failed)?;
    let mut all = true;
    for path in paths {
        let removed = there.contains(path.as_str());
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

/// Moves what is there at that moment: where others write either path meanwhile, nothing is moved.
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
    let found = reader.get_many(&[old, new]);
    match &found.map_err(|error| servers.failure(error))?[..] {
        [Some(_), None] => {}
        [None, _] => return Err(get::absent(servers, reader, old)?),
        _ => {
            return Err(Failure::refused(format!(
                "{new} is there already: remove it first"
            )));
        }
    }
    let contended = || {
        Failure::new(
            Exit::Unavailable,
            "others write these paths at this moment: run it again",
        )
    };
    let moved = |paths: &[String]| match reader.get(old) {
        // Asked again for one of them: the other was written meanwhile.
        Ok(Some(module)) if paths.len() == 2 => {
            // What can't be written would be taken for gone, and only the old path removed.
            servers.fits(old, module.content.len())?;
            Ok(vec![CachedModule {
                path: new.to_owned(),
                ..module
            }])
        }
        Ok(_) => Err(contended()),
        Err(error) => Err(servers.failure(error)),
    };
    let mut lost = None;
    let report = writer.refresh_from(&[old, new], |paths| {
        moved(&paths).map_err(|failure| {
            lost = Some(failure);
            "given up"
        })
    });
    match report {
        Ok(report) if report.written == 1 => {}
        Ok(_) => return Err(contended()),
        Err(error) => return Err(lost.unwrap_or_else(|| servers.failure(error))),
    }
    if output.json {
        output.json(&json!({"old": old, "new": new, "moved": true}))?;
    } else if output.reports() {
        output.line(format_args!("{old}: moved to {new}"))?;
    }
    Ok(Exit::Fine)
}

pub fn clear(servers: &Servers<'_>, output: &mut Output) -> Result<Exit, Failure> {
    let removed = servers
        .writer()?
        .clear()
        .map_err(|error| servers.failure(error))?;
    if output.json {
        output.json(&json!({"removed": removed}))?;
    } else if output.reports() {
        let count = text::counted(usize::try_from(removed).unwrap_or(usize::MAX), "module");
        output.line(format_args!("removed {count}: the cache is cold now"))?;
        output.hint("`bifrost-modules warm` completes it from the database, `publish --exact` from a directory")?;
    }
    Ok(Exit::Fine)
}
