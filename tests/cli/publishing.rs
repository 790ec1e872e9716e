//! `publish`, `rm`, `mv` and `clear`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bifrost_module_cache::CachedModule;
use bifrost_module_cache::diagnosis::CacheState;
use serde_json::json;
use tempfile::TempDir;

use crate::schema;
use crate::tool::{World, run, without_database};

/// A directory with these files, each with its name for a content.
fn workspace(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        write(dir.path(), file, file.as_bytes());
    }
    dir
}

fn write(dir: &Path, file: &str, content: &[u8]) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn cached(world: &World) -> Vec<String> {
    let mut paths: Vec<String> = world.writer.reader().paths().unwrap().into_iter().collect();
    paths.sort_unstable();
    paths
}

#[test]
fn a_directory_is_published_with_its_hashes() {
    let world = World::new();
    let dir = workspace(&["a.py", "shared/__init__.py", "notes.md", ".git/hook.py"]);
    write(dir.path(), "odd.py", "\u{feff}é\r\n".as_bytes());
    let root = dir.path().to_str().unwrap();
    let object = run(without_database(&world, &["publish", root, "--json"]), 0).object();
    schema::check(&object, &schema::publish());
    assert_eq!(
        (&object["written"], &object["complete"]),
        (&json!(3), &json!(false))
    );
    assert_eq!(cached(&world), ["a.py", "odd.py", "shared/__init__.py"]);
    let odd = world.writer.reader().get("odd.py").unwrap();
    assert_eq!(
        odd,
        Some(CachedModule::new("odd.py", "\u{feff}é\r\n").unwrap())
    );
    // It adds; what was there stays, and nothing says that this is all.
    world.foreign().set("other.py", "1");
    run(without_database(&world, &["publish", root]), 0).mentions(&["written"]);
    assert_eq!(cached(&world).len(), 4);
    assert_eq!(world.status().state, CacheState::Cold);
}

#[test]
fn an_exact_publication_is_the_whole_workspace() {
    let world = World::new();
    let dir = workspace(&["a.py", "b.py"]);
    let root = dir.path().to_str().unwrap();
    world.foreign().set("ghost.py", "1");
    let publish = ["publish", "--exact", root, "--json"];
    let object = run(without_database(&world, &publish), 0).object();
    schema::check(&object, &schema::publish());
    assert_eq!(
        (&object["written"], &object["removed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(object["complete"], true);
    assert!(world.status().is_warm());
    write(dir.path(), "a.py", b"2");
    let object = run(without_database(&world, &publish), 0).object();
    assert_eq!(
        (&object["written"], &object["unchanged"]),
        (&json!(1), &json!(1))
    );
    run(without_database(&world, &publish[..3]), 0).mentions(&["exactly this directory"]);
    assert_eq!(cached(&world), ["a.py", "b.py"]);
}

#[test]
fn one_bad_file_keeps_all_from_being_sent() {
    let world = World::new();
    let dir = workspace(&["a.py"]);
    let root = dir.path().to_str().unwrap();
    write(dir.path(), "latin.py", b"# \xe9");
    for exact in [&[][..], &["--exact"]] {
        let publish = [&["publish", root], exact].concat();
        run(without_database(&world, &publish), 4).says(&["latin.py", "UTF-8"]);
    }
    fs::remove_file(dir.path().join("latin.py")).unwrap();
    write(dir.path(), "large.py", b"12345");
    let publish = ["publish", root, "--max-content-bytes", "4"];
    run(without_database(&world, &publish), 4).says(&["large.py", "--max-content-bytes"]);
    // It is not even read.
    let large = fs::File::create(dir.path().join("large.py")).unwrap();
    large.set_len(1 << 36).unwrap();
    run(without_database(&world, &publish[..2]), 4).says(&["large.py", "--max-content-bytes"]);
    fs::remove_file(dir.path().join("large.py")).unwrap();
    write(dir.path(), "c\u{1b}[2J.py", b"");
    // The name can't command a terminal.
    let ran = run(without_database(&world, &["publish", root]), 4).says(&["control character"]);
    assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
    assert!(cached(&world).is_empty());
}

#[test]
fn all_bad_files_are_named_at_once() {
    let world = World::new();
    let dir = workspace(&["a.py", "z.py"]);
    write(dir.path(), "latin.py", b"# \xe9");
    write(dir.path(), "x\\y.py", b"");
    symlink("nowhere", dir.path().join("lost.py")).unwrap();
    let root = dir.path().to_str().unwrap();
    let ran = run(without_database(&world, &["publish", root]), 4);
    let lines: Vec<&str> = ran.err.lines().collect();
    let words = ["latin.py", "lost.py", "backslash", "3 files"];
    assert_eq!(lines.len(), words.len(), "{ran:?}");
    for (line, word) in lines.iter().zip(words) {
        assert!(
            line.starts_with("error: ") && line.contains(word),
            "{ran:?}"
        );
    }
    assert!(cached(&world).is_empty());
}

/// As Kubernetes lays out a volume: each name is a link into a directory that it swaps.
#[test]
fn a_mounted_volume_is_published_as_it_reads() {
    let world = World::new();
    let dir = workspace(&["..2024/a.py", "..2024/shared/deep/h.py"]);
    let root = dir.path().to_str().unwrap();
    for (link, target) in [
        ("..data", "..2024"),
        ("a.py", "..data/a.py"),
        ("shared", "..data/shared"),
    ] {
        symlink(target, dir.path().join(link)).unwrap();
    }
    for path in ["shared/deep/h.py", "ghost.py"] {
        world.foreign().set(path, "old");
    }
    run(without_database(&world, &["publish", "--exact", root]), 0);
    assert_eq!(cached(&world), ["a.py", "shared/deep/h.py"]);
    let module = world.writer.reader().get("shared/deep/h.py").unwrap();
    assert_eq!(module.unwrap().content, "..2024/shared/deep/h.py");
    // What can't be followed is no reason to remove what was there.
    fs::remove_dir_all(dir.path().join("..2024/shared")).unwrap();
    let failing = || run(without_database(&world, &["publish", "--exact", root]), 4);
    failing().says(&["shared", "No such file"]);
    let outside = workspace(&["h.py"]);
    symlink(outside.path(), dir.path().join("..2024/shared")).unwrap();
    failing().says(&["shared", "leads out of the directory"]);
    assert_eq!(cached(&world), ["a.py", "shared/deep/h.py"]);
}

#[test]
fn an_empty_directory_must_be_meant() {
    let world = World::new();
    let dir = workspace(&["notes.md"]);
    let root = dir.path().to_str().unwrap();
    world.foreign().set("a.py", "1");
    run(without_database(&world, &["publish", root]), 4).says(&["no .py file"]);
    run(without_database(&world, &["publish", root, "--exact"]), 4).says(&["--allow-empty"]);
    assert_eq!(cached(&world), ["a.py"]);
    run(
        without_database(&world, &["publish", root, "--allow-empty"]),
        2,
    )
    .mentions(&["--exact"]);
    let meant = ["publish", root, "--exact", "--allow-empty"];
    run(without_database(&world, &meant), 0);
    assert!(cached(&world).is_empty() && world.status().is_warm());
    run(without_database(&world, &["publish", "/nowhere"]), 4).says(&["/nowhere"]);
}

#[test]
fn rm_removes_and_says_what_was_not_there() {
    let world = World::new();
    for path in ["a.py", "b.py", "c.py"] {
        world.foreign().set(path, "1");
    }
    run(without_database(&world, &["rm", "a.py"]), 0).mentions(&["a.py: removed"]);
    let ran = run(
        without_database(&world, &["rm", "b.py", "a.py", "--json"]),
        1,
    );
    let expected = [
        json!({"path": "b.py", "removed": true}),
        json!({"path": "a.py", "removed": false}),
    ];
    assert_eq!(ran.objects(), expected);
    assert_eq!(cached(&world), ["c.py"]);
    run(without_database(&world, &["rm", "c.py", "index"]), 2).says(&["index"]);
    assert_eq!(cached(&world), ["c.py"], "all or nothing");
}

#[test]
fn mv_keeps_content_and_hash() {
    let world = World::new();
    let module = CachedModule::with_hash("a.py", "1", "h").unwrap();
    world.writer.set(&module).unwrap();
    run(without_database(&world, &["mv", "a.py", "b/c.py"]), 0).mentions(&["moved to b/c.py"]);
    let moved = world.writer.reader().get("b/c.py").unwrap();
    assert_eq!(
        moved,
        Some(CachedModule::with_hash("b/c.py", "1", "h").unwrap())
    );
    assert_eq!(cached(&world), ["b/c.py"]);

    run(without_database(&world, &["mv", "a.py", "d.py"]), 1).says(&["a.py", "not in the cache"]);
    world.foreign().set("d.py", "2");
    run(without_database(&world, &["mv", "d.py", "b/c.py"]), 4).says(&["b/c.py is there already"]);
    run(without_database(&world, &["mv", "d.py", "d.py"]), 2).says(&["the same"]);
    run(without_database(&world, &["mv", "d.py", "/e.py"]), 2).says(&["absolute"]);
    assert_eq!(cached(&world), ["b/c.py", "d.py"]);
    let object = run(
        without_database(&world, &["mv", "d.py", "e.py", "--json"]),
        0,
    )
    .object();
    assert_eq!(object, json!({"old": "d.py", "new": "e.py", "moved": true}));
}

#[test]
fn mv_leaves_what_is_too_large_where_it_is() {
    let world = World::new();
    world.foreign().set("a.py", "12345");
    let moving = ["mv", "a.py", "b.py", "--max-content-bytes"];
    let limited = |limit| without_database(&world, &[&moving[..], &[limit]].concat());
    run(limited("4"), 4).says(&["b.py", "5 bytes", "--max-content-bytes"]);
    let module = world.writer.reader().get("a.py").unwrap().unwrap();
    assert_eq!(module.content, "12345");
    assert_eq!(cached(&world), ["a.py"]);
    run(limited("5"), 0);
    assert_eq!(cached(&world), ["b.py"]);
}

#[test]
fn clear_must_be_meant() {
    let world = World::new();
    let dir = workspace(&["a.py", "b.py"]);
    let root = dir.path().to_str().unwrap();
    run(without_database(&world, &["publish", "--exact", root]), 0);
    run(without_database(&world, &["clear"]), 2).mentions(&["--yes"]);
    assert_eq!(cached(&world).len(), 2);
    run(without_database(&world, &["clear", "--yes"]), 0).mentions(&["2 modules", "cold"]);
    assert!(cached(&world).is_empty());
    assert_eq!(world.status().state, CacheState::Cold);
    let object = run(without_database(&world, &["clear", "--yes", "--json"]), 0).object();
    schema::check(&object, &schema::clear());
    assert_eq!(
        (&object["removed"], &object["scanned"]),
        (&json!(0), &json!(true))
    );
    world.foreign().run("ACL SETUSER default -scan");
    world.foreign().set_key("unlisted.py", "{}");
    run(without_database(&world, &["clear", "--yes"]), 0).mentions(&["0 modules", "SCAN"]);
    assert_eq!(
        world.foreign().entry("unlisted.py").value.as_deref(),
        Some("{}")
    );
}
