//! `mv`: moves a module, for those without a database.

use bifrost_module_cache::CachedModule;
use serde_json::json;

use super::get;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;

/// Moves what is there when it is read. What another writer saves there between the reading and the
/// move is lost, as `--help` says.
pub fn mv(
    servers: &Servers<'_>,
    output: &mut Output,
    old: &str,
    new: &str,
) -> Result<Exit, Failure> {
    if old == new {
        return Err(Failure::usage("the old and the new path are the same"));
    }
    let writer = servers.writer()?;
    let reader = writer.reader();
    let failed = |error| servers.failure(error);
    let mut found = reader.get_many(&[old, new]).map_err(failed)?;
    let (there, module) = (found.pop().flatten(), found.pop().flatten());
    let Some(module) = module else {
        return Err(get::absent(servers, reader, old)?);
    };
    // As `mv -n`: a module that is overwritten here has no row to come back from.
    if there.is_some() {
        return Err(Failure::refused(format!(
            "{new} is there already: remove it first"
        )));
    }
    // With its own hash, which is that of the file, not necessarily of what this would compute.
    let module = CachedModule::with_hash(new, module.content, module.hash)?;
    writer.rename(old, &module).map_err(failed)?;
    if output.json {
        output.json(&json!({"old": old, "new": new, "moved": true}))?;
    } else if output.reports() {
        output.line(format_args!("{old}: moved to {new}"))?;
    }
    Ok(Exit::Fine)
}
