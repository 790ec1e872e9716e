//! `verify`: compares the whole cache with the database, and changes nothing.

use std::time::Duration;

use crate::args::Removals;
use crate::drift::print_drift;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;
use crate::stderr::Stderr;

pub fn verify(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let writer = servers.writer()?;
    let drift = database.work(stderr, Removals::default(), Duration::MAX, move |options| {
        writer.verify_with(&mut client, options)
    })?;
    stderr.clear();
    if output.json {
        output.json(&drift)?;
    } else if output.reports() {
        print_drift(output, &drift)?;
        if !drift.is_clean() {
            output.hint("`bifrost-modules repair` mends that")?;
        }
    }
    Ok(Exit::fine_if(drift.is_clean()))
}
