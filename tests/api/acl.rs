//! The two ACL users can do all that their facade offers, and nothing else.

use std::collections::BTreeSet;

use crate::support::{
    Blocking, Facade, OLD_READ_ONLY_KEYS, READ_ONLY_KEYS, READER_ACL, Reader, RedisServer, Syncing,
    TENANT, WRITER_ACL, WRITER_OPTION, World, Writer, behind, connect, module, on_both_facades,
};
use bifrost_module_cache::diagnosis::Cause;
use bifrost_module_cache::sync::{Change, SyncOptions};
use bifrost_module_cache::{Config, Error, Resolution};
use redis::{RedisResult, Value};

on_both_facades! {
    the_reader_can_do_all_that_a_reader_offers
    the_writer_can_do_all_that_a_writer_offers
    the_writer_finds_unlisted_entries_only_where_it_may_scan
    the_reader_s_user_can_not_write
    another_database_needs_one_permission_more
}

/// Redis lets every user send these.
const ALWAYS: [&str; 4] = ["auth", "hello", "quit", "reset"];

const READER: [&str; 14] = [
    "get",
    "mget",
    "exists",
    "smembers",
    "sismember",
    "smismember",
    "sscan",
    "scard",
    "ping",
    "info",
    "client|id",
    "client|setname",
    "client|tracking",
    "client|trackinginfo",
];

const WRITER: [&str; 12] = [
    "set", "setex", "mset", "del", "sadd", "srem", "watch", "unwatch", "multi", "exec", "discard",
    "pttl",
];

/// A command of the server, or one of its subcommands, such as `client|id`.
struct Leaf {
    name: String,
    /// With its name; if negative, at least so many.
    arity: i64,
    has_key: bool,
}

impl Leaf {
    /// Tries it with this word for every argument.
    fn is_permitted(&self, url: &str, argument: &str) -> bool {
        let mut words = self.name.split('|');
        let mut command = redis::cmd(words.next().unwrap());
        let mut given = 1;
        for word in words {
            command.arg(word);
            given += 1;
        }
        for _ in given..self.arity.abs() {
            command.arg(argument);
        }
        // A connection of its own: some change it, or end it.
        let result: RedisResult<Value> = command.query(&mut connect(url));
        let Err(error) = result else {
            return true;
        };
        let (code, detail) = (error.code().unwrap_or_default(), error.detail());
        // EXEC has a code of its own; what a server's settings forbid is said before.
        let refused = ["NOPERM", "command not allowed"];
        !refused
            .iter()
            .any(|text| code == *text || detail.is_some_and(|detail| detail.contains(text)))
    }
}

/// All that the server knows.
fn leaves(server: &RedisServer) -> Vec<Leaf> {
    let all: Vec<Vec<Value>> = redis::cmd("COMMAND")
        .query(&mut server.connection())
        .unwrap();
    let mut leaves = Vec::new();
    for command in all {
        // From Redis 7 on, subcommands come tenth.
        let subcommands = command.get(9).cloned().unwrap_or(Value::Nil);
        let subcommands: Vec<Vec<Value>> = redis::from_redis_value(subcommands).unwrap();
        if subcommands.is_empty() {
            leaves.push(leaf(&command));
        }
        leaves.extend(subcommands.iter().map(|command| leaf(command)));
    }
    leaves
}

fn leaf(command: &[Value]) -> Leaf {
    let number = |index: usize| -> i64 { redis::from_redis_value(command[index].clone()).unwrap() };
    Leaf {
        name: redis::from_redis_value(command[0].clone()).unwrap(),
        arity: number(1),
        has_key: number(3) > 0,
    }
}

fn assert_permits_exactly(server: &RedisServer, url: &str, permitted: &[&[&str]]) {
    const OURS: [&str; 3] = [
        "bifrost:module:a.py",
        "bifrost:module:index",
        "bifrost:module-cache:complete",
    ];
    const FOREIGN: [&str; 5] = [
        "foreign",
        "bifrost:module",
        "bifrost:modules",
        "bifrost:module-cache",
        "x:bifrost:module:a.py",
    ];
    let leaves = leaves(server);
    assert!(leaves.len() > 200, "{}", leaves.len());
    let found: BTreeSet<&str> = leaves
        .iter()
        .filter(|leaf| leaf.is_permitted(url, OURS[0]))
        .map(|leaf| leaf.name.as_str())
        .collect();
    let expected = permitted.iter().copied().flatten().copied();
    // Redis 6 lists neither QUIT nor any subcommand, and lets no user RESET.
    let is_listed = |name: &&str| !matches!(*name, "quit" | "reset") && !name.contains('|');
    let expected: BTreeSet<&str> = expected
        .filter(|name| !RedisServer::is_old() || is_listed(name))
        .collect();
    assert_eq!(found, expected);
    for leaf in leaves.iter().filter(|leaf| found.contains(&*leaf.name)) {
        for key in OURS {
            assert!(leaf.is_permitted(url, key), "{} {key}", leaf.name);
        }
        for key in FOREIGN {
            let permitted = leaf.is_permitted(url, key);
            assert_eq!(permitted, !leaf.has_key, "{} {key}", leaf.name);
        }
    }
}

#[test]
fn the_reader_may_do_exactly_this() {
    let world = World::<Blocking>::acl();
    assert_permits_exactly(&world.redis, &world.reader_url, &[&READER, &ALWAYS]);
}

#[test]
fn the_writer_may_do_exactly_this() {
    let world = World::<Blocking>::narrow_acl();
    let permitted: [&[&str]; 3] = [&READER, &WRITER, &ALWAYS];
    assert_permits_exactly(&world.redis, &world.writer_url, &permitted);
}

#[test]
fn the_writer_s_option_adds_one_command() {
    let world = World::<Blocking>::acl();
    let permitted: [&[&str]; 4] = [&READER, &WRITER, &["scan"], &ALWAYS];
    assert_permits_exactly(&world.redis, &world.writer_url, &permitted);
}

#[test]
fn a_tenant_s_users_reach_no_other_namespace() {
    let world = World::<Blocking>::tenant();
    for url in [&world.reader_url, &world.writer_url] {
        let may = |key: &str| {
            let answer: RedisResult<Value> = redis::cmd("GET").arg(key).query(&mut connect(url));
            answer.is_ok()
        };
        assert!(may(&world.key("a.py")) && may("{tenant-a}:bifrost:module-cache:complete"));
        for other in [
            "bifrost:module:a.py",
            "{tenant-b}:bifrost:module:a.py",
            "{tenant-a}:",
        ] {
            assert!(!may(other), "{other}");
        }
    }
}

#[test]
fn the_security_page_has_these_lines() {
    let page = include_str!("../../docs/security.md");
    let lines: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("ACL SETUSER"))
        .collect();
    assert_eq!(lines, [READER_ACL, WRITER_ACL]);
    assert!(page.contains(&format!("`{WRITER_OPTION}`")));
    assert!(page.contains("`+select`"));
    let tenant = |line| behind(TENANT, line);
    let keys = |line: String| line.split(" resetchannels").next().unwrap().to_owned();
    for line in [READER_ACL, WRITER_ACL] {
        let keys = keys(tenant(line)).split_once('>').unwrap().1.to_owned();
        let keys = keys.split_once(' ').unwrap().1;
        assert!(page.contains(&format!("`{keys}`")), "{keys}");
    }
    assert!(READER_ACL.contains(READ_ONLY_KEYS));
    let advice = format!("with `{OLD_READ_ONLY_KEYS}` in place of `{READ_ONLY_KEYS}`");
    assert!(page.contains(&advice));
}

#[test]
fn neither_user_may_publish_or_listen() {
    let world = World::<Blocking>::acl();
    for url in [&world.reader_url, &world.writer_url] {
        let mut redis = connect(url);
        for command in ["PUBLISH", "SUBSCRIBE", "PSUBSCRIBE"] {
            let mut command = redis::cmd(command);
            command.arg("bifrost:module:a.py").arg("x");
            let error = command.exec(&mut redis).unwrap_err();
            assert_eq!(error.code(), Some("NOPERM"));
        }
    }
}

fn the_reader_can_do_all_that_a_reader_offers<F: Facade>() {
    let world = World::<F>::acl();
    let one = module("a.py", "a");
    let writer = world.writer::<F>();
    writer.publish_exact(std::slice::from_ref(&one)).unwrap();
    for parameters in ["", "?protocol=resp3"] {
        let url = format!("{}{parameters}", world.reader_url);
        let reader = F::Reader::new(Config::new(&url).unwrap()).unwrap();
        assert_eq!(reader.get("a.py").unwrap(), Some(one.clone()));
        let found = reader.get_many(&["a.py", "b.py"]).unwrap();
        assert_eq!(found, [Some(one.clone()), None]);
        assert_eq!(reader.paths().unwrap().len(), 1);
        assert!(reader.status().unwrap().is_warm());
        assert_eq!(reader.explain("a.py").unwrap().cause, Cause::Cached);
        assert_eq!(reader.explain("b.py").unwrap().cause, Cause::NotCached);
        let found = reader.resolve_many(&["a", "b"]).unwrap();
        assert_eq!(
            found,
            [Resolution::Module(one.clone().into()), Resolution::NotFound]
        );
        assert_eq!(reader.resolve("a").unwrap(), found[0]);
        let explained = reader.explain_name("b").unwrap();
        assert_eq!(explained.cause, Cause::NotCached);
    }
}

fn the_writer_can_do_all_that_a_writer_offers<F: Facade<Writer: Syncing>>() {
    for world in [World::<F>::acl(), World::narrow_acl(), World::tenant()] {
        let (writer, mut table) = (&world.writer, world.table());

        table.put("a.py", "a");
        let report = world.warm(SyncOptions::default());
        assert!(report.complete && report.written == 1, "{report:?}");
        assert!(world.status().is_warm());
        assert_eq!(world.get("a.py").as_deref(), Some("a"));

        table.put("a.py", "new");
        table.put("b.py", "b");
        assert_eq!(world.refresh(&["a.py", "gone.py"]).written, 1);
        let drift = world.verify();
        assert_eq!(drift.missing, ["b.py"], "{drift:?}");
        let report = world.repair(SyncOptions::default());
        assert_eq!(report.written, 1, "{report:?}");
        assert_eq!(world.get("b.py").as_deref(), Some("b"));

        let (c, d) = (module("c.py", "c"), module("d.py", "d"));
        writer.set(&c).unwrap();
        writer.rename("c.py", &d).unwrap();
        writer.invalidate("a.py").unwrap();
        let changes = [Change::Set(c.clone()), Change::Remove("b.py".into())];
        writer.publish(&changes).unwrap();
        let paths = writer.reader().paths().unwrap();
        assert_eq!(paths, ["c.py", "d.py"].map(String::from).into());
        writer
            .refresh_to(&["c.py", "d.py"], std::slice::from_ref(&c))
            .unwrap();
        assert_eq!(writer.publish_exact(&[d]).unwrap().removed, 1);
        let explained = writer.reader().explain("c.py").unwrap();
        assert_eq!(explained.cause, Cause::NotCached);
        assert_eq!(writer.clear().unwrap().removed, 1);
    }
}

fn the_writer_finds_unlisted_entries_only_where_it_may_scan<F: Facade<Writer: Syncing>>() {
    for (world, may_scan) in [(World::<F>::acl(), true), (World::<F>::narrow_acl(), false)] {
        world.table().put("a.py", "a");
        world.foreign().set_key("ghost.py", "{}");
        let drift = world.verify();
        assert_eq!(drift.scanned, may_scan, "{drift:?}");
        assert_eq!(drift.ghost.len(), usize::from(may_scan), "{drift:?}");
        let report = world.warm(SyncOptions::default());
        assert_eq!(report.scanned, may_scan, "{report:?}");
        assert_eq!(report.pruned, usize::from(may_scan), "{report:?}");
        world.foreign().set_key("ghost.py", "{}");
        let report = world.writer.clear().unwrap();
        assert_eq!(report.scanned, may_scan, "{report:?}");
        assert_eq!(report.removed, 1 + u64::from(may_scan), "{report:?}");
        assert_eq!(world.get("a.py"), None);
        let ghost = world.foreign().entry("ghost.py").value;
        assert_eq!(ghost.is_none(), may_scan);
    }
}

fn is_no_permission(error: &Error) -> bool {
    matches!(error, Error::Refused { code: "NOPERM", .. }) && !error.is_transient()
}

fn the_reader_s_user_can_not_write<F: Facade>() {
    let world = World::<F>::acl();
    let one = module("a.py", "a");
    world.writer::<F>().set(&one).unwrap();
    let intruder = F::Writer::new(world.reader_config()).unwrap();
    for error in [
        intruder.set(&module("a.py", "evil")).unwrap_err(),
        intruder.invalidate("a.py").unwrap_err(),
        intruder
            .rename("a.py", &module("b.py", "evil"))
            .unwrap_err(),
        intruder.clear().map(drop).unwrap_err(),
        intruder
            .publish_exact(&[module("b.py", "evil")])
            .map(drop)
            .unwrap_err(),
        intruder.refresh_to(&["a.py"], &[]).map(drop).unwrap_err(),
    ] {
        assert!(is_no_permission(&error), "{error:?}");
    }
    let found = world.reader::<F>().get("a.py").unwrap();
    assert_eq!(found, Some(one));
}

fn another_database_needs_one_permission_more<F: Facade>() {
    let world = World::<F>::narrow_acl();
    let in_database_1 = |url: &str| Config::new(url.replace("/0", "/1")).unwrap();
    let writer = || F::Writer::new(in_database_1(&world.writer_url)).unwrap();
    let reader = || F::Reader::new(in_database_1(&world.reader_url)).unwrap();
    let one = module("a.py", "a");
    for error in [
        writer().set(&one).unwrap_err(),
        reader().get("a.py").map(drop).unwrap_err(),
    ] {
        // In one facade, the library keeps to itself that it is NOPERM.
        assert!(error.is_refused() && !error.is_transient(), "{error:?}");
    }
    for user in ["bifrost_reader", "bifrost_writer"] {
        world.redis.command(&format!("ACL SETUSER {user} +select"));
    }
    writer().set(&one).unwrap();
    assert_eq!(reader().get("a.py").unwrap(), Some(one));
    assert_eq!(world.reader::<F>().get("a.py").unwrap(), None);
}
