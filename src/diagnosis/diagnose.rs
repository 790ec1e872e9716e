//! Why a module or a name is absent or old, with the database's word for what it should be.

use std::time::{Duration, SystemTime};

use super::Diagnosis;
use super::cause::Cause;
use super::entry::{ask, cause};
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
use super::explain::{chain, explain_name};
use crate::client::Client;
use crate::client::transport::Transport;
use crate::command::reply;
use crate::database::barrier::barrier;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;
use crate::keys::validate_path;
use crate::paths::name::Name;
use crate::sync::endpoints::Endpoints;

/// How long to wait for open transactions before what looks wrong is looked at again.
const BARRIER: Duration = Duration::from_secs(5);

pub(crate) async fn diagnose<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    path: &str,
) -> Result<Diagnosis, Error> {
    validate_path(path)?;
    let mut workspace = Workspace::open(database, client.config()).await?;
    diagnose_path(client, &mut workspace, path).await
}

/// Redis first, the row second, and both once more behind a barrier if they differ.
async fn diagnose_path<T: Transport, D: Database>(
    client: &Client<T>,
    workspace: &mut Workspace<D>,
    path: &str,
) -> Result<Diagnosis, Error> {
    let mut looked_twice = false;
    loop {
        let (status, entries) = ask(client, &[path]).await?;
        let entry = entries.into_iter().next().ok_or_else(reply::unexpected)?;
        let row = workspace.row(path).await?;
        let changed = row.age.and_then(|age| ago(age, SystemTime::now()));
        let cause = cause(&entry, &status, Some(&row.state), changed);
        // A writer between its commit and its write to Redis looks like drift. So what differs is
        // looked at once more, after every transaction that was open has ended.
        if looked_twice || !cause.is_drift() {
            return Ok(Diagnosis {
                name: None,
                path: Some(path.to_owned()),
                cached: entry.module.and_then(Result::ok),
                row: Some(row.state),
                changed,
                status: Some(status),
                servers: Endpoints::new(client.config(), Some(&workspace.server)),
                cause,
            });
        }
        // Its result does not matter: after 5 s the second look is the best there is.
        barrier(client, workspace, BARRIER).await?;
        looked_twice = true;
    }
}

/// The time that lies so many seconds back, by our clock. An `updated_at` in the future counts as
/// now; one that no clock can show counts as none.
fn ago(seconds: f64, now: SystemTime) -> Option<SystemTime> {
    let age = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    now.checked_sub(age)
}

/// Diagnoses every part of the name with the database. Redis alone can't tell which path is to
/// blame: a package that is missing there looks like a namespace, or lets the module be found that
/// it replaced.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) async fn diagnose_name<T: Transport, D: Database>(
    client: &Client<T>,
    database: D,
    name: &str,
) -> Result<Diagnosis, Error> {
    let found = explain_name(client, name).await?;
    if found.cause == Cause::NotAPath {
        return Ok(found);
    }
    let mut workspace = Workspace::open(database, client.config()).await?;
    // The name itself first, then its parents, because most often the name is to blame. Where a
    // parent hides it, Python never gets as far as the name, so then the parents come first.
    let mut parts = chain(name);
    parts.rotate_right(1);
    if found.cause == Cause::Hidden {
        parts.rotate_left(1);
    }
    let named = |diagnosis| Diagnosis {
        name: Some(name.to_owned()),
        ..diagnosis
    };
    let mut innocent = None;
    for part in parts {
        let Some(diagnosis) = diagnose_part(client, &mut workspace, part).await? else {
            continue;
        };
        if diagnosis.cause != Cause::Cached {
            return Ok(named(diagnosis));
        }
        if part == name {
            innocent = Some(diagnosis);
        }
    }
    let servers = Endpoints::new(client.config(), Some(&workspace.server));
    match (found.cause, innocent, &found.path) {
        (Cause::Hidden, ..) | (Cause::Namespace, None, _) => Ok(Diagnosis { servers, ..found }),
        (_, Some(innocent), _) => Ok(named(innocent)),
        (_, None, Some(path)) => diagnose_path(client, &mut workspace, path).await.map(named),
        (_, None, None) => Ok(Diagnosis {
            servers,
            row: Some(super::RowState::Absent),
            status: found.status,
            ..Diagnosis::of_name(Cause::NoSuchModule, name, None)
        }),
    }
}

/// The diagnosis of the first of a name's paths at which the cache or the database has a module.
async fn diagnose_part<T: Transport, D: Database>(
    client: &Client<T>,
    workspace: &mut Workspace<D>,
    name: &str,
) -> Result<Option<Diagnosis>, Error> {
    let parsed = Name::parse(name);
    for path in parsed.iter().flat_map(Name::candidates) {
        let diagnosis = diagnose_path(client, workspace, path).await?;
        let is_there = match diagnosis.cause {
            Cause::NoSuchModule => false,
            // A path that only the index names is found by no reader, so it does not decide.
            Cause::Ghost => diagnosis.cached.is_some(),
            _ => true,
        };
        if is_there {
            return Ok(Some(diagnosis));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_time_that_makes_no_sense_is_none() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000);
        for age in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            let changed = ago(age, now);
            assert!(changed.is_none_or(|changed| changed == now), "{age}");
        }
        assert_eq!(
            ago(500.0, now),
            Some(UNIX_EPOCH + Duration::from_secs(1_500))
        );
    }
}
