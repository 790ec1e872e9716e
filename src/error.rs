//! The one error type of this crate, the same under every feature set.
//!
//! No variant carries a type of a dependency, and none carries text that Redis sent: a server may
//! echo what it was given, and that can be a password or a module's source.

use std::error::Error as StdError;
use std::fmt;

pub(crate) type Source = Box<dyn StdError + Send + Sync + 'static>;

/// Everything that can go wrong, each kind with one remedy of its own.
///
/// An import hook maps every kind to an `ImportError` that carries the reason; only `Ok(None)`,
/// which is Redis's own word that a module is absent, lets the next finder try.
///
/// | What Redis or the network said | Kind | [transient](Error::is_transient) |
/// | --- | --- | --- |
/// | refused, reset, closed, timed out, not Redis at all | [`Unavailable`](Error::Unavailable) | yes |
/// | a certificate was not accepted | `Unavailable` | no |
/// | `LOADING`, `BUSY`, `MASTERDOWN`, `CLUSTERDOWN`, `TRYAGAIN`, `max number of clients` | `Unavailable` | yes |
/// | `READONLY`, `NOREPLICAS` (a failover under way), `OOM` (memory may become free), `MISCONF` (disk) | [`Refused`](Error::Refused) | yes |
/// | `NOPERM`, `NOAUTH`, `WRONGPASS`, `WRONGTYPE`, a database out of range, anything else | `Refused` | no |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path breaks the rules of [`keys::module_key`](crate::keys::module_key). Nothing was sent.
    #[error("invalid module path {path}: {reason}")]
    #[non_exhaustive]
    InvalidPath {
        /// The path, escaped and cut short for display.
        path: String,
        /// The rule it breaks.
        reason: &'static str,
    },

    /// A setting cannot be used.
    #[error("invalid configuration: {reason}")]
    #[non_exhaustive]
    InvalidConfig {
        /// What is wrong with it. Never contains a URL or a password.
        reason: String,
    },

    /// A module's content is larger than the configured limit. Nothing was sent.
    #[error(
        "the content of module {path} has {size} bytes, more than the limit of {limit}: raise it with Config::with_max_content_bytes"
    )]
    #[non_exhaustive]
    TooLarge {
        /// The module's path.
        path: String,
        /// The size of its content in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// Redis could not be asked, or did not answer: an outage, never an absence.
    #[error("redis{} is unavailable: {cause}{}{}", named(" ", .server), said(*.cause, .source.as_ref()), if *.may_have_been_applied { "; the write may have been applied" } else { "" })]
    #[non_exhaustive]
    Unavailable {
        /// Which Redis, as [`Error::server`] has it.
        server: String,
        /// How it is unavailable.
        cause: Outage,
        /// True if a write was sent and its answer never came: it may or may not have been
        /// applied, and is not repeated because it could cover a newer one. Bring the path to what
        /// the database says instead.
        may_have_been_applied: bool,
        /// The I/O error behind it, if there is one.
        source: Option<Source>,
    },

    /// Every connection was in use for the whole time that a call may wait for one, or, in
    /// `nonblocking`, too many calls were in flight.
    #[error(
        "all connections to redis{} were in use for {waited_ms} ms: raise the pool size or send less at once",
        named(" ", .server)
    )]
    #[non_exhaustive]
    Busy {
        /// Which Redis, as [`Error::server`] has it.
        server: String,
        /// How long the call waited, in milliseconds.
        waited_ms: u64,
    },

    /// What is stored under a module's key is not that module.
    #[error("the cached entry of module {path}{} is corrupt: {reason}", named(" in redis ", .server))]
    #[non_exhaustive]
    Corrupt {
        /// Which Redis, as [`Error::server`] has it.
        server: String,
        /// The path whose entry it is.
        path: String,
        /// What is wrong with it. Never contains its content.
        reason: String,
    },

    /// Redis answered, and the answer was no.
    #[error("redis{} refused the command with {code}: {hint}{}", named(" ", .server), if *.may_have_been_applied { "; the rest of the write was applied" } else { "" })]
    #[non_exhaustive]
    Refused {
        /// Which Redis, as [`Error::server`] has it.
        server: String,
        /// The error code, such as `NOPERM`; `ERR` for one that this crate does not know.
        code: &'static str,
        /// What the code means here and what to do.
        hint: &'static str,
        /// True if it refused one command of a write and carried out the others.
        may_have_been_applied: bool,
    },

    /// No module was given, and the caller did not say that none is meant: all modules would have
    /// been removed.
    #[error(
        "an empty workspace would remove every module: allow it with SyncOptions::with_allow_empty if it is meant"
    )]
    Empty,

    /// More of the cached modules would have been removed than
    /// [`SyncOptions::with_max_prune`](crate::sync::options::SyncOptions::with_max_prune) allows.
    #[error(
        "{removed} of the {cached} cached modules would be removed, because the workspace does not have them: if it is the right one, allow that with SyncOptions::with_max_prune"
    )]
    #[non_exhaustive]
    TooManyRemovals {
        /// How many would have been removed.
        removed: usize,
        /// How many are cached.
        cached: usize,
    },

    /// The database failed, or answered what cannot be used.
    #[error("{}{reason}", if .server.is_empty() { String::new() } else { format!("postgres {server}: ") })]
    #[non_exhaustive]
    Database {
        /// Which database, as [`Error::server`] has it.
        server: String,
        /// What could not be done.
        reason: &'static str,
        /// Whether trying again may help: a lost connection, a serialization failure, a shutdown.
        transient: bool,
        /// The client's error.
        source: Option<Source>,
    },
}

/// How Redis was unavailable: `cause` of [`Error::Unavailable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// No connection could be made.
    Connect,
    /// No answer came in time.
    TimedOut,
    /// It or we are not trusted: a certificate is unknown, expired, or for another host.
    Untrusted,
    /// The connection was lost.
    Lost,
    /// It answers that it is loading its data from disk: `LOADING`.
    Loading,
    /// It answers that a script or function keeps it busy: `BUSY`.
    Scripting,
    /// It answers that it is a replica without its primary, and may not serve old data:
    /// `MASTERDOWN`.
    PrimaryDown,
    /// It answers that it has as many clients as it may: `maxclients`.
    TooManyClients,
    /// It answers that it is not ready for other reasons: `CLUSTERDOWN`; `TRYAGAIN` and `ASK`, while
    /// a slot is moved to another node.
    NotReady,
    /// It failed so often in a row that it is not asked for a moment: the breaker is open.
    Rejected,
    /// What answered does not speak the Redis protocol.
    Protocol,
    /// It is there, but modules changed faster than a snapshot of them could be taken.
    Contended,
    /// It does not hold the keys any more: it was demoted, or promoted anew, or they were moved.
    Elsewhere,
    /// No server was found that holds the keys. The error's text says which sentinels or nodes were
    /// asked, and what they said.
    NoHolder,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection could be made",
            Self::TimedOut => "it did not answer in time",
            Self::Untrusted => "a certificate was not accepted",
            Self::Lost => "the connection was lost",
            Self::Loading => "it is loading its data from disk (LOADING): wait until it is done",
            Self::Scripting => {
                "a script keeps it busy (BUSY): end it with SCRIPT KILL or FUNCTION KILL"
            }
            Self::PrimaryDown => {
                "it is a replica that has lost its primary (MASTERDOWN): connect to the primary"
            }
            Self::TooManyClients => {
                "it has as many clients as it may: raise its maxclients, or connect fewer"
            }
            Self::NotReady => "it is not ready to answer",
            Self::Rejected => "it failed so often that it is left alone for a moment",
            Self::Protocol => "its answer is not valid protocol",
            Self::Contended => "modules changed faster than a snapshot of them could be taken",
            Self::Elsewhere => "another server holds the keys now",
            Self::NoHolder => "no server was found that holds the keys",
        })
    }
}

impl Outage {
    /// True if Redis has said so itself: it is there, and the connection is sound. Such an outage
    /// opens no breaker and discards no connection.
    pub(crate) fn was_answered(self) -> bool {
        matches!(
            self,
            Self::Loading
                | Self::Scripting
                | Self::PrimaryDown
                | Self::TooManyClients
                | Self::NotReady
        )
    }
}

impl Error {
    /// True if Redis could not be asked or did not answer. The answer is unknown, not "absent".
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// True if all connections were in use, or too many calls in flight, for the whole wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// True if a stored entry could not be read as the module it should be.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// True if Redis answered with an error.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// True if a path was refused before anything was sent.
    #[must_use]
    pub fn is_invalid_path(&self) -> bool {
        matches!(self, Self::InvalidPath { .. })
    }

    /// True if a setting was refused.
    #[must_use]
    pub fn is_invalid_config(&self) -> bool {
        matches!(self, Self::InvalidConfig { .. })
    }

    /// True if the database, not Redis, failed.
    #[must_use]
    pub fn is_database(&self) -> bool {
        matches!(self, Self::Database { .. })
    }

    /// True if the same call may succeed later without any change by an operator: an outage, a busy
    /// moment, a failover.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { cause, .. } => *cause != Outage::Untrusted,
            Self::Busy { .. } => true,
            Self::Refused { code, .. } => {
                matches!(*code, "READONLY" | "NOREPLICAS" | "OOM" | "MISCONF")
            }
            Self::Database { transient, .. } => *transient,
            _ => false,
        }
    }

    /// True if a write failed after it was sent, so that it may have been applied all the same, or
    /// has been in part.
    #[must_use]
    pub fn may_have_been_applied(&self) -> bool {
        matches!(
            self,
            Self::Unavailable {
                may_have_been_applied: true,
                ..
            } | Self::Refused {
                may_have_been_applied: true,
                ..
            }
        )
    }

    /// The path that the error is about, if it is about one. An invalid path comes escaped.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::InvalidPath { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Corrupt { path, .. } => Some(path),
            _ => None,
        }
    }

    /// True if Redis has no memory for what was asked. Commands that free some are still permitted,
    /// outside MULTI.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Refused { code: "OOM", .. })
    }

    /// Which server the error is about, if it is about one: `host:port/database`, as
    /// [`Config::redis_address`](crate::config::Config::redis_address) has it for Redis, and as
    /// Postgres itself says where it could be asked. Never the user or the password.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Unavailable { server, .. }
            | Self::Busy { server, .. }
            | Self::Corrupt { server, .. }
            | Self::Refused { server, .. }
            | Self::Database { server, .. } => Some(server).filter(|server| !server.is_empty()),
            _ => None,
        }
        .map(String::as_str)
    }

    /// The error and all that is behind it, each said once, in one line for a log.
    #[must_use]
    pub fn with_sources(&self) -> String {
        let mut text = self.to_string();
        let mut next = StdError::source(self);
        while let Some(source) = next {
            let more = source.to_string();
            // Some clients repeat the source's text in their own.
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            next = source.source();
        }
        // One line, even if a server's message has several: scripts and logs read line by line.
        text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// True where the database has no such column, or does not let this user read it.
    #[cfg(all(feature = "postgres", feature = "near-cache"))]
    pub(crate) fn is_no_column(&self) -> bool {
        let Self::Database {
            source: Some(source),
            ..
        } = self
        else {
            return false;
        };
        let error = source.downcast_ref::<tokio_postgres::Error>();
        let state = error.and_then(tokio_postgres::Error::code);
        state.is_some_and(|state| matches!(state.code(), "42703" | "42501"))
    }

    /// The error of a call to this Redis, unless it names one already. Errors are made where the
    /// address is not known, and named where a call ends.
    pub(crate) fn of_redis(mut self, address: &str) -> Self {
        if let Self::Unavailable { server, .. }
        | Self::Busy { server, .. }
        | Self::Corrupt { server, .. }
        | Self::Refused { server, .. } = &mut self
            && server.is_empty()
        {
            address.clone_into(server);
        }
        self
    }

    /// The error of a statement for this database.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_database(mut self, address: &str) -> Self {
        if let Self::Database { server, .. } = &mut self {
            address.clone_into(server);
        }
        self
    }

    /// True if a key holds another type than the command is for.
    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: "WRONGTYPE",
                ..
            }
        )
    }

    /// Marks an error of an attempt that had sent something: a write may have been applied. Not so
    /// where the certificate was refused: such a server has carried out nothing.
    pub(crate) fn maybe_applied(self) -> Self {
        let trusted = !matches!(
            self,
            Self::Unavailable {
                cause: Outage::Untrusted,
                ..
            }
        );
        self.with_applied(trusted)
    }

    /// Marks an error of an attempt that was a read, or had sent nothing.
    pub(crate) fn not_applied(self) -> Self {
        self.with_applied(false)
    }

    /// A copy for each reader that waited for the same answer. `Box<dyn Error>` can't be cloned, so
    /// the source becomes its text.
    #[cfg(feature = "near-cache")]
    pub(crate) fn copied(&self) -> Self {
        let copied =
            |source: &Option<Source>| source.as_ref().map(|source| source.to_string().into());
        match self {
            Self::InvalidPath { path, reason } => Self::InvalidPath {
                path: path.clone(),
                reason,
            },
            Self::InvalidConfig { reason } => Self::InvalidConfig {
                reason: reason.clone(),
            },
            Self::TooLarge { path, size, limit } => Self::TooLarge {
                path: path.clone(),
                size: *size,
                limit: *limit,
            },
            Self::Unavailable {
                server,
                cause,
                may_have_been_applied,
                source,
            } => Self::Unavailable {
                server: server.clone(),
                cause: *cause,
                may_have_been_applied: *may_have_been_applied,
                source: copied(source),
            },
            Self::Busy { server, waited_ms } => Self::Busy {
                server: server.clone(),
                waited_ms: *waited_ms,
            },
            Self::Corrupt {
                server,
                path,
                reason,
            } => Self::Corrupt {
                server: server.clone(),
                path: path.clone(),
                reason: reason.clone(),
            },
            Self::Refused {
                server,
                code,
                hint,
                may_have_been_applied,
            } => Self::Refused {
                server: server.clone(),
                code,
                hint,
                may_have_been_applied: *may_have_been_applied,
            },
            Self::Empty => Self::Empty,
            Self::TooManyRemovals { removed, cached } => Self::TooManyRemovals {
                removed: *removed,
                cached: *cached,
            },
            Self::Database {
                server,
                reason,
                transient,
                source,
            } => Self::Database {
                server: server.clone(),
                reason,
                transient: *transient,
                source: copied(source),
            },
        }
    }

    fn with_applied(mut self, applied: bool) -> Self {
        if let Self::Unavailable {
            may_have_been_applied,
            ..
        } = &mut self
        {
            *may_have_been_applied = applied;
        }
        self
    }

    /// An invalid path is shown, because a person has to find it; it is escaped, because it may
    /// hold anything.
    pub(crate) fn invalid_path(path: &str, reason: &'static str) -> Self {
        Self::InvalidPath {
            path: shown(path),
            reason,
        }
    }

    pub(crate) fn invalid_config(reason: impl Into<String>) -> Self {
        Self::InvalidConfig {
            reason: reason.into(),
        }
    }

    /// A corrupt entry. The path is valid, so it is shown as it is; `reason` must not quote the
    /// content.
    pub(crate) fn corrupt(path: &str, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            server: String::new(),
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// What those said who were asked where the keys are: without it, the error tells an operator nothing.
fn said(cause: Outage, source: Option<&Source>) -> String {
    match source {
        Some(source) if cause == Outage::NoHolder => format!(": {source}"),
        _ => String::new(),
    }
}

/// The name of a server as a part of a sentence; nothing where it is not known.
fn named(before: &str, server: &str) -> String {
    if server.is_empty() {
        String::new()
    } else {
        format!("{before}{server}")
    }
}

/// A string that is not ours as it may appear in an error or a log line: quoted, escaped so that it
/// can't forge a line, cut short.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_can_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn a_foreign_string_is_escaped_and_cut() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        let long = shown(&"é".repeat(500));
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), 120);
    }

    #[test]
    fn an_ambiguous_write_says_so() {
        let error = Error::Unavailable {
            server: String::new(),
            cause: Outage::TimedOut,
            may_have_been_applied: true,
            source: None,
        };
        assert!(error.may_have_been_applied() && error.is_unavailable() && error.is_transient());
        assert!(error.to_string().ends_with("may have been applied"));
    }
}
