//! SIGTERM and SIGINT end the tool at once, whatever it waits for.
//!
//! As the first process of a container it has to handle them itself: there the kernel ignores a
//! signal for which no handler is installed, and the container would be killed only after its grace
//! period.

use crate::args::Command;
use crate::failure::Failure;
use crate::stderr::Stderr;

/// How long a service may take to end: what it waits for may never come, and nothing that it does
/// is spoiled by an end.
#[cfg(unix)]
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

/// Starts the thread that waits for a signal. It ends the process as it is: everything in Redis is
/// written so that it may stop at any moment, and nothing is to be undone.
#[cfg(unix)]
pub fn listen(stderr: &Stderr, command: &Command) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    if let Command::Guard { .. } = command {
        // It has a way of its own to end: `end_with`.
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (stderr, writes) = (stderr.clone(), command.writes());
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            stderr.clear();
            let name = if signal == SIGTERM {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            let advice = if writes { ": run it again" } else { "" };
            stderr.error(&format!("stopped by {name}{advice}"));
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Starts a thread that ends a service at the first signal: by `stop`, and otherwise after
/// [`FAREWELL`] or at a second signal.
#[cfg(unix)]
pub fn end_with(stop: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    use std::sync::mpsc;

    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let _ = sender.send(signal);
        }
    });
    std::thread::spawn(move || {
        if received.recv().is_err() {
            return;
        }
        stop();
        let again = received.recv_timeout(FAREWELL);
        std::process::exit(again.map_or(0, |signal| 128 + signal));
    });
    Ok(())
}

#[cfg(unix)]
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: std::io::Error) -> Failure {
    Failure::refused(format!("can't wait for signals: {error}"))
}

#[cfg(not(unix))]
pub fn listen(_: &Stderr, _: &Command) -> Result<(), Failure> {
    Ok(())
}

#[cfg(not(unix))]
pub fn end_with(_: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    Ok(())
}
