//! The hot path: a lookup, beside the bare connection and decoder that it can't be faster than.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bifrost_module_cache::{CachedModule, Config, blocking, keys, nonblocking};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use serde::Deserialize;
use tokio::runtime::Runtime;

#[path = "../tests/support/mod.rs"]
mod support;

use support::RedisServer;

/// What the floor decodes into.
#[derive(Deserialize)]
#[allow(dead_code, reason = "decoded to be timed")]
struct Entry {
    content: String,
    path: String,
    hash: String,
}

const SIZES: [usize; 3] = [1, 10, 100];

/// Python-like source text of so many kilobytes.
fn source(kilobytes: usize) -> String {
    let line = "    result = await client.fetch(\"https://example.com/api\", timeout=30)  # n\n";
    line.repeat(kilobytes * 1024 / line.len() + 1)
}

fn path(kilobytes: usize) -> String {
    format!("shared/module_{kilobytes}.py")
}

struct Bench {
    server: RedisServer,
    client: redis::Client,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let server = RedisServer::start();
        let writer = blocking::ModuleWriter::new(Config::new(server.url()).unwrap()).unwrap();
        for size in SIZES {
            writer
                .set(&CachedModule::new(path(size), source(size)).unwrap())
                .unwrap();
        }
        for n in 0..100 {
            writer
                .set(&CachedModule::new(format!("many/{n}.py"), source(10)).unwrap())
                .unwrap();
        }
        let info = server.url().into_connection_info().unwrap();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            server,
            client,
            runtime,
        }
    }

    fn config(&self) -> Config {
        Config::new(self.server.url()).unwrap()
    }

    async fn bare(&self) -> MultiplexedConnection {
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        self.client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .unwrap()
    }
}

fn many() -> Vec<String> {
    (0..100).map(|n| format!("many/{n}.py")).collect()
}

fn get(path: &str) -> redis::Cmd {
    let mut command = redis::cmd("GET");
    command.arg(keys::module_key(path).unwrap());
    command
}

fn decode(json: Option<Vec<u8>>) -> Option<Entry> {
    json.map(|json| serde_json::from_slice(&json).unwrap())
}

fn blocking_get(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut bare = bench.client.get_connection().unwrap();
    let reader = blocking::ModuleReader::new(bench.config()).unwrap();
    let mut group = criterion.benchmark_group("blocking get");
    for size in SIZES {
        let path = path(size);
        group.throughput(Throughput::Bytes(size as u64 * 1024));
        group.bench_function(
            BenchmarkId::new("floor: raw GET and serde_json", format!("{size} KB")),
            |bencher| {
                bencher.iter(|| decode(get(black_box(&path)).query(&mut bare).unwrap()).unwrap());
            },
        );
        group.bench_function(
            BenchmarkId::new("ModuleReader::get", format!("{size} KB")),
            |bencher| {
                bencher.iter(|| reader.get(black_box(&path)).unwrap().unwrap());
            },
        );
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function(
        BenchmarkId::new("floor: raw GET and serde_json", "absent"),
        |bencher| {
            bencher.iter(|| decode(get(black_box("absent.py")).query(&mut bare).unwrap()));
        },
    );
    group.bench_function(BenchmarkId::new("ModuleReader::get", "absent"), |bencher| {
        bencher.iter(|| reader.get(black_box("absent.py")).unwrap());
    });
    group.finish();

    let mut group = criterion.benchmark_group("blocking get_many of 100");
    let paths = many();
    group.bench_function("floor: raw MGET and serde_json", |bencher| {
        bencher.iter(|| {
            let keys: Vec<_> = paths
                .iter()
                .map(|path| keys::module_key(path).unwrap())
                .collect();
            let found: Vec<Option<Vec<u8>>> =
                redis::cmd("MGET").arg(&keys).query(&mut bare).unwrap();
            found.into_iter().map(decode).collect::<Vec<_>>()
        });
    });
    group.bench_function("ModuleReader::get_many", |bencher| {
        bencher.iter(|| reader.get_many(black_box(&paths)).unwrap());
    });
    group.finish();
}

fn nonblocking_get(criterion: &mut Criterion) {
    let bench = Bench::new();
    let bare = bench.runtime.block_on(bench.bare());
    let reader = nonblocking::ModuleReader::new(bench.config()).unwrap();
    let mut group = criterion.benchmark_group("nonblocking get");
    for size in SIZES {
        let path = path(size);
        group.throughput(Throughput::Bytes(size as u64 * 1024));
        group.bench_function(
            BenchmarkId::new("floor: raw GET and serde_json", format!("{size} KB")),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut bare = bare.clone();
                    timed(&bench.runtime, async {
                        for _ in 0..iterations {
                            black_box(
                                decode(get(black_box(&path)).query_async(&mut bare).await.unwrap())
                                    .unwrap(),
                            );
                        }
                    })
                });
            },
        );
        group.bench_function(
            BenchmarkId::new("ModuleReader::get", format!("{size} KB")),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    timed(&bench.runtime, async {
                        for _ in 0..iterations {
                            black_box(reader.get(black_box(&path)).await.unwrap().unwrap());
                        }
                    })
                });
            },
        );
    }
    group.finish();

    let mut group = criterion.benchmark_group("nonblocking, 64 tasks, 10 KB");
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor: raw GET and serde_json", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(
                &bench.runtime,
                spread(iterations, |times| {
                    let mut bare = bare.clone();
                    async move {
                        for _ in 0..times {
                            black_box(
                                decode(get(&path(10)).query_async(&mut bare).await.unwrap())
                                    .unwrap(),
                            );
                        }
                    }
                }),
            )
        });
    });
    group.bench_function("ModuleReader::get", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(
                &bench.runtime,
                spread(iterations, |times| {
                    let reader = reader.clone();
                    async move {
                        for _ in 0..times {
                            black_box(reader.get(&path(10)).await.unwrap().unwrap());
                        }
                    }
                }),
            )
        });
    });
    group.finish();
}

fn timed(runtime: &Runtime, work: impl Future) -> Duration {
    let start = Instant::now();
    runtime.block_on(work);
    start.elapsed()
}

/// So many iterations shared by 64 tasks.
async fn spread<F: Future<Output = ()> + Send + 'static>(iterations: u64, task: impl Fn(u64) -> F) {
    let tasks: Vec<_> = (0..64)
        .map(|n| tokio::spawn(task(iterations / 64 + u64::from(n < iterations % 64))))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

criterion_group!(benches, blocking_get, nonblocking_get);
criterion_main!(benches);
