//! `get`.

use bifrost_module_cache::Explanation;
use bifrost_module_cache::blocking::ModuleReader;

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
    let why = match reader
        .explain(path)
        .map_err(|error| servers.failure(error))?
    {
        Explanation::CacheCold => "the whole cache is cold: `bifrost-modules warm` completes it",
        Explanation::IndexGone => "the cache lost its index: `bifrost-modules warm` completes it",
        Explanation::Corrupt => "what is stored is no module: `bifrost-modules repair` replaces it",
        Explanation::ValueGone => "the index names it, but its value expired or was evicted",
        _ => "`bifrost-modules explain` tells why",
    };
    Ok(Failure::no(format!("{path} is not in the cache: {why}")))
}
