//! `clear`: removes all modules. The cache is cold then.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;
use crate::text;

pub fn clear(servers: &Servers<'_>, output: &mut Output) -> Result<Exit, Failure> {
    let report = servers
        .writer()?
        .clear()
        .map_err(|error| servers.failure(error))?;
    if output.json {
        output.json(&report)?;
    } else if output.reports() {
        let count = text::counted(
            usize::try_from(report.removed).unwrap_or(usize::MAX),
            "module",
        );
        output.line(format_args!("removed {count}: the cache is cold now"))?;
        if !report.scanned {
            output.hint("entries that the index does not name stay: this user may not SCAN")?;
        }
        output.hint("`bifrost-modules warm` completes it from the database, `publish --exact` from a directory")?;
    }
    Ok(Exit::Fine)
}
