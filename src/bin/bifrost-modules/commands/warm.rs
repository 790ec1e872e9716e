//! `warm`: loads all modules of the database and marks the cache as complete. What an init
//! container runs.

use std::time::Duration;

use bifrost_module_cache::sync::WarmReport;

use crate::args::Removals;
use crate::drift::{hint_unscanned, outcome, verification};
use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output};
use crate::retry;
use crate::servers::Servers;
use crate::stderr::Stderr;
use crate::text;

pub fn warm(
    servers: &Servers<'_>,
    stderr: &Stderr,
    output: &mut Output,
    wait: Option<Duration>,
    removals: Removals,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    // With `--wait`, an outage in the middle begins the whole anew: a warm-up may stop at any
    // moment.
    let report = retry::until_ready(wait, stderr, |left| {
        let mut client = database.connect_both(left)?;
        let writer = servers.writer()?;
        database.work(stderr, removals, left, move |options| {
            writer.warm_from_db_with(&mut client, options)
        })
    })?;
    stderr.clear();
    print_warm(output, &report)?;
    // Complete but unverified is fine for an init container; not complete is not.
    outcome(output, report.unverified, report.complete)
}

fn print_warm(output: &mut Output, report: &WarmReport) -> Result<(), Failure> {
    if output.json {
        return output.json(report);
    }
    if !output.reports() {
        return Ok(());
    }
    if let Some(dry_run) = &report.dry_run {
        text::print_dry_run(output, dry_run)?;
        return hint_unscanned(output, report.scanned);
    }
    let (style, state) = if report.complete {
        (GOOD, "warm")
    } else {
        (BAD, "not complete")
    };
    let written = text::bytes(report.bytes);
    let mut rows = text::servers(&report.servers);
    rows.extend([
        ("cache", output.paint(style, state)),
        ("modules", report.modules.to_string()),
        ("written", format!("{} ({written})", report.written)),
        ("unchanged", report.unchanged.to_string()),
        ("pruned", report.pruned.to_string()),
    ]);
    if report.skipped > 0 {
        let why = "they can't be cached";
        rows.push(("skipped", format!("{}: {why}", report.skipped)));
    }
    rows.push(("verified", verification(report.unverified)));
    rows.push(("took", format!("{:.2} s", report.elapsed.as_secs_f64())));
    output.table(&rows)?;
    hint_unscanned(output, report.scanned)
}
