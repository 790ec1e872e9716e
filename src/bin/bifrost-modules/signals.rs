//! SIGTERM and SIGINT end the tool at once, whatever it waits for.
//!
//! As the first process of a container it has to handle them itself: there the kernel ignores a
//! signal for which no handler is installed, and the container would be killed only after its grace
//! period.

use crate::failure::Failure;
use crate::stderr::Stderr;

/// Starts the thread that waits for a signal. It ends the process as it is: everything in Redis is
/// written so that it may stop at any moment, and nothing is to be undone.
#[cfg(unix)]
pub fn listen(stderr: &Stderr, writes: bool) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Failure::refused(format!("can't wait for signals: {error}")))?;
    let stderr = stderr.clone();
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

#[cfg(not(unix))]
pub fn listen(_: &Stderr, _: bool) -> Result<(), Failure> {
    Ok(())
}
