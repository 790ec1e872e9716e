//! Names that are not ours, which most imports ask for: beside the one round trip that they cost.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bifrost_module_cache::{CachedModule, Config, Resolution, blocking, keys, nonblocking};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use tokio::runtime::Runtime;

#[path = "../tests/support/mod.rs"]
mod support;

use support::RedisServer;

/// How many modules the workspace has, and how many names are asked for at a time.
const MODULES: usize = 10_000;
const NAMES: usize = 1_000;

struct Bench {
    server: RedisServer,
    client: redis::Client,
    names: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let server = RedisServer::start();
        let modules: Vec<_> = (0..MODULES)
            .map(|n| CachedModule::new(format!("shared/part_{}/module_{n}.py", n % 100), "x = 1\n"))
            .collect::<Result<_, _>>()
            .unwrap();
        let writer = blocking::ModuleWriter::new(Config::new(server.url()).unwrap()).unwrap();
        writer.publish_exact(&modules).unwrap();
        let info = server.url().into_connection_info().unwrap();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(info.set_tcp_settings(tcp)).unwrap();
        let names = (0..NAMES).map(|n| format!("package_{n}.module")).collect();
        Self {
            server,
            client,
            names,
        }
    }

    fn config(&self) -> Config {
        Config::new(self.server.url()).unwrap()
    }
}

/// What a name can't do without.
fn mget(name: &str) -> redis::Cmd {
    let directory = name.replace('.', "/");
    let mut command = redis::cmd("MGET");
    for path in [
        format!("{directory}/__init__.py"),
        format!("{directory}.py"),
    ] {
        command.arg(keys::module_key(&path).unwrap());
    }
    command
}

type Reply = (Option<Vec<u8>>, Option<Vec<u8>>);

fn blocking(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut bare = bench.client.get_connection().unwrap();
    let reader = blocking::ModuleReader::new(bench.config()).unwrap();
    let mut group = criterion.benchmark_group("blocking, 1,000 foreign names");
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("floor: raw MGET each", |bencher| {
        bencher.iter(|| {
            for name in &bench.names {
                let reply: Reply = mget(black_box(name)).query(&mut bare).unwrap();
                assert_eq!(reply, (None, None));
            }
        });
    });
    bench.server.reset_stats();
    let start = Instant::now();
    group.bench_function("ModuleReader::resolve each", |bencher| {
        bencher.iter(|| {
            for name in &bench.names {
                let answer = reader.resolve(black_box(name)).unwrap();
                assert_eq!(answer, Resolution::NotFound);
            }
        });
    });
    let (names, seconds) = (bench.server.calls("mget"), start.elapsed().as_secs());
    let indexes = bench.server.calls("smembers");
    println!(
        "{names} names in {seconds} s cost {} calls and {indexes} SMEMBERS",
        reader.stats().calls
    );
    assert!(reader.stats().calls <= names && indexes <= seconds + 2);
    group.bench_function("ModuleReader::resolve_many at once", |bencher| {
        bencher.iter(|| reader.resolve_many(black_box(&bench.names)).unwrap());
    });
    group.finish();
}

#[cfg(feature = "near-cache")]
fn near(criterion: &mut Criterion) {
    use bifrost_module_cache::near::NearCacheOptions;
    let bench = Bench::new();
    let reader = blocking::ModuleReader::new(bench.config()).unwrap();
    let near = blocking::NearCache::new(reader, NearCacheOptions::default()).unwrap();
    support::wait_until("it follows Redis", support::PATIENCE, || near.is_live());
    let hits: Vec<String> = (0..NAMES)
        .map(|n| format!("shared/part_{}/module_{n}.py", n % 100))
        .collect();
    near.prefetch().unwrap();
    let mut group = criterion.benchmark_group("near cache, 1,000 foreign names");
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("floor: NearCache::get of a module each", |bencher| {
        bencher.iter(|| {
            for path in &hits {
                black_box(near.get(black_box(path)).unwrap());
            }
        });
    });
    let resolve_all = |names: &[String]| {
        for name in names {
            black_box(near.resolve(black_box(name)).unwrap());
        }
    };
    resolve_all(&bench.names);
    bench.server.reset_stats();
    group.bench_function("NearCache::resolve each", |bencher| {
        bencher.iter(|| resolve_all(&bench.names));
    });
    let calls = ["mget", "get", "smembers", "smismember"];
    assert_eq!(calls.map(|command| bench.server.calls(command)), [0; 4]);
    group.finish();
}

#[cfg(not(feature = "near-cache"))]
fn near(_: &mut Criterion) {}

fn nonblocking(criterion: &mut Criterion) {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let connecting = bench
        .client
        .get_multiplexed_async_connection_with_config(&settings);
    let bare = runtime.block_on(connecting).unwrap();
    let reader = nonblocking::ModuleReader::new(bench.config()).unwrap();
    let mut group = criterion.benchmark_group("nonblocking, 1,000 foreign names");
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("floor: raw MGET each", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut bare = bare.clone();
            timed(&runtime, async {
                for _ in 0..iterations {
                    for name in &bench.names {
                        let reply: Reply =
                            mget(black_box(name)).query_async(&mut bare).await.unwrap();
                        assert_eq!(reply, (None, None));
                    }
                }
            })
        });
    });
    group.bench_function("ModuleReader::resolve each", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(&runtime, async {
                for _ in 0..iterations {
                    for name in &bench.names {
                        let answer = reader.resolve(black_box(name)).await.unwrap();
                        assert_eq!(answer, Resolution::NotFound);
                    }
                }
            })
        });
    });
    group.finish();
}

fn timed(runtime: &Runtime, work: impl Future) -> Duration {
    let start = Instant::now();
    runtime.block_on(work);
    start.elapsed()
}

criterion_group!(benches, blocking, nonblocking, near);
criterion_main!(benches);
