//! The warm-up of 10,000 modules of 10 KB, beside what it can't be faster than (reading the rows)
//! and what it replaces (the specification's loop).

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bifrost_module_cache::blocking::ModuleWriter;
use bifrost_module_cache::postgres::fallible_iterator::FallibleIterator as _;
use bifrost_module_cache::sync::WarmReport;
use bifrost_module_cache::{CachedModule, Config, keys, nonblocking, tokio_postgres};
use criterion::{Criterion, criterion_group, criterion_main};

#[path = "../tests/support/mod.rs"]
mod support;

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
    iterations: u64,
    server: &RedisServer,
    mut warm: impl FnMut() -> WarmReport,
    part: fn(&WarmReport) -> Duration,
) -> Duration {
    (0..iterations)
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

fn warm(criterion: &mut Criterion) {
    let (server, postgres) = (RedisServer::start(), Postgres::start());
    fill(&postgres, MODULES);
    let mut client = postgres.client();
    let writer = ModuleWriter::new(Config::new(server.url()).unwrap()).unwrap();

    let mut group = criterion.benchmark_group("warm-up, 10,000 modules of 10 KB");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("floor: reading the rows", |bencher| {
        bencher.iter(|| fetch_alone(&mut client));
    });
    group.bench_function("blocking, load", |bencher| {
        bencher.iter_custom(|n| {
            from_cold(
                n,
                &server,
                || writer.warm_from_db(&mut client).unwrap(),
                |r| r.load_elapsed,
            )
        });
    });
    group.bench_function("blocking, load and verify", |bencher| {
        bencher.iter_custom(|n| {
            from_cold(
                n,
                &server,
                || writer.warm_from_db(&mut client).unwrap(),
                |r| r.elapsed,
            )
        });
    });
    group.bench_function("blocking, already warm", |bencher| {
        writer.warm_from_db(&mut client).unwrap();
        bencher.iter(|| writer.warm_from_db(&mut client).unwrap());
    });
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
    let mut async_warm = || {
        runtime
            .block_on(async_writer.warm_from_db(&async_client))
            .unwrap()
    };
    group.bench_function("nonblocking, load", |bencher| {
        bencher.iter_custom(|n| from_cold(n, &server, &mut async_warm, |r| r.load_elapsed));
    });
    group.bench_function("nonblocking, load and verify", |bencher| {
        bencher.iter_custom(|n| from_cold(n, &server, &mut async_warm, |r| r.elapsed));
    });
    let mut redis = server.connection();
    let directory = tempfile::tempdir().unwrap();
    let rows = directory.path().join("rows.json");
    write_rows(&mut client, &rows);
    group.bench_function(
        "the specification's loop, in Python, without its SELECT",
        |bencher| {
            bencher.iter_custom(|n| {
                (0..n)
                    .map(|_| {
                        flush(&server);
                        naive_python(&server.url(), &rows)
                    })
                    .sum()
            });
        },
    );
    group.bench_function("the specification's loop", |bencher| {
        bencher.iter_custom(|n| {
            (0..n)
                .map(|_| {
                    flush(&server);
                    let start = Instant::now();
                    assert_eq!(naive(&mut client, &mut redis, usize::MAX), MODULES as usize);
                    start.elapsed()
                })
                .sum()
        });
    });
    group.finish();

    far_away(criterion, &server, &mut client);
}

/// With 2.5 ms of latency the specification's loop takes a minute: a hundredth of it stands for
/// all.
fn far_away(
    criterion: &mut Criterion,
    server: &RedisServer,
    client: &mut bifrost_module_cache::postgres::Client,
) {
    let proxy = Proxy::start(server.port());
    proxy.set_latency(Duration::from_micros(2_500));
    let remote = ModuleWriter::new(Config::new(proxy.url()).unwrap()).unwrap();
    let mut group = criterion.benchmark_group("warm-up, 10,000 modules of 10 KB, 2.5 ms away");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("blocking, load and verify", |bencher| {
        bencher.iter_custom(|n| {
            from_cold(
                n,
                server,
                || remote.warm_from_db(client).unwrap(),
                |r| r.elapsed,
            )
        });
    });
    group.bench_function("the specification's loop, a hundredth", |bencher| {
        let mut redis = support::connect(&proxy.url());
        bencher.iter(|| naive(client, &mut redis, MODULES as usize / 100));
    });
    group.finish();
}

criterion_group!(benches, warm);
criterion_main!(benches);
