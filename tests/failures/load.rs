//! A writer that writes all the time, with the usual deadlines.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{Facade, PATIENCE, Reader, RedisServer, Writer, module, patient, wait_until};
use bifrost_module_cache::Config;

/// What came of it.
#[derive(Debug, Default)]
pub struct Told {
    pub written: usize,
    pub failed: usize,
    /// Writes that were acknowledged and are not at the new server.
    pub lost: usize,
    /// The longest time between two writes that succeeded.
    pub gap: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            failed,
            lost,
            gap,
        } = self;
        let gap = gap.as_millis();
        write!(
            f,
            "{failed} of {} writes failed, {lost} acknowledged ones lost, longest gap {gap} ms",
            written + failed
        )
    }
}

pub struct Load<F: Facade> {
    config: Config,
    written: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(Told, Vec<String>)>,
    facade: std::marker::PhantomData<F>,
}

impl<F: Facade> Load<F> {
    /// Writes until it is told to end, at least so many.
    pub fn start(config: Config, at_least: usize) -> Self {
        let writer = F::Writer::new(config.clone()).unwrap();
        let (written, is_over) = (Arc::default(), Arc::default());
        let (count, over): (Arc<AtomicUsize>, Arc<AtomicBool>) =
            (Arc::clone(&written), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let (mut told, mut paths) = (Told::default(), Vec::new());
            let mut last = Instant::now();
            while !over.load(SeqCst) || told.written < at_least {
                let path = format!("{}.py", told.written);
                match writer.set(&module(&path, "1")) {
                    Ok(()) => {
                        told.written += 1;
                        told.gap = told.gap.max(last.elapsed());
                        last = Instant::now();
                        paths.push(path);
                        count.fetch_add(1, SeqCst);
                    }
                    Err(error) => {
                        assert!(error.is_transient(), "{error:?}");
                        told.failed += 1;
                        if told.failed <= 10 {
                            println!("after {:?}: {error}", last.elapsed());
                        }
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
            (told, paths)
        });
        Self {
            config,
            written,
            is_over,
            thread,
            facade: std::marker::PhantomData,
        }
    }

    pub fn until_written(&self, count: usize) {
        wait_until("so much is written", PATIENCE, || {
            self.written.load(SeqCst) >= count
        });
    }

    /// Writes some more to the server that holds the keys now, and ends.
    pub fn end(self, new: &RedisServer) -> Told {
        let namespace = self.config.keys().namespace().to_owned();
        let there = F::Reader::new(patient(&new.url()).with_namespace(namespace)).unwrap();
        let before = there.paths().unwrap().len();
        wait_until("it is written to the new server", PATIENCE, || {
            there.paths().unwrap().len() >= before + 100
        });
        self.is_over.store(true, SeqCst);
        let (mut told, paths) = self.thread.join().expect("it does not panic");
        let all = there.paths().unwrap();
        told.lost = paths.iter().filter(|path| !all.contains(*path)).count();
        told
    }
}

/// The call takes no longer.
pub fn within<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = call();
    let elapsed = start.elapsed();
    assert!(elapsed < limit, "it took {elapsed:?}");
    result
}
