//! The hot path: a lookup, beside the bare client of the library and `serde_json`, which it can't be
//! faster than, and beside other pools.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::{CachedModule, Config, blocking, keys, nonblocking};
use criterion::{Criterion, criterion_group, criterion_main};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use serde::Deserialize;
use tokio::runtime::Runtime;

mod ratio;
#[path = "../tests/support/mod.rs"]
mod support;

use ratio::{Effort, FAST, Ratio, compare, timed, timed_after};
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
const THREADS: usize = 8;
const TASKS: u64 = 64;
const BARE: &str = "a bare client and serde_json";

/// Python-like source text of so many kilobytes.
fn source(kilobytes: usize) -> String {
    let line = "    result = await client.fetch(\"https://example.com/api\", timeout=30)  # n\n";
    line.repeat(kilobytes * 1024 / line.len() + 1)
}

fn path(kilobytes: usize) -> String {
    format!("shared/module_{kilobytes}.py")
}

fn many() -> Vec<String> {
    (0..100).map(|n| format!("many/{n}.py")).collect()
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
        let modules = SIZES.map(|size| CachedModule::new(path(size), source(size)));
        let many = many()
            .into_iter()
            .map(|path| CachedModule::new(path, source(10)));
        for module in modules.into_iter().chain(many) {
            writer.set(&module.unwrap()).unwrap();
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

    fn reader(&self) -> blocking::ModuleReader {
        blocking::ModuleReader::new(self.config()).unwrap()
    }

    fn bare(&self) -> redis::Connection {
        self.client.get_connection().unwrap()
    }

    fn multiplexed(&self) -> MultiplexedConnection {
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&settings);
        self.runtime.block_on(connecting).unwrap()
    }
}

fn get(path: &str) -> redis::Cmd {
    let mut command = redis::cmd("GET");
    command.arg(keys::module_key(path).unwrap());
    command
}

fn decode(json: Option<Vec<u8>>) -> Option<Entry> {
    json.map(|json| serde_json::from_slice(&json).unwrap())
}

fn get_bare(connection: &mut impl redis::ConnectionLike, path: &str) -> Option<Entry> {
    decode(get(path).query(connection).unwrap())
}

fn blocking_get(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let (mut bare, reader) = (bench.bare(), bench.reader());
    let cases = SIZES.map(|size| (path(size), format!("{size} KB")));
    for (path, name) in cases
        .into_iter()
        .chain([("absent.py".to_owned(), "absent".to_owned())])
    {
        compare(
            criterion,
            &format!("blocking get, {name}"),
            FAST,
            (
                BARE,
                Box::new(|n| timed(n, || get_bare(&mut bare, black_box(&path)))),
            ),
            vec![(
                "ModuleReader::get",
                Box::new(|n| timed(n, || reader.get(black_box(&path)).unwrap())),
            )],
        );
    }
    let paths = many();
    let keys: Vec<String> = paths
        .iter()
        .map(|path| keys::module_key(path).unwrap())
        .collect();
    let mut get_many = || {
        let mget = redis::cmd("MGET").arg(&keys).query(&mut bare);
        let found: Vec<Option<Vec<u8>>> = mget.unwrap();
        found.into_iter().map(decode).collect::<Vec<_>>()
    };
    compare(
        criterion,
        "blocking get_many of 100",
        FAST,
        (BARE, Box::new(|n| timed(n, &mut get_many))),
        vec![(
            "ModuleReader::get_many",
            Box::new(|n| timed(n, || reader.get_many(black_box(&paths)).unwrap())),
        )],
    );
}

/// The first lookup after a pause, and the very first one.
fn after_idleness(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let (mut bare, reader, path) = (bench.bare(), bench.reader(), path(10));
    for (name, idle, effort) in [
        ("10 ms", Duration::from_millis(10), FAST),
        (
            "3 s",
            Duration::from_secs(3),
            Effort {
                samples: 10,
                seconds: 1,
            },
        ),
    ] {
        let pause = || thread::sleep(idle);
        compare(
            criterion,
            &format!("blocking get, 10 KB, after {name} of idleness"),
            effort,
            (
                BARE,
                Box::new(|n| timed_after(n, pause, |()| get_bare(&mut bare, &path))),
            ),
            vec![(
                "ModuleReader::get",
                Box::new(|n| timed_after(n, pause, |()| reader.get(&path).unwrap())),
            )],
        );
    }
    compare(
        criterion,
        "blocking get, 10 KB, the very first",
        FAST,
        (
            BARE,
            Box::new(|n| timed(n, || get_bare(&mut bench.bare(), &path))),
        ),
        vec![(
            "ModuleReader::get",
            Box::new(|n| timed(n, || bench.reader().get(&path).unwrap())),
        )],
    );
}

/// How long it takes until so many calls are done, shared by all threads.
fn in_threads<T: Sync>(turns: u64, shared: &T, call: impl Fn(&T, usize) + Sync) -> Duration {
    let barrier = Barrier::new(THREADS + 1);
    let each = turns.div_ceil(THREADS as u64);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (barrier, call) = (&barrier, &call);
                scope.spawn(move || {
                    barrier.wait();
                    for _ in 0..each {
                        call(shared, thread);
                    }
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().unwrap();
        }
        start.elapsed()
    })
}

fn eight_threads(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let path = path(10);
    let bare: Vec<_> = (0..THREADS)
        .map(|_| std::sync::Mutex::new(bench.bare()))
        .collect();
    let reader = bench.reader();
    // As they come, but for as many connections as there are threads.
    let r2d2 = r2d2::Pool::builder()
        .max_size(8)
        .build(bench.client.clone())
        .unwrap();
    let untested = r2d2::Pool::builder()
        .max_size(8)
        .test_on_check_out(false)
        .build(bench.client.clone())
        .unwrap();
    compare(
        criterion,
        "blocking get, 10 KB, 8 threads",
        FAST,
        (
            "a bare client each and serde_json",
            Box::new(|n| {
                in_threads(n, &bare, |bare, thread| {
                    black_box(get_bare(&mut *bare[thread].lock().unwrap(), &path));
                })
            }),
        ),
        vec![
            (
                "ModuleReader::get",
                Box::new(|n| {
                    in_threads(n, &reader, |reader, _| {
                        black_box(reader.get(&path).unwrap());
                    })
                }),
            ),
            (
                "r2d2 with redis's manager",
                Box::new(|n| {
                    in_threads(n, &r2d2, |pool, _| {
                        black_box(get_bare(&mut *pool.get().unwrap(), &path));
                    })
                }),
            ),
            (
                "the same, connections untested",
                Box::new(|n| {
                    in_threads(n, &untested, |pool, _| {
                        black_box(get_bare(&mut *pool.get().unwrap(), &path));
                    })
                }),
            ),
        ],
    );
}

fn nonblocking_get(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let bare = bench.multiplexed();
    let reader = nonblocking::ModuleReader::new(bench.config()).unwrap();
    for size in SIZES {
        let path = path(size);
        compare(
            criterion,
            &format!("nonblocking get, {size} KB"),
            FAST,
            (
                BARE,
                Box::new(|n| {
                    let mut bare = bare.clone();
                    in_a_task(&bench.runtime, async {
                        for _ in 0..n {
                            let json = get(black_box(&path)).query_async(&mut bare).await;
                            black_box(decode(json.unwrap()));
                        }
                    })
                }),
            ),
            vec![(
                "ModuleReader::get",
                Box::new(|n| {
                    in_a_task(&bench.runtime, async {
                        for _ in 0..n {
                            black_box(reader.get(black_box(&path)).await.unwrap());
                        }
                    })
                }),
            )],
        );
    }
    let deadpool = deadpool_redis::Config::from_url(bench.server.url())
        .builder()
        .unwrap()
        .max_size(8)
        .runtime(deadpool_redis::Runtime::Tokio1)
        .build()
        .unwrap();
    compare(
        criterion,
        "nonblocking get, 10 KB, 64 tasks",
        FAST,
        (
            BARE,
            Box::new(|n| {
                let task = |turns| {
                    let mut bare = bare.clone();
                    async move {
                        for _ in 0..turns {
                            let json = get(&path(10)).query_async(&mut bare).await;
                            black_box(decode(json.unwrap()));
                        }
                    }
                };
                in_a_task(&bench.runtime, in_tasks(n, task))
            }),
        ),
        vec![
            (
                "ModuleReader::get",
                Box::new(|n| {
                    let task = |turns| {
                        let reader = reader.clone();
                        async move {
                            for _ in 0..turns {
                                black_box(reader.get(&path(10)).await.unwrap());
                            }
                        }
                    };
                    in_a_task(&bench.runtime, in_tasks(n, task))
                }),
            ),
            (
                "deadpool-redis with 8 connections",
                Box::new(|n| {
                    let task = |turns| {
                        let pool = deadpool.clone();
                        async move {
                            for _ in 0..turns {
                                let mut connection = pool.get().await.unwrap();
                                let json = get(&path(10)).query_async(&mut connection).await;
                                black_box(decode(json.unwrap()));
                            }
                        }
                    };
                    in_a_task(&bench.runtime, in_tasks(n, task))
                }),
            ),
        ],
    );
}

fn in_a_task(runtime: &Runtime, work: impl Future) -> Duration {
    let start = Instant::now();
    runtime.block_on(work);
    start.elapsed()
}

/// So many turns shared by all tasks.
async fn in_tasks<F: Future<Output = ()> + Send + 'static>(turns: u64, task: impl Fn(u64) -> F) {
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(task(turns.div_ceil(TASKS))))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio);
    targets = blocking_get, after_idleness, eight_threads, nonblocking_get
}
criterion_main!(benches);
