//! `resolve`: what modules' names stand for.

use bifrost_module_cache::Resolution;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::output::{BAD, Output, PLAIN, harmless};
use crate::servers::Servers;

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    kind: &'static str,
    path: Option<&'a str>,
}

pub fn resolve(
    servers: &Servers<'_>,
    output: &mut Output,
    names: &[String],
) -> Result<Exit, Failure> {
    let resolutions = servers
        .reader()?
        .resolve_many(names)
        .map_err(|error| servers.failure(error))?;
    let mut all = true;
    for (name, resolution) in names.iter().zip(&resolutions) {
        let (kind, path) = match resolution {
            Resolution::Package(module) => ("package", Some(module.path.as_str())),
            Resolution::Module(module) => ("module", Some(module.path.as_str())),
            Resolution::Namespace { path } => ("namespace", Some(path.as_str())),
            Resolution::NotFound => ("not_found", None),
        };
        all &= path.is_some();
        if output.json {
            output.json(&Line { name, kind, path })?;
        } else {
            let style = if path.is_some() { PLAIN } else { BAD };
            let kind = output.paint(style, format_args!("{kind:<9}"));
            let (name, path) = (harmless(name), path.unwrap_or("-"));
            output.line(format_args!("{kind}  {name}  {path}"))?;
        }
    }
    Ok(Exit::fine_if(all))
}
