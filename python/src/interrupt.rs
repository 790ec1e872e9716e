//! Calls that may take seconds: the main thread hears `KeyboardInterrupt` meanwhile.

use std::process;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use bifrost_module_cache::Error;
use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::threads;

/// How long a signal may wait until it is heard.
const LOOK: Duration = Duration::from_millis(50);

const THREAD: &str = "bifrost-call";

/// The process that imported us.
static PROCESS: OnceLock<u32> = OnceLock::new();

pub fn remember_process() {
    let _ = PROCESS.set(process::id());
}

/// What is shared between interpreters, such as exceptions' classes, would belong to the first one.
pub fn refuse_sub_interpreters() -> PyResult<()> {
    // SAFETY: the caller is attached to an interpreter, so that there is a current one.
    let id = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if id == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "bifrost_module_cache can't be imported in a subinterpreter: import it in the main one, or fork",
    ))
}

/// Makes a short call, detached from the interpreter.
pub fn detached<T: Send>(
    py: Python<'_>,
    call: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(call).map_err(|error| raised(py, &error))
}

/// Makes a call that may take seconds and may be given up: a read.
///
/// In the main thread, which alone hears signals, a thread of its own makes the call. Not in a
/// forked child: it may be unable to start one.
pub fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    if PROCESS.get() != Some(&process::id()) || !in_main_thread(py)? {
        return detached(py, call);
    }
    let (sender, mut answer) = sync_channel(1);
    let thread = thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || {
            // If the caller was interrupted, nothing receives this.
            let _ = sender.send(call());
        })?;
    loop {
        let waiting = &mut answer;
        match py.detach(move || waiting.recv_timeout(LOOK)) {
            Ok(answer) => {
                // So that no thread lives when the caller forks next.
                py.detach(|| {
                    let _ = thread.join();
                    threads::joined(THREAD);
                });
                return answer.map_err(|error| raised(py, &error));
            }
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the call ended without an answer"));
            }
        }
    }
}

fn in_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let current = threading.call_method0("get_ident")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    current.eq(main)
}
