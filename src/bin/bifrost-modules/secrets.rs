//! URLs hold passwords: where they come from, and how they stay out of what is printed.

use std::env::{self, VarError};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::failure::Failure;

/// A URL from wherever it was given: an argument before a variable, and of both only one.
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
        (None, Some(file)) => return read(file, &file_name).map(Some),
        (None, None) => {}
    }
    match (var(variable)?, var(&file_variable)?) {
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "{variable} and {file_variable} are both set: unset one"
        ))),
        (Some(url), None) => Ok(Some(url)),
        (None, Some(file)) => read(Path::new(&file), &file_variable).map(Some),
        (None, None) => Ok(None),
    }
}

fn var(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(Failure::refused(format!("{name} is not valid Unicode")))
        }
    }
}

/// Mounted secrets often end with a line feed.
fn read(file: &Path, name: &str) -> Result<String, Failure> {
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
    let shown = without_urls(&text);
    if shown == text {
        // Whoever does not read it does not miss it.
        let _ = error.print();
    } else {
        eprint!("{shown}");
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// A URL in the wrong place is an argument that clap quotes.
fn without_urls(text: &str) -> String {
    let hide = |line: &str| {
        let start = ["://", "password="]
            .iter()
            .filter_map(|mark| line.find(mark).map(|at| at + mark.len()))
            .min();
        match start {
            Some(start) if line.starts_with("error:") => {
                let end = line.rfind('\'').filter(|end| *end >= start);
                let rest = end.map_or("", |end| &line[end..]);
                format!("{}…{rest}", &line[..start])
            }
            _ => line.to_owned(),
        }
    };
    text.split_inclusive('\n').map(hide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser as _;

    #[test]
    fn a_url_in_the_wrong_place_is_not_quoted() {
        for arguments in [
            &["status", "redis://user:hunter2@host"][..],
            &["redis://user:hun'ter2@host", "status"],
            &["status", "host=db password=hunter2"],
            &["get", "a.py", "postgres://user:x'hunter2'@host/a"],
            &["status", "--redis-ur=redis://user:hunter2@host"],
            &["warm", "--wait", "redis://user:hunter2@host"],
            &["completions", "redis://user:hunter2@host"],
        ] {
            let arguments = ["bifrost-modules"].iter().chain(arguments);
            let error = Cli::try_parse_from(arguments).err().expect("it is refused");
            let shown = without_urls(&error.render().to_string());
            assert!(shown.starts_with("error: "), "{shown}");
            assert!(!shown.contains("ter2"), "{shown}");
        }
    }

    #[test]
    fn other_messages_stay_as_they_are() {
        let error = Cli::try_parse_from(["bifrost-modules", "--help"]).err();
        let help = error.expect("help is no command").render().to_string();
        assert!(help.contains("redis://localhost:6379/0"));
        assert_eq!(without_urls(&help), help);
    }
}
