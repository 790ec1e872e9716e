//! What a caller may say about long work.

use std::fmt;
use std::time::Duration;

/// Options of the warm-up, `verify`, `repair` and `publish_exact`.
///
/// ```
/// use bifrost_module_cache::SyncOptions;
///
/// let mut last = None;
/// let options = SyncOptions::default()
///     .with_allow_empty(true)
///     .with_progress(|progress| last = Some(progress));
/// # drop(options);
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct SyncOptions<'a> {
    pub(crate) allow_empty: bool,
    pub(crate) barrier_timeout: Option<Duration>,
    progress: Option<Box<dyn FnMut(Progress) + Send + 'a>>,
}

impl<'a> SyncOptions<'a> {
    /// Whether an empty workspace is meant. Default no: then what finds no module at all removes
    /// none, because an empty table is more often the wrong database than a deleted workspace.
    #[must_use]
    pub fn with_allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// How long to wait for transactions that were open, each time. Default 5 s. Where they last
    /// longer the result is unverified.
    #[must_use]
    pub fn with_barrier_timeout(mut self, timeout: Duration) -> Self {
        self.barrier_timeout = Some(timeout);
        self
    }

    /// Called after each batch, in the calling task: keep it short.
    #[must_use]
    pub fn with_progress(mut self, progress: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn barrier_timeout(&self) -> Duration {
        self.barrier_timeout.unwrap_or(Duration::from_secs(5))
    }

    /// Reports how many more are done.
    pub(crate) fn counted(&mut self, stage: Stage, total: usize) -> impl FnMut(usize) + Send {
        let mut done = 0;
        move |more| {
            done += more;
            self.report(stage, done, total);
        }
    }

    pub(crate) fn report(&mut self, stage: Stage, done: usize, total: usize) {
        if let Some(progress) = &mut self.progress {
            progress(Progress { stage, done, total });
        }
    }
}

impl fmt::Debug for SyncOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            allow_empty,
            barrier_timeout,
            progress,
        } = self;
        f.debug_struct("SyncOptions")
            .field("allow_empty", allow_empty)
            .field("barrier_timeout", barrier_timeout)
            .field("progress", &progress.is_some())
            .finish()
    }
}

/// How far long work has come. The same may be reported again, as a sign that work goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How many modules of this stage are done.
    pub done: usize,
    /// How many this stage has.
    pub total: usize,
}

/// The stages of long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Rows are read and what differs is written.
    Load,
    /// Rows, entries and index are compared.
    Compare,
    /// What differs is mended.
    Mend,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Compare => "compare",
            Self::Mend => "mend",
        })
    }
}
