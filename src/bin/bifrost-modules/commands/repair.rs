//! `repair`: mends what differs from the database.

use std::time::Duration;

use bifrost_module_cache::sync::{RepairReport, Unverified};

use crate::args::Removals;
use crate::drift::{outcome, print_drift, verification};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::servers::Servers;
use crate::stderr::Stderr;
use crate::text;

pub fn repair(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
    removals: Removals,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let writer = servers.writer()?;
    let reader = writer.reader().clone();
    let report = database.work(stderr, removals, Duration::MAX, move |options| {
        writer.repair_with(&mut client, options)
    })?;
    stderr.clear();
    print_repair(output, &report)?;
    if report.dry_run.is_some() {
        return Ok(Exit::Fine);
    }
    // A transaction that stayed open is not the cache's fault; what differs otherwise is.
    let right = matches!(report.unverified, None | Some(Unverified::OpenTransaction));
    let exit = outcome(output, report.unverified, right)?;
    // `repair` mends entries and writes no mark: an operator might take the cache for warm now.
    let warm = reader.status();
    if !warm.map_err(|error| servers.failure(error))?.is_warm() {
        output
            .hint("the cache is still not marked as complete: `bifrost-modules warm` does that")?;
    }
    Ok(exit)
}

fn print_repair(output: &mut Output, report: &RepairReport) -> Result<(), Failure> {
    if output.json {
        return output.json(report);
    }
    if !output.reports() {
        return Ok(());
    }
    if let Some(dry_run) = &report.dry_run {
        return text::print_dry_run(output, dry_run);
    }
    print_drift(output, &report.drift)?;
    output.table(&[
        ("written", report.written.to_string()),
        ("removed", report.removed.to_string()),
        ("verified", verification(report.unverified)),
    ])
}
