//! A guard of either facade, that runs beside a test.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use bifrost_module_cache::Tls;
use bifrost_module_cache::guard::{DatabaseFeed, GuardOptions, GuardStats, trigger_sql};
use bifrost_module_cache::postgres::NoTls;
use bifrost_module_cache::{CachedModule, Error, blocking, nonblocking, postgres, tokio_postgres};

use super::convergence::{Protocol, Round, Size, round_until};
use super::facade::{Blocking, Facade, Nonblocking, block_on};
use super::foreign::Foreign;
use super::syncing::Syncing;
use super::world::World;
use super::{LIMIT, PATIENCE, wait_until};

/// `Guard`.
pub trait Guarding: Facade {
    type Guard: Clone + Send + Sync + 'static;
    fn guard(writer: Self::Writer, options: GuardOptions) -> Result<Self::Guard, Error>;
    fn run(guard: &Self::Guard, database: &str) -> Result<(), Error>;
    #[cfg(feature = "tls")]
    fn run_encrypted(guard: &Self::Guard, database: &str, tls: &Tls) -> Result<(), Error>;
    fn stats(guard: &Self::Guard) -> GuardStats;
    fn stop(guard: &Self::Guard);
}

impl Guarding for Blocking {
    type Guard = blocking::Guard;

    fn guard(writer: Self::Writer, options: GuardOptions) -> Result<Self::Guard, Error> {
        blocking::Guard::new(writer, options)
    }

    fn run(guard: &Self::Guard, database: &str) -> Result<(), Error> {
        let url = database.to_owned();
        guard.run(move || postgres::Client::connect(&url, NoTls))
    }

    #[cfg(feature = "tls")]
    fn run_encrypted(guard: &Self::Guard, database: &str, tls: &Tls) -> Result<(), Error> {
        guard.run_encrypted(database, tls)
    }

    fn stats(guard: &Self::Guard) -> GuardStats {
        guard.stats()
    }

    fn stop(guard: &Self::Guard) {
        guard.stop();
    }
}

impl Guarding for Nonblocking {
    type Guard = nonblocking::Guard;

    fn guard(writer: Self::Writer, options: GuardOptions) -> Result<Self::Guard, Error> {
        nonblocking::Guard::new(writer, options)
    }

    fn run(guard: &Self::Guard, database: &str) -> Result<(), Error> {
        block_on(guard.run(|| tokio_postgres::connect(database, NoTls)))
    }

    #[cfg(feature = "tls")]
    fn run_encrypted(guard: &Self::Guard, database: &str, tls: &Tls) -> Result<(), Error> {
        block_on(guard.run_encrypted(database, tls))
    }

    fn stats(guard: &Self::Guard) -> GuardStats {
        guard.stats()
    }

    fn stop(guard: &Self::Guard) {
        guard.stop();
    }
}

/// A guard that runs until this is dropped.
pub struct Guard<F: Guarding> {
    guard: F::Guard,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl<F: Guarding> Guard<F> {
    /// Starts one over a writer of its own, and returns when it guards.
    pub fn start(world: &World<F>, options: GuardOptions) -> Self {
        let this = Self::begin(world.writer::<F>(), &world.postgres.url(), options);
        this.wait_until_it_guards();
        this
    }

    /// Starts one that learns what changes from its triggers alone, for an hour, and returns when
    /// it does.
    pub fn start_listening(world: &World<F>) -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        world.install_triggers();
        let options = GuardOptions::default().with_poll(HOUR).with_sweep(HOUR);
        let this = Self::start(world, options.with_listen(true));
        this.wait_until_it_listens();
        this
    }

    /// Starts one for [`guarded_round`].
    pub fn start_for_rounds(world: &World<F>, listen: bool) -> Self {
        world.install_triggers();
        let options = GuardOptions::default()
            .with_poll(Duration::from_millis(100))
            .with_max_prune(1.0)
            .with_listen(listen);
        let this = Self::start(world, options);
        if listen {
            this.wait_until_it_listens();
        }
        this
    }

    /// Starts one and returns at once.
    pub fn begin(writer: F::Writer, database: &str, options: GuardOptions) -> Self {
        let guard = F::guard(writer, options).unwrap();
        let (theirs, url) = (guard.clone(), database.to_owned());
        let thread = thread::spawn(move || F::run(&theirs, &url));
        Self {
            guard,
            thread: Some(thread),
        }
    }

    pub fn stats(&self) -> GuardStats {
        F::stats(&self.guard)
    }

    /// Waits until it has both servers and has compared everything.
    #[track_caller]
    pub fn wait_until_it_guards(&self) {
        wait_until("the guard guards", LIMIT, || {
            let stats = self.stats();
            stats.since.is_some() && stats.redis_up && stats.database_up
        });
    }

    /// Waits until a whole sweep that begins from now on has ended.
    #[track_caller]
    pub fn wait_for_a_sweep(&self) {
        let before = self.stats().sweeps;
        wait_until("the guard has swept twice", LIMIT, || {
            self.stats().sweeps >= before + 2
        });
    }

    /// Waits until nothing waits to be looked at.
    #[track_caller]
    pub fn wait_until_it_rests(&self) {
        let mut quiet = None;
        wait_until("the guard has nothing to do", LIMIT, || {
            if self.stats().pending > 0 {
                quiet = None;
            }
            let since = *quiet.get_or_insert_with(Instant::now);
            since.elapsed() > Duration::from_millis(100)
        });
    }

    /// Ends it; answers how it ended.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end().expect("it was not stopped before")
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(mut self) -> Result<(), Error> {
        wait_until("the guard ends by itself", LIMIT, || {
            self.thread.as_ref().is_some_and(JoinHandle::is_finished)
        });
        let thread = self.thread.take().expect("it was not stopped before");
        thread.join().expect("no panic")
    }

    fn end(&mut self) -> Option<Result<(), Error>> {
        if thread::panicking() {
            eprintln!("{:#?}", self.stats());
        }
        F::stop(&self.guard);
        let thread = self.thread.take()?;
        let result = thread.join();
        if thread::panicking() {
            eprintln!("the guard ended with {result:?}");
            return None;
        }
        Some(result.expect("the guard did not panic"))
    }
}

impl<F: Guarding> Drop for Guard<F> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            eprintln!("the guard ended with {error}");
        }
    }
}

impl<F: Guarding> Guard<F> {
    /// Waits until the cache is complete.
    #[track_caller]
    pub fn wait_for_the_mark(&self, world: &World<F>) {
        wait_until("the cache is complete", LIMIT, || {
            let thread = self.thread.as_ref();
            assert!(
                thread.is_none_or(|thread| !thread.is_finished()),
                "the guard has ended"
            );
            world.status().is_warm()
        });
    }

    /// Waits until triggers tell it what changes.
    #[track_caller]
    pub fn wait_until_it_listens(&self) {
        wait_until("the guard is told what changes", LIMIT, || {
            self.stats().database_feed == DatabaseFeed::Listen
        });
    }
}

/// A round of plain foreign writers beside a guard, and how long after their silence all was right.
pub fn guarded_round<F: Facade<Writer: Syncing>>(
    world: &World<F>,
    size: Size,
    seed: u64,
) -> (Round, Duration) {
    let mut took = Duration::ZERO;
    let round = round_until(world, Protocol::Guarded, size, seed, || {
        let start = Instant::now();
        while world.count_wrong() > 0 && start.elapsed() < PATIENCE {}
        took = start.elapsed();
    });
    (round, took)
}

impl<F: Facade> World<F> {
    /// The triggers of a guard.
    pub fn install_triggers(&self) {
        let sql = trigger_sql(&self.writer_config()).unwrap();
        self.table().run(&sql);
    }

    /// How many rows, entries and members of the index are not as they should be.
    pub fn count_wrong(&self) -> usize {
        let mut client = postgres::Client::connect(&self.postgres.url(), NoTls).unwrap();
        let writer = blocking::ModuleWriter::new(self.writer_config()).unwrap();
        let drift = writer.verify(&mut client).unwrap();
        drift.paths() + drift.bad_members
    }
}

impl Foreign {
    /// The content of the module that is stored, if any is.
    pub fn content(&mut self, path: &str) -> Option<String> {
        let json = self.entry(path).value?;
        let module = CachedModule::from_json(path, json.as_bytes()).ok()?;
        Some(module.content)
    }

    /// Waits until the module is there with this content, for ever and named by the index, or until
    /// neither is there.
    #[track_caller]
    pub fn wait_for(&mut self, path: &str, content: Option<&str>) {
        wait_until(&format!("{path} is right"), LIMIT, || {
            let found = self.content(path);
            let entry = self.entry(path);
            let is_nothing = entry.value.is_none_or(|value| value.is_empty());
            match content {
                Some(_) => entry.listed && entry.ttl == -1 && found.as_deref() == content,
                None => is_nothing && !entry.listed,
            }
        });
    }

    /// Waits until the index does not name this.
    #[track_caller]
    pub fn wait_for_no_member(&mut self, member: &str) {
        wait_until(&format!("{member} is no member"), LIMIT, || {
            !self.entry_listed(member)
        });
    }
}
