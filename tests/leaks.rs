//! A minute under load in which the server dies every second (`make soak`).

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::diagnosis::CacheState;
use bifrost_module_cache::{CachedModule, Config, Error, blocking, nonblocking};
use support::{RedisServer, wait_until};

const MODULES: usize = 100;
const KILLS: u32 = 60;

/// 600 ms are promised for a lookup, 5 s for a bulk call; the rest is for a noisy machine.
const LOOKUP_LIMIT: Duration = Duration::from_millis(1_500);
const BULK_LIMIT: Duration = Duration::from_secs(6);

/// How long a restarted server may take to be of use.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long threads may take to end.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(10);

/// What those who call and the one who kills tell each other.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Odd while the server may be empty.
    phase: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    /// In microseconds.
    slowest_lookup: AtomicU64,
    slowest_bulk: AtomicU64,
}

/// One call out of a mix.
enum Call {
    Get(usize),
    GetMany(usize),
    Paths,
    Set,
}

impl Call {
    fn number(number: usize) -> Self {
        match number % 16 {
            0 => Self::GetMany(number % MODULES),
            1 => Self::Paths,
            2 => Self::Set,
            _ => Self::Get(number % MODULES),
        }
    }

    fn limit(&self) -> Duration {
        match self {
            Self::Get(_) | Self::Set => LOOKUP_LIMIT,
            Self::GetMany(_) | Self::Paths => BULK_LIMIT,
        }
    }
}

fn module(number: usize) -> CachedModule {
    CachedModule::new(format!("m/{number}.py"), "x = 1\n".repeat(number)).unwrap()
}

/// What is written meanwhile.
fn other() -> CachedModule {
    CachedModule::new("other.py", "").unwrap()
}

/// Ten paths from this number on.
fn ten(number: usize) -> Vec<String> {
    let numbers = (number..number + 10).map(|number| number % MODULES);
    numbers.map(|number| module(number).path).collect()
}

/// True if what was found is all there, which it must be unless the server is empty.
fn is_right(number: usize, found: Option<CachedModule>) -> bool {
    found.is_some_and(|found| {
        assert_eq!(found, module(number));
        true
    })
}

fn are_right(first: usize, found: Vec<Option<CachedModule>>) -> bool {
    let numbered = (first..).map(|number| number % MODULES).zip(found);
    // Not `all`, which would stop at the first.
    numbered.fold(true, |all, (number, found)| is_right(number, found) && all)
}

fn thread_call(writer: &blocking::ModuleWriter, call: &Call) -> Result<bool, Error> {
    let reader = writer.reader();
    Ok(match call {
        Call::Get(number) => is_right(*number, reader.get(&module(*number).path)?),
        Call::GetMany(first) => are_right(*first, reader.get_many(&ten(*first))?),
        Call::Paths => reader.paths()?.len() >= MODULES,
        Call::Set => writer.set(&other()).map(|()| true)?,
    })
}

async fn task_call(writer: &nonblocking::ModuleWriter, call: &Call) -> Result<bool, Error> {
    let reader = writer.reader();
    Ok(match call {
        Call::Get(number) => is_right(*number, reader.get(&module(*number).path).await?),
        Call::GetMany(first) => are_right(*first, reader.get_many(&ten(*first)).await?),
        Call::Paths => reader.paths().await?.len() >= MODULES,
        Call::Set => writer.set(&other()).await.map(|()| true)?,
    })
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn judge(&self, call: &Call, phase: u64, start: Instant, result: Result<bool, Error>) {
        let elapsed = start.elapsed();
        assert!(elapsed < call.limit(), "a call took {elapsed:?}");
        let slowest = match call {
            Call::Get(_) | Call::Set => &self.slowest_lookup,
            Call::GetMany(_) | Call::Paths => &self.slowest_bulk,
        };
        let micros = u64::try_from(elapsed.as_micros()).unwrap();
        slowest.fetch_max(micros, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(true) => {}
            Ok(false) => {
                let now = self.phase.load(Ordering::SeqCst);
                assert!(phase % 2 == 1 || now != phase, "a module was absent");
            }
            Err(error) => {
                assert!(error.is_unavailable(), "{error:?}");
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Kills the server every second, with its data kept and lost in turn.
    fn kill_again_and_again(&self, server: &RedisServer) {
        let fresh = || blocking::ModuleWriter::new(config(server)).unwrap();
        let status = || {
            let writer = fresh();
            wait_until("it answers", PATIENCE, || writer.reader().status().is_ok());
            writer.reader().status().unwrap()
        };
        let begin = Instant::now();
        for kill in 1..=KILLS {
            let next = begin + Duration::from_secs(kill.into());
            thread::sleep(next.saturating_duration_since(Instant::now()));
            if kill % 2 == 1 {
                server.shutdown_save();
                server.restart();
                assert_eq!(status().state, CacheState::Restored);
            } else {
                self.phase.fetch_add(1, Ordering::SeqCst);
                server.kill();
                server.forget();
                server.restart();
                assert_eq!(status().state, CacheState::Cold);
                fill(&fresh());
                assert!(status().is_warm());
                self.phase.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn config(server: &RedisServer) -> Config {
    Config::new(server.url()).unwrap()
}

fn fill(writer: &blocking::ModuleWriter) {
    let modules: Vec<_> = (0..MODULES).map(module).collect();
    assert!(writer.publish_exact(&modules).unwrap().complete);
}

fn call_in_thread(first: usize, writer: &blocking::ModuleWriter, shared: &Shared) {
    for number in (first..).step_by(8) {
        let call = Call::number(number);
        let (phase, start) = (shared.phase.load(Ordering::SeqCst), Instant::now());
        shared.judge(&call, phase, start, thread_call(writer, &call));
        if shared.is_over() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

async fn call_in_task(first: usize, writer: nonblocking::ModuleWriter, shared: Arc<Shared>) {
    for number in (first..).step_by(64) {
        let call = Call::number(number);
        let (phase, start) = (shared.phase.load(Ordering::SeqCst), Instant::now());
        shared.judge(&call, phase, start, task_call(&writer, &call).await);
        if shared.is_over() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What this process holds: open files and threads.
fn held() -> (usize, usize) {
    let count = |directory: &str| fs::read_dir(directory).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn clients(server: &RedisServer) -> usize {
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query(&mut server.connection())
        .unwrap();
    list.lines().count() - 1
}

#[test]
fn what_is_dropped_gives_its_threads_and_files_back() {
    let server = RedisServer::start();
    let held_before = held();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..3 {
        let threads = blocking::ModuleWriter::new(config(&server)).unwrap();
        let tasks = nonblocking::ModuleWriter::new(config(&server)).unwrap();
        fill(&threads);
        assert_eq!(threads.reader().paths().unwrap().len(), MODULES);
        let paths = runtime.block_on(tasks.reader().paths()).unwrap();
        assert_eq!(paths.len(), MODULES);
    }
    drop(runtime);
    wait_until("all is given back", GIVE_BACK_LIMIT, || {
        held() == held_before
    });
    wait_until("all connections are closed", GIVE_BACK_LIMIT, || {
        clients(&server) == 0
    });
}

#[test]
#[ignore = "long: make soak"]
fn nothing_hangs_lies_or_leaks_while_the_server_dies_every_second() {
    let server = RedisServer::start();
    let held_before = held();
    let threads = blocking::ModuleWriter::new(config(&server)).unwrap();
    let tasks = nonblocking::ModuleWriter::new(config(&server)).unwrap();
    fill(&threads);
    let shared = Arc::new(Shared::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let calling: Vec<_> = (0..64)
        .map(|number| runtime.spawn(call_in_task(number, tasks.clone(), Arc::clone(&shared))))
        .collect();
    thread::scope(|scope| {
        for number in 0..8 {
            let (threads, shared) = (&threads, &shared);
            scope.spawn(move || call_in_thread(number, threads, shared));
        }
        shared.kill_again_and_again(&server);
    });
    for task in calling {
        runtime.block_on(task).unwrap();
    }

    println!(
        "{} calls, {} of them unavailable; the slowest lookup took {} ms, the slowest bulk call {} ms",
        shared.calls.load(Ordering::Relaxed),
        shared.failures.load(Ordering::Relaxed),
        shared.slowest_lookup.load(Ordering::Relaxed) / 1_000,
        shared.slowest_bulk.load(Ordering::Relaxed) / 1_000,
    );
    println!("{:?}\n{:?}", threads.stats(), tasks.stats());
    // As many as both may keep.
    assert!(clients(&server) <= 8 + 2, "{}", clients(&server));
    assert_eq!(threads.stats().in_use + tasks.stats().in_use, 0);
    drop((threads, tasks, runtime));
    wait_until("all connections are closed", PATIENCE, || {
        clients(&server) == 0
    });
    wait_until("all files and threads are given back", PATIENCE, || {
        held() == held_before
    });
}
