//! `explain` of a name: which path it leads to, and what is the matter with that.

use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::{Cause, Error, NameCause, Resolution, candidate_paths};

use super::explain::{Facts, Subject, diagnose, explain_path, print, with_both};
use super::finding::{Finding, from_both, from_name, namespace};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;

pub fn explain_name(
    servers: &Servers<'_>,
    output: &mut Output,
    name: &str,
) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    match found(&reader, name) {
        // One that is corrupt may be that of a parent.
        Ok(Found::Path(path)) | Err(Error::Corrupt { path, .. }) => {
            explain_path(servers, output, Some(name), &path)
        }
        Ok(Found::Directory(path)) => conclude(servers, output, name, Some(&path), &namespace()),
        Ok(Found::Not(finding, parent)) => absent(servers, output, name, &parent, &finding),
        Ok(Found::Never(finding)) => conclude(servers, output, name, None, &finding),
        Err(error) => Err(servers.failure(error)),
    }
}

/// What Redis says of a name.
enum Found {
    Path(String),
    Directory(String),
    /// Nothing, and it was this name that was not found: it or a parent.
    Not(Finding, String),
    /// Nothing, whatever the database says.
    Never(Finding),
}

fn found(reader: &ModuleReader, name: &str) -> Result<Found, Error> {
    let explanation = reader.explain_name(name)?;
    Ok(match &explanation.cause {
        NameCause::ValueGone { path, .. } => Found::Path(path.clone()),
        NameCause::NotAPath | NameCause::Hidden { .. } => Found::Never(from_name(&explanation)),
        NameCause::Found => match reader.resolve(name)? {
            Resolution::Package(module) | Resolution::Module(module) => {
                Found::Path(module.path.clone())
            }
            Resolution::Namespace { path } => Found::Directory(path),
            // It went meanwhile.
            Resolution::NotFound => Found::Not(from_name(&explanation), name.to_owned()),
        },
        _ => Found::Not(from_name(&explanation), explanation.name.clone()),
    })
}

/// Of all paths that could be meant, the one that the database has tells why.
fn absent(
    servers: &Servers<'_>,
    output: &mut Output,
    name: &str,
    missing: &str,
    finding: &Finding,
) -> Result<Exit, Failure> {
    let Some(database) = servers.database()? else {
        return conclude(servers, output, name, None, finding);
    };
    let mut paths = candidate_paths(name);
    if missing != name {
        paths.extend(candidate_paths(missing));
    }
    for path in paths {
        match diagnose(servers, &database, &path) {
            Ok(diagnosis) if diagnosis.cause == Cause::NoSuchModule => {}
            Ok(diagnosis) => return with_both(output, Some(name), &path, &diagnosis),
            Err(failure) if failure.is_unavailable() => {
                return conclude(servers, output, name, None, finding).and(Err(failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    conclude(servers, output, name, None, &from_both(Cause::NoSuchModule))
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
        output,
        Subject { name, path },
        finding,
        &Facts::default(),
        &status,
    )?;
    Ok(finding.exit)
}
