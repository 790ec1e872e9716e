//! What cache and database differ in, and what a result means that could not be verified: for
//! `warm`, `verify` and `repair`.

use bifrost_module_cache::sync::{Drift, Unverified};

use crate::failure::{Exit, Failure};
use crate::output::{BAD, GOOD, Output, PLAIN};
use crate::text;

/// How many paths of a kind of drift a report for people lists.
const MOST_PATHS: usize = 20;

/// What a result means for the exit code. What running again may mend is a "no"; what an operator
/// has to change is refused; a transaction that stayed open is no reason to fail an init container.
pub fn outcome(
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
                "{why}: what it changes has to be brought to the cache by the service that commits it"
            ))?;
            Ok(Exit::Fine)
        }
        None => Ok(Exit::fine_if(right)),
    }
}

pub fn verification(unverified: Option<Unverified>) -> String {
    match unverified {
        None => "yes: it was compared with the database".to_owned(),
        Some(why) => format!("no: {why}"),
    }
}

pub fn print_drift(output: &mut Output, drift: &Drift) -> Result<(), Failure> {
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
    // The drift may be a writer's that is between its commit and its write.
    if drift.unverified.is_some() {
        output
            .hint("a transaction stayed open: what differs may be its writer's, who is not done")?;
    }
    hint_unscanned(output, drift.scanned)
}

pub fn hint_unscanned(output: &mut Output, scanned: bool) -> Result<(), Failure> {
    if scanned {
        return Ok(());
    }
    output.hint("without the permission for SCAN, entries that the index does not name stay unseen")
}

/// The library's words for a kind of drift, in the terms of an operator.
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
