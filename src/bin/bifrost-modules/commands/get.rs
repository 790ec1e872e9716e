//! `get`: prints the source of a module, byte for byte.

use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::diagnosis::Cause;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;

pub fn get(servers: &Servers<'_>, output: &mut Output, path: &str) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    let module = reader.get(path).map_err(|error| servers.failure(error))?;
    let Some(module) = module else {
        return Err(absent(servers, &reader, path)?);
    };
    if output.json {
        output.json(&module)?;
    } else {
        output.bytes(module.content.as_bytes())?;
    }
    Ok(Exit::Fine)
}

/// Says that a module is not there, and why.
pub fn absent(
    servers: &Servers<'_>,
    reader: &ModuleReader,
    path: &str,
) -> Result<Failure, Failure> {
    let why = reader
        .explain(path)
        .map_err(|error| servers.failure(error))?;
    let remedy = match why.cause {
        Cause::NotCached => "`bifrost-modules explain` tells why",
        cause => cause.remedy(),
    };
    Ok(Failure::no(format!(
        "{path} is not in the cache: {}; {remedy}",
        why.reason()
    )))
}
