//! `warm`, `verify` and `repair`.

use bifrost_module_cache::keys;
use bifrost_module_cache::sync::SyncOptions;
use serde_json::{Value, json};

use crate::schema;
use crate::support::numbered;
use crate::tool::{World, bare, run, tool, without_database};

#[test]
fn warm_brings_the_database_to_the_cache_and_says_so() {
    let paths = numbered(30);
    let world = World::with_rows(&paths);
    world.foreign().set("ghost.py", "1");
    let object = run(tool(&world, &["warm", "--json"]), 0).object();
    schema::check(&object, &schema::warm());
    for (field, value) in [
        ("modules", json!(30)),
        ("written", json!(30)),
        ("pruned", json!(1)),
        ("complete", json!(true)),
        ("verified", json!(true)),
        ("unverified", Value::Null),
    ] {
        assert_eq!(object[field], value, "{field}");
    }
    world.foreign().assert_holds(&paths);
    assert!(world.status().is_warm());
    let ran = run(tool(&world, &["warm"]), 0).mentions(&["warm", "unchanged", "30", "compared"]);
    assert!(ran.err.is_empty(), "{ran:?}");
    let quiet = run(tool(&world, &["warm", "--quiet"]), 0);
    assert!(quiet.out.is_empty() && quiet.err.is_empty(), "{quiet:?}");
}

#[test]
fn an_empty_table_must_be_meant() {
    let world = World::new();
    // Over an empty cache it takes nothing away.
    run(tool(&world, &["warm"]), 0);
    let paths = ["a.py".to_owned()];
    world.foreign().set("a.py", "a.py");
    for command in ["warm", "repair"] {
        run(tool(&world, &[command, "--quiet"]), 4).says(&["--allow-empty"]);
        let object = run(tool(&world, &[command, "--json", "--quiet"]), 4).object();
        assert_eq!(object["unverified"], "empty_workspace");
        world.foreign().assert_holds(&paths);
    }
    run(tool(&world, &["warm", "--allow-empty"]), 0);
    world.foreign().assert_holds(&[]);
    world.foreign().set("a.py", "a.py");
    run(tool(&world, &["repair", "--allow-empty"]), 0);
    world.foreign().assert_holds(&[]);
}

#[test]
fn rows_none_of_which_is_a_module_are_warned_of() {
    let world = World::with_rows(&numbered(2));
    let mut table = world.table();
    table.run("UPDATE workspace_files SET entity_type = NULL");
    let ran = run(tool(&world, &["warm"]), 0);
    ran.mentions(&["warning:", "2 rows", "entity_type"]);
    let object = run(tool(&world, &["verify", "--json"]), 0).object();
    assert_eq!(object["not_modules"], 2);
}

#[test]
fn a_wrong_database_must_be_meant_and_can_be_looked_at() {
    let paths = numbered(25);
    let world = World::with_rows(&paths);
    run(tool(&world, &["warm"]), 0);
    let mut table = world.table();
    table.run("DELETE FROM workspace_files");
    table.fill(&["x.py", "y.py", "z.py"].map(str::to_owned));
    for command in ["warm", "repair"] {
        run(tool(&world, &[command]), 4).says(&["25 of the 25", "--max-prune"]);
        let dry_run = run(tool(&world, &[command, "--dry-run", "--json"]), 0).object();
        let shape = if command == "warm" {
            schema::warm()
        } else {
            schema::repair()
        };
        schema::check(&dry_run, &shape);
        assert_eq!(dry_run["unverified"], "dry_run");
        assert_eq!(
            dry_run["dry_run"]["written"],
            json!(["x.py", "y.py", "z.py"])
        );
        assert_eq!(dry_run["dry_run"]["removed"], json!(paths));
        let text = run(tool(&world, &[command, "--dry-run"]), 0);
        text.mentions(&["would write x.py", "would remove m/000.py", "3 to write"]);
        world.foreign().assert_holds(&paths);
    }
    run(tool(&world, &["warm", "--max-prune", "0.9"]), 4);
    run(tool(&world, &["warm", "--max-prune", "1"]), 0);
    world
        .foreign()
        .assert_holds(&["x.py", "y.py", "z.py"].map(str::to_owned));
}

#[test]
fn a_transaction_that_stays_open_is_said_and_no_failure() {
    let world = World::with_rows(&["a.py".to_owned()]);
    let mut service = world.table();
    service.run("BEGIN; INSERT INTO workspace_files (path) VALUES ('b.py')");
    let ran = run(tool(&world, &["warm"]), 0);
    ran.mentions(&["hint:", "a transaction stayed open"]);
    let object = run(tool(&world, &["status", "--json"]), 0).object();
    assert_eq!(object["verified"], false);
}

/// One path of each kind of drift, by its name; the database has five of them.
fn drift(world: &World) -> Value {
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in [
        "missing.py",
        "stale.py",
        "key_only.py",
        "expiring.py",
        "corrupt.py",
    ] {
        table.put(path, "1");
    }
    world.warm(SyncOptions::default());
    foreign.del("missing.py");
    foreign.set("stale.py", "2");
    foreign.set("ghost.py", "1");
    foreign.run(&format!("SADD {} index_only.py", keys::MODULE_INDEX_KEY));
    foreign.run(&format!("SADD {} index", keys::MODULE_INDEX_KEY));
    foreign.run(&format!("SREM {} key_only.py", keys::MODULE_INDEX_KEY));
    foreign.setex("expiring.py", "1", 86_400);
    foreign.set_key("corrupt.py", "{");
    let paths = schema::KINDS.map(|kind| (kind.to_owned(), json!([format!("{kind}.py")])));
    Value::Object(paths.into_iter().collect())
}

#[test]
fn verify_counts_and_names_every_kind_of_drift() {
    let world = World::new();
    let clean = run(tool(&world, &["verify", "--json"]), 0).object();
    schema::check(&clean, &schema::verify());
    assert_eq!(clean["clean"], true);
    let drift = drift(&world);
    let object = run(tool(&world, &["verify", "--json"]), 1).object();
    schema::check(&object, &schema::verify());
    assert_eq!(object["paths"], drift);
    for (kind, count) in object["counts"].as_object().unwrap() {
        assert_eq!(count, 1, "{kind}");
    }
    assert_eq!(
        (&object["clean"], &object["modules"]),
        (&json!(false), &json!(5))
    );
    assert_eq!(object["bad_members"], 1);
    let text = run(tool(&world, &["verify"]), 1);
    let words = [
        "stale           1",
        "    stale.py",
        "7 paths differ",
        "repair",
        "1 member",
    ];
    text.mentions(&words);
    let quiet = run(tool(&world, &["verify", "--quiet"]), 1);
    assert!(quiet.out.is_empty() && quiet.err.is_empty(), "{quiet:?}");
    // It wrote nothing.
    assert_eq!(
        run(tool(&world, &["verify", "--json"]), 1).object()["paths"],
        drift
    );
}

#[test]
fn a_report_lists_some_of_many_paths_and_json_all() {
    let world = World::with_rows(&numbered(50));
    let text = run(tool(&world, &["verify"]), 1);
    assert_eq!(
        text.out.lines().filter(|line| line.contains("m/0")).count(),
        20
    );
    text.mentions(&["and 30 more"]);
    let object = run(tool(&world, &["verify", "--json"]), 1).object();
    assert_eq!(object["paths"]["missing"].as_array().unwrap().len(), 50);
}

#[test]
fn repair_mends_what_verify_finds() {
    let world = World::new();
    let drift = drift(&world);
    let object = run(tool(&world, &["repair", "--json"]), 0).object();
    schema::check(&object, &schema::repair());
    assert_eq!(object["drift"]["paths"], drift);
    assert_eq!(
        (&object["written"], &object["removed"]),
        (&json!(5), &json!(2))
    );
    assert_eq!(object["verified"], true);
    run(tool(&world, &["verify"]), 0).mentions(&["the cache equals it"]);
    world.foreign().flush();
    let ran = run(tool(&world, &["repair"]), 0).mentions(&["written", "missing"]);
    // It does not say that it is complete, but how to get there.
    assert!(ran.err.contains("bifrost-modules warm"), "{ran:?}");
    assert!(!world.status().is_warm());
}

#[test]
fn refresh_brings_single_modules_to_what_the_database_has() {
    let world = World::with_rows(&["a.py".to_owned(), "b.py".to_owned()]);
    world.foreign().set("gone.py", "1");
    world.foreign().set("b.py", "old");
    let object = run(tool(&world, &["refresh", "a.py", "gone.py", "--json"]), 0).object();
    schema::check(&object, &schema::refresh());
    assert_eq!(
        (&object["written"], &object["removed"]),
        (&json!(1), &json!(1))
    );
    let mut foreign = world.foreign();
    foreign.assert_is("a.py", Some("a.py"));
    foreign.assert_is("gone.py", None);
    foreign.assert_is("b.py", Some("old"));
    run(tool(&world, &["refresh", "b.py"]), 0).mentions(&["written", "127.0.0.1"]);
    foreign.assert_is("b.py", Some("b.py"));
    run(tool(&world, &["refresh", "a.py", "index"]), 2).says(&["index"]);
    run(tool(&world, &["refresh"]), 2);
}

#[test]
fn settings_of_the_services_can_be_given() {
    let world = World::new();
    world.postgres.create_workspace("\"Other\"");
    world.table().run(
        "INSERT INTO \"Other\" (path, content, entity_type)
         VALUES ('a.py', '1', 'module'), ('large.py', '12345', 'module')",
    );
    let settings = [
        "--table",
        "Other",
        "--ttl",
        "24h",
        "--max-content-bytes",
        "4",
    ];
    let object = run(
        tool(&world, &[&["warm", "--json"], &settings[..]].concat()),
        0,
    )
    .object();
    assert_eq!(
        (&object["modules"], &object["skipped"]),
        (&json!(1), &json!(1))
    );
    let ttl = world.foreign().entry("a.py").ttl;
    assert!((1..=86_400_000).contains(&ttl), "{ttl}");
    run(tool(&world, &[&["verify"], &settings[..]].concat()), 0);
    let other = [&["verify", "--json"], &settings[..2]].concat();
    let object = run(tool(&world, &other), 1).object();
    assert_eq!(object["paths"]["expiring"], json!(["a.py"]));
    assert_eq!(object["paths"]["missing"], json!(["large.py"]));
}

#[test]
fn what_needs_a_database_says_so() {
    let world = World::new();
    for command in [
        &["warm"][..],
        &["verify"],
        &["repair"],
        &["refresh", "a.py"],
        &["diff", "a.py"],
    ] {
        run(without_database(&world, command), 2).says(&["database", "DATABASE_URL"]);
    }
    for arguments in [
        &[][..],
        &["warm", "--wait", "soon"],
        &["warm", "--wait"],
        &["unheard-of"],
    ] {
        run(bare(arguments), 2);
    }
}
