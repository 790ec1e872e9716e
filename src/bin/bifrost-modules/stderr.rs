//! Standard error: progress, hints, warnings and the error, each only where it is wanted.

use std::io;
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Color, Style};
use bifrost_module_cache::sync::{Progress, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::args::Command;
use crate::output::harmless;
use crate::redact::redacted;

/// Cheap to clone; clones share one line of progress.
#[derive(Clone)]
pub struct Stderr {
    /// Hidden with `--quiet`, for a dumb terminal, or if standard error is no terminal.
    bar: ProgressBar,
    colors: bool,
}

impl Stderr {
    pub fn new(quiet: bool) -> Self {
        // A dumb terminal, such as an editor's, would show each step of the progress as a line.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let target = if quiet || dumb {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        Self {
            bar: ProgressBar::with_draw_target(None, target),
            colors: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
        }
    }

    /// Says what is waited for.
    pub fn wait(&self, message: &str) {
        self.bar
            .set_style(style("{spinner} {elapsed} waiting: {wide_msg}"));
        self.bar.set_message(harmless(&redacted(message)));
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Says how far long work has come.
    pub fn progress(&self, progress: Progress) {
        self.bar.disable_steady_tick();
        self.bar
            .set_style(style("{msg:10} {bar:30} {human_pos}/{human_len} {elapsed}"));
        self.bar.set_message(match progress.stage {
            Stage::Load => "loading",
            Stage::Compare => "comparing",
            Stage::Mend => "mending",
            _ => "working",
        });
        self.bar.set_length(count(progress.total));
        self.bar.set_position(count(progress.done));
    }

    /// Removes the line of progress from the terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub fn error(&self, message: &str) {
        self.say(AnsiColor::Red, "error", message);
    }

    pub fn warning(&self, message: &str) {
        self.say(AnsiColor::Yellow, "warning", message);
    }

    pub fn hint(&self, message: &str) {
        self.say(AnsiColor::Cyan, "hint", message);
    }

    pub fn info(&self, message: &str) {
        self.say(AnsiColor::Green, "info", message);
    }

    /// Shows what the library warns of, and what the guard tells: it is a service, with a log.
    pub fn take_warnings(&self, quiet: bool, command: &Command) {
        let level = match command {
            Command::Guard { .. } if !quiet => LevelFilter::Info,
            // A service that can't say what is wrong is of no use, however quiet it should be.
            Command::Guard { .. } => LevelFilter::Warn,
            _ if quiet => return,
            _ => LevelFilter::Warn,
        };
        if log::set_boxed_logger(Box::new(Warnings(self.clone()))).is_ok() {
            log::set_max_level(level);
        }
    }

    /// Prints one line, without what may be a secret or could command the terminal.
    fn say(&self, color: AnsiColor, kind: &str, message: &str) {
        let style = if self.colors {
            Style::new().fg_color(Some(Color::Ansi(color))).bold()
        } else {
            Style::new()
        };
        // One line, even if a server's text or a file name has line feeds.
        let line = format!("{style}{kind}:{style:#} {}\n", harmless(&redacted(message)));
        // If standard error is closed, the exit code has to do. `suspend` takes the progress away
        // meanwhile, or the two would be mixed.
        self.bar.suspend(|| {
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        });
    }
}

/// The library's log, of which the tool shows warnings only, and the guard's news: it reports all
/// else itself.
struct Warnings(Stderr);

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // `watch` says itself why it can't go on.
        let is_guard = target.starts_with("bifrost_module_cache::guard");
        target.starts_with("bifrost_module_cache")
            && !target.starts_with("bifrost_module_cache::near")
            && (is_guard || metadata.level() <= Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            match record.level() {
                Level::Error | Level::Warn => self.0.warning(&message),
                _ => self.0.info(&message),
            }
        }
    }

    fn flush(&self) {}
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn count(modules: usize) -> u64 {
    u64::try_from(modules).unwrap_or(u64::MAX)
}
