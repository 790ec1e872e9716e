//! Whether a server still has the place that it had: its role and its history.
//!
//! A primary that is demoted in place keeps its run id and its connections, and answers PING.

use redis::{Cmd, Value};

use super::info::Info;
use crate::error::Error;

/// A server's role and the history that it holds. Both stay the same for as long as it reigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reign {
    role: String,
    replid: String,
}

impl Reign {
    pub(crate) fn is_primary(&self) -> bool {
        self.role == "master"
    }
}

/// What a server answered when it was asked for its reign.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Reign(Reign),
    /// Its data are being replaced by those of a primary: what it says now proves nothing.
    Loading,
    /// It does not tell.
    Silent,
}

/// Asks for what [`answer`] reads. It takes Redis 12 µs, and a PING 0.5.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn ask() -> Cmd {
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    command
}

/// What `INFO replication` tells of the reign.
pub(crate) fn answer(info: Value) -> Result<Answer, Error> {
    let info = Info::new(info)?;
    if info.number("master_sync_in_progress") == Some(1) {
        return Ok(Answer::Loading);
    }
    Ok(info.role().map_or(Answer::Silent, |role| {
        Answer::Reign(Reign {
            role: role.to_owned(),
            replid: info.replid().unwrap_or_default().to_owned(),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reign_ends_with_the_role_or_the_history() {
        let told = |text: &str| answer(Value::BulkString(text.into())).unwrap();
        let first = told("role:master\r\nmaster_replid:a\r\n");
        assert_eq!(
            first,
            told("# Replication\r\nrole:master\r\nmaster_replid:a\r\n")
        );
        assert_ne!(first, told("role:slave\r\nmaster_replid:a\r\n"));
        assert_ne!(first, told("role:master\r\nmaster_replid:b\r\n"));
        assert_eq!(
            told("role:slave\r\nmaster_sync_in_progress:1\r\n"),
            Answer::Loading
        );
        assert_eq!(told("connected_slaves:0\r\n"), Answer::Silent);
    }
}
