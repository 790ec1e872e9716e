//! SIGTERM and SIGINT end the tool at once, whatever it waits for: also as the first process of a
//! container, which the kernel spares signals that nobody asked for.

use crate::failure::Failure;
use crate::screen::Screen;

/// Everything in Redis is written so that it may stop at any moment; nothing is to be undone.
#[cfg(unix)]
pub fn listen(screen: &Screen, writes: bool) -> Result<(), Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|error| Failure::refused(format!("can't wait for signals: {error}")))?;
    let screen = screen.clone();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            screen.clear();
            let name = if signal == SIGTERM {
                "SIGTERM"
            } else {
                "SIGINT"
            };
            let advice = if writes { ": run it again" } else { "" };
            screen.error(&format!("stopped by {name}{advice}"));
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
pub fn listen(_: &Screen, _: bool) -> Result<(), Failure> {
    Ok(())
}
