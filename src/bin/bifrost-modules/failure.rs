//! How a command ends: an exit code, and one line that says what went wrong.

use std::process::ExitCode;

use bifrost_module_cache::{Error, Outage};

/// The exit codes; `--help` and docs/tool.md list them. Scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    No = 1,
    Usage = 2,
    Unavailable = 3,
    Refused = 4,
    Corrupt = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    pub fn fine_if(fine: bool) -> Self {
        if fine { Self::Fine } else { Self::No }
    }
}

/// An error, as one line for a person.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn no(message: impl Into<String>) -> Self {
        Self::new(Exit::No, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    pub fn is_unavailable(&self) -> bool {
        self.exit == Exit::Unavailable
    }

    /// The same failure, with where it happened before it.
    pub fn at(self, place: &str) -> Self {
        Self {
            message: format!("{place}: {}", self.message),
            ..self
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::InvalidPath { .. } => Exit::Usage,
            Error::Corrupt { .. } => Exit::Corrupt,
            // Waiting helps against an outage, and not against a certificate that is not trusted:
            // `--wait` and scripts go by the code.
            Error::Unavailable { cause, .. } if *cause != Outage::Untrusted => Exit::Unavailable,
            error if error.is_transient() => Exit::Unavailable,
            _ => Exit::Refused,
        };
        Self::new(exit, in_our_words(&error.with_sources()))
    }
}

/// The library's errors name the function that changes a limit; an operator has an argument
/// instead.
fn in_our_words(text: &str) -> String {
    [
        ("Tls::with_ca_pem", "--tls-ca"),
        ("Config::with_max_content_bytes", "--max-content-bytes"),
        ("SyncOptions::with_allow_empty", "--allow-empty"),
        ("SyncOptions::with_max_prune", "--max-prune"),
        ("GuardOptions::with_poll", "--poll"),
        ("GuardOptions::with_sweep", "--sweep"),
        ("GuardOptions::with_grace", "--grace"),
        ("GuardOptions::with_standby", "--standby"),
        ("GuardOptions::with_answer_timeout", "--timeout"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (name, argument)| {
        text.replace(name, argument)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifrost_module_cache::Config;

    #[test]
    fn an_argument_is_named_as_one() {
        let text = in_our_words(&Error::Empty.to_string());
        assert!(text.contains("--allow-empty") && !text.contains("::"));
    }

    #[test]
    fn what_is_misconfigured_is_not_tried_again() {
        let failure = Failure::from(Config::new("hunter2").unwrap_err());
        assert_eq!(failure.exit, Exit::Refused);
        assert!(!failure.message.contains("hunter2"));
    }
}
