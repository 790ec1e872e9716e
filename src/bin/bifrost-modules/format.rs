//! Numbers, times and names, for people and for scripts.

use std::time::{Duration, SystemTime};

use bifrost_module_cache::CachedModule;
use bifrost_module_cache::diagnosis::Status;
use bifrost_module_cache::sync::{DryRun, Endpoints, Found, Role};

use crate::failure::Failure;
use crate::output::{Output, harmless};

/// RFC 3339, in UTC.
pub fn time(at: SystemTime) -> String {
    // RFC 3339 has four digits for the year, and `humantime` fails beyond.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(at.min(last)).to_string()
}

/// The time, and how long ago that was.
pub fn time_and_age(at: SystemTime) -> String {
    match SystemTime::now().duration_since(at) {
        Ok(age) => {
            let age = Duration::from_secs(age.as_secs());
            format!("{} ({} ago)", time(at), humantime::format_duration(age))
        }
        Err(_) => time(at),
    }
}

/// How long ago that was.
pub fn age(at: SystemTime) -> String {
    let age = SystemTime::now().duration_since(at).unwrap_or_default();
    let age = Duration::from_secs(age.as_secs());
    format!("{} ago", humantime::format_duration(age))
}

/// A count and its noun.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Whether the cache is complete, and since when.
pub fn state_and_age(status: &Status) -> String {
    match status.since {
        Some(since) => format!("{} since {}", status.state, time_and_age(since)),
        None => status.state.to_string(),
    }
}

/// A module's size and hash.
pub fn described(module: &CachedModule) -> String {
    let hash = if module.hash.is_empty() {
        "no hash".to_owned()
    } else {
        format!("hash {}", harmless(&module.hash))
    };
    let bytes = counted(module.content.len(), "byte");
    format!("{bytes}, {hash}")
}

/// Which servers answered, as rows of a table.
pub fn servers(servers: &Endpoints) -> Vec<(&'static str, String)> {
    let database = servers.database.clone();
    let redis = ("redis", servers.redis.clone());
    let database = database.map(|database| ("database", database));
    let server = holder(servers).map(|holder| ("server", holder));
    [redis].into_iter().chain(server).chain(database).collect()
}

/// What a dry run would do, a path a line, so that it can be read by scripts.
pub fn print_dry_run(output: &mut Output, dry_run: &DryRun) -> Result<(), Failure> {
    for (what, paths) in [("write", &dry_run.written), ("remove", &dry_run.removed)] {
        for path in paths {
            output.line(format_args!("would {what} {path}"))?;
        }
    }
    output.line(format_args!("{dry_run}"))
}

/// Which server holds the keys, where that is more than the address says.
pub fn holder(servers: &Endpoints) -> Option<String> {
    let named = match servers.found {
        Found::Sentinels => ", named by the sentinels",
        Found::Cluster => ", named by the cluster",
        _ => "",
    };
    let role = match servers.role {
        Some(Role::Primary) if !named.is_empty() => "a primary",
        Some(Role::Replica) => "a replica, which may be behind its primary",
        _ => return None,
    };
    let server = servers.server.as_deref()?;
    Some(format!("{server}: {role}{named}"))
}
