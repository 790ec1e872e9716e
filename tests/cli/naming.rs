//! `resolve`, and `explain` of a name.

use bifrost_module_cache::keys;
use bifrost_module_cache::sync::SyncOptions;
use serde_json::{Value, json};

use crate::schema;
use crate::support::free_port;
use crate::tool::{World, run, tool, without_database};

#[test]
fn resolve_answers_in_the_order_asked() {
    let world = World::new();
    for path in ["pkg/__init__.py", "pkg/mod.py", "space/deep/mod.py"] {
        world.foreign().set(path, "1");
    }
    let names = [
        "space.deep",
        "pkg",
        "nope",
        "pkg.mod",
        "pkg",
        "a..b",
        "space.deep.mod",
    ];
    let arguments = [&["resolve", "--json"], &names[..]].concat();
    let ran = run(without_database(&world, &arguments), 1);
    let expected = "\
{\"name\":\"space.deep\",\"kind\":\"namespace\",\"path\":\"space/deep\"}
{\"name\":\"pkg\",\"kind\":\"package\",\"path\":\"pkg/__init__.py\"}
{\"name\":\"nope\",\"kind\":\"not_found\",\"path\":null}
{\"name\":\"pkg.mod\",\"kind\":\"module\",\"path\":\"pkg/mod.py\"}
{\"name\":\"pkg\",\"kind\":\"package\",\"path\":\"pkg/__init__.py\"}
{\"name\":\"a..b\",\"kind\":\"not_found\",\"path\":null}
{\"name\":\"space.deep.mod\",\"kind\":\"module\",\"path\":\"space/deep/mod.py\"}
";
    assert_eq!(ran.out, expected);
    for object in ran.objects() {
        schema::check(&object, &schema::resolve());
    }
    let text = run(
        without_database(&world, &["resolve", "pkg.mod", "space"]),
        0,
    );
    assert_eq!(
        text.out,
        "module     pkg.mod  pkg/mod.py\nnamespace  space  space\n"
    );
    run(without_database(&world, &["resolve"]), 2);
    world.foreign().set_key("pkg/mod.py", "{");
    run(without_database(&world, &["resolve", "pkg", "pkg.mod"]), 5)
        .says(&["pkg/mod.py", "corrupt"]);
}

#[track_caller]
fn explained(world: &World, name: &str, path: &Value, cause: &str, code: i32) {
    let ran = run(tool(world, &["explain", name, "--json"]), code);
    let object = ran.object();
    assert_eq!(object["name"], name);
    assert_eq!(
        (&object["path"], &object["cause"]),
        (path, &json!(cause)),
        "{object:#}"
    );
    run(tool(world, &["explain", name]), code).mentions(&[name]);
}

#[test]
fn explain_finds_the_path_behind_a_name() {
    let world = World::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    let paths = [
        "pkg/__init__.py",
        "pkg/mod.py",
        "space/mod.py",
        "pkg/stale.py",
        "pkg/gone.py",
        "pkg/corrupt.py",
        "old.py",
    ];
    for path in paths {
        table.put(path, "1");
    }
    table.run("UPDATE workspace_files SET updated_at = now() - interval '1 hour'");
    explained(&world, "pkg.mod", &json!("pkg/mod.py"), "cache_cold", 1);
    world.warm(SyncOptions::default());
    table.put("pkg/new/deep.py", "1");
    table.run(
        "UPDATE workspace_files SET updated_at = now() + interval '2 s' WHERE path LIKE '%new%'",
    );
    table.put("pkg/stale.py", "2");
    foreign.del("old.py");
    let key = keys::module_key("pkg/gone.py").unwrap();
    foreign.run(&format!("DEL {key}"));
    foreign.set_key("pkg/corrupt.py", "{");
    for (name, path, cause, code) in [
        ("pkg", json!("pkg/__init__.py"), "cached", 0),
        ("pkg.mod", json!("pkg/mod.py"), "cached", 0),
        ("space", json!("space"), "namespace", 0),
        ("pkg.stale", json!("pkg/stale.py"), "stale", 1),
        ("pkg.gone", json!("pkg/gone.py"), "value_gone", 1),
        ("pkg.corrupt", json!("pkg/corrupt.py"), "corrupt", 5),
        // Its parent is not there either, and the row tells why.
        ("pkg.new.deep", json!("pkg/new/deep.py"), "just_created", 1),
        ("old", json!("old.py"), "wrongly_removed", 1),
        ("pkg.never", Value::Null, "no_such_module", 1),
        ("pkg.mod.below", json!("pkg/mod.py"), "hidden", 1),
        ("a..b", Value::Null, "not_a_path", 1),
    ] {
        explained(&world, name, &path, cause, code);
    }
}

/// What Redis shows of these is in order: only the database tells what is missing.
#[test]
fn explain_looks_behind_what_redis_shows_of_a_name() {
    let world = World::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    let paths = [
        "shared/__init__.py",
        "shared/x.py",
        "cleared/__init__.py",
        "cleared/y.py",
        "turned.py",
        "grown.py",
        "plain/__init__.py",
        "plain/z.py",
    ];
    for path in paths {
        table.put(path, "1");
    }
    table.run("UPDATE workspace_files SET updated_at = now() - interval '1 hour'");
    world.warm(SyncOptions::default());
    foreign.del("shared/__init__.py");
    let key = keys::module_key("cleared/__init__.py").unwrap();
    foreign.run(&format!("DEL {key}"));
    // Both were turned into packages, and no service told the cache.
    table.delete("turned.py");
    for path in ["turned/__init__.py", "turned/b.py", "grown/__init__.py"] {
        table.put(path, "1");
    }
    table.run(
        "UPDATE workspace_files SET updated_at = now() + interval '2 s'
         WHERE path LIKE 'turned/%' OR path LIKE 'grown/%'",
    );
    // A place in the index that no reader finds anything at.
    foreign.run(&format!(
        "SADD {} plain/z/__init__.py",
        keys::MODULE_INDEX_KEY
    ));
    for (name, path, cause, code) in [
        ("shared", "shared/__init__.py", "wrongly_removed", 1),
        ("shared.x", "shared/__init__.py", "wrongly_removed", 1),
        ("cleared", "cleared/__init__.py", "value_gone", 1),
        ("turned", "turned/__init__.py", "just_created", 1),
        ("turned.b", "turned/__init__.py", "just_created", 1),
        ("grown", "grown/__init__.py", "just_created", 1),
        ("plain.z", "plain/z.py", "cached", 0),
    ] {
        explained(&world, name, &json!(path), cause, code);
    }
    run(tool(&world, &["repair"]), 0);
    explained(&world, "shared.x", &json!("shared/x.py"), "cached", 0);
    explained(&world, "turned.b", &json!("turned/b.py"), "cached", 0);
    foreign.set("turned/b/__init__.py", "1");
    explained(
        &world,
        "turned.b",
        &json!("turned/b/__init__.py"),
        "ghost",
        1,
    );
}

#[test]
fn explain_of_a_name_says_what_redis_knows_without_a_database() {
    let world = World::new();
    let explained = |name: &str, cause: &str, code: i32| {
        let ran = run(without_database(&world, &["explain", name, "--json"]), code);
        schema::check(&ran.object(), &schema::explain(false));
        assert_eq!(ran.object()["cause"], cause);
        run(without_database(&world, &["explain", name]), code)
    };
    explained("pkg.mod", "cache_cold", 1).mentions(&["cold"]);
    world.table().put("pkg/mod.py", "1");
    world.warm(SyncOptions::default());
    explained("pkg", "namespace", 0);
    explained("pkg.mod", "cached", 0);
    explained("pkg.other", "not_cached", 1).mentions(&["DATABASE_URL"]);
    // Where it was named and does not answer, both are said.
    let mut command = without_database(&world, &["explain", "pkg.other"]);
    command.env(
        "DATABASE_URL",
        format!("postgres://127.0.0.1:{}/x", free_port()),
    );
    run(command, 3).mentions(&[
        "not cached, though the cache is complete",
        "error: postgres 127.0.0.1",
    ]);
}
