//! `refresh`: brings single modules to what the database has.

use std::time::Duration;

use bifrost_module_cache::keys::module_key;

use crate::args::Removals;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;
use crate::stderr::Stderr;
use crate::text;

/// Brings paths to what the database has.
pub fn refresh(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
    paths: &[String],
) -> Result<Exit, Failure> {
    for path in paths {
        module_key(path)?;
    }
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let (writer, paths) = (servers.writer()?, paths.to_vec());
    let report = database.work(stderr, Removals::default(), Duration::MAX, move |_| {
        writer.refresh(&mut client, &paths)
    })?;
    if output.json {
        output.json(&report)?;
    } else if output.reports() {
        let mut rows = text::servers(&report.servers);
        rows.push(("written", report.written.to_string()));
        rows.push(("removed", report.removed.to_string()));
        output.table(&rows)?;
    }
    if report.skipped > 0 {
        let count = text::counted(report.skipped, "module");
        output.hint(&format!("{count} of them can't be cached: too large"))?;
    }
    if report.unsettled.is_empty() {
        return Ok(Exit::Fine);
    }
    let paths = report.unsettled.join(", ");
    let message = format!("others keep writing {paths}: run it again");
    Err(Failure::new(Exit::Unavailable, message))
}
