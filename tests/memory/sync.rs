//! A warm-up streams: what it needs does not grow with the workspace.

use std::any::type_name;
use std::process::Command;

use crate::support::{
    Blocking, Facade, Nonblocking, Postgres, RedisServer, Syncing, Writer, numbered,
    on_both_facades, writer,
};
use bifrost_module_cache::sync::SyncOptions;

on_both_facades! {
    large_modules_need_no_more_than_a_warm_up
}

/// Set in a child: the facade, its work, and the two servers' addresses.
const CHILD: &str = "BIFROST_TEST_MEMORY_CHILD";

const MIB: u64 = 1024 * 1024;

/// The child: does its work, and says how much memory it needed at its peak.
#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else {
        return;
    };
    let order: Vec<&str> = order.split('|').collect();
    let [facade, work, redis, database] = order[..] else {
        panic!("{order:?}");
    };
    let changed = if facade == type_name::<Blocking>() {
        changed_by::<Blocking>(work, redis, database)
    } else {
        changed_by::<Nonblocking>(work, redis, database)
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("PEAK {changed} {}", peak * 1024);
}

/// Does this work; answers how many modules it has changed, or found to differ.
fn changed_by<F: Facade<Writer: Syncing>>(work: &str, redis: &str, database: &str) -> usize {
    let (writer, mut client) = (writer::<F>(redis), F::Writer::connect(database));
    let options = SyncOptions::default().with_allow_empty(true);
    match work {
        "warm" => writer.warm_with(&mut client, options).unwrap().written,
        "verify" => writer.verify_with(&mut client, options).unwrap().paths(),
        "repair" => {
            let report = writer.repair_with(&mut client, options).unwrap();
            report.written + report.removed
        }
        "refresh" => {
            let report = writer.refresh(&mut client, &large_paths()).unwrap();
            report.written + report.removed
        }
        other => panic!("{other}"),
    }
}

fn peak<F: Facade>(work: &str, redis: &RedisServer, database: &Postgres, modules: usize) -> u64 {
    let facade = type_name::<F>();
    let (redis, database) = (redis.url(), database.url());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sync::child", "--nocapture"])
        .env(CHILD, format!("{facade}|{work}|{redis}|{database}"))
        .output()
        .unwrap();
    let output = String::from_utf8(child.stdout).unwrap();
    let line = output.lines().find_map(|line| line.split_once("PEAK "));
    let (changed, peak) = line.expect(&output).1.split_once(' ').unwrap();
    assert_eq!(changed, modules.to_string());
    let peak = peak.parse().unwrap();
    println!("{work}: {} MiB", peak / MIB);
    peak
}

fn peak_of_a_warm_up(modules: i32) -> u64 {
    let (redis, database) = (RedisServer::start(), Postgres::start());
    database.create_workspace("workspace_files");
    database
        .client()
        .execute(
            "INSERT INTO workspace_files (id, path, content, content_hash, entity_type, is_deleted, updated_at)
             SELECT gen_random_uuid(), 'package_' || n % 100 || '/module_' || n || '.py',
                    repeat(md5(n::text) || E'\\n', 310), NULL, 'module', FALSE, now()
             FROM generate_series(1, $1) AS n",
            &[&modules],
        )
        .unwrap();
    peak::<Blocking>("warm", &redis, &database, usize::try_from(modules).unwrap())
}

/// Of the modules that fit into memory only one after another.
fn large_paths() -> Vec<String> {
    numbered(70)
}

fn large_modules_need_no_more_than_a_warm_up<F: Facade<Writer: Syncing>>() {
    let (redis, database) = (RedisServer::start(), Postgres::start());
    database.create_workspace("workspace_files");
    let paths = large_paths();
    let mut client = database.client();
    let insert = "INSERT INTO workspace_files (path, content, entity_type)
        SELECT path, repeat('x', 1 << 20), 'module' FROM unnest($1::text[]) AS path";
    client.execute(insert, &[&paths]).unwrap();
    let peak = |work: &str| peak::<F>(work, &redis, &database, paths.len());
    assert!(peak("verify") < 64 * MIB);
    assert!(peak("repair") < 64 * MIB);
    redis::cmd("FLUSHALL")
        .exec(&mut redis.connection())
        .unwrap();
    assert!(peak("refresh") < 64 * MIB);
    client.batch_execute("DELETE FROM workspace_files").unwrap();
    assert!(peak("verify") < 64 * MIB);
}

#[test]
fn ten_thousand_modules_of_10_kb_need_less_than_64_mib() {
    let peak = peak_of_a_warm_up(10_000);
    println!("peak {} MiB", peak / MIB);
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);
}

#[test]
#[ignore = "long: make soak"]
fn soak_fifty_thousand_modules_need_little_more_than_ten_thousand() {
    let (small, large) = (peak_of_a_warm_up(10_000), peak_of_a_warm_up(50_000));
    println!(
        "peak {} MiB for 10,000 modules, {} MiB for 50,000",
        small / MIB,
        large / MIB
    );
    // The paths themselves are held: some hundred bytes each.
    assert!(large < small + 24 * MIB && large < 64 * MIB);
}
