//! Standard output: what was asked for, as text or JSON, to a terminal, a file or a pipe.
//!
//! `println!` would not do: it panics when the reader of a pipe has gone, as in `ls | head`.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Stdout, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use serde::Serialize;

use crate::args::OutputArgs;
use crate::failure::Failure;
use crate::stderr::Stderr;

pub const GOOD: Style =
    Style::new().fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Green)));
pub const BAD: Style = Style::new()
    .fg_color(Some(anstyle::Color::Ansi(anstyle::AnsiColor::Red)))
    .bold();
pub const DIM: Style = Style::new().dimmed();
pub const PLAIN: Style = Style::new();

/// Where to print. Once the reader of the pipe has gone, printing does nothing, and is no error.
pub struct Output {
    /// `None` once the reader of the pipe has gone.
    stream: Option<BufWriter<Stdout>>,
    stderr: Stderr,
    pub json: bool,
    quiet: bool,
    pub terminal: bool,
    colors: ColorChoice,
}

impl Output {
    pub fn new(args: &OutputArgs, stderr: &Stderr) -> Self {
        let stdout = io::stdout();
        Self {
            colors: AutoStream::choice(&stdout),
            terminal: stdout.is_terminal(),
            stream: Some(BufWriter::with_capacity(64 * 1024, stdout)),
            stderr: stderr.clone(),
            json: args.json,
            quiet: args.quiet,
        }
    }

    /// Whether a report for people is wanted.
    pub fn reports(&self) -> bool {
        !self.json && !self.quiet
    }

    /// True once the reader of the pipe has gone: no need to go on.
    pub fn is_closed(&self) -> bool {
        self.stream.is_none() || has_no_reader()
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write(|stream| stream.write_all(bytes))
    }

    /// One line of what was asked for.
    pub fn line(&mut self, line: Arguments<'_>) -> Result<(), Failure> {
        self.write(|stream| writeln!(stream, "{line}"))
    }

    /// One object on one line.
    pub fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object)
            .map_err(|error| Failure::refused(format!("can't print JSON: {error}")))?;
        self.line(format_args!("{line}"))
    }

    /// A report: names and what is to be said of them, in two columns.
    pub fn table(&mut self, rows: &[(&str, String)]) -> Result<(), Failure> {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in rows {
            let name = self.paint(DIM, format_args!("{name:width$}"));
            self.line(format_args!("{name}  {value}"))?;
        }
        Ok(())
    }

    /// Something that may help, beside the answer.
    pub fn hint(&mut self, text: &str) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        // Flushed first, so that answer and hint come in order where both go to one terminal.
        self.flush()?;
        self.stderr.hint(text);
        Ok(())
    }

    /// In a style, where colours are wanted.
    pub fn paint(&self, style: Style, text: impl Display) -> String {
        if self.colors == ColorChoice::Never {
            text.to_string()
        } else {
            format!("{style}{text}{style:#}")
        }
    }

    /// Must be called in the end: a `BufWriter` that is dropped hides its errors.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.write(BufWriter::flush)
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        match write(stream) {
            Ok(()) => Ok(()),
            // The reader of the pipe has gone, as in `ls | head`.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.stream = None;
                Ok(())
            }
            Err(error) => Err(Failure::refused(format!(
                "can't write to standard output: {error}"
            ))),
        }
    }
}

/// Whether the other end of a pipe is closed, without writing to it.
#[cfg(unix)]
fn has_no_reader() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let stdout = io::stdout();
    // No event is asked for: POLLERR and POLLHUP are always told.
    let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut ends, Some(&at_once)).is_ok()
        && ends[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Without `poll` only a failed write tells.
#[cfg(not(unix))]
fn has_no_reader() -> bool {
    false
}

/// A text that is not ours (a path, a hash, a source), with control characters escaped: printed as
/// it is, it could command the operator's terminal.
pub fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control() && c != '\t';
            let (raw, shown) = ((!escaped).then_some(c), escaped.then(|| c.escape_default()));
            raw.into_iter().chain(shown.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_cannot_command_a_terminal() {
        assert_eq!(harmless("a\tb é 🦀"), "a\tb é 🦀");
        assert_eq!(harmless("\u{1b}[2J\u{9b}"), "\\u{1b}[2J\\u{9b}");
    }
}
