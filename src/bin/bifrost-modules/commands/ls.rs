//! `ls`: lists the cached modules.

use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::{CachedModule, Error};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::{BAD, DIM, Output, harmless};
use crate::servers::Servers;

/// How many modules are read at once.
const BATCH: usize = 100;

/// How much of a hash a terminal shows.
const SHORT_HASH: usize = 12;

/// What a path of the index has.
pub enum Entry {
    Cached(CachedModule),
    Gone,
    Corrupt,
}

pub fn ls(servers: &Servers<'_>, output: &mut Output, prefix: &str) -> Result<Exit, Failure> {
    let reader = servers.reader()?;
    let index = reader.paths().map_err(|error| servers.failure(error))?;
    let mut paths: Vec<String> = index
        .into_iter()
        .filter(|path| path.starts_with(prefix))
        .collect();
    // A set has no order; sorted, two runs can be compared.
    paths.sort_unstable();
    if paths.is_empty() && !prefix.is_empty() {
        return Err(Failure::no(format!(
            "no cached path begins with {prefix:?}"
        )));
    }
    for batch in paths.chunks(BATCH) {
        let entries = entries(&reader, batch).map_err(|error| servers.failure(error))?;
        for (path, entry) in batch.iter().zip(&entries) {
            print(output, path, entry)?;
        }
        // As in `ls | head`: no need to read the other batches.
        if output.is_closed() {
            break;
        }
    }
    if paths.is_empty() && output.reports() {
        output.hint("nothing is cached; `bifrost-modules status` tells more")?;
    }
    Ok(Exit::Fine)
}

/// What each of these paths has, read at once.
pub fn entries(reader: &ModuleReader, paths: &[String]) -> Result<Vec<Entry>, Error> {
    match reader.get_many(paths) {
        // One corrupt entry fails the whole batch. Ask for each alone, to tell which it is.
        Err(error) if error.is_corrupt() && paths.len() > 1 => {
            let each = paths.chunks(1).map(|path| entries(reader, path));
            let each: Vec<Vec<Entry>> = each.collect::<Result<_, _>>()?;
            Ok(each.into_iter().flatten().collect())
        }
        Err(error) if error.is_corrupt() => Ok(vec![Entry::Corrupt]),
        Err(error) => Err(error),
        Ok(modules) => Ok(modules
            .into_iter()
            .map(|module| module.map_or(Entry::Gone, Entry::Cached))
            .collect()),
    }
}

fn print(output: &mut Output, path: &str, entry: &Entry) -> Result<(), Failure> {
    let state = match entry {
        Entry::Cached(_) => "cached",
        Entry::Gone => "gone",
        Entry::Corrupt => "corrupt",
    };
    let module = match entry {
        Entry::Cached(module) => Some(module),
        _ => None,
    };
    if output.json {
        return output.json(&json!({
            "path": path,
            "bytes": module.map(|module| module.content.len()),
            "hash": module.map(|module| &module.hash),
            "state": state,
        }));
    }
    let Some(module) = module else {
        let state = output.paint(BAD, format_args!("{state:>10}"));
        return output.line(format_args!(
            "{state}  {:width$}  {path}",
            "-",
            width = hash_width(output)
        ));
    };
    let hash = harmless(&module.hash);
    let hash = if hash.is_empty() { "-" } else { hash.as_str() };
    let short: String = hash.chars().take(hash_width(output)).collect();
    let hash = output.paint(
        DIM,
        format_args!("{short:width$}", width = hash_width(output)),
    );
    output.line(format_args!("{:>10}  {hash}  {path}", module.content.len()))
}

/// A terminal gets the beginning of a hash, a script all of it.
fn hash_width(output: &Output) -> usize {
    if output.terminal { SHORT_HASH } else { 64 }
}
