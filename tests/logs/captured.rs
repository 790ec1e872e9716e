//! The logger of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Keeps all that any crate in this process logs.
pub struct Capture(Mutex<Vec<Line>>);

#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub level: Level,
    pub target: String,
    pub message: String,
}

pub static CAPTURE: Capture = Capture(Mutex::new(Vec::new()));

impl Capture {
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.lines().push(Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
        });
    }

    fn flush(&self) {}
}

/// The first thing that every test does.
pub fn capture() {
    // It fails when another test was first.
    let _ = log::set_logger(&CAPTURE);
    log::set_max_level(LevelFilter::Trace);
}

/// This crate's lines that contain this text.
pub fn lines_with(text: &str) -> Vec<Line> {
    let lines = CAPTURE.lines();
    let ours = |line: &&Line| {
        line.target.starts_with("bifrost_module_cache") && line.message.contains(text)
    };
    lines.iter().filter(ours).cloned().collect()
}
