//! The guard, in both facades. `run`, whose signature differs, stands in each facade.

use std::fmt;
use std::sync::Arc;

use super::connections::Connections;
use super::writer::ModuleWriter;
use crate::error::Error;
use crate::guard::core::Core;
use crate::guard::options::GuardOptions;
use crate::guard::stats::GuardStats;

/// Keeps the cache equal to the database while others write to both as they like: in the wrong
/// order, twice, or not at all.
///
/// It follows Redis and the database, compares what may have changed, and mends what differs, with
/// the race-free protocol of `refresh`. It needs no more than to read the database.
///
#[doc = example!("guard")]
///
/// Cheap to clone; clones share everything. Two guards may run at the same time, in one process or
/// in two: see [`GuardOptions::with_standby`].
#[derive(Clone)]
pub struct Guard {
    pub(crate) core: Arc<Core<Connections>>,
}

impl Guard {
    /// A guard that mends over `writer`'s connections. Does no IO before it runs.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for an option that can't be used.
    pub fn new(writer: ModuleWriter, options: GuardOptions) -> Result<Self, Error> {
        Ok(Self {
            core: Arc::new(Core::new(writer.reader.client, options)?),
        })
    }

    /// What it has done and how it is, all clones together. No IO.
    #[must_use]
    pub fn stats(&self) -> GuardStats {
        self.core.stats()
    }

    /// Has `run` return, as soon as it has finished what it is at: some milliseconds, or until a
    /// server that does not answer has used up its time. No IO, and no waiting. A guard that does not
    /// run yet ends as soon as it does.
    pub fn stop(&self) {
        self.core.stop();
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { core } = self;
        f.debug_struct("Guard")
            .field("stats", &core.stats())
            .finish_non_exhaustive()
    }
}
