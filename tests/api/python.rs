//! The specification's own Python code and this crate on the same Redis.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    Facade, Reader, RedisServer, World, Writer, all_it_says, on_both_facades, python,
};
use bifrost_module_cache::CachedModule;
use serde_json::{Value, json};

on_both_facades! {
    python_reads_what_we_write
    we_read_what_python_writes
    python_sees_what_we_invalidate_and_rename
    we_see_what_python_invalidates
    a_lone_surrogate_of_python_s_is_corrupt
}

/// Content that Python and this crate escape differently, or might.
fn modules() -> Vec<CachedModule> {
    [
        ("shared/ascii.py", "import os\nprint(\"hi\")\n", "abc123"),
        ("pkg/__init__.py", "", ""),
        (
            "non_ascii.py",
            "x = 'é ü ß ñ 日本語 \u{a0}\u{2028}\u{fffd}'\n",
            "h",
        ),
        ("astral/🦀.py", "'🦀 \u{10000} \u{10ffff}'", "🦀"),
        (
            "escapes.py",
            "'\\u0041 \\ud83e \\n \\\\ \\' /' \"\\\"",
            "\\",
        ),
        (
            "control.py",
            "\0\u{1}\u{8}\u{b}\u{c}\u{1f}\u{7f}\u{85}\t\r\n",
            "\t",
        ),
    ]
    .map(|(path, content, hash)| CachedModule::with_hash(path, content, hash).unwrap())
    .into()
}

fn paths_of(modules: &[CachedModule]) -> Vec<&str> {
    modules.iter().map(|module| module.path.as_str()).collect()
}

/// What Python is to answer for these modules: by both of its clients.
fn answer_for(modules: &[CachedModule]) -> Value {
    let mut index = paths_of(modules);
    index.sort_unstable();
    json!({ "sync": modules, "async": modules, "index_sync": index, "index_async": index })
}

/// Runs the specification's code.
fn ask_python(redis: &RedisServer, request: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/specification.py");
    let mut child = Command::new(python())
        .arg(script)
        .env("REDIS_URL", redis.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(request.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Python failed");
    serde_json::from_slice(&output.stdout).expect("an answer in JSON")
}

fn python_reads_what_we_write<F: Facade>() {
    let World { redis, writer, .. } = World::<F>::new();
    let modules = modules();
    for module in &modules {
        writer.set(module).unwrap();
    }
    let answer = ask_python(&redis, &json!({ "get": paths_of(&modules) }));
    assert_eq!(answer, answer_for(&modules));
}

fn we_read_what_python_writes<F: Facade>() {
    let World { redis, writer, .. } = World::<F>::new();
    let modules = modules();
    ask_python(&redis, &json!({ "set": modules }));
    let reader = writer.reader();
    let paths = paths_of(&modules);
    for (path, module) in paths.iter().zip(&modules) {
        assert_eq!(reader.get(path).unwrap().as_ref(), Some(module));
    }
    let listed = reader.paths().unwrap();
    assert_eq!(listed, paths.iter().map(ToString::to_string).collect());
    let found = reader.get_many(&paths).unwrap();
    assert_eq!(found, modules.into_iter().map(Some).collect::<Vec<_>>());
}

fn python_sees_what_we_invalidate_and_rename<F: Facade>() {
    let World { redis, writer, .. } = World::<F>::new();
    let [kept, moved] = ["kept.py", "moved.py"].map(|path| CachedModule::new(path, "é").unwrap());
    for path in ["kept.py", "old.py", "gone.py"] {
        writer.set(&CachedModule::new(path, "é").unwrap()).unwrap();
    }
    writer.invalidate("gone.py").unwrap();
    writer.rename("old.py", &moved).unwrap();
    let request = json!({ "get": ["gone.py", "old.py", "kept.py", "moved.py"] });
    let mut expected = answer_for(&[kept.clone(), moved.clone()]);
    for client in ["sync", "async"] {
        expected[client] = json!([null, null, kept, moved]);
    }
    assert_eq!(ask_python(&redis, &request), expected);
}

fn we_see_what_python_invalidates<F: Facade>() {
    let World { redis, writer, .. } = World::<F>::new();
    for path in ["a.py", "é/🦀.py"] {
        writer.set(&CachedModule::new(path, "x").unwrap()).unwrap();
    }
    ask_python(&redis, &json!({ "invalidate": ["é/🦀.py", "never.py"] }));
    let reader = writer.reader();
    assert_eq!(reader.get("é/🦀.py").unwrap(), None);
    assert_eq!(reader.paths().unwrap(), ["a.py".to_owned()].into());
}

/// Python's strings can hold half of a character, ours can't: never anything else instead.
fn a_lone_surrogate_of_python_s_is_corrupt<F: Facade>() {
    let World { redis, writer, .. } = World::<F>::new();
    // Python replaces nothing when it reads this, and writes it back.
    let script = r"
import json, os, redis
module = {'content': 'SECRET \ud83e', 'path': 'a.py', 'hash': ''}
redis.Redis.from_url(os.environ['REDIS_URL']).set('bifrost:module:a.py', json.dumps(module))
";
    let mut python = Command::new(python());
    python.args(["-c", script]).env("REDIS_URL", redis.url());
    assert!(python.status().unwrap().success());
    let error = writer.reader().get("a.py").unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    assert_eq!(error.path(), Some("a.py"));
    assert!(!all_it_says(&error).contains("SECRET"), "{error:?}");
}
