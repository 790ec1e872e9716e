//! A hit of the near cache, beside maps without its promises, and the round trip that it saves.
//!
//! All take turns in short rounds, so that what disturbs the machine disturbs all; what is printed
//! is the median of their ratios to the first, the floor, round by round.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{CachedModule, Config, blocking, nonblocking};
use foldhash::fast::RandomState;
use tokio::runtime::Runtime;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{RedisServer, wait_until};

type Found = Option<Arc<CachedModule>>;

/// What an import of a service touches.
const PATHS: usize = 60;

/// Several times the processors in the end.
const THREADS: [usize; 3] = [1, 2, 8];
const ROUNDS: usize = 60;
const LOOKUPS: u32 = 20_000;

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
    fn in_a_task(&self, paths: &[String]) -> Duration {
        self.runtime.block_on(async {
            let mut paths = paths.iter().cycle();
            let start = Instant::now();
            for _ in 0..LOOKUPS {
                let path = paths.next().unwrap();
                black_box(self.async_near.get(black_box(path)).await.unwrap());
            }
            start.elapsed()
        })
    }
}

fn in_a_thread<T>(lookups: u32, paths: &[String], get: impl Fn(&str) -> T) -> Duration {
    let mut paths = paths.iter().cycle();
    let start = Instant::now();
    for _ in 0..lookups {
        let path = paths.next().unwrap();
        black_box(get(black_box(path)));
    }
    start.elapsed()
}

/// In so many threads at once: how long the last one takes for its share.
fn in_threads<T>(threads: usize, paths: &[String], get: impl Fn(&str) -> T + Sync) -> Duration {
    if threads == 1 {
        return in_a_thread(LOOKUPS, paths, get);
    }
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let work = || {
            barrier.wait();
            in_a_thread(LOOKUPS, paths, &get)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let times = threads.into_iter().map(|thread| thread.join().unwrap());
        times.max().unwrap()
    })
}

/// Something that takes part: its name, and how long it takes for a round.
type Runner<'a> = (&'a str, Box<dyn Fn() -> Duration + 'a>);

fn compare(title: &str, runners: &[Runner<'_>]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); runners.len()];
    for round in 0..=ROUNDS {
        for (runner, times) in runners.iter().zip(&mut times) {
            let time = runner.1();
            // The first is to warm up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    println!("{title}");
    for ((name, _), own) in runners.iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]);
        let ratio = median(ratios.map(|(own, floor)| own.as_secs_f64() / floor.as_secs_f64()));
        let nanos = median(own.iter().map(Duration::as_secs_f64)) / f64::from(LOOKUPS) * 1e9;
        println!("  {name:<42} {nanos:>8.1} ns {ratio:>6.2} x");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
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
            let floor = || in_threads(threads, paths, |path| bench.map.get(path));
            let folding = || in_threads(threads, paths, |path| bench.folding.get(path));
            let moka = || in_threads(threads, paths, |path| bench.moka.get(path));
            let near = || in_threads(threads, paths, get);
            let mut runners: Vec<Runner<'_>> = vec![
                ("floor: RwLock<HashMap<String, Arc<_>>>", Box::new(floor)),
                ("the same with foldhash", Box::new(folding)),
                ("moka::sync::Cache", Box::new(moka)),
                ("blocking::NearCache", Box::new(near)),
            ];
            if threads == 1 {
                let task = || bench.in_a_task(paths);
                runners.push(("nonblocking::NearCache", Box::new(task)));
            }
            compare(&format!("{name}, threads: {threads}"), &runners);
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
    let lookups = LOOKUPS / 100;
    let time = in_a_thread(lookups, &bench.present, |path| {
        bench.reader.get(path).unwrap()
    });
    println!("without a near cache: {:?} a lookup", time / lookups);
}
