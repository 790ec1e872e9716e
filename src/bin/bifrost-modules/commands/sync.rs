//! `warm`, `verify` and `repair`.

use std::time::Duration;

use bifrost_module_cache::{Drift, RepairReport, Unverified, WarmReport};

use super::text;
use crate::args::Removals;
use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output, PLAIN};
use crate::screen::Screen;
use crate::servers::Servers;
use crate::wait;

/// How many paths of a kind of drift a report for people lists.
const MOST_PATHS: usize = 20;

pub fn warm(
    servers: &Servers<'_>,
    screen: &Screen,
    output: &mut Output,
    wait: Option<Duration>,
    removals: Removals,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    // Where a server goes away again, the whole is begun anew.
    let report = wait::until_ready(wait, screen, |left| {
        let mut client = database.connect_both(left)?;
        let writer = servers.writer()?;
        database.work(screen, removals, left, move |options| {
            writer.warm_from_db_with(&mut client, options)
        })
    })?;
    screen.clear();
    print_warm(output, &report)?;
    outcome(output, report.unverified, report.complete)
}

pub fn verify(
    servers: &Servers<'_>,
    screen: &Screen,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let writer = servers.writer()?;
    let drift = database.work(screen, Removals::default(), Duration::MAX, move |options| {
        writer.verify_with(&mut client, options)
    })?;
    screen.clear();
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

pub fn repair(
    servers: &Servers<'_>,
    screen: &Screen,
    output: &mut Output,
    removals: Removals,
) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    let mut client = database.connect_both(Duration::MAX)?;
    let writer = servers.writer()?;
    let reader = writer.reader().clone();
    let report = database.work(screen, removals, Duration::MAX, move |options| {
        writer.repair_with(&mut client, options)
    })?;
    screen.clear();
    print_repair(output, &report)?;
    if report.dry_run.is_some() {
        return Ok(Exit::Fine);
    }
    let right = matches!(report.unverified, None | Some(Unverified::OpenTransaction));
    let exit = outcome(output, report.unverified, right)?;
    let warm = reader.status();
    if !warm.map_err(|error| servers.failure(error))?.is_warm() {
        output
            .hint("the cache is still not marked as complete: `bifrost-modules warm` does that")?;
    }
    Ok(exit)
}

/// What a result that could not be verified means for the exit code.
fn outcome(
    output: &mut Output,
    unverified: Option<Unverified>,
    right: bool,
) -> Result<Exit, Failure> {
    match unverified {
        Some(Unverified::DryRun) => Ok(Exit::Fine),
        Some(why @ Unverified::Evicted) => Err(Failure::refused(format!(
            "the cache does not equal the database: {why}"
        ))),
        Some(Unverified::EmptyWorkspace) => Err(Failure::refused(
            "the table has no module and the cache has some, so nothing was removed: \
             check the database, or pass --allow-empty if that is meant",
        )),
        Some(why) if !right => Err(Failure::no(format!(
            "the cache does not equal the database: {why}; run it again"
        ))),
        Some(why) => {
            output.hint(&format!(
                "{why}: what it changes has to be brought to the cache by whoever commits it"
            ))?;
            Ok(Exit::Fine)
        }
        None => Ok(Exit::fine_if(right)),
    }
}

fn verification(unverified: Option<Unverified>) -> String {
    match unverified {
        None => "yes: it was compared with the database".to_owned(),
        Some(why) => format!("no: {why}"),
    }
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

fn print_drift(output: &mut Output, drift: &Drift) -> Result<(), Failure> {
    for (kind, paths) in drift.lists() {
        let style = if paths.is_empty() { PLAIN } else { BAD };
        let kind_of = output.paint(style, format_args!("{kind:<11}{:>6}", paths.len()));
        output.line(format_args!("{kind_of}  {}", meaning(kind)))?;
        for path in paths.iter().take(MOST_PATHS) {
            output.line(format_args!("    {path}"))?;
        }
        if paths.len() > MOST_PATHS {
            let more = paths.len() - MOST_PATHS;
            output.line(format_args!("    and {more} more: --json lists all"))?;
        }
    }
    if drift.bad_members > 0 {
        let count = text::counted(drift.bad_members, "member");
        output.line(format_args!("{count} of the index can't be paths"))?;
    }
    if drift.skipped > 0 {
        let count = text::counted(drift.skipped, "row");
        output.line(format_args!(
            "{count} can't be cached: a bad path, or too large"
        ))?;
    }
    let modules = text::counted(drift.modules, "module");
    let differ = if drift.is_clean() {
        output.paint(GOOD, "the cache equals it")
    } else {
        output.paint(
            BAD,
            format_args!("{} differ", text::counted(drift.paths(), "path")),
        )
    };
    output.line(format_args!("{modules} in the database: {differ}"))?;
    output.table(&text::servers(&drift.servers))?;
    if drift.unverified.is_some() {
        output
            .hint("a transaction stayed open: what differs may be its writer's, who is not done")?;
    }
    hint_unscanned(output, drift.scanned)
}

fn hint_unscanned(output: &mut Output, scanned: bool) -> Result<(), Failure> {
    if scanned {
        return Ok(());
    }
    output.hint("without the permission for SCAN, entries that the index does not name stay unseen")
}

fn meaning(kind: &str) -> &'static str {
    match kind {
        "missing" => "a row without an entry",
        "stale" => "an entry that says something else than its row",
        "ghost" => "an entry without a row",
        "index_only" => "a place in the index with neither entry nor row",
        "key_only" => "an entry that the index does not name",
        "expiring" => "an entry that will expire otherwise than --ttl says",
        "corrupt" => "an entry that can't be read",
        _ => "",
    }
}
