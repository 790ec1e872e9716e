//! `diff`: how the cached source differs from the database's.

use std::time::Duration;

use anstyle::{AnsiColor, Color, Style};
use bifrost_module_cache::CachedModule;
use bifrost_module_cache::diagnosis::{Cause, RowState};
use serde_json::json;
use similar::{ChangeTag, TextDiff};

use crate::failure::{Exit, Failure};
use crate::output::{DIM, Output, PLAIN, harmless};
use crate::servers::Servers;

/// After this time a coarser difference has to do: the exact one of two large, unlike files may
/// take very long.
const LIMIT: Duration = Duration::from_secs(5);

const REMOVED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));
const ADDED: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));

/// From what the cache has to what the database has: what a repair would change.
pub fn diff(servers: &Servers<'_>, output: &mut Output, path: &str) -> Result<Exit, Failure> {
    let database = servers.needed_database()?;
    // `diagnose` and not two reads: it looks a second time where a writer is between its commit and
    // its write.
    let of = path.to_owned();
    let diagnosis = database.ask(move |reader, client| reader.diagnose(client, &of))?;
    let row = match &diagnosis.row {
        Some(RowState::Module(row)) => Some(row),
        _ => None,
    };
    let cached = match diagnosis.cause {
        Cause::Corrupt => {
            return Err(Failure::new(
                Exit::Corrupt,
                format!(
                    "the cached entry of {path} can't be read: `bifrost-modules repair` replaces it"
                ),
            ));
        }
        _ => diagnosis.cached.as_ref(),
    };
    if cached.is_none() && row.is_none() {
        return Err(Failure::no(format!(
            "{path} is neither in the cache nor a module of the database"
        )));
    }
    let (from, to) = (content(cached), content(row));
    let text = TextDiff::configure().timeout(LIMIT).diff_lines(from, to);
    let header = [name("cache", cached, path), name("database", row, path)];
    let hashes = [cached, row].map(|module| module.map(|module| module.hash.as_str()));
    // The hash counts, too: workers that check it would see a difference.
    let equal = cached == row;
    if output.json {
        let unified = text
            .unified_diff()
            .header(&header[0], &header[1])
            .to_string();
        output.json(&json!({
            "path": path,
            "equal": equal,
            "cached": cached.map(|module| json!({"bytes": module.content.len(), "hash": module.hash})),
            "database": row.map(|module| json!({"bytes": module.content.len(), "hash": module.hash})),
            "diff": unified,
        }))?;
        return Ok(Exit::fine_if(equal));
    }
    if from != to || cached.is_none() || row.is_none() {
        output.line(format_args!("--- {}", header[0]))?;
        output.line(format_args!("+++ {}", header[1]))?;
    } else if !equal && output.reports() {
        let [cached, row] = hashes.map(|hash| harmless(hash.unwrap_or_default()));
        output.line(format_args!(
            "the sources are equal, the hashes are not: {cached:?} in the cache, {row:?} in the database"
        ))?;
    }
    for hunk in text.unified_diff().iter_hunks() {
        let header = output.paint(DIM, hunk.header());
        output.line(format_args!("{header}"))?;
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', REMOVED),
                ChangeTag::Insert => ('+', ADDED),
                ChangeTag::Equal => (' ', PLAIN),
            };
            let line = change.value().trim_end_matches('\n');
            // A terminal gets control characters escaped; a file gets what `patch` can apply.
            if output.terminal {
                let line = output.paint(style, format_args!("{sign}{}", harmless(line)));
                output.line(format_args!("{line}"))?;
            } else {
                output.line(format_args!("{sign}{line}"))?;
            }
            // `patch` needs this line, word for word.
            if change.missing_newline() {
                output.line(format_args!("\\ No newline at end of file"))?;
            }
        }
    }
    Ok(Exit::fine_if(equal))
}

fn content(module: Option<&CachedModule>) -> &str {
    module.map_or("", |module| module.content.as_str())
}

/// The name of a side, as `patch` reads it: `/dev/null` for a file that is not there.
fn name(side: &str, module: Option<&CachedModule>, path: &str) -> String {
    module.map_or_else(|| "/dev/null".to_owned(), |_| format!("{side}/{path}"))
}
