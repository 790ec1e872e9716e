//! A hit of the near cache, beside the map that it can't be faster than, and the round trip that it
//! saves.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::{CachedModule, Config, NearCacheOptions, blocking, nonblocking};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{RedisServer, wait_until};

type Found = Option<Arc<CachedModule>>;

/// What an import of a service touches.
const PATHS: usize = 60;
const THREADS: u32 = 2;

/// The floor.
struct Map(RwLock<HashMap<String, Found>>);

impl Map {
    fn get(&self, path: &str) -> Found {
        self.0.read().unwrap().get(path).cloned().flatten()
    }
}

struct Bench {
    map: Map,
    reader: blocking::ModuleReader,
    near: blocking::NearCache,
    async_near: nonblocking::NearCache,
    runtime: Runtime,
    present: Vec<String>,
    absent: Vec<String>,
    // Last: the others talk to it.
    _server: RedisServer,
}

impl Bench {
    fn new() -> Self {
        let server = RedisServer::start();
        let config = || Config::new(server.url()).unwrap();
        let writer = blocking::ModuleWriter::new(config()).unwrap();
        let line =
            "    result = await client.fetch(\"https://example.com/api\", timeout=30)  # n\n";
        let mut map = HashMap::new();
        let mut present = Vec::new();
        let mut absent = Vec::new();
        for n in 0..PATHS {
            let path = format!("shared/package/module_{n}.py");
            let module = CachedModule::new(&path, line.repeat(136)).unwrap();
            writer.set(&module).unwrap();
            map.insert(path.clone(), Some(Arc::new(module)));
            present.push(path);
            let path = format!("shared/package/nothing_{n}.py");
            map.insert(path.clone(), None);
            absent.push(path);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let reader = blocking::ModuleReader::new(config()).unwrap();
        // Nothing may grow old while it is measured.
        let options = NearCacheOptions::default().with_max_age(Duration::from_secs(3_600));
        let near = blocking::NearCache::new(reader.clone(), options.clone()).unwrap();
        let async_near = runtime.block_on(async {
            let reader = nonblocking::ModuleReader::new(config()).unwrap();
            nonblocking::NearCache::new(reader, options).unwrap()
        });
        wait_until("Redis is followed", Duration::from_secs(20), || {
            near.is_live() && async_near.is_live()
        });
        for path in present.iter().chain(&absent) {
            near.get(path).unwrap();
            runtime.block_on(async_near.get(path)).unwrap();
        }
        Self {
            map: Map(RwLock::new(map)),
            reader,
            near,
            async_near,
            runtime,
            present,
            absent,
            _server: server,
        }
    }

    /// So many lookups one after the other, in one task.
    fn in_a_task(&self, iterations: u64, paths: &[String]) -> Duration {
        self.runtime.block_on(async {
            let mut paths = paths.iter().cycle();
            let start = Instant::now();
            for _ in 0..iterations {
                let path = paths.next().unwrap();
                black_box(self.async_near.get(black_box(path)).await.unwrap());
            }
            start.elapsed()
        })
    }
}

fn one_thread<T>(iterations: u64, paths: &[String], get: impl Fn(&str) -> T) -> Duration {
    let mut paths = paths.iter().cycle();
    let start = Instant::now();
    for _ in 0..iterations {
        let path = paths.next().unwrap();
        black_box(get(black_box(path)));
    }
    start.elapsed()
}

/// The same in several threads at once: how long the last one takes for its share.
fn threads<T>(iterations: u64, paths: &[String], get: impl Fn(&str) -> T + Sync) -> Duration {
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let work = || {
            barrier.wait();
            one_thread(iterations, paths, &get)
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let times = threads.into_iter().map(|thread| thread.join().unwrap());
        times.max().unwrap()
    })
}

fn near(criterion: &mut Criterion) {
    let bench = Bench::new();
    let get = |path: &str| bench.near.get(path).unwrap();
    let floor = |path: &str| bench.map.get(path);
    let reader = |path: &str| bench.reader.get(path).unwrap();
    let one = &bench.present[..1];
    for (name, paths) in [
        ("one module", one),
        ("60 modules", &bench.present),
        ("one absent path", &bench.absent[..1]),
        ("60 absent paths", &bench.absent),
    ] {
        assert!(paths.iter().all(|path| get(path) == floor(path)));
        let before = (bench.near.stats(), bench.async_near.stats());
        let mut group = criterion.benchmark_group(format!("near cache, {name}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("floor: RwLock<HashMap<String, Arc<_>>>", |bencher| {
            bencher.iter_custom(|iterations| one_thread(iterations, paths, floor));
        });
        group.bench_function("blocking::NearCache::get", |bencher| {
            bencher.iter_custom(|iterations| one_thread(iterations, paths, get));
        });
        group.bench_function("nonblocking::NearCache::get", |bencher| {
            bencher.iter_custom(|iterations| bench.in_a_task(iterations, paths));
        });
        group.throughput(Throughput::Elements(THREADS.into()));
        group.bench_function("floor with two threads", |bencher| {
            bencher.iter_custom(|iterations| threads(iterations, paths, floor));
        });
        group.bench_function("blocking::NearCache::get with two threads", |bencher| {
            bencher.iter_custom(|iterations| threads(iterations, paths, get));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function("without: blocking::ModuleReader::get", |bencher| {
            bencher.iter_custom(|iterations| one_thread(iterations, paths, reader));
        });
        group.finish();
        // Otherwise something else was measured.
        let after = (bench.near.stats(), bench.async_near.stats());
        assert_eq!(
            (before.0.misses, before.1.misses),
            (after.0.misses, after.1.misses)
        );
        assert_eq!(
            (before.0.bypasses, before.1.bypasses),
            (after.0.bypasses, after.1.bypasses)
        );
    }
}

criterion_group!(benches, near);
criterion_main!(benches);
