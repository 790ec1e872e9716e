//! `status`, `ls`, `get`, `explain`, `diff` and `completions`.

use std::io::Read as _;

use bifrost_module_cache::sync::SyncOptions;
use bifrost_module_cache::{CachedModule, keys};
use serde_json::{Value, json};

use crate::schema;
use crate::tool::{World, bare, run, spawn, tool, without_database};

/// What is not to be changed on the way: line ends, a byte order mark, what commands a terminal.
const ODD: &str = "\u{feff}x = 'é 🦀'\r\n\u{1b}[31m\u{0}\t\\ \"\n\nno line feed";

fn put(world: &World, path: &str, content: &str) {
    let module = CachedModule::new(path, content).unwrap();
    world.writer.set(&module).unwrap();
}

fn drop_key(world: &World, path: &str) {
    let key = keys::module_key(path).unwrap();
    world.foreign().run(&format!("DEL {key}"));
}

#[test]
fn status_tells_warm_cold_restored_and_incomplete() {
    let world = World::with_rows(&["a.py".to_owned(), "b.py".to_owned()]);
    let status = |code| {
        run(tool(&world, &["status"]), code);
        let silent = run(tool(&world, &["status", "--quiet"]), code);
        assert!(silent.out.is_empty() && silent.err.is_empty(), "{silent:?}");
        let object = run(tool(&world, &["status", "--json"]), code).object();
        schema::check(&object, &schema::status());
        object
    };
    let redis = format!("127.0.0.1:{}/0", world.redis.port());
    let cold = json!({"status": "cold", "since": null, "modules": 0, "verified": false,
        "members": 0, "maxmemory_policy": "noeviction", "evicted_keys": null,
        "guard": null, "servers": {"redis": redis, "server": redis.trim_end_matches("/0"), "found": "address",
            "role": "primary", "database": null, "namespace": ""}});
    assert_eq!(status(1), cold);
    run(tool(&world, &["status"]), 1).mentions(&[&redis]);
    world.warm(SyncOptions::default());
    let warm = status(0);
    assert_eq!(warm["status"], "warm");
    assert_eq!((&warm["modules"], &warm["members"]), (&json!(2), &json!(2)));
    assert_eq!(warm["evicted_keys"], 0);
    assert!(warm["since"].is_string());
    run(tool(&world, &["status"]), 0).mentions(&[
        "warm",
        "since",
        "2 then",
        "2 now",
        "compared",
        "noeviction",
        "0 keys",
    ]);
    let lost = |name: &str| {
        let object = status(1);
        assert_eq!(object["status"], name);
        object
    };
    world
        .foreign()
        .run(&format!("DEL {}", keys::MODULE_INDEX_KEY));
    assert_eq!(lost("incomplete")["members"], 0);
    run(tool(&world, &["status"]), 1).mentions(&["incomplete", "noeviction"]);
    run(tool(&world, &["explain", "a.py"]), 1).mentions(&["lost with the index"]);
    world.redis.shutdown_save();
    world.redis.restart();
    lost("restored");
}

#[test]
fn ls_lists_sizes_and_hashes_in_order() {
    let world = World::new();
    run(tool(&world, &["ls"]), 0).mentions(&["nothing is cached"]);
    assert!(run(tool(&world, &["ls", "--json"]), 0).out.is_empty());
    for path in [
        "b.py",
        "shared/é.py",
        "a.py",
        "shared/gone.py",
        "shared/corrupt.py",
    ] {
        put(&world, path, path);
    }
    drop_key(&world, "shared/gone.py");
    world.foreign().set_key("shared/corrupt.py", "{");

    let ran = run(tool(&world, &["ls"]), 0);
    let hash = CachedModule::new("a.py", "a.py").unwrap().hash;
    assert_eq!(
        ran.out.lines().next(),
        Some(&*format!("         4  {hash}  a.py"))
    );
    let rows = run(tool(&world, &["ls", "--json"]), 0).objects();
    let seen: Vec<(&Value, &Value)> = rows
        .iter()
        .map(|row| (&row["path"], &row["state"]))
        .collect();
    assert_eq!(
        json!(seen),
        json!([
            ["a.py", "cached"],
            ["b.py", "cached"],
            ["shared/corrupt.py", "corrupt"],
            ["shared/gone.py", "gone"],
            ["shared/é.py", "cached"]
        ])
    );
    for row in &rows {
        schema::check(row, &schema::ls());
    }
    assert_eq!(
        (&rows[0]["bytes"], &rows[0]["hash"]),
        (&json!(4), &json!(hash))
    );
    assert_eq!(rows[2]["bytes"], Value::Null);

    let under = run(tool(&world, &["ls", "shared/"]), 0);
    assert_eq!(under.out.lines().count(), 3);
    under.mentions(&["corrupt", "gone", "shared/é.py"]);
    run(tool(&world, &["ls", "nowhere/"]), 1).says(&["nowhere/"]);
}

#[test]
fn a_list_of_many_batches_is_whole() {
    let world = World::new();
    let paths = crate::support::numbered(250);
    for path in &paths {
        world.foreign().set(path, path);
    }
    world.foreign().set_key(&paths[120], "{");
    let rows = run(tool(&world, &["ls", "--json"]), 0).objects();
    let listed: Vec<&str> = rows
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!(listed, paths);
    assert_eq!(
        rows.iter().filter(|row| row["state"] == "corrupt").count(),
        1
    );
}

#[test]
fn get_prints_the_source_byte_for_byte() {
    let world = World::new();
    for (path, content) in [
        ("odd.py", ODD),
        ("empty.py", ""),
        ("large.py", &"x\n".repeat(1 << 20)),
    ] {
        put(&world, path, content);
        let ran = run(tool(&world, &["get", path]), 0);
        assert!(ran.out == content && ran.err.is_empty(), "{path}");
        // Colours are ours to add or to leave out, not those of a source.
        let mut forced = tool(&world, &["get", path]);
        forced.env("CLICOLOR_FORCE", "1");
        assert!(run(forced, 0).out == content, "{path}");
        let object = run(tool(&world, &["get", path, "--json"]), 0).object();
        schema::check(&object, &schema::get());
        assert!(object["content"] == content, "{path}");
    }
    run(tool(&world, &["get", "absent.py"]), 1).says(&["absent.py", "cold"]);
    drop_key(&world, "empty.py");
    run(tool(&world, &["get", "empty.py"]), 1).says(&["it expired", "was evicted"]);
    world.foreign().set_key("odd.py", "{");
    run(tool(&world, &["get", "odd.py"]), 5).says(&["odd.py", "corrupt"]);
    run(tool(&world, &["get", "../etc/passwd"]), 2).says(&["invalid module path"]);
}

#[test]
fn a_pipe_that_is_closed_is_no_error() {
    let world = World::new();
    let paths = crate::support::numbered(300);
    world.table().fill(&paths);
    put(&world, "large.py", &"x".repeat(1 << 20));
    for path in &paths {
        world.foreign().set(path, "other");
    }
    let (redis, database) = (world.redis.url(), world.postgres.url());
    for (arguments, code) in [
        (&["get", "large.py"][..], 0),
        (&["ls"], 0),
        (&["ls", "--json"], 0),
        // What was found is still in the exit code.
        (&["verify", "--json"], 1),
        (&["verify"], 1),
        (&["diff", "large.py"], 1),
    ] {
        let variables = [("REDIS_URL", &*redis), ("DATABASE_URL", &database)];
        let mut child = spawn(arguments, &variables);
        let mut out = child.stdout.take().unwrap();
        // As `head` does; also without reading anything at all.
        if code == 0 {
            out.read_exact(&mut [0]).unwrap();
        }
        drop(out);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains("panicked") && !err.contains("error"), "{err}");
    }
}

#[track_caller]
fn explained(world: &World, path: &str, cause: &str, code: i32) -> Value {
    let object = run(tool(world, &["explain", path, "--json"]), code).object();
    schema::check(&object, &schema::explain(true));
    assert_eq!(object["cause"], cause, "{object:#}");
    object
}

#[test]
fn explain_tells_the_three_causes_apart() {
    let world = World::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in [
        "old.py",
        "stale.py",
        "deleted.py",
        "right.py",
        "corrupt.py",
        "gone.py",
    ] {
        table.put(path, "1");
    }
    table.run("UPDATE workspace_files SET updated_at = now() - interval '1 hour'");
    let cold = explained(&world, "old.py", "cache_cold", 1);
    assert!(cold["remedy"].as_str().unwrap().contains("warm"));
    run(tool(&world, &["explain", "old.py"]), 1).mentions(&["the whole cache is cold"]);

    world.warm(SyncOptions::default());
    foreign.del("old.py");
    foreign.set_key("corrupt.py", "{");
    drop_key(&world, "gone.py");
    table.put("new.py", "1");
    table.run(
        "UPDATE workspace_files SET updated_at = now() + interval '2 s' WHERE path = 'new.py'",
    );
    table.put("stale.py", "2");
    table.delete("deleted.py");
    explained(&world, "new.py", "just_created", 1);
    explained(&world, "old.py", "wrongly_removed", 1);
    let stale = explained(&world, "stale.py", "stale", 1);
    assert_ne!(stale["cached"], Value::Null);
    assert_eq!(stale["row"]["state"], "module");
    let ghost = explained(&world, "deleted.py", "ghost", 1);
    assert_eq!(ghost["row"]["state"], "deleted");
    explained(&world, "gone.py", "value_gone", 1);
    explained(&world, "corrupt.py", "corrupt", 5);
    explained(&world, "right.py", "cached", 0);
    explained(&world, "never.py", "no_such_module", 1);
    for (path, code, words) in [
        ("new.py", 1, "just created"),
        ("old.py", 1, "a bug in invalidation"),
        ("stale.py", 1, "a bug in invalidation"),
        ("right.py", 0, "as the database has it"),
    ] {
        let (redis, url) = (world.redis.port().to_string(), world.postgres.url());
        let database = url.rsplit_once('@').unwrap().1;
        let words = [path, words, "redis", &redis, "database", database];
        run(tool(&world, &["explain", path]), code).mentions(&words);
    }
}

#[test]
fn explain_tells_what_redis_knows_without_a_database() {
    let world = World::new();
    let explained = |path: &str, cause: &str, code: i32| {
        let ran = run(without_database(&world, &["explain", path, "--json"]), code);
        schema::check(&ran.object(), &schema::explain(false));
        assert_eq!(ran.object()["cause"], cause);
        run(without_database(&world, &["explain", path]), code).mentions(&[path])
    };
    explained("a.py", "cache_cold", 1);
    world.table().put("a.py", "1");
    world.table().put("b.py", "1");
    world.table().put("c.py", "1");
    world.warm(SyncOptions::default());
    drop_key(&world, "b.py");
    world.foreign().set_key("c.py", "{");
    explained("a.py", "cached", 0);
    explained("b.py", "value_gone", 1);
    explained("c.py", "corrupt", 5);
    explained("d.py", "not_cached", 1).mentions(&["DATABASE_URL"]);
}

#[test]
fn explain_says_what_redis_knows_where_the_database_is_down() {
    let world = World::with_rows(&["a.py".to_owned()]);
    let mut command = without_database(&world, &["explain", "a.py"]);
    let port = crate::support::free_port();
    command.env("DATABASE_URL", format!("postgres://127.0.0.1:{port}/x"));
    let ran = run(command, 3);
    assert!(ran.out.contains("cold"), "{ran:?}");
    ran.says(&["could not be connected to", &port.to_string()]);
}

#[test]
fn diff_shows_what_a_repair_would_change() {
    let world = World::new();
    let mut table = world.table();
    let content = |words: [&str; 3]| words.join("\n");
    table.put("a.py", &content(["one", "two", "three"]));
    table.put("hash.py", "1");
    world.warm(SyncOptions::default());
    let equal = run(tool(&world, &["diff", "a.py"]), 0);
    assert!(equal.out.is_empty() && equal.err.is_empty(), "{equal:?}");

    table.put("a.py", &content(["one", "2", "three\u{1b}[2J\r\n"]));
    let differ = run(tool(&world, &["diff", "a.py"]), 1);
    let expected = "--- cache/a.py\n+++ database/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n-three\n\
        \\ No newline at end of file\n+2\n+three\u{1b}[2J\r\n";
    assert_eq!(differ.out, expected);
    let object = run(tool(&world, &["diff", "a.py", "--json"]), 1).object();
    schema::check(&object, &schema::diff());
    assert_eq!(object["equal"], false);
    assert_eq!(object["diff"], expected);

    table.run("UPDATE workspace_files SET content_hash = 'h' WHERE path = 'hash.py'");
    run(tool(&world, &["diff", "hash.py"]), 1).mentions(&["the hashes are not", "\"h\""]);
    world.foreign().del("hash.py");
    let missing = run(tool(&world, &["diff", "hash.py"]), 1);
    let expected =
        "--- /dev/null\n+++ database/hash.py\n@@ -0,0 +1 @@\n+1\n\\ No newline at end of file\n";
    assert_eq!(missing.out, expected);
    run(tool(&world, &["diff", "never.py"]), 1).says(&["never.py", "neither"]);
    world.foreign().set_key("a.py", "{");
    run(tool(&world, &["diff", "a.py"]), 5).says(&["can't be read"]);
}

#[test]
fn each_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(bare(&["completions", shell]), 0);
        for word in ["warm", "verify", "redis-url-file"] {
            assert!(ran.out.contains(word), "{shell}: {word}");
        }
    }
    let script = run(bare(&["completions", "bash"]), 0).out;
    assert_cmd::Command::new("bash")
        .arg("-n")
        .write_stdin(script)
        .assert()
        .success();
}

#[test]
fn the_man_page_has_every_command_and_option() {
    let page = run(bare(&["man"]), 0).out;
    assert!(page.starts_with(".ie"), "{page}");
    for word in [
        "bifrost\\-modules",
        "warm",
        "redis\\-url\\-file",
        ".SH SERVERS",
        "143",
    ] {
        assert!(page.contains(word), "{word}");
    }
    let page = run(bare(&["man", "warm"]), 0).out;
    for word in ["bifrost\\-modules\\-warm", "\\-\\-wait", ".SH SERVERS"] {
        assert!(page.contains(word), "{word}");
    }
    run(bare(&["man", "never"]), 2).says(&["no such command"]);
}

#[test]
fn explain_takes_a_plain_timestamp_for_utc_wherever_the_database_is() {
    let world = World::new();
    let mut table = world.table();
    table.put("old.py", "1");
    let changed = |ago: &str| {
        format!(
            "UPDATE workspace_files SET updated_at = now() AT TIME ZONE 'UTC' - interval '{ago}'"
        )
    };
    table.run(&changed("1 hour"));
    world.warm(SyncOptions::default());
    world.foreign().del("old.py");
    let explained = |zone: &str| {
        let mut command = tool(&world, &["explain", "old.py", "--json"]);
        let options = format!("?options=-c%20TimeZone%3D{zone}");
        command.env("DATABASE_URL", world.postgres.url() + &options);
        run(command, 1).object()["cause"].clone()
    };
    let zones = ["UTC", "Asia/Tokyo", "America/New_York"];
    let expect = |cause| assert_eq!(zones.map(explained), [cause; 3]);
    expect("wrongly_removed");
    table.run("ALTER TABLE workspace_files ALTER updated_at TYPE timestamptz USING updated_at AT TIME ZONE 'UTC'");
    expect("wrongly_removed");
    table.run("ALTER TABLE workspace_files ALTER updated_at TYPE timestamp USING updated_at AT TIME ZONE 'UTC'");
    // The mark has whole seconds.
    table.run(&changed("-2 seconds"));
    expect("just_created");
}
