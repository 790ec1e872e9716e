//! What an application is told of each call to Redis, to make metrics, traces or logs of it.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Outage};

/// Is told of each call to Redis when it has ended: set it with
/// [`Config::with_observer`](crate::Config::with_observer).
///
/// Exactly once for each call, however often it was tried; also for one that failed, that the open
/// breaker rejected, or whose caller dropped its future. Long work, such as a warm-up, is many calls
/// of its own words. What needs no Redis is no call: a hit of a near cache, an argument that is
/// refused at once, an answer that another reader's call brings. Neither is opening a connection,
/// nor what a near cache does to follow Redis.
///
/// It is called in the thread or task that made the call, which waits for it: be quick, do no IO
/// and take no lock that is held for long. If it panics, the panic is caught and logged as an error,
/// and the call ends as it would have. In a forked child it is called, too, with whatever state it
/// had in its parent.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use bifrost_module_cache::{CallEnded, Config, Observe, Outcome};
///
/// #[derive(Default)]
/// struct Failures(AtomicU64);
///
/// impl Observe for Failures {
///     fn call_ended(&self, call: &CallEnded) {
///         if call.outcome.is_failure() {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let failures = Arc::new(Failures::default());
/// let config = Config::from_env()?.with_observer(failures.clone());
/// # Ok::<(), bifrost_module_cache::Error>(())
/// ```
///
/// In ten lines to the crates `metrics` and `tracing`: the examples of these names. All words:
/// [metrics](crate::guide::metrics).
pub trait Observe: Send + Sync {
    /// A call has ended.
    fn call_ended(&self, call: &CallEnded);
}

/// A call to Redis that has ended. It holds no path, key or content, so that all of it may become a
/// label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallEnded {
    /// What was asked for, in lower case with `_` between words, such as `get_many`. There are
    /// about twenty, listed in [metrics](crate::guide::metrics#operations); a version that renames
    /// one says so in its changelog.
    pub operation: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// From its beginning to its end: waiting for a connection, connecting and retries included. For
    /// `write` of a warm-up also what Postgres did meanwhile.
    pub elapsed: Duration,
    /// How often it was sent once more: at most once for a read; for a write only where a server
    /// refused all of it because another one holds the keys.
    pub retries: u32,
    /// What was sent as arguments (keys, paths, modules) and received as strings, in bytes, without
    /// the words and the framing of the protocol. What was sent counts once, however often it was
    /// sent.
    pub bytes: u64,
}

/// How a call to Redis ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Redis answered, and did what was asked for.
    Done,
    /// Redis answered that it holds none of the modules that `get`, `get_many` or `resolve` asked
    /// for. A name without a source may still be a namespace.
    Absent,
    /// Redis answered that another writer came first, so that a transaction changed nothing. The
    /// work that it is a part of tries again or leaves it to the other.
    Aborted,
    /// [`Error::Unavailable`]: no answer.
    Unavailable,
    /// The open breaker failed the call at once: [`Outage::Rejected`](crate::Outage::Rejected).
    Rejected,
    /// [`Error::Busy`].
    Busy,
    /// [`Error::Refused`].
    Refused,
    /// [`Error::Corrupt`]. A module that only does not match its hash is none:
    /// [`Stats::mismatched`](crate::Stats::mismatched) counts it.
    Corrupt,
    /// Any other error.
    Failed,
    /// Its caller dropped its future, or gave up the work that it was a part of. A write may have
    /// been applied.
    Cancelled,
}

impl Outcome {
    /// In lower case, as a label: `done`, `absent`, `aborted`, `unavailable`, `rejected`, `busy`,
    /// `refused`, `corrupt`, `failed` or `cancelled`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Absent => "absent",
            Self::Aborted => "aborted",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// True if the call ended with an [`Error`]. That a caller dropped it is no failure of it.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Done | Self::Absent | Self::Aborted | Self::Cancelled => false,
            Self::Unavailable
            | Self::Rejected
            | Self::Busy
            | Self::Refused
            | Self::Corrupt
            | Self::Failed => true,
        }
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Unavailable {
                cause: Outage::Rejected,
                ..
            } => Self::Rejected,
            Error::Unavailable { .. } => Self::Unavailable,
            Error::Busy { .. } => Self::Busy,
            Error::Refused { .. } => Self::Refused,
            Error::Corrupt { .. } => Self::Corrupt,
            _ => Self::Failed,
        }
    }

    /// Of a transaction that Redis carried out, or did not.
    pub(crate) fn carried_out(done: bool) -> Self {
        if done { Self::Done } else { Self::Aborted }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
