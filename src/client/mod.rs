//! A call to Redis, from its first attempt to its answer, whatever carries it.
//!
//! [`transport`] is what a facade brings. [`call`] decides what is let through, retried and
//! counted; [`read`] and [`write`] are what both facades offer. Why there is one core below two
//! facades, and how time is budgeted: docs/design/architecture.md.

pub(crate) mod batch;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod dedicated;
pub(crate) mod ending;
pub(crate) mod read;
pub(crate) mod stats;
pub(crate) mod transport;
pub(crate) mod write;
pub(crate) mod write_observers;

use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::paths::listing::Listings;
use stats::{Monitor, Stats};
use transport::Transport;
use write_observers::WriteObservers;

/// What a reader, its writer and all of their clones share: the connections of a facade, and what
/// is the same over any connections.
pub(crate) struct Client<T> {
    config: Arc<Config>,
    pub(crate) transport: T,
    pub(crate) monitor: Monitor,
    /// The last listings of the index, which all clones share: one call brings it for all.
    pub(crate) listings: Listings,
    /// Near caches of this process that observe what is written here.
    pub(crate) observers: WriteObservers,
}

impl<T: Transport> Client<T> {
    /// Does no IO. `config` has been checked.
    pub(crate) fn new(config: Arc<Config>, transport: T) -> Self {
        Self {
            config,
            transport,
            monitor: Monitor::default(),
            listings: Listings::default(),
            observers: WriteObservers::default(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn stats(&self) -> Stats {
        self.monitor.stats(self.transport.in_use())
    }
}

impl<T> fmt::Debug for Client<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            transport: _,
            monitor: _,
            listings: _,
            observers: _,
        } = self;
        f.debug_struct("Client")
            .field("config", config)
            .finish_non_exhaustive()
    }
}
