//! `rm`: removes modules from the cache.

use bifrost_module_cache::keys::module_key;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;

pub fn rm(servers: &Servers<'_>, output: &mut Output, paths: &[String]) -> Result<Exit, Failure> {
    // All paths are checked before the first is removed: a typing error must not leave half of it
    // done.
    for path in paths {
        module_key(path)?;
    }
    let writer = servers.writer()?;
    let mut all = true;
    for path in paths {
        let removed = writer.invalidate(path);
        let removed = removed.map_err(|error| servers.failure(error))?;
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
