//! The warm-up of 10,000 modules of 10 KB, beside what it can't be faster than (reading the rows)
//! and what it replaces (the specification's loop).

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bifrost_module_cache::blocking::ModuleWriter;
use bifrost_module_cache::postgres::fallible_iterator::FallibleIterator as _;
use bifrost_module_cache::sync::WarmReport;
use bifrost_module_cache::{CachedModule, Config, keys, nonblocking, tokio_postgres};
use criterion::{Criterion, criterion_group, criterion_main};

mod ratio;
#[path = "../tests/support/mod.rs"]
mod support;

use ratio::{Ratio, SLOW, compare, timed, timed_after};
use support::{Postgres, Proxy, RedisServer};

const MODULES: i32 = 10_000;

const ROWS: &str = "SELECT path, content, content_hash FROM workspace_files \
                    WHERE entity_type = 'module' AND is_deleted = FALSE AND content IS NOT NULL";

fn fill(postgres: &Postgres, modules: i32) {
    postgres.create_workspace("workspace_files");
    // Lines that do not compress away as TOAST: a real module is no repetition either.
    postgres
        .client()
        .execute(
            "INSERT INTO workspace_files (id, path, content, content_hash, entity_type, is_deleted, updated_at)
             SELECT gen_random_uuid(), 'package_' || n % 100 || '/module_' || n || '.py', body, md5(body) || md5(body),
                    'module', FALSE, now()
             FROM generate_series(1, $1) AS n,
                  LATERAL (SELECT string_agg(md5(n || ':' || line) || ' = call(' || line || E')\\n', '') AS body
                           FROM generate_series(1, 223) AS line) AS text",
            &[&modules],
        )
        .unwrap();
}

fn fetch_alone(client: &mut bifrost_module_cache::postgres::Client) -> usize {
    let mut rows = client
        .query_typed_raw(ROWS, Vec::<(&str, tokio_postgres::types::Type)>::new())
        .unwrap();
    let mut bytes = 0;
    while let Some(row) = rows.next().unwrap() {
        bytes += row.get::<_, String>(1).len() + row.get::<_, String>(0).len();
    }
    bytes
}

/// The specification's loop: all rows, then SET and SADD for each.
fn naive(
    client: &mut bifrost_module_cache::postgres::Client,
    redis: &mut redis::Connection,
    most: usize,
) -> usize {
    let rows = client.query(ROWS, &[]).unwrap();
    for row in rows.iter().take(most) {
        let module = CachedModule::with_hash(
            row.get::<_, String>(0),
            row.get::<_, String>(1),
            row.get::<_, Option<String>>(2).unwrap_or_default(),
        )
        .unwrap();
        let key = keys::module_key(&module.path).unwrap();
        redis::cmd("SET")
            .arg(key)
            .arg(module.to_json())
            .exec(redis)
            .unwrap();
        redis::cmd("SADD")
            .arg(keys::MODULE_INDEX_KEY)
            .arg(&module.path)
            .exec(redis)
            .unwrap();
    }
    rows.len()
}

/// The same as the specification has it, in Python with redis-py: the rows are given to it, and it
/// tells how long the loop took.
const NAIVE_PYTHON: &str = r#"
import json, sys, time
import redis

client = redis.Redis.from_url(sys.argv[1])
rows = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
start = time.perf_counter()
for row in rows:
    client.set("bifrost:module:" + row["path"], json.dumps(row))
    client.sadd("bifrost:module:index", row["path"])
print(time.perf_counter() - start)
"#;

fn naive_python(url: &str, rows: &Path) -> Duration {
    let python = Command::new(support::python())
        .args(["-c", NAIVE_PYTHON, url])
        .arg(rows)
        .output()
        .unwrap();
    let seconds = String::from_utf8(python.stdout).unwrap();
    Duration::from_secs_f64(seconds.trim().parse().unwrap())
}

fn write_rows(client: &mut bifrost_module_cache::postgres::Client, rows: &Path) {
    let mut file = BufWriter::new(File::create(rows).unwrap());
    for row in client.query(ROWS, &[]).unwrap() {
        let module = CachedModule::with_hash(
            row.get::<_, String>(0),
            row.get::<_, String>(1),
            row.get::<_, String>(2),
        );
        file.write_all(&module.unwrap().to_json()).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
}

fn flush(server: &RedisServer) {
    redis::cmd("FLUSHALL")
        .exec(&mut server.connection())
        .unwrap();
}

/// The time that `part` tells out of each of so many warm-ups from cold.
fn from_cold(
    turns: u64,
    server: &RedisServer,
    mut warm: impl FnMut() -> WarmReport,
    part: fn(&WarmReport) -> Duration,
) -> Duration {
    (0..turns)
        .map(|_| {
            flush(server);
            let report = warm();
            assert!(
                report.verified() && report.written == MODULES as usize,
                "{report}"
            );
            part(&report)
        })
        .sum()
}

#[allow(clippy::too_many_lines, reason = "one comparison after the other")]
fn warm(criterion: &mut Criterion<Ratio>) {
    let (server, postgres) = (RedisServer::start(), Postgres::start());
    fill(&postgres, MODULES);
    let mut client = postgres.client();
    let mut floor_client = postgres.client();
    let writer = ModuleWriter::new(Config::new(server.url()).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let async_client = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&postgres.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    });
    let async_writer = nonblocking::ModuleWriter::new(Config::new(server.url()).unwrap()).unwrap();
    let async_warm = || {
        let warm = async_writer.warm_from_db(&async_client);
        runtime.block_on(warm).unwrap()
    };
    let client = std::cell::RefCell::new(&mut client);
    let warm = || writer.warm_from_db(&mut client.borrow_mut()).unwrap();
    compare(
        criterion,
        "warm-up of 10,000 × 10 KB",
        SLOW,
        (
            "reading the rows alone",
            Box::new(|n| timed(n, || fetch_alone(&mut floor_client))),
        ),
        vec![
            (
                "blocking, load",
                Box::new(|n| from_cold(n, &server, warm, |report| report.load_elapsed)),
            ),
            (
                "blocking, load and verify",
                Box::new(|n| from_cold(n, &server, warm, |report| report.elapsed)),
            ),
            (
                "nonblocking, load",
                Box::new(|n| from_cold(n, &server, async_warm, |report| report.load_elapsed)),
            ),
            (
                "nonblocking, load and verify",
                Box::new(|n| from_cold(n, &server, async_warm, |report| report.elapsed)),
            ),
            (
                "blocking, already warm",
                Box::new(|n| {
                    warm();
                    timed(n, warm)
                }),
            ),
        ],
    );
    let mut redis = server.connection();
    let directory = tempfile::tempdir().unwrap();
    let rows = directory.path().join("rows.json");
    write_rows(&mut client.borrow_mut(), &rows);
    let empty = || flush(&server);
    compare(
        criterion,
        "the specification's loop, 10,000 × 10 KB",
        SLOW,
        (
            "blocking, load and verify",
            Box::new(|n| from_cold(n, &server, warm, |report| report.elapsed)),
        ),
        vec![
            (
                "as a Rust program",
                Box::new(|n| {
                    timed_after(n, empty, |()| {
                        naive(&mut client.borrow_mut(), &mut redis, usize::MAX)
                    })
                }),
            ),
            (
                "in Python, without reading the rows",
                Box::new(|n| {
                    let loops = (0..n).map(|_| {
                        flush(&server);
                        naive_python(&server.url(), &rows)
                    });
                    loops.sum()
                }),
            ),
        ],
    );
    let proxy = Proxy::start(server.port());
    proxy.set_latency(Duration::from_micros(2_500));
    let remote = ModuleWriter::new(Config::new(proxy.url()).unwrap()).unwrap();
    let mut far = support::connect(&proxy.url());
    compare(
        criterion,
        "2.5 ms away, 10,000 × 10 KB",
        SLOW,
        (
            "blocking, load and verify",
            Box::new(|n| {
                let warm = || remote.warm_from_db(&mut client.borrow_mut()).unwrap();
                from_cold(n, &server, warm, |report| report.elapsed)
            }),
        ),
        vec![(
            // It takes a minute: a hundredth stands for all.
            "the specification's loop as a Rust program",
            Box::new(|n| {
                let part = MODULES as usize / 100;
                100 * timed(n, || naive(&mut client.borrow_mut(), &mut far, part))
            }),
        )],
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio);
    targets = warm
}
criterion_main!(benches);
