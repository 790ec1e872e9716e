//! Whoever reads a name of a metric finds it: in docs/metrics.md, and on the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bifrost_module_cache::blocking::{Guard, ModuleReader, ModuleWriter, NearCache};
use bifrost_module_cache::guard::GuardOptions;
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{Config, DEFAULT_REDIS_URL};
use serde_json::Value;

/// Of a metric: its type, and the label of its own, if it has one.
type Kind = (String, Option<String>);

/// All that is exported.
fn exported() -> BTreeMap<String, Kind> {
    let config = || Config::new(DEFAULT_REDIS_URL).unwrap();
    let writer = ModuleWriter::new(config()).unwrap();
    let reader = ModuleReader::new(config()).unwrap();
    let near = NearCache::new(reader, NearCacheOptions::default()).unwrap();
    let guard = Guard::new(writer.clone(), GuardOptions::default()).unwrap();
    let mut text = String::new();
    writer.stats().write_prometheus(&mut text, &[]).unwrap();
    near.stats().write_prometheus(&mut text, &[]).unwrap();
    guard.stats().write_prometheus(&mut text, &[]).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let metrics = types.map(|of| {
        let (name, kind) = of.split_once(' ').unwrap();
        let begin = format!("{name}{{");
        let labels = text.lines().find_map(|line| line.strip_prefix(&begin));
        let label = labels.map(|labels| labels.split('=').next().unwrap().to_owned());
        (name.to_owned(), (kind.to_owned(), label))
    });
    metrics.collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn each_exported_metric_has_a_row_in_the_guide_and_no_row_is_of_another() {
    let page = read("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `bifrost_"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, meaning] = cells[..] else {
            panic!("{row}");
        };
        assert!(!meaning.is_empty(), "{row}");
        let name = name.trim_matches('`');
        let (name, label) = match name.split_once('{') {
            Some((name, label)) => (name, label.strip_suffix('}').map(str::to_owned)),
            None => (name, None),
        };
        let before = documented.insert(name.to_owned(), (kind.to_owned(), label));
        assert_eq!(before, None, "{name} has two rows");
    }
    assert_eq!(documented, exported());
}

/// All texts of the members of these names, however deep.
fn texts(value: &Value, names: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if names.contains(&name.as_str()) => {
                        found.push(text.clone());
                    }
                    value => texts(value, names, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, names, found)),
        _ => {}
    }
}

/// The words of an expression that are metrics of ours.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(move |c| !is_name(c));
    words.filter(|word| word.starts_with("bifrost_"))
}

#[test]
fn the_dashboard_asks_for_what_is_exported_and_shows_all_of_the_guard() {
    let dashboard: Value = serde_json::from_str(&read("docs/grafana.json")).unwrap();
    let mut expressions = Vec::new();
    texts(&dashboard, &["expr"], &mut expressions);
    let exported = exported();
    let mut shown = BTreeSet::new();
    for expression in &expressions {
        assert!(metrics(expression).next().is_some(), "{expression}");
        for name in metrics(expression) {
            let is = |name: &str, kind: &str| exported.get(name).is_some_and(|it| it.0 == kind);
            let ends = ["_bucket", "_sum", "_count"];
            let family = ends.iter().find_map(|end| name.strip_suffix(end));
            let name = match family {
                Some(family) if is(family, "histogram") => family,
                _ => name,
            };
            assert!(exported.contains_key(name), "{name} in {expression}");
            shown.insert(name);
        }
    }
    let guards = exported
        .keys()
        .filter(|name| name.starts_with("bifrost_guard_"));
    let hidden: Vec<&String> = guards
        .filter(|name| !shown.contains(name.as_str()))
        .collect();
    assert!(hidden.is_empty(), "the dashboard does not show {hidden:?}");
    assert!(!shown.is_empty());
}
