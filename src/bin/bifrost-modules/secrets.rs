//! URLs hold passwords: where they come from, and that a usage error does not show them.

use std::env::{self, VarError};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::redact::redacted;

/// A URL, from an argument or a file, and without these from a variable or the file that one names.
/// Two of a kind are an error: which one was meant can't be told, and the wrong Redis might be
/// cleared.
pub fn url(
    argument: Option<&str>,
    file: Option<&Path>,
    variable: &str,
    argument_name: &str,
) -> Result<Option<String>, Failure> {
    let file_name = format!("{argument_name}-file");
    let file_variable = format!("{variable}_FILE");
    match (argument, file) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!(
                "{argument_name} and {file_name} are both given: leave one out"
            )));
        }
        (Some(url), None) => return Ok(Some(url.to_owned())),
        (None, Some(file)) => return read(file, &file_name, variable).map(Some),
        (None, None) => {}
    }
    match (var(variable)?, var(&file_variable)?) {
        // An empty variable, as `${REDIS_URL:-}` makes it in a compose file, counts as not set
        // where the other one is.
        (Some(url), Some(file)) if file.is_empty() => Ok(Some(url)),
        (Some(url), Some(file)) if url.is_empty() => {
            read(Path::new(&file), &file_variable, variable).map(Some)
        }
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "{variable} and {file_variable} are both set: unset one"
        ))),
        (Some(url), None) => Ok(Some(url)),
        (None, Some(file)) => read(Path::new(&file), &file_variable, variable).map(Some),
        (None, None) => Ok(None),
    }
}

/// A variable. One that is not Unicode is refused instead of taken for not set.
pub fn var(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Failure::refused(format!("{name} is not valid Unicode")))
        }
    }
}

/// The URL in a file, without the line feed that mounted secrets often end with.
fn read(file: &Path, name: &str, variable: &str) -> Result<String, Failure> {
    if file.to_string_lossy().contains("://") {
        return Err(Failure::refused(format!(
            "{name} is a URL and no file: put the URL into a file, or into {variable}"
        )));
    }
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Failure::refused(format!(
            "can't read {name} {}: {error}",
            file.display()
        ))),
    }
}

/// Prints help, the version or what is wrong with the arguments.
pub fn print_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let shown = redacted(&text);
    // Help quotes no argument, and clap prints it with styles. Only an error that quotes what may
    // be a password is printed by us, without.
    let printed = if shown == text || !error.use_stderr() {
        error.print()
    } else {
        io::stderr().write_all(format!("{}\n", shown.trim_end()).as_bytes())
    };
    // If the stream is closed, the exit code has to do.
    drop(printed);
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
