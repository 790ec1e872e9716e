//! Names that are not ours, which most imports ask for: beside the one round trip that they cost.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bifrost_module_cache::{CachedModule, Config, Resolution, blocking, keys, nonblocking};
use criterion::{Criterion, criterion_group, criterion_main};
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use tokio::runtime::Runtime;

mod ratio;
#[path = "../tests/support/mod.rs"]
mod support;

use ratio::{FAST, Ratio, compare, timed};
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

fn blocking(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let mut bare = bench.client.get_connection().unwrap();
    let reader = blocking::ModuleReader::new(bench.config()).unwrap();
    bench.server.reset_stats();
    let start = Instant::now();
    let mut names = bench.names.iter().cycle();
    let mut others = bench.names.iter().cycle();
    compare(
        criterion,
        "blocking, a name that is not ours",
        FAST,
        (
            "a bare MGET of its two paths",
            Box::new(|n| {
                timed(n, || {
                    let command = mget(black_box(names.next().unwrap()));
                    let reply: Reply = command.query(&mut bare).unwrap();
                    assert_eq!(reply, (None, None));
                })
            }),
        ),
        vec![(
            "ModuleReader::resolve",
            Box::new(|n| {
                timed(n, || {
                    let answer = reader.resolve(black_box(others.next().unwrap())).unwrap();
                    assert_eq!(answer, Resolution::NotFound);
                })
            }),
        )],
    );
    // One round trip each, and the index once a second.
    let (names, seconds) = (bench.server.calls("mget"), start.elapsed().as_secs());
    let indexes = bench.server.calls("smembers");
    assert!(reader.stats().calls <= names && indexes <= seconds + 2);
}

#[cfg(feature = "near-cache")]
fn near(criterion: &mut Criterion<Ratio>) {
    use bifrost_module_cache::near::NearCacheOptions;
    let bench = Bench::new();
    let reader = blocking::ModuleReader::new(bench.config()).unwrap();
    let near = blocking::NearCache::new(reader, NearCacheOptions::default()).unwrap();
    support::wait_until("it follows Redis", support::PATIENCE, || near.is_live());
    let hits: Vec<String> = (0..NAMES)
        .map(|n| format!("shared/part_{}/module_{n}.py", n % 100))
        .collect();
    near.prefetch().unwrap();
    let snapshot = near.snapshot().unwrap();
    for name in &bench.names {
        near.resolve(name).unwrap();
    }
    bench.server.reset_stats();
    let mut paths = hits.iter().cycle();
    let mut names = bench.names.iter().cycle();
    let mut others = bench.names.iter().cycle();
    compare(
        criterion,
        "in memory, a name that is not ours",
        FAST,
        (
            "NearCache::get of a module",
            Box::new(|n| timed(n, || near.get(black_box(paths.next().unwrap())).unwrap())),
        ),
        vec![
            (
                "NearCache::resolve",
                Box::new(|n| {
                    timed(n, || {
                        near.resolve(black_box(names.next().unwrap())).unwrap()
                    })
                }),
            ),
            (
                "Snapshot::resolve",
                Box::new(|n| {
                    timed(n, || {
                        snapshot.resolve(black_box(others.next().unwrap())).unwrap()
                    })
                }),
            ),
        ],
    );
    let calls = ["mget", "get", "smembers", "smismember"];
    assert_eq!(calls.map(|command| bench.server.calls(command)), [0; 4]);
}

#[cfg(not(feature = "near-cache"))]
fn near(_: &mut Criterion<Ratio>) {}

fn nonblocking(criterion: &mut Criterion<Ratio>) {
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
    compare(
        criterion,
        "nonblocking, a name that is not ours",
        FAST,
        (
            "a bare MGET of its two paths",
            Box::new(|n| {
                let mut bare = bare.clone();
                in_a_task(&runtime, async {
                    for name in bench.names.iter().cycle().take(usize::try_from(n).unwrap()) {
                        let reply = mget(black_box(name)).query_async(&mut bare).await;
                        assert_eq!(reply, Ok::<Reply, _>((None, None)));
                    }
                })
            }),
        ),
        vec![(
            "ModuleReader::resolve",
            Box::new(|n| {
                in_a_task(&runtime, async {
                    for name in bench.names.iter().cycle().take(usize::try_from(n).unwrap()) {
                        let answer = reader.resolve(black_box(name)).await.unwrap();
                        assert_eq!(answer, Resolution::NotFound);
                    }
                })
            }),
        )],
    );
}

fn in_a_task(runtime: &Runtime, work: impl Future) -> Duration {
    let start = Instant::now();
    runtime.block_on(work);
    start.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio);
    targets = blocking, nonblocking, near
}
criterion_main!(benches);
