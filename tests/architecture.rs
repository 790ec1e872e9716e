//! The order of the modules: in no folder of `src` do modules import each other in a circle, and
//! each item is imported from the module that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the library: its place, such as `near::coherence::store`, and its code.
struct Module {
    place: Vec<String>,
    code: String,
}

/// All modules but the tests among them.
fn modules() -> Vec<Module> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = Vec::new();
    collect(&src, &src, &mut modules);
    modules
}

fn collect(src: &Path, folder: &Path, modules: &mut Vec<Module>) {
    for entry in fs::read_dir(folder).expect("src is there") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        if path.is_dir() {
            if name != "bin" {
                collect(src, &path, modules);
            }
        } else if name != "lib" && name != "tests" && name != "model" {
            let place = path
                .strip_prefix(src)
                .expect("below src")
                .with_extension("");
            let mut place: Vec<String> = place
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if name == "mod" {
                place.pop();
            }
            let text = fs::read_to_string(&path).expect("a file");
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let lines = code
                .lines()
                .map(|line| line.split("//").next().unwrap_or(line));
            let code = lines.collect::<Vec<_>>().join("\n");
            modules.push(Module { place, code });
        }
    }
}

/// The paths that begin with `crate` or `super`, written out: `crate::a::{b, c::d}` is two.
fn imports(module: &Module) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        let ends_before = |text: &str| {
            let before = text.chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
        };
        for (at, _) in module.code.match_indices(root) {
            if ends_before(&module.code[..at]) {
                expand(&module.code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
        .into_iter()
        .map(|path| absolute(&module.place, &path))
        .collect()
}

/// Reads one path, and each of those in its braces; returns what follows it.
fn expand<'a>(text: &'a str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = prefix.len();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let end = rest
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(rest.len());
        if end > 0 {
            prefix.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        if let Some(next) = rest.strip_prefix("::") {
            rest = next;
            if let Some(mut inner) = rest.strip_prefix('{') {
                loop {
                    inner = inner.trim_start();
                    if let Some(after) = inner.strip_prefix('}') {
                        rest = after;
                        break;
                    }
                    let after = expand(inner, prefix, found);
                    // An alias, a comma.
                    let end = after.find([',', '}']).unwrap_or(after.len());
                    inner = after[end..].strip_prefix(',').unwrap_or(&after[end..]);
                    if inner.is_empty() {
                        return inner;
                    }
                }
                prefix.truncate(depth);
                return rest;
            }
        } else {
            found.push(prefix.clone());
            prefix.truncate(depth);
            return rest;
        }
    }
}

fn absolute(place: &[String], path: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let rest = path
        .iter()
        .skip_while(|part| *part == "super" || *part == "crate");
    let base = if supers > 0 {
        &place[..place.len().saturating_sub(supers)]
    } else {
        &[]
    };
    base.iter().chain(rest).cloned().collect()
}

/// For each folder, which of its children imports which.
fn edges() -> BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> {
    let mut edges: BTreeMap<_, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let modules = modules();
    let places: BTreeSet<&[String]> = modules.iter().map(|module| &module.place[..]).collect();
    let is_module = |place: &[String]| places.iter().any(|other| other.starts_with(place));
    for module in &modules {
        for import in imports(module) {
            let common = module.place.iter().zip(&import);
            let common = common.take_while(|(one, other)| one == other).count();
            let (Some(from), Some(to)) = (module.place.get(common), import.get(common)) else {
                continue;
            };
            if is_module(&import[..=common]) {
                let folder = edges.entry(import[..common].to_vec()).or_default();
                folder.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    edges
}

/// A way from `start` back to it.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start.to_owned()]];
    while let Some(way) = ways.pop() {
        for next in edges.get(&way[way.len() - 1]).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    for (folder, edges) in edges() {
        for start in edges.keys() {
            if let Some(way) = circle(&edges, start) {
                panic!("in src/{}: {}", folder.join("/"), way.join(" -> "));
            }
        }
    }
}

#[test]
fn the_search_finds_imports_and_circles() {
    let edges = edges();
    let top = &edges[&Vec::new()];
    assert!(top["client"].contains("command"), "{top:?}");
    let back = |one: &str, other: &str| (one.to_owned(), BTreeSet::from([other.to_owned()]));
    let circular = BTreeMap::from([back("a", "b"), back("b", "c"), back("c", "a")]);
    assert!(circle(&circular, "a").is_some());
    assert!(circle(&BTreeMap::from([back("a", "b"), back("b", "c")]), "a").is_none());
}

#[test]
fn items_are_imported_from_where_they_are_defined() {
    for module in modules() {
        for import in imports(&module) {
            let first = import.first().map_or("", String::as_str);
            let through_the_root = first.starts_with(|letter: char| letter.is_uppercase())
                && !module.place.is_empty()
                && import.len() == 1;
            assert!(
                !through_the_root,
                "src/{} imports {first} through the crate's root",
                module.place.join("/")
            );
        }
    }
}
