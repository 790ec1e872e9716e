//! `explain` of a name: which path it leads to, and what is the matter with that.

use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::{Cause, Diagnosis, Error, NameCause, Resolution, candidate_paths};

use super::diagnose::BothServers;
use super::explain::{Facts, Subject, print, with_both, with_redis};
use super::finding::{Finding, from_both, from_name, namespace};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::{Database, Servers};

pub fn explain_name(
    servers: &Servers<'_>,
    output: &mut Output,
    name: &str,
) -> Result<Exit, Failure> {
    let found = found(&servers.reader()?, name).map_err(|error| servers.failure(error))?;
    let database = match found {
        Found::Never(_) => None,
        _ => servers.database()?,
    };
    let Some(database) = database else {
        return by_redis(servers, output, name, &found);
    };
    match suspect(servers, &database, name, &found) {
        Ok(Some((path, diagnosis))) => with_both(servers, output, Some(name), &path, &diagnosis),
        Ok(None) => match found {
            Found::Not(_) => {
                let finding = from_both(Cause::NoSuchModule);
                conclude(servers, output, name, None, &finding)
            }
            found => by_redis(servers, output, name, &found),
        },
        // Redis alone still tells something.
        Err(failure) if failure.is_unavailable() => {
            by_redis(servers, output, name, &found).and(Err(failure))
        }
        Err(failure) => Err(failure),
    }
}

/// What Redis says of a name.
enum Found {
    Path(String),
    Directory(String),
    Not(Finding),
    /// Nothing, because of a parent.
    Hidden(Finding),
    /// Nothing, whatever the database says.
    Never(Finding),
}

fn found(reader: &ModuleReader, name: &str) -> Result<Found, Error> {
    let explanation = match reader.explain_name(name) {
        // It may be that of a parent.
        Err(Error::Corrupt { path, .. }) => return Ok(Found::Path(path)),
        explanation => explanation?,
    };
    Ok(match &explanation.cause {
        NameCause::ValueGone { path, .. } | NameCause::Corrupt { path, .. } => {
            Found::Path(path.clone())
        }
        NameCause::NotAPath => Found::Never(from_name(&explanation)),
        NameCause::Hidden { .. } => Found::Hidden(from_name(&explanation)),
        NameCause::Found => match reader.resolve(name) {
            Ok(Resolution::Package(module) | Resolution::Module(module)) => {
                Found::Path(module.path.clone())
            }
            Ok(Resolution::Namespace { path }) => Found::Directory(path),
            Err(Error::Corrupt { path, .. }) => Found::Path(path),
            // It went meanwhile.
            Ok(Resolution::NotFound) => Found::Not(from_name(&explanation)),
            Err(error) => return Err(error),
        },
        _ => Found::Not(from_name(&explanation)),
    })
}

/// The path that is to blame, or, where none is, that of the module. Redis alone can't tell: a
/// package that is missing looks like a namespace, or lets a module that it replaced be found.
fn suspect(
    servers: &Servers<'_>,
    database: &Database<'_>,
    name: &str,
    found: &Found,
) -> Result<Option<(String, Diagnosis)>, Failure> {
    let both = BothServers::connect(servers, database)?;
    let parents = name.match_indices('.').map(|(end, _)| &name[..end]);
    let mut parts: Vec<&str> = [name].into_iter().chain(parents).collect();
    if matches!(found, Found::Hidden(_)) {
        // Python does not get as far as the name itself.
        parts.rotate_left(1);
    }
    let mut innocent = None;
    for part in parts {
        let Some((path, diagnosis)) = telling(&both, part)? else {
            continue;
        };
        if diagnosis.cause != Cause::Right {
            return Ok(Some((path, diagnosis)));
        }
        if part == name {
            innocent = Some((path, diagnosis));
        }
    }
    match found {
        Found::Hidden(_) => Ok(None),
        Found::Path(path) if innocent.is_none() => {
            both.diagnose(path).map(|it| Some((path.clone(), it)))
        }
        _ => Ok(innocent),
    }
}

/// Of the paths that a name may have, the first that cache or database has a module at.
fn telling(both: &BothServers<'_>, name: &str) -> Result<Option<(String, Diagnosis)>, Failure> {
    for path in candidate_paths(name) {
        let diagnosis = both.diagnose(&path)?;
        let is_there = match diagnosis.cause {
            Cause::NoSuchModule => false,
            // What the index alone names, no reader finds.
            Cause::Ghost => diagnosis.cached.is_some(),
            _ => true,
        };
        if is_there {
            return Ok(Some((path, diagnosis)));
        }
    }
    Ok(None)
}

/// What there is to say without the database.
fn by_redis(
    servers: &Servers<'_>,
    output: &mut Output,
    name: &str,
    found: &Found,
) -> Result<Exit, Failure> {
    match found {
        Found::Path(path) => with_redis(servers, output, Some(name), path),
        Found::Directory(path) => conclude(servers, output, name, Some(path), &namespace()),
        Found::Not(finding) | Found::Hidden(finding) | Found::Never(finding) => {
            conclude(servers, output, name, None, finding)
        }
    }
}

fn conclude(
    servers: &Servers<'_>,
    output: &mut Output,
    name: &str,
    path: Option<&str>,
    finding: &Finding,
) -> Result<Exit, Failure> {
    let status = servers.reader()?.status();
    let status = status.map_err(|error| servers.failure(error))?;
    let name = Some(name);
    print(
        servers,
        output,
        Subject { name, path },
        finding,
        &Facts::default(),
        &status,
    )?;
    Ok(finding.exit)
}
