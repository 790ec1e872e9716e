//! A hit of the near cache, beside maps without its promises, and the round trip that it saves.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{CachedModule, Config, blocking, nonblocking};
use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::fast::RandomState;
use tokio::runtime::Runtime;

mod ratio;
#[path = "../tests/support/mod.rs"]
mod support;

use ratio::{FAST, Ratio, Runner, SLOW, compare};
use support::{RedisServer, wait_until};

type Found = Option<Arc<CachedModule>>;

/// What an import of a service touches.
const PATHS: usize = 60;

/// Several times the processors in the end.
const THREADS: [usize; 3] = [1, 2, 8];

struct Map<S>(RwLock<HashMap<String, Found, S>>);

impl<S: BuildHasher> Map<S> {
    fn get(&self, path: &str) -> Found {
        self.0.read().unwrap().get(path).cloned().flatten()
    }
}

struct Bench {
    map: Map<std::hash::RandomState>,
    folding: Map<RandomState>,
    moka: moka::sync::Cache<String, Found>,
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
        let moka = moka::sync::Cache::new(64 << 20);
        for (path, found) in &map {
            moka.insert(path.clone(), found.clone());
        }
        Self {
            folding: Map(RwLock::new(map.clone().into_iter().collect())),
            moka,
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

    /// One after the other, in one task.
    fn in_a_task(&self, lookups: u64, paths: &[String]) -> Duration {
        self.runtime.block_on(async {
            let mut paths = paths.iter().cycle();
            let start = Instant::now();
            for _ in 0..lookups {
                let path = paths.next().unwrap();
                black_box(self.async_near.get(black_box(path)).await.unwrap());
            }
            start.elapsed()
        })
    }
}

fn in_a_thread<T>(lookups: u64, paths: &[String], get: impl Fn(&str) -> T) -> Duration {
    let mut paths = paths.iter().cycle();
    let start = Instant::now();
    for _ in 0..lookups {
        let path = paths.next().unwrap();
        black_box(get(black_box(path)));
    }
    start.elapsed()
}

/// In so many threads at once: how long it takes until all have had their lookups.
fn in_threads<T>(
    threads: usize,
    lookups: u64,
    paths: &[String],
    get: impl Fn(&str) -> T + Sync,
) -> Duration {
    if threads == 1 {
        return in_a_thread(lookups, paths, get);
    }
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let work = || {
            barrier.wait();
            in_a_thread(lookups, paths, &get)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().unwrap();
        }
        start.elapsed()
    })
}

fn hits(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let get = |path: &str| bench.near.get(path).unwrap();
    for (name, paths) in [
        ("one module", &bench.present[..1]),
        ("60 modules", &bench.present),
        ("one absent path", &bench.absent[..1]),
        ("60 absent paths", &bench.absent),
    ] {
        assert!(paths.iter().all(|path| get(path) == bench.map.get(path)));
        let before = (bench.near.stats(), bench.async_near.stats());
        for threads in THREADS {
            let mut rivals: Vec<(&str, Runner<'_>)> = vec![
                (
                    "blocking::NearCache",
                    Box::new(|n| in_threads(threads, n, paths, get)),
                ),
                (
                    "the map with foldhash",
                    Box::new(|n| in_threads(threads, n, paths, |path| bench.folding.get(path))),
                ),
                (
                    "moka",
                    Box::new(|n| in_threads(threads, n, paths, |path| bench.moka.get(path))),
                ),
            ];
            if threads == 1 {
                rivals.push((
                    "nonblocking::NearCache",
                    Box::new(|n| bench.in_a_task(n, paths)),
                ));
            }
            let plural = if threads == 1 { "" } else { "s" };
            compare(
                criterion,
                &format!("near hit, {name}, {threads} thread{plural}"),
                FAST,
                (
                    "an RwLock<HashMap<String, Arc<_>>>",
                    Box::new(|n| in_threads(threads, n, paths, |path| bench.map.get(path))),
                ),
                rivals,
            );
        }
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

fn round_trip(criterion: &mut Criterion<Ratio>) {
    let bench = Bench::new();
    let paths = &bench.present;
    compare(
        criterion,
        "a lookup without a near cache",
        SLOW,
        (
            "a hit of one",
            Box::new(|n| in_a_thread(n, paths, |path| bench.near.get(path).unwrap())),
        ),
        vec![(
            "blocking::ModuleReader::get",
            Box::new(|n| in_a_thread(n, paths, |path| bench.reader.get(path).unwrap())),
        )],
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ratio);
    targets = hits, round_trip
}
criterion_main!(benches);
