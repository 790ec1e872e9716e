//! What scripts may rely on: the exact fields of each object, and their types.

use serde_json::{Map, Value, json};

/// Checks a value against a shape: an object has exactly these fields; an array any number of such
/// elements; a string names a type or the literals that there are, with a `?` where null is another.
#[track_caller]
pub fn check(value: &Value, shape: &Value) {
    if let Err(fault) = fault(value, shape) {
        panic!("{fault}\nin {value:#}");
    }
}

fn fault(value: &Value, shape: &Value) -> Result<(), String> {
    match (shape, value) {
        (Value::Object(shape), value) if shape.contains_key("or null") => match value {
            Value::Null => Ok(()),
            value => fault(value, &shape["or null"]),
        },
        (Value::Object(shape), Value::Object(value)) => {
            let names = |object: &Map<String, Value>| {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort_unstable();
                names
            };
            if names(shape) != names(value) {
                return Err(format!("fields are not {:?}", names(shape)));
            }
            let wrong = shape
                .iter()
                .find_map(|(name, shape)| Some((name, fault(&value[name], shape).err()?)));
            wrong.map_or(Ok(()), |(name, fault)| Err(format!("{name}: {fault}")))
        }
        (Value::Array(shape), Value::Array(values)) => {
            values.iter().try_for_each(|value| fault(value, &shape[0]))
        }
        (Value::String(name), value) => {
            if is_a(value, name) {
                Ok(())
            } else {
                Err(format!("{value} is no {name}"))
            }
        }
        _ => Err(format!("{value} is not like {shape}")),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    if let Some(name) = name.strip_suffix('?') {
        return value.is_null() || is_a(value, name);
    }
    match name {
        "bool" => value.is_boolean(),
        "count" => value.is_u64(),
        "seconds" => value.as_f64().is_some_and(|seconds| seconds >= 0.0),
        "text" => value.is_string(),
        // 2026-01-31T23:59:59Z
        "time" => value.as_str().is_some_and(|text| {
            text.len() == 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
        }),
        literals => literals
            .split('|')
            .any(|literal| value.as_str() == Some(literal)),
    }
}

pub fn status() -> Value {
    json!({"status": "warm|cold|restored|incomplete", "since": "time?", "modules": "count",
        "verified": "bool", "members": "count?", "maxmemory_policy": "text?",
        "evicted_keys": "count?", "guard": nullable(&guarded()), "servers": servers("null?")})
}

fn guarded() -> Value {
    json!({"since": "time", "checked": "time", "feed": "poll|listen", "pending": "count",
        "withheld": "count"})
}

/// Who answered.
fn servers(database: &str) -> Value {
    json!({"redis": "text", "server": "text?", "found": "address|sentinels|cluster",
        "role": "primary|replica?", "database": database, "namespace": "text"})
}

fn dry_run() -> Value {
    nullable(&json!({"written": ["text"], "removed": ["text"]}))
}

pub fn warm() -> Value {
    json!({"modules": "count", "written": "count", "unchanged": "count", "pruned": "count",
        "skipped": "count", "not_modules": "count", "retried": "count", "unsettled": ["text"], "bytes": "count",
        "seconds": "seconds", "complete": "bool", "verified": "bool",
        "unverified": "open_transaction|contended|empty_workspace|flushed|evicted|dry_run?",
        "scanned": "bool", "dry_run": dry_run(), "load_seconds": "seconds",
        "servers": servers("text")})
}

/// Of drift.
pub const KINDS: [&str; 7] = [
    "missing",
    "stale",
    "ghost",
    "index_only",
    "key_only",
    "expiring",
    "corrupt",
];

pub fn verify() -> Value {
    let of_each_kind = |shape: Value| {
        let fields = KINDS.map(|kind| (kind.to_owned(), shape.clone()));
        Value::Object(fields.into_iter().collect())
    };
    json!({"clean": "bool", "modules": "count", "counts": of_each_kind(json!("count")),
        "paths": of_each_kind(json!(["text"])), "bad_members": "count", "skipped": "count",
        "not_modules": "count", "scanned": "bool", "unverified": "open_transaction?", "servers": servers("text")})
}

pub fn repair() -> Value {
    json!({"drift": verify(), "written": "count", "removed": "count", "retried": "count",
        "unsettled": ["text"], "verified": "bool",
        "unverified": "open_transaction|contended|empty_workspace|evicted|dry_run?",
        "dry_run": dry_run()})
}

pub fn refresh() -> Value {
    json!({"written": "count", "removed": "count", "skipped": "count", "retried": "count",
        "bytes": "count", "unsettled": ["text"], "servers": servers("text")})
}

pub fn ls() -> Value {
    json!({"path": "text", "bytes": "count?", "hash": "text?", "state": "cached|gone|corrupt"})
}

pub fn get() -> Value {
    json!({"content": "text", "path": "text", "hash": "text"})
}

pub fn explain(with_database: bool) -> Value {
    let module = json!({"bytes": "count", "hash": "text"});
    let row = json!({"state": "module|absent|deleted|not_a_module|too_large",
        "bytes": "count?", "hash": "text?"});
    json!({"name": "text?", "path": "text?", "cause": "text", "why": "text", "remedy": "text",
        "cached": nullable(&module),
        "row": if with_database { row } else { json!("null?") }, "changed": "time?",
        "status": nullable(&status()),
        "servers": servers(if with_database { "text" } else { "null?" })})
}

pub fn diff() -> Value {
    let module = json!({"bytes": "count", "hash": "text"});
    json!({"path": "text", "equal": "bool", "cached": nullable(&module),
        "database": nullable(&module), "diff": "text"})
}

pub fn publish() -> Value {
    json!({"written": "count", "removed": "count", "unchanged": "count", "bytes": "count",
        "complete": "bool", "servers": servers("null?"), "dry_run": dry_run()})
}

pub fn clear() -> Value {
    json!({"removed": "count", "scanned": "bool", "servers": servers("null?")})
}

fn nullable(shape: &Value) -> Value {
    json!({"or null": shape})
}

pub fn resolve() -> Value {
    json!({"name": "text", "kind": "package|module|namespace|not_found", "path": "text?"})
}

pub fn watch() -> Value {
    json!({"time": "time", "event": "watching|saved|removed|corrupt|changed|everything|lost",
        "path": "text?", "bytes": "count?", "hash": "text?", "modules": "count?"})
}
