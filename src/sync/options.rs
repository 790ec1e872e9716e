//! What a caller may say about long work: how much may be removed, how long to wait, and where to
//! report progress.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// In a cache of at most so many modules, any share may be removed without being asked: there, half
/// of them is an everyday change.
const SMALL: usize = 20;

/// Options of the warm-up, `verify`, `repair` and `publish_exact`: the argument of
/// `warm_from_db_with`, `verify_with`, `repair_with` and `publish_exact_with`.
///
/// ```
/// use bifrost_module_cache::sync::SyncOptions;
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
    max_prune: Option<f64>,
    pub(crate) dry_run: bool,
    pub(crate) barrier_timeout: Option<Duration>,
    progress: Option<Box<dyn FnMut(Progress) + Send + 'a>>,
}

impl<'a> SyncOptions<'a> {
    /// Which share of the cached modules may be removed, from 0.0 (none) to 1.0 (all, also for an
    /// empty workspace). Default 0.5 where more than 20 modules are cached, and else all unless the
    /// workspace is empty: what would remove more is more often the wrong database than a change
    /// of the workspace.
    ///
    /// [`Error::TooManyRemovals`] tells of more before anything is written or removed; only where
    /// the workspace shrinks during a warm-up, what it had before may have been written.
    #[must_use]
    pub fn with_max_prune(mut self, share: f64) -> Self {
        self.max_prune = Some(share);
        self
    }

    /// Whether an empty workspace is meant: [`with_max_prune`](Self::with_max_prune) of 1.0, or of
    /// the default. By default what finds no module at all removes none.
    #[must_use]
    pub fn with_allow_empty(mut self, allow: bool) -> Self {
        self.max_prune = allow.then_some(1.0);
        self
    }

    /// Whether to write and remove nothing, and to report what would be: `dry_run` of the report.
    /// Default no. What [`with_max_prune`](Self::with_max_prune) refuses is reported, too.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// How long to wait for transactions that were open, each time that is needed (up to six
    /// times). Default 5 s, at most a day. Where they last longer the result is unverified.
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

    pub(crate) fn allows_empty(&self) -> bool {
        self.max_prune.is_some_and(|share| share >= 1.0)
    }

    /// Refuses to remove so many of those that are cached, if that is too large a share.
    pub(crate) fn check_removals(&self, removed: usize, cached: usize) -> Result<(), Error> {
        let default = || if cached > SMALL { 0.5 } else { 1.0 };
        // `f64::max` returns the other operand for NaN, so NaN permits no removal.
        let share = self.max_prune.unwrap_or_else(default).max(0.0);
        let count = |count| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        if count(removed) > share * count(cached) {
            return Err(Error::TooManyRemovals { removed, cached });
        }
        Ok(())
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn barrier_timeout(&self) -> Duration {
        self.barrier_timeout.unwrap_or(Duration::from_secs(5))
    }

    /// Reports how many more are done.
    #[cfg(feature = "postgres")]
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
            max_prune,
            dry_run,
            barrier_timeout,
            progress,
        } = self;
        f.debug_struct("SyncOptions")
            .field("max_prune", max_prune)
            .field("dry_run", dry_run)
            .field("barrier_timeout", barrier_timeout)
            .field("progress", &progress.is_some())
            .finish()
    }
}

/// How far long work has come, as [`SyncOptions::with_progress`] is told. The same may be reported
/// again, as a sign that work goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How many modules of this stage are done.
    pub done: usize,
    /// How many this stage has, as far as is known when it begins.
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
