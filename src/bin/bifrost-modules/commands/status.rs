//! `status`.

use bifrost_module_cache::Status;
use serde_json::json;

use super::text;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output};
use crate::servers::Servers;

pub fn status(servers: &Servers<'_>, output: &mut Output) -> Result<Exit, Failure> {
    let status = servers
        .reader()?
        .status()
        .map_err(|error| servers.failure(error))?;
    let members = match status {
        Status::Incomplete { members, .. } => Some(members),
        _ => None,
    };
    let (modules, verified) = match status {
        Status::Warm {
            modules, verified, ..
        } => (Some(modules), Some(verified)),
        Status::Restored { modules, .. } | Status::Incomplete { modules, .. } => {
            (Some(modules), None)
        }
        _ => (None, None),
    };
    if output.json {
        output.json(&json!({
            "warm": status.is_warm(),
            "status": text::status_name(&status),
            "since": text::since(&status).map(text::time),
            "modules": modules,
            "members": members,
            "verified": verified,
            "servers": {"redis": servers.redis_address(), "database": null},
        }))?;
    } else if output.reports() {
        let style = if status.is_warm() { GOOD } else { BAD };
        let mut rows = vec![(
            "cache",
            format!(
                "{}: {}",
                output.paint(style, text::status_name(&status)),
                meaning(&status)
            ),
        )];
        rows.insert(0, ("redis", servers.redis()));
        rows.extend(text::since(&status).map(|since| ("since", text::time_and_age(since))));
        rows.extend(modules.map(|modules| ("modules", modules.to_string())));
        rows.extend(members.map(|members| ("members", format!("{members} in the index now"))));
        rows.extend(verified.map(|verified| ("verified", verification(verified).to_owned())));
        output.table(&rows)?;
        if !status.is_warm() {
            output.hint("`bifrost-modules warm` completes it from the database, `publish --exact` from a directory")?;
        }
    }
    Ok(Exit::fine_if(status.is_warm()))
}

fn meaning(status: &Status) -> &'static str {
    match status {
        Status::Warm { .. } => "every module was cached then",
        Status::Cold => "it was never completed, or cleared since",
        Status::Restored { .. } => {
            "it came back from disk or from a replica, and may be older than the database"
        }
        Status::Incomplete { .. } => {
            "its index was evicted or deleted since: set maxmemory-policy to noeviction"
        }
        _ => "this tool does not know that state",
    }
}

fn verification(verified: bool) -> &'static str {
    if verified {
        "yes: compared with the database"
    } else {
        "no: a transaction was still open, or there was no database"
    }
}
