//! What both facades promise, under each way to reach Redis.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use crate::support::{
    Blocking, Facade, Monitor, Nonblocking, READER_ACL, Reader, RedisServer, WRITER_ACL,
    WRITER_OPTION, World, Writer, all_it_says,
};
use bifrost_module_cache::diagnosis::Cause;
use bifrost_module_cache::sync::{Change, SyncOptions};
use bifrost_module_cache::{CachedModule, Config, Error, Resolution, blocking, nonblocking};
use redis::Commands;

/// Makes a `#[test]` of each function for this facade, reaching Redis this way.
macro_rules! cases {
    ($module:ident, $facade:ty, $world:path, $($test:ident)+) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $test() {
                super::$test::<$facade>(&$world());
            })+
        }
    };
}

macro_rules! contract {
    ($($test:ident)+) => {
        cases!(blocking_resp2, Blocking, World::new, $($test)+);
        cases!(blocking_resp3, Blocking, World::resp3, $($test)+);
        cases!(blocking_acl, Blocking, World::acl, $($test)+);
        // What is sent is the same for both facades.
        cases!(blocking_sentinels, Blocking, World::of_sentinels, $($test)+);
        cases!(blocking_cluster, Blocking, World::of_cluster, $($test)+);
        cases!(nonblocking_sentinels, Nonblocking, World::of_sentinels, $($test)+);
        cases!(nonblocking_cluster, Nonblocking, World::of_cluster, $($test)+);
        cases!(blocking_tenant, Blocking, World::tenant, $($test)+);
        cases!(blocking_narrow_acl, Blocking, World::narrow_acl, $($test)+);
        cases!(nonblocking_resp2, Nonblocking, World::new, $($test)+);
        cases!(nonblocking_resp3, Nonblocking, World::resp3, $($test)+);
        cases!(nonblocking_acl, Nonblocking, World::acl, $($test)+);
        cases!(nonblocking_tenant, Nonblocking, World::tenant, $($test)+);
    };
}

contract! {
    what_was_never_cached_is_absent
    what_is_set_is_read_back_to_the_letter
    a_large_module_is_read_back
    set_replaces_a_module
    an_invalidated_module_is_gone_with_its_place_in_the_index
    invalidating_what_is_not_there_is_no_error
    what_one_facade_writes_the_other_reads
    get_many_keeps_order_and_duplicates
    get_many_of_nothing_asks_nothing
    an_empty_stored_value_is_absent
    an_index_member_without_its_key_is_a_miss
    a_key_that_the_index_does_not_name_is_found
    invalid_paths_are_refused_before_anything_is_sent
    the_path_index_leaves_the_index_alone
    a_rename_to_itself_keeps_the_module
    a_rename_moves_the_module
    a_rename_may_replace_a_module_and_needs_no_old_one
    clear_removes_what_is_ours_and_counts_it
    clear_touches_nothing_for_members_that_are_no_paths
    a_cleared_cache_is_not_complete
    clear_of_nothing_is_zero
    corrupt_entries_are_named_and_not_shown
    one_corrupt_entry_fails_get_many_and_is_named
    a_key_of_another_type_is_absent
    an_index_of_another_type_is_refused_beside_what_is_applied
    paths_skips_what_is_no_path
    entries_have_no_time_to_live_unless_told
    content_above_the_limit_is_not_sent
    an_oversized_entry_is_corrupt
    entries_as_python_writes_them_are_read
    fields_may_be_unknown_missing_or_null
    the_stored_json_has_exactly_this_form
    each_write_is_one_transaction
    each_read_is_one_command
    publish_carries_out_all_changes_at_once
    publish_sends_nothing_if_one_change_is_refused
    the_cache_tells_whether_it_is_complete
    refresh_brings_paths_to_what_the_source_says
}

fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::new(path, content).expect("a valid path")
}

/// Puts raw bytes under the key of `path`, as a foreign writer can.
fn store<F: Facade>(world: &World<F>, path: &str, value: &[u8]) {
    let mut redis = world.redis.connection();
    redis.set::<_, _, ()>(world.key(path), value).unwrap();
    redis.sadd::<_, _, ()>(world.index(), path).unwrap();
}

fn stored<F: Facade>(world: &World<F>, path: &str) -> Option<Vec<u8>> {
    world.redis.connection().get(world.key(path)).unwrap()
}

/// All keys and all members of the index, sorted.
fn everything<F: Facade>(world: &World<F>) -> (Vec<String>, Vec<Vec<u8>>) {
    let mut redis = world.redis.connection();
    let mut keys: Vec<String> = redis.keys("*").unwrap();
    let mut members: Vec<Vec<u8>> = redis.smembers(world.index()).unwrap();
    keys.sort_unstable();
    members.sort_unstable();
    (keys, members)
}

fn set_of(paths: &[&str]) -> HashSet<String> {
    paths.iter().map(ToString::to_string).collect()
}

fn what_was_never_cached_is_absent<F: Facade>(world: &World<F>) {
    let reader = world.reader::<F>();
    assert_eq!(reader.get("a.py").unwrap(), None);
    assert_eq!(reader.get_many(&["a.py", "b.py"]).unwrap(), [None, None]);
    assert_eq!(reader.paths().unwrap(), HashSet::new());
}

fn what_is_set_is_read_back_to_the_letter<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    let long_path = "é".repeat(1_000);
    let modules = [
        ("shared/halopsa.py", "import os\n", "0123abcd"),
        ("pkg/__init__.py", "", ""),
        ("a.py", "x = 'é ü ß'\n", "HASH IN UPPERCASE"),
        ("b c/日本語/🦀.py", "'🦀 \u{10ffff}'", "\"quoted\\\" é🦀\n"),
        (
            "control.py",
            "\0\u{1}\u{1b}\u{7f}\u{85}\u{2028}\u{feff}\t\r\n\\u0041",
            " ",
        ),
        (
            "index.py",
            "{\"content\": \"like an entry\"}",
            "not even hex",
        ),
        ("index/index", "\u{fffd}", "0"),
        (long_path.as_str(), "\r\n\r", "h"),
    ];
    let modules =
        modules.map(|(path, content, hash)| CachedModule::with_hash(path, content, hash).unwrap());
    for module in &modules {
        writer.set(module).unwrap();
        assert_eq!(
            reader.get(&module.path).unwrap().as_ref(),
            Some(module),
            "{module:?}"
        );
    }
    let paths: Vec<&String> = modules.iter().map(|module| &module.path).collect();
    let found = reader.get_many(&paths).unwrap();
    assert_eq!(found, modules.clone().map(Some));
    let listed: HashSet<String> = paths.into_iter().cloned().collect();
    assert_eq!(reader.paths().unwrap(), listed);
    assert_eq!(writer.reader().paths().unwrap(), listed);
}

fn a_large_module_is_read_back<F: Facade>(world: &World<F>) {
    // Four megabytes in UTF-8, with characters across every boundary that a buffer may have.
    let large = module("large.py", &"x = 'é🦀'\n".repeat(4_000_000 / 14));
    world.writer::<F>().set(&large).unwrap();
    let reader = world.reader::<F>();
    // Not with assert_eq: it would print it.
    assert!(reader.get("large.py").unwrap().as_ref() == Some(&large));
    let found = reader.get_many(&["none.py", "large.py"]).unwrap();
    assert!(found == [None, Some(large)]);
}

fn set_replaces_a_module<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("a.py", "a longer old content")).unwrap();
    writer.set(&module("a.py", "new")).unwrap();
    assert_eq!(
        reader.get("a.py").unwrap().as_ref(),
        Some(&module("a.py", "new"))
    );
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py"]));
}

fn an_invalidated_module_is_gone_with_its_place_in_the_index<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("a.py", "")).unwrap();
    writer.set(&module("b.py", "b")).unwrap();
    assert!(writer.invalidate("a.py").unwrap());
    assert_eq!(reader.get("a.py").unwrap(), None);
    assert_eq!(reader.paths().unwrap(), set_of(&["b.py"]));
    assert_eq!(
        reader.get("b.py").unwrap().as_ref(),
        Some(&module("b.py", "b"))
    );
    assert_eq!(
        everything(world),
        (
            vec![world.key("b.py"), world.index()],
            vec![b"b.py".to_vec()]
        )
    );
}

fn invalidating_what_is_not_there_is_no_error<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    assert!(!writer.invalidate("never/was.py").unwrap());
    assert!(!writer.invalidate("never/was.py").unwrap());
    assert_eq!(everything(world), (vec![], vec![]));
}

fn what_one_facade_writes_the_other_reads<F: Facade>(world: &World<F>) {
    let (writer, other) = (world.writer::<F>(), world.reader::<F::Other>());
    let modules = [
        module("a.py", ""),
        module("b.py", "é"),
        module("🦀.py", "'🦀'\n"),
    ];
    for module in &modules {
        writer.set(module).unwrap();
        assert_eq!(other.get(&module.path).unwrap().as_ref(), Some(module));
    }
    writer.invalidate("b.py").unwrap();
    assert_eq!(other.paths().unwrap(), set_of(&["a.py", "🦀.py"]));
}

fn get_many_keeps_order_and_duplicates<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    let [a, b] = [module("a.py", "a"), module("b.py", "b")];
    writer.set(&a).unwrap();
    writer.set(&b).unwrap();
    let paths = ["b.py", "none.py", "a.py", "b.py", "none.py", "b.py"];
    assert_eq!(
        world.reader::<F>().get_many(&paths).unwrap(),
        [
            Some(b.clone()),
            None,
            Some(a),
            Some(b.clone()),
            None,
            Some(b)
        ]
    );
}

fn get_many_of_nothing_asks_nothing<F: Facade>(world: &World<F>) {
    let reader = world.reader::<F>();
    reader.get("a.py").unwrap();
    let mut monitor = Monitor::start(&world.redis);
    assert_eq!(reader.get_many(&[] as &[&str]).unwrap(), []);
    assert_eq!(monitor.commands(), [] as [&str; 0]);
}

/// By the specification's `if data:`.
fn an_empty_stored_value_is_absent<F: Facade>(world: &World<F>) {
    store(world, "a.py", b"");
    let reader = world.reader::<F>();
    assert_eq!(reader.get("a.py").unwrap(), None);
    assert_eq!(reader.get_many(&["a.py"]).unwrap(), [None]);
}

fn an_index_member_without_its_key_is_a_miss<F: Facade>(world: &World<F>) {
    store(world, "gone.py", b"expired");
    let mut redis = world.redis.connection();
    redis.del::<_, ()>(world.key("gone.py")).unwrap();
    let reader = world.reader::<F>();
    assert_eq!(reader.get("gone.py").unwrap(), None);
    assert_eq!(reader.get_many(&["gone.py"]).unwrap(), [None]);
    assert_eq!(reader.paths().unwrap(), set_of(&["gone.py"]));
    assert_eq!(reader.explain("gone.py").unwrap().cause, Cause::ValueGone);
}

fn a_key_that_the_index_does_not_name_is_found<F: Facade>(world: &World<F>) {
    let lone = module("lone.py", "foreign writers do SET before SADD");
    let mut redis = world.redis.connection();
    redis
        .set::<_, _, ()>(world.key("lone.py"), lone.to_json())
        .unwrap();
    let reader = world.reader::<F>();
    assert_eq!(reader.get("lone.py").unwrap(), Some(lone));
    assert_eq!(reader.paths().unwrap(), HashSet::new());
}

fn invalid_paths_are_refused_before_anything_is_sent<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    let good = module("good.py", "");
    writer.set(&good).unwrap();
    reader.get("good.py").unwrap();
    let before = everything(world);
    let mut monitor = Monitor::start(&world.redis);
    let long = "x".repeat(1_001);
    for path in [
        "",
        "index",
        "/a.py",
        "a//b.py",
        "a/",
        ".",
        "..",
        "./a.py",
        "a/../b.py",
        "a\\b.py",
        "a\0.py",
        "a\n.py",
        "a\u{7f}.py",
        "a\u{85}.py",
        &long,
    ] {
        // The fields are public, so that the constructors are not the last to look.
        let bad = CachedModule {
            path: path.to_owned(),
            ..good.clone()
        };
        let set = Change::Set(bad.clone());
        for refused in [
            reader.get(path).map(drop),
            reader.get_many(&["good.py", path]).map(drop),
            reader.explain(path).map(drop),
            writer.set(&bad),
            writer.invalidate(path).map(drop),
            writer.rename("good.py", &bad),
            writer.rename(path, &good),
            writer.publish(&[set]).map(drop),
            writer.publish(&[Change::Remove(path.into())]).map(drop),
            writer.publish_exact(&[bad]).map(drop),
            writer.refresh_to(&[path], &[]).map(drop),
            CachedModule::new(path, "").map(drop),
            CachedModule::with_hash(path, "", "").map(drop),
        ] {
            let error = refused.expect_err(path);
            assert!(error.is_invalid_path(), "{path:?}: {error:?}");
            assert!(!error.is_transient(), "{path:?}");
        }
    }
    assert_eq!(monitor.commands(), [] as [&str; 0]);
    assert_eq!(everything(world), before);
}

fn the_path_index_leaves_the_index_alone<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("a.py", "a")).unwrap();
    let index = CachedModule {
        path: "index".into(),
        ..module("a.py", "a")
    };
    writer.set(&index).unwrap_err();
    writer.rename("index", &module("a.py", "a")).unwrap_err();
    writer.rename("a.py", &index).unwrap_err();
    writer.invalidate("index").unwrap_err();
    reader.get("index").unwrap_err();
    reader.get_many(&["index"]).unwrap_err();
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py"]));
    assert_eq!(
        reader.get("a.py").unwrap().as_ref(),
        Some(&module("a.py", "a"))
    );
}

fn a_rename_to_itself_keeps_the_module<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("a.py", "old")).unwrap();
    writer.rename("a.py", &module("a.py", "new")).unwrap();
    assert_eq!(
        reader.get("a.py").unwrap().as_ref(),
        Some(&module("a.py", "new"))
    );
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py"]));
}

fn a_rename_moves_the_module<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("old/é.py", "é")).unwrap();
    writer.rename("old/é.py", &module("new/é.py", "é")).unwrap();
    assert_eq!(reader.get("old/é.py").unwrap(), None);
    assert_eq!(
        reader.get("new/é.py").unwrap().as_ref(),
        Some(&module("new/é.py", "é"))
    );
    assert_eq!(reader.paths().unwrap(), set_of(&["new/é.py"]));
}

fn a_rename_may_replace_a_module_and_needs_no_old_one<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("a.py", "a")).unwrap();
    writer.set(&module("b.py", "b")).unwrap();
    writer.rename("a.py", &module("b.py", "a")).unwrap();
    assert_eq!(
        reader.get("b.py").unwrap().as_ref(),
        Some(&module("b.py", "a"))
    );
    writer.rename("none.py", &module("c.py", "c")).unwrap();
    assert_eq!(reader.paths().unwrap(), set_of(&["b.py", "c.py"]));
}

fn clear_removes_what_is_ours_and_counts_it<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    // More than two batches.
    let changes: Vec<Change> = (0..450)
        .map(|i| Change::Set(module(&format!("m{i}.py"), "x")))
        .collect();
    writer.publish(&changes).unwrap();
    assert_eq!(reader.paths().unwrap().len(), 450);
    store(world, "expired.py", b"x");
    let mut redis = world.redis.connection();
    redis.del::<_, ()>(world.key("expired.py")).unwrap();
    let foreign = ["bifrost:other", "other"].map(|key| format!("{}{key}", world.namespace));
    for key in &foreign {
        redis.set::<_, _, ()>(key, "kept").unwrap();
    }
    // A value that was there is counted, a mere place in the index is not.
    assert_eq!(writer.clear().unwrap().removed, 450);
    assert_eq!(everything(world).0, foreign);
    assert_eq!(reader.paths().unwrap(), HashSet::new());
}

fn clear_touches_nothing_for_members_that_are_no_paths<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    writer.set(&module("a.py", "")).unwrap();
    let mut redis = world.redis.connection();
    let bad: [&[u8]; 6] = [b"index", b"/abs", b"a/../b", b"", b"\xff\xfe", b"a\nb"];
    for member in bad {
        redis.sadd::<_, _, ()>(world.index(), member).unwrap();
        if member != b"index" {
            let key = [world.key("").as_bytes(), member].concat();
            redis.set::<_, _, ()>(key, "kept").unwrap();
        }
    }
    // One: were the index deleted as the module `index`, it would count.
    assert_eq!(writer.clear().unwrap().removed, 1);
    let kept: i64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    assert_eq!(kept, 5);
    assert!(!redis.exists::<_, bool>(world.index()).unwrap());
}

fn a_cleared_cache_is_not_complete<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.publish_exact(&[module("a.py", "")]).unwrap();
    assert!(reader.status().unwrap().is_warm());
    assert_eq!(writer.clear().unwrap().removed, 1);
    assert!(!reader.status().unwrap().is_warm());
    assert_eq!(everything(world), (vec![], vec![]));
}

fn clear_of_nothing_is_zero<F: Facade>(world: &World<F>) {
    assert_eq!(world.writer::<F>().clear().unwrap().removed, 0);
}

fn corrupt_entries_are_named_and_not_shown<F: Facade>(world: &World<F>) {
    let reader = world.reader::<F>();
    let corrupt: [(&str, &[u8]); 19] = [
        ("nothing but space", b" "),
        ("null", b"null"),
        ("a string", b"\"SECRET\""),
        ("not JSON", b"SECRET"),
        ("an array", br#"["SECRET", "a.py", "h"]"#),
        ("cut short", br#"{"content": "SECRET", "pa"#),
        ("no content", br#"{"path": "a.py", "hash": "SECRET"}"#),
        ("no path", br#"{"content": "SECRET", "hash": "h"}"#),
        (
            "null content",
            br#"{"content": null, "path": "a.py", "hash": "SECRET"}"#,
        ),
        (
            "a number",
            br#"{"content": 5, "path": "a.py", "hash": "SECRET"}"#,
        ),
        (
            "a list",
            br#"{"content": ["SECRET"], "path": "a.py", "hash": "h"}"#,
        ),
        (
            "an odd hash",
            br#"{"content": "SECRET", "path": "a.py", "hash": 7}"#,
        ),
        (
            "another path",
            br#"{"content": "SECRET", "path": "b.py", "hash": "h"}"#,
        ),
        (
            "twice",
            br#"{"content": "SECRET", "path": "a.py", "hash": "h", "content": "SECRET"}"#,
        ),
        (
            "a lone high surrogate",
            br#"{"content": "SECRET\ud83e", "path": "a.py", "hash": "h"}"#,
        ),
        (
            "a lone low surrogate",
            br#"{"content": "SECRET\udd80", "path": "a.py", "hash": "h"}"#,
        ),
        (
            "trailing data",
            br#"{"content": "SECRET", "path": "a.py", "hash": "h"} 1"#,
        ),
        (
            "not UTF-8",
            b"{\"content\": \"SECRET\xff\", \"path\": \"a.py\", \"hash\": \"h\"}",
        ),
        (
            "raw control",
            b"{\"content\": \"SECRET\n\", \"path\": \"a.py\", \"hash\": \"h\"}",
        ),
    ];
    for (what, entry) in corrupt {
        store(world, "a.py", entry);
        let error = reader.get("a.py").expect_err(what);
        assert!(error.is_corrupt(), "{what}: {error:?}");
        assert_eq!(error.path(), Some("a.py"), "{what}");
        assert!(error.to_string().contains("a.py"), "{what}: {error}");
        assert!(!all_it_says(&error).contains("SECRET"), "{what}: {error:?}");
        assert!(!error.is_transient(), "{what}");
    }
}

fn one_corrupt_entry_fails_get_many_and_is_named<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    writer.set(&module("a.py", "")).unwrap();
    writer.set(&module("c.py", "")).unwrap();
    store(world, "b.py", b"{\"content\": \"SECRET\"}");
    let error = world
        .reader::<F>()
        .get_many(&["a.py", "b.py", "c.py"])
        .unwrap_err();
    assert!(error.is_corrupt());
    assert_eq!(error.path(), Some("b.py"));
    assert!(!all_it_says(&error).contains("SECRET"), "{error:?}");
}

fn a_key_of_another_type_is_absent<F: Facade>(world: &World<F>) {
    let mut redis = world.redis.connection();
    redis.rpush::<_, _, ()>(world.key("a.py"), "x").unwrap();
    let reader = world.reader::<F>();
    // MGET itself says so.
    assert_eq!(reader.get_many(&["a.py"]).unwrap(), [None]);
    assert_eq!(reader.get("a.py").unwrap(), None);
    assert_eq!(reader.resolve("a").unwrap(), Resolution::NotFound);
    assert_eq!(reader.explain("a.py").unwrap().cause, Cause::Corrupt);
    let explained = reader.explain_name("a").unwrap();
    assert_eq!(explained.cause, Cause::Corrupt);
    assert_eq!(explained.path.as_deref(), Some("a.py"));
    // A write replaces it.
    world.writer::<F>().set(&module("a.py", "x")).unwrap();
    assert_eq!(reader.get("a.py").unwrap(), Some(module("a.py", "x")));
}

fn an_index_of_another_type_is_refused_beside_what_is_applied<F: Facade>(world: &World<F>) {
    let mut redis = world.redis.connection();
    redis.set::<_, _, ()>(world.index(), "a.py").unwrap();
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    for error in [reader.paths().unwrap_err(), writer.clear().unwrap_err()] {
        assert_code(&error, "WRONGTYPE");
        assert!(!error.may_have_been_applied());
    }
    let in_part = |error: Error| {
        assert_code(&error, "WRONGTYPE");
        assert!(error.may_have_been_applied() && !error.is_transient());
        let said = error.to_string();
        assert!(
            said.contains("bifrost:module:index") && said.contains("applied"),
            "{said}"
        );
    };
    let content = || reader.get("a.py").unwrap().map(|found| found.content);
    in_part(writer.set(&module("a.py", "1")).unwrap_err());
    assert_eq!(content().as_deref(), Some("1"));
    let change = Change::Set(module("a.py", "2"));
    in_part(writer.publish(&[change]).unwrap_err());
    assert_eq!(content().as_deref(), Some("2"));
    let source = [module("a.py", "3")];
    in_part(writer.refresh_to(&["a.py"], &source).unwrap_err());
    assert_eq!(content().as_deref(), Some("3"));
    in_part(writer.rename("b.py", &module("a.py", "4")).unwrap_err());
    assert_eq!(content().as_deref(), Some("4"));
    in_part(writer.invalidate("a.py").unwrap_err());
    assert_eq!(content(), None);
    assert_eq!(redis.get::<_, String>(world.index()).unwrap(), "a.py");
}

fn assert_code(error: &Error, expected: &str) {
    assert!(error.is_refused() && !error.is_unavailable(), "{error:?}");
    assert!(
        matches!(error, Error::Refused { code, .. } if *code == expected),
        "{error:?}"
    );
}

fn paths_skips_what_is_no_path<F: Facade>(world: &World<F>) {
    world.writer::<F>().set(&module("a.py", "")).unwrap();
    let mut redis = world.redis.connection();
    let bad: [&[u8]; 6] = [b"index", b"/abs", b"a/../b", b"", b"\xff\xfe", b"a\nb"];
    redis.sadd::<_, _, ()>(world.index(), &bad).unwrap();
    assert_eq!(redis.scard::<_, usize>(world.index()).unwrap(), 7);
    assert_eq!(world.reader::<F>().paths().unwrap(), set_of(&["a.py"]));
}

fn entries_have_no_time_to_live_unless_told<F: Facade>(world: &World<F>) {
    let hour = world
        .writer_config()
        .with_ttl(Some(Duration::from_millis(3_600_001)));
    let (forever, hourly) = (world.writer::<F>(), F::Writer::new(hour).unwrap());
    let mut redis = world.redis.connection();
    let mut ttl = |key: String| redis.pttl::<_, i64>(key).unwrap();

    forever.set(&module("a.py", "")).unwrap();
    assert_eq!(ttl(world.key("a.py")), -1);
    let soon = 3_540_000..=3_600_001;
    hourly.set(&module("a.py", "")).unwrap();
    assert!(soon.contains(&ttl(world.key("a.py"))));
    hourly.rename("a.py", &module("b.py", "")).unwrap();
    assert!(soon.contains(&ttl(world.key("b.py"))));
    let change = Change::Set(module("c.py", ""));
    hourly.publish(&[change]).unwrap();
    assert!(soon.contains(&ttl(world.key("c.py"))));
    assert_eq!(ttl(world.index()), -1);
    // A set without one takes an old one away.
    forever.set(&module("b.py", "")).unwrap();
    assert_eq!(ttl(world.key("b.py")), -1);
}

fn content_above_the_limit_is_not_sent<F: Facade>(world: &World<F>) {
    let writer = F::Writer::new(world.writer_config().with_max_content_bytes(10)).unwrap();
    // In bytes, not in characters.
    let (fits, too_large) = (module("a.py", "ééééé"), module("a.py", "éééééx"));
    writer.set(&fits).unwrap();
    let mut monitor = Monitor::start(&world.redis);
    for error in [
        writer.set(&too_large).unwrap_err(),
        writer.rename("b.py", &too_large).unwrap_err(),
        writer
            .publish(&[Change::Remove("a.py".into()), Change::Set(too_large)])
            .unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::TooLarge { size: 11, limit: 10, path, .. } if path == "a.py"),
            "{error:?}"
        );
        assert!(!error.is_transient());
    }
    assert_eq!(monitor.commands(), [] as [&str; 0]);
    assert_eq!(writer.reader().get("a.py").unwrap(), Some(fits));
}

fn an_oversized_entry_is_corrupt<F: Facade>(world: &World<F>) {
    let reader = F::Reader::new(world.reader_config().with_max_content_bytes(10)).unwrap();
    // Six times the content, for escapes, and 8 KiB for the rest.
    let limit = 6 * 10 + 8 * 1024;
    let mut entry = module("a.py", "x").to_json();
    entry.resize(limit, b' ');
    store(world, "a.py", &entry);
    assert_eq!(reader.get("a.py").unwrap(), Some(module("a.py", "x")));
    entry.push(b' ');
    store(world, "a.py", &entry);
    for error in [
        reader.get("a.py").unwrap_err(),
        reader.get_many(&["a.py"]).unwrap_err(),
    ] {
        assert!(error.is_corrupt(), "{error:?}");
        assert_eq!(error.path(), Some("a.py"));
    }
}

/// `json.dumps` with its defaults; `tests/api/python.rs` lets Python itself write.
fn entries_as_python_writes_them_are_read<F: Facade>(world: &World<F>) {
    store(
        world,
        "a.py",
        br#"{"content": "s = '\u00e9\ud83e\udd80'\n\t\"\\", "path": "a.py", "hash": "h"}"#,
    );
    assert_eq!(
        world.reader::<F>().get("a.py").unwrap(),
        Some(CachedModule::with_hash("a.py", "s = 'é🦀'\n\t\"\\", "h").unwrap())
    );
}

fn fields_may_be_unknown_missing_or_null<F: Facade>(world: &World<F>) {
    let reader = world.reader::<F>();
    let expected = CachedModule::with_hash("a.py", "c", "").unwrap();
    for entry in [
        r#"{"content": "c", "path": "a.py"}"#,
        r#"{"content": "c", "path": "a.py", "hash": null}"#,
        r#"{"v": {"content": [1]}, "hash": "", "v": 2, "path": "a.py", "content": "c"}"#,
    ] {
        store(world, "a.py", entry.as_bytes());
        assert_eq!(reader.get("a.py").unwrap().as_ref(), Some(&expected));
    }
}

fn the_stored_json_has_exactly_this_form<F: Facade>(world: &World<F>) {
    let module = CachedModule::with_hash("é/a.py", "s = \"é🦀/\"\n\t\0", "H\"").unwrap();
    world.writer::<F>().set(&module).unwrap();
    assert_eq!(
        String::from_utf8(stored(world, "é/a.py").unwrap()).unwrap(),
        r#"{"content":"s = \"é🦀/\"\n\t\u0000","path":"é/a.py","hash":"H\""}"#
    );
}

/// Redis carries out what stands between MULTI and EXEC at once, so that no reader sees a part.
fn each_write_is_one_transaction<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    writer.set(&module("a.py", "")).unwrap();
    let mut monitor = Monitor::start(&world.redis);
    world.redis.reset_stats();
    monitor.commands();

    writer.set(&module("a.py", "a")).unwrap();
    assert_eq!(monitor.commands(), ["MULTI", "SET", "SADD", "EXEC"]);
    writer.rename("a.py", &module("b.py", "b")).unwrap();
    assert_eq!(
        monitor.commands(),
        ["MULTI", "DEL", "SREM", "SET", "SADD", "EXEC"]
    );
    writer.rename("b.py", &module("b.py", "c")).unwrap();
    assert_eq!(monitor.commands(), ["MULTI", "SET", "SADD", "EXEC"]);
    writer.invalidate("b.py").unwrap();
    assert_eq!(monitor.commands(), ["MULTI", "DEL", "SREM", "EXEC"]);
    assert_eq!(world.redis.calls("exec"), 4);
}

fn each_read_is_one_command<F: Facade>(world: &World<F>) {
    let reader = world.reader::<F>();
    reader.get("a.py").unwrap();
    reader.paths().unwrap();
    let mut monitor = Monitor::start(&world.redis);
    world.redis.reset_stats();
    monitor.commands();

    reader.get("a.py").unwrap();
    assert_eq!(monitor.commands(), ["GET"]);
    reader.get_many(&["a.py", "b.py", "c.py"]).unwrap();
    assert_eq!(monitor.commands(), ["MGET"]);
    reader.paths().unwrap();
    assert_eq!(monitor.commands(), ["SMEMBERS"]);
    for _ in 0..100 {
        reader.get("a.py").unwrap();
    }
    assert_eq!(world.redis.calls("get"), 101);
    assert_eq!(world.redis.calls("mget"), 1);
    assert_eq!(world.redis.calls("ping"), 0);
}

fn publish_carries_out_all_changes_at_once<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("old.py", "")).unwrap();
    writer.set(&module("twice.py", "")).unwrap();
    let changes = [
        Change::Set(module("a.py", "a")),
        Change::Remove("old.py".into()),
        Change::Remove("never.py".into()),
        Change::Set(module("twice.py", "first")),
        Change::Set(module("twice.py", "last")),
        Change::Set(module("undone.py", "")),
        Change::Remove("undone.py".into()),
    ];
    // Bulk calls have a connection of their own in one facade.
    writer.publish(&changes[2..3]).unwrap();
    let mut monitor = Monitor::start(&world.redis);
    let report = writer.publish(&changes).unwrap();
    let commands = monitor.commands();
    assert_eq!(commands.first().map(String::as_str), Some("MULTI"));
    assert_eq!(commands.last().map(String::as_str), Some("EXEC"));
    assert_eq!(commands.iter().filter(|name| *name == "EXEC").count(), 1);

    assert_eq!((report.written, report.removed), (2, 3));
    assert_eq!(report.bytes, 5);
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py", "twice.py"]));
    let found = reader.get_many(&["a.py", "old.py", "twice.py", "undone.py"]);
    assert_eq!(
        found.unwrap(),
        [
            Some(module("a.py", "a")),
            None,
            Some(module("twice.py", "last")),
            None
        ]
    );

    monitor.commands();
    assert_eq!(writer.publish(&[]).unwrap().written, 0);
    assert_eq!(monitor.commands(), [] as [&str; 0]);
}

fn publish_sends_nothing_if_one_change_is_refused<F: Facade>(world: &World<F>) {
    let writer = world.writer::<F>();
    writer.set(&module("a.py", "")).unwrap();
    let changes = [
        Change::Remove("a.py".into()),
        Change::Set(module("b.py", "")),
        Change::Remove("index".into()),
    ];
    let mut monitor = Monitor::start(&world.redis);
    assert!(writer.publish(&changes).unwrap_err().is_invalid_path());
    assert_eq!(monitor.commands(), [] as [&str; 0]);
}

fn the_cache_tells_whether_it_is_complete<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    assert!(!reader.status().unwrap().is_warm());
    assert_eq!(reader.explain("x.py").unwrap().cause, Cause::CacheCold);
    store(world, "surplus.py", b"x");
    let report = writer.publish_exact(&[module("a.py", "a")]).unwrap();
    assert_eq!((report.written, report.removed), (1, 1));
    assert!(report.complete);
    assert!(reader.status().unwrap().is_warm());
    assert_eq!(reader.explain("x.py").unwrap().cause, Cause::NotCached);
    assert_eq!(reader.explain("a.py").unwrap().cause, Cause::Cached);
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py"]));
}

fn refresh_brings_paths_to_what_the_source_says<F: Facade>(world: &World<F>) {
    let (reader, writer) = (world.reader::<F>(), world.writer::<F>());
    writer.set(&module("gone.py", "old")).unwrap();
    writer.set(&module("a.py", "old")).unwrap();
    let source = [module("a.py", "new"), module("b.py", "new")];
    let report = writer
        .refresh_to(&["a.py", "b.py", "gone.py", "never.py"], &source)
        .unwrap();
    assert_eq!((report.written, report.removed), (2, 2));
    assert_eq!(reader.paths().unwrap(), set_of(&["a.py", "b.py"]));
    let found = reader.get_many(&["a.py", "b.py", "gone.py"]).unwrap();
    let [a, b] = source.map(Some);
    assert_eq!(found, [a, b, None]);
}

#[test]
fn every_future_can_cross_threads() {
    fn check<T: Send>(_: T) {}
    // The futures are dropped without a poll: nothing is sent.
    let config = || Config::new("redis://127.0.0.1:1").unwrap();
    let reader = nonblocking::ModuleReader::new(config()).unwrap();
    check(reader.get("a.py"));
    check(reader.get_many(&["a.py"]));
    check(reader.paths());
    check(reader.status());
    check(reader.explain("a.py"));
    check(reader.resolve("a"));
    check(reader.resolve_many(&["a"]));
    check(reader.explain_name("a"));
    let writer = nonblocking::ModuleWriter::new(config()).unwrap();
    let module = module("a.py", "");
    check(writer.set(&module));
    check(writer.invalidate("a.py"));
    check(writer.rename("a.py", &module));
    check(writer.clear());
    check(writer.publish(&[]));
    check(writer.publish_exact(&[]));
    check(writer.publish_exact_with(&[], SyncOptions::default()));
    check(writer.refresh_from(&["a.py"], |_| async { Ok::<_, Error>(Vec::new()) }));
}

#[test]
fn readers_and_writers_can_be_shared_cloned_and_printed() {
    fn check<T: Clone + Send + Sync + Debug + 'static>() {}
    check::<blocking::ModuleReader>();
    check::<blocking::ModuleWriter>();
    check::<nonblocking::ModuleReader>();
    check::<nonblocking::ModuleWriter>();
}

#[test]
fn constructors_need_neither_a_server_nor_a_runtime() {
    assert!(tokio::runtime::Handle::try_current().is_err());
    let config = || Config::new("redis://127.0.0.1:1").unwrap();
    blocking::ModuleReader::new(config()).unwrap();
    blocking::ModuleWriter::new(config()).unwrap();
    nonblocking::ModuleReader::new(config()).unwrap();
    nonblocking::ModuleWriter::new(config()).unwrap();
}

#[test]
fn a_writer_with_a_reader_s_user_is_refused() {
    fn check<F: Facade>(world: &World<F>) {
        let kept = module("kept.py", "kept");
        world.writer::<F>().set(&kept).unwrap();
        let before = everything(world);
        let writer = F::Writer::new(world.reader_config()).unwrap();
        for error in [
            writer.set(&module("a.py", "")).unwrap_err(),
            writer.invalidate("kept.py").unwrap_err(),
            writer.rename("kept.py", &module("a.py", "")).unwrap_err(),
            writer.clear().unwrap_err(),
            writer
                .publish(&[Change::Remove("kept.py".into())])
                .unwrap_err(),
        ] {
            assert_code(&error, "NOPERM");
            assert!(!error.is_transient());
        }
        assert_eq!(everything(world), before);
        assert_eq!(writer.reader().get("kept.py").unwrap(), Some(kept));
    }
    check::<Blocking>(&World::acl());
    check::<Nonblocking>(&World::acl());
}

#[test]
fn the_documented_users_may_do_nothing_else() {
    if RedisServer::is_old() {
        return; // It has no way to ask.
    }
    let world = World::<Blocking>::acl();
    let mut redis = world.redis.connection();
    let writer_line = format!("{WRITER_ACL} {WRITER_OPTION}");
    for (user, line) in [
        ("bifrost_reader", READER_ACL),
        ("bifrost_writer", &writer_line),
    ] {
        let mut expected: Vec<&str> = line
            .split(' ')
            .filter_map(|word| word.strip_prefix('+'))
            .collect();
        // Redis lets every user send these.
        expected.extend(["auth", "quit", "reset"]);
        expected.sort_unstable();
        assert_eq!(permitted(&mut redis, user), expected, "{user}");
        for foreign in ["other", "bifrost:", "bifrost:module", "bifrost:modules:a"] {
            assert!(
                !may(&mut redis, user, &["GET", foreign]),
                "{user}: {foreign}"
            );
        }
    }
    assert!(!may(&mut redis, "bifrost_writer", &["SET", "other", "x"]));
}

#[test]
fn the_security_page_has_the_lines_of_the_users() {
    let page = include_str!("../../docs/security.md");
    for line in [READER_ACL, WRITER_ACL] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
    assert!(page.contains(&format!("`{WRITER_OPTION}`")));
}

/// All commands that the user may use on the key of a module.
fn permitted(redis: &mut redis::Connection, user: &str) -> Vec<String> {
    let mut names: Vec<String> = redis::cmd("COMMAND").arg("LIST").query(redis).unwrap();
    let argument = "bifrost:module:a.py";
    names.retain(|name| {
        // With a wrong number of arguments the answer is an error for every user.
        (0..10).any(|arguments| {
            let mut command: Vec<&str> = name.split('|').collect();
            command.extend(vec![argument; arguments]);
            may(redis, user, &command)
        })
    });
    names.sort_unstable();
    names
}

fn may(redis: &mut redis::Connection, user: &str, command: &[&str]) -> bool {
    let answer: redis::RedisResult<String> = redis::cmd("ACL")
        .arg("DRYRUN")
        .arg(user)
        .arg(command)
        .query(redis);
    answer.is_ok_and(|answer| answer == "OK")
}
