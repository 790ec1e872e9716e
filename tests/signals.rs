//! Signals that arrive while a call waits for its answer do not fail it. In a process of its own,
//! because all of it is stopped again and again.

mod support;

use std::process::{self, Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bifrost_module_cache::CachedModule;
use support::{Facade, Reader, World, Writer, on_both_facades};

on_both_facades! {
    a_process_that_is_stopped_and_continued_reads_on
    a_process_whose_children_end_reads_on
}

/// A signal is for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Calls until the child has ended, each waiting for long enough to be interrupted.
fn call_until_the_end_of<F: Facade>(child: &mut Child) {
    let (world, proxy) = World::<F>::proxied(|config| config);
    let writer = &world.writer;
    let module = CachedModule::new("a.py", "x = 1\n").unwrap();
    proxy.set_latency(Duration::from_millis(2));
    while child.try_wait().unwrap().is_none() {
        writer.set(&module).unwrap();
        assert_eq!(writer.reader().get("a.py").unwrap().as_ref(), Some(&module));
        assert_eq!(writer.reader().paths().unwrap().len(), 1);
    }
    // One connection: none was given up.
    assert!(proxy.connections() <= 2, "{}", proxy.connections());
    assert!(child.wait().unwrap().success());
}

fn shell(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", script, "sh", &process::id().to_string()])
        .spawn()
        .expect("sh can be started")
}

fn a_process_that_is_stopped_and_continued_reads_on<F: Facade>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The continuation ends every wait with a time-out, whether or not the process handles it.
    call_until_the_end_of::<F>(&mut shell(
        "i=0; while [ $i -lt 300 ]; do kill -s STOP $1; kill -s CONT $1; sleep 0.003; i=$((i+1)); done",
    ));
}

fn a_process_whose_children_end_reads_on<F: Facade>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = shell("sleep 1");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        call_until_the_end_of::<F>(&mut child);
    });
}
