//! A warm-up streams: what it needs does not grow with the workspace.

mod support;

use std::process::Command;

use bifrost_module_cache::blocking::ModuleWriter;
use bifrost_module_cache::{Config, postgres};
use support::{Postgres, RedisServer};

/// Set in a child: the two servers' addresses.
const CHILD: &str = "BIFROST_TEST_WARM_CHILD";

const MIB: u64 = 1024 * 1024;

/// The child: warms, and says how much memory it needed at its peak.
#[test]
fn child() {
    let Ok(urls) = std::env::var(CHILD) else {
        return;
    };
    let (redis, database) = urls.split_once('|').unwrap();
    let writer = ModuleWriter::new(Config::new(redis).unwrap()).unwrap();
    let mut client = postgres::Client::connect(database, postgres::NoTls).unwrap();
    let report = writer.warm_from_db(&mut client).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("PEAK {} {}", report.written, peak * 1024);
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
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{}|{}", redis.url(), database.url()))
        .output()
        .unwrap();
    let output = String::from_utf8(child.stdout).unwrap();
    let line = output
        .lines()
        .find_map(|line| line.split_once("PEAK "))
        .expect(&output)
        .1;
    let (written, peak) = line.split_once(' ').unwrap();
    assert_eq!(written, modules.to_string());
    peak.parse().unwrap()
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
