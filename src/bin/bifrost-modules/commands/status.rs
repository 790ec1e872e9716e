//! `status`: whether the cache is complete, and since when.

use bifrost_module_cache::diagnosis::{CacheState, Status};

use crate::failure::{Exit, Failure};
use crate::format;
use crate::output::{BAD, GOOD, Output};
use crate::servers::Servers;

pub fn status(servers: &Servers<'_>, output: &mut Output) -> Result<Exit, Failure> {
    let status = servers
        .reader()?
        .status()
        .map_err(|error| servers.failure(error))?;
    if output.json {
        output.json(&status)?;
    } else if output.reports() {
        print(servers, output, &status)?;
    }
    // A cold cache is the answer "no", not a failure: readiness probes go by the exit code.
    Ok(Exit::fine_if(status.is_warm()))
}

/// For a person: a row for what is known, and none for what the server does not tell.
fn print(servers: &Servers<'_>, output: &mut Output, status: &Status) -> Result<(), Failure> {
    let style = if status.is_warm() { GOOD } else { BAD };
    let state = output.paint(style, status.state);
    let mut rows = vec![
        ("redis", servers.redis()),
        ("cache", format!("{state}: {}", meaning(status.state))),
    ];
    rows.extend(format::holder(&status.servers).map(|holder| ("server", holder)));
    if let Some(since) = status.since {
        rows.push(("since", format::time_and_age(since)));
        let verified = if status.verified {
            "yes: compared with the database"
        } else {
            "no: a transaction was still open, or there was no database"
        };
        rows.push(("modules", format!("{} then", status.modules)));
        rows.push(("verified", verified.to_owned()));
    }
    let members = status.members.map(|members| format!("{members} now"));
    rows.extend(members.map(|members| ("index", members)));
    let policy = status.maxmemory_policy.clone();
    rows.extend(policy.map(|policy| ("policy", policy)));
    let evicted = status.evicted_keys.map(|keys| format!("{keys} keys since"));
    rows.extend(evicted.map(|evicted| ("evicted", evicted)));
    if let Some(guard) = &status.guard {
        let (since, checked) = (
            format::time_and_age(guard.since),
            format::age(guard.checked),
        );
        rows.push((
            "guard",
            format!("since {since}, last checked {checked}, {}", guard.feed),
        ));
        if guard.withheld > 0 {
            let why = "have no row and are too many to be removed";
            rows.push(("withheld", format!("{} modules {why}", guard.withheld)));
        }
    }
    output.table(&rows)?;
    if let Some(warning) = status.warning() {
        output.hint(&warning)?;
    }
    if !status.is_warm() && status.guard.is_none() {
        output.hint("`bifrost-modules warm` completes it from the database, `publish --exact` from a directory")?;
    }
    Ok(())
}

/// What a state means for an operator. The enum is non-exhaustive, so a newer library may have
/// another one.
fn meaning(state: CacheState) -> &'static str {
    match state {
        CacheState::Warm => "every module was cached then",
        CacheState::Cold => "it was never completed, or cleared since",
        CacheState::Restored => {
            "it may have come back from disk or from a replica, older than the database"
        }
        CacheState::Incomplete => {
            "its index was evicted or deleted since: set maxmemory-policy to noeviction"
        }
        _ => "this tool does not know that state",
    }
}
