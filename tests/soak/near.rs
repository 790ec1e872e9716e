//! The near cache under load while the server is flushed, restarted and disconnected: for two
//! seconds, and for a minute (`make soak`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Blocking, Near, Nearby, Nonblocking, PATIENCE, Reader, RedisServer, StopOnDrop, Writer,
    on_both_facades, wait_until,
};
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::sync::Change;
use bifrost_module_cache::{CachedModule, Config, Error};
use redis::{Client, RedisResult};

on_both_facades! {
    two_seconds_under_load_leave_nothing_stale
}

const READERS: usize = 8;
/// Half of them are a tied writer's, half a foreign one's.
const PATHS: usize = 60;
const ABSENT: usize = 20;

/// What is promised for silent networks, in milliseconds, goes beyond the bound.
const SLACK: Duration = Duration::from_millis(100);

fn two_seconds_under_load_leave_nothing_stale<F: Nearby>() {
    Load {
        duration: Duration::from_secs(2),
        pause: Duration::from_millis(300),
        bound: Duration::from_millis(500),
    }
    .run::<F>();
}

fn a_minute<F: Nearby>() {
    Load {
        duration: Duration::from_secs(60),
        pause: Duration::from_secs(1),
        bound: Duration::from_secs(1),
    }
    .run::<F>();
}

#[test]
#[ignore = "long: make soak"]
fn a_minute_under_load_leaves_nothing_stale_in_threads() {
    a_minute::<Blocking>();
}

#[test]
#[ignore = "long: make soak"]
fn a_minute_under_load_leaves_nothing_stale_in_tasks() {
    a_minute::<Nonblocking>();
}

struct Load {
    duration: Duration,
    /// Between two faults.
    pause: Duration,
    bound: Duration,
}

/// A write that was acknowledged.
#[derive(Clone, Copy)]
struct Write {
    version: u64,
    begun: Instant,
    acknowledged: Instant,
}

/// When all data were lost; still going on without an end.
#[derive(Clone, Copy)]
struct Loss {
    begun: Instant,
    ended: Option<Instant>,
}

/// What has happened, as far as those who made it happen know.
struct History {
    server: RedisServer,
    bound: Duration,
    histories: Vec<Mutex<Vec<Write>>>,
    losses: Mutex<Vec<Loss>>,
    is_over: AtomicBool,
    reads: AtomicU64,
    failures: AtomicU64,
    writes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(number: usize) -> String {
    format!("m/{number}.py")
}

fn absent(number: usize) -> String {
    format!("absent/{number}.py")
}

fn module(number: usize, version: u64) -> CachedModule {
    let content = format!("{version}\n{}", "x = 1\n".repeat(number));
    CachedModule::new(path(number), content).unwrap()
}

fn version(module: &CachedModule) -> u64 {
    let line = module.content.lines().next().unwrap();
    line.parse().unwrap()
}

impl Load {
    fn run<F: Nearby>(&self) {
        let server = RedisServer::start();
        let config = || Config::new(server.url()).unwrap();
        let options = NearCacheOptions::default()
            .with_staleness_bound(self.bound)
            .with_max_bytes(4 * 1024 * 1024);
        let near = F::Near::live(config(), options);
        let writer = F::Writer::new(config()).unwrap();
        near.tie(&writer);
        let world = History {
            bound: self.bound,
            histories: (0..PATHS).map(|_| Mutex::default()).collect(),
            losses: Mutex::default(),
            is_over: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            server,
        };
        let reads_before = near.stats().reads();
        thread::scope(|scope| {
            let stop = StopOnDrop(&world.is_over);
            let mut threads = Vec::new();
            for number in 0..READERS {
                let (world, near) = (&world, &near);
                threads.push(scope.spawn(move || world.read::<F>(near, number)));
            }
            threads.push(scope.spawn(|| world.write_tied::<F>(&near, &writer)));
            threads.push(scope.spawn(|| world.write_foreign()));
            let end = Instant::now() + self.duration;
            let mut fault = 0;
            while Instant::now() < end && threads.iter().all(|thread| !thread.is_finished()) {
                thread::sleep(self.pause);
                world.fail(fault);
                fault += 1;
            }
            drop(stop);
        });
        let reads = near.stats().reads() - reads_before;
        assert_eq!(reads, world.reads.load(SeqCst), "each is counted once");
        compare::<F>(&near, &writer);
        println!(
            "{reads} reads, {} of them failed, {} writes; {:?}",
            world.failures.load(SeqCst),
            world.writes.load(SeqCst),
            near.stats(),
        );
    }
}

impl History {
    fn goes_on(&self) -> bool {
        !self.is_over.load(SeqCst)
    }

    fn fail(&self, number: usize) {
        match number % 6 {
            0 | 2 => self.server.command("CLIENT KILL TYPE normal SKIPME yes"),
            1 | 4 => self.lose(|| self.server.command("FLUSHALL")),
            3 => self.lose(|| self.server.restart()),
            // Some peace, so that the bound is what counts.
            _ => {}
        }
    }

    fn lose(&self, how: impl FnOnce()) {
        let begun = Instant::now();
        lock(&self.losses).push(Loss { begun, ended: None });
        how();
        let ended = Some(Instant::now());
        lock(&self.losses).last_mut().unwrap().ended = ended;
    }

    fn wrote(&self, number: usize, version: u64, begun: Instant) {
        self.writes.fetch_add(1, SeqCst);
        let acknowledged = Instant::now();
        lock(&self.histories[number]).push(Write {
            version,
            begun,
            acknowledged,
        });
    }

    /// What was found by a read that began then.
    fn check(&self, number: usize, found: Option<u64>, asked: Instant) {
        let losses = lock(&self.losses).clone();
        let Some(cutoff) = asked.checked_sub(self.bound + SLACK) else {
            return;
        };
        let history = lock(&self.histories[number]);
        // What must have been seen.
        let seen = history.partition_point(|write| write.acknowledged <= cutoff);
        let newest = seen.checked_sub(1).map(|index| history[index]);
        let Some(found) = found else {
            let Some(newest) = newest else { return };
            let lost = losses
                .last()
                .is_some_and(|loss| loss.ended.is_none_or(|ended| ended >= newest.begun));
            assert!(lost, "{number} was absent, not {}", newest.version);
            return;
        };
        if let Some(newest) = newest {
            assert!(
                found >= newest.version,
                "{number} was {found}, not {}, after {:?}",
                newest.version,
                asked - newest.acknowledged
            );
        }
        let write = history.iter().rev().find(|write| write.version == found);
        let over = |loss: &&Loss| loss.ended.is_some_and(|ended| ended <= cutoff);
        if let (Some(write), Some(loss)) = (write, losses.iter().rev().find(over)) {
            assert!(
                write.acknowledged >= loss.begun,
                "{number} was {found}, which was lost {:?} before",
                asked - loss.begun
            );
        }
    }

    fn failed(&self, error: &Error) {
        assert!(error.is_unavailable() || error.is_busy(), "{error:?}");
        self.failures.fetch_add(1, SeqCst);
    }

    fn read<F: Nearby>(&self, near: &F::Near, first: usize) {
        let mut number = first;
        for round in 0_usize.. {
            if !self.goes_on() {
                return;
            }
            number = (number * 7 + round + 1) % PATHS;
            let asked = Instant::now();
            match round % 50 {
                0 => {
                    let numbers: Vec<usize> = (0..10).map(|n| (number + n) % PATHS).collect();
                    let paths: Vec<String> = numbers.iter().map(|number| path(*number)).collect();
                    self.reads.fetch_add(10, SeqCst);
                    match near.get_many(&paths) {
                        Ok(found) => {
                            for (number, found) in numbers.into_iter().zip(found) {
                                self.check(number, found.as_deref().map(version), asked);
                            }
                        }
                        Err(error) => self.failed(&error),
                    }
                }
                1 => {
                    self.reads.fetch_add(1, SeqCst);
                    match near.get(&absent(number % ABSENT)) {
                        Ok(found) => assert_eq!(found, None),
                        Err(error) => self.failed(&error),
                    }
                }
                2 if round % 500 == 2 => match near.snapshot() {
                    Ok(snapshot) => {
                        for number in 0..PATHS {
                            let found = snapshot.get(&path(number)).unwrap();
                            // Foreign writers write a module before they name it in the index.
                            if let Some(found) = found {
                                self.check(number, Some(version(&found)), asked);
                            }
                        }
                    }
                    Err(error) => self.failed(&error),
                },
                _ => {
                    self.reads.fetch_add(1, SeqCst);
                    match near.get(&path(number)) {
                        Ok(found) => self.check(number, found.as_deref().map(version), asked),
                        Err(error) => self.failed(&error),
                    }
                }
            }
            // Two processors are to be enough for all.
            if round % 100 == 99 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn is_lost_since(&self, then: Instant) -> bool {
        let losses = lock(&self.losses);
        losses
            .last()
            .is_some_and(|loss| loss.ended.is_none_or(|ended| ended >= then))
    }

    /// A caller that writes with a tied writer sees it at once.
    fn write_tied<F: Nearby>(&self, near: &F::Near, writer: &F::Writer) {
        for next in 1.. {
            if !self.goes_on() {
                return;
            }
            let number = usize::try_from(next).unwrap() % (PATHS / 2) * 2;
            let begun = Instant::now();
            let module = module(number, next);
            let written = if next % 5 == 0 {
                writer.publish(&[Change::Set(module.clone())]).map(drop)
            } else {
                writer.set(&module)
            };
            if let Err(error) = written {
                self.failed(&error);
                continue;
            }
            self.wrote(number, next, begun);
            self.reads.fetch_add(1, SeqCst);
            let found = if next % 3 == 0 {
                near.get_many(&[&module.path])
                    .map(|mut found| found.remove(0))
            } else {
                near.get(&module.path)
            };
            match found {
                Ok(Some(found)) => assert_eq!(version(&found), next, "{number}"),
                Ok(None) => assert!(self.is_lost_since(begun), "{number} is absent"),
                Err(error) => self.failed(&error),
            }
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// As Python does it: in two steps, and the near cache is not told.
    fn write_foreign(&self) {
        let client = Client::open(self.server.url()).unwrap();
        let mut connection = None;
        for next in 1.. {
            if !self.goes_on() {
                return;
            }
            let number = usize::try_from(next).unwrap() % (PATHS / 2) * 2 + 1;
            let begun = Instant::now();
            let mut written = || -> RedisResult<()> {
                let redis = match &mut connection {
                    Some(redis) => redis,
                    none => none.insert(client.get_connection()?),
                };
                let path = path(number);
                redis::cmd("SET")
                    .arg(format!("bifrost:module:{path}"))
                    .arg(module(number, next).to_json())
                    .exec(redis)?;
                redis::cmd("SADD")
                    .arg("bifrost:module:index")
                    .arg(path)
                    .exec(redis)
            };
            match written() {
                Ok(()) => self.wrote(number, next, begun),
                Err(_) => connection = None,
            }
            thread::sleep(Duration::from_micros(300));
        }
    }
}

/// In silence, what is kept is what Redis has.
fn compare<F: Nearby>(near: &F::Near, writer: &F::Writer) {
    wait_until("it follows in silence", PATIENCE, || {
        near.is_live() && near.snapshot_of(&["no such path"]).is_ok()
    });
    let reader = writer.reader();
    let all = (0..PATHS).map(path).chain((0..ABSENT).map(absent));
    for path in all {
        let expected = reader.get(&path).unwrap();
        // What was kept during the load, and then what was asked for now.
        for _ in 0..2 {
            let found = near.get(&path).unwrap();
            assert_eq!(found.as_deref(), expected.as_ref(), "{path}");
        }
    }
    assert_eq!(*near.paths().unwrap(), reader.paths().unwrap());
    let stats = near.stats();
    assert!(
        stats.live && stats.hits > 0 && stats.misses > 0,
        "{stats:?}"
    );
    assert!(stats.sessions > 1 && stats.flushes > 0, "{stats:?}");
}
