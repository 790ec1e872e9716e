//! The shared connections behind the asynchronous facade.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connect::connect;
use super::connection::{AsyncLink, Connection};
use crate::client::stats::Monitor;
use crate::client::transport::{Answer, Budget, TRUSTED_IDLE, Transport};
use crate::client::write_observers::Ties;
use crate::command::request::{Class, Request};
use crate::command::server_id::Servers;
use crate::command::{connection, reply};
use crate::config::Config;
use crate::error::Error;
use crate::paths::listing::Listings;

pub(crate) struct Lanes {
    config: Config,
    monitor: Monitor,
    ties: Ties,
    servers: Servers,
    listings: Listings,
    in_flight: Semaphore,
    lookups: Lane,
    bulk: Lane,
}

/// One connection that many calls share, and that is replaced when it fails.
#[derive(Default)]
struct Lane {
    open: ArcSwapOption<Connection>,
    connecting: Mutex<()>,
}

impl Lanes {
    /// Does no IO. `config` has been checked.
    pub(crate) fn new(config: Config) -> Self {
        let in_flight = Semaphore::new(config.max_in_flight);
        Self {
            config,
            monitor: Monitor::default(),
            ties: Ties::default(),
            servers: Servers::default(),
            listings: Listings::default(),
            in_flight,
            lookups: Lane::default(),
            bulk: Lane::default(),
        }
    }

    async fn permit(&self, budget: Budget) -> Result<SemaphorePermit<'_>, Error> {
        // Spares most calls a timer.
        if let Ok(permit) = self.in_flight.try_acquire() {
            return Ok(permit);
        }
        let wait = self.config.pool_timeout.min(budget.left());
        match timeout(wait, self.in_flight.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(reply::busy(wait)),
        }
    }

    async fn connect(&self, budget: Budget) -> Result<Connection, Error> {
        let limit = self.config.connect_timeout.min(budget.left());
        timeout(limit, connect(&self.config))
            .await
            .unwrap_or_else(|_| Err(reply::timed_out()))
    }

    /// The lane's connection, made by the first call that needs it while the others wait.
    async fn open(&self, lane: &Lane, budget: Budget) -> Result<Arc<Connection>, Error> {
        if let Some(open) = lane.usable() {
            let trusted = !budget.once || open.idle() <= TRUSTED_IDLE;
            if trusted || open.exchange(&connection::ping(), budget).await.is_ok() {
                return Ok(open);
            }
            lane.discard(&open);
        }
        let Ok(_connecting) = timeout(budget.left(), lane.connecting.lock()).await else {
            return Err(reply::timed_out());
        };
        if let Some(open) = lane.usable() {
            return Ok(open);
        }
        let open = Arc::new(self.connect(budget).await?);
        lane.open.store(Some(Arc::clone(&open)));
        Ok(open)
    }
}

impl Lane {
    fn usable(&self) -> Option<Arc<Connection>> {
        self.open.load_full().filter(|open| !open.is_closed())
    }

    /// Replaces `failed`, unless another call has done so.
    fn discard(&self, failed: &Arc<Connection>) {
        let current = self.open.load();
        if current
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(open, failed))
        {
            self.open.compare_and_swap(&*current, None);
        }
    }
}

/// How long a connection may be silent before whoever gives up may suspect it.
const SILENCE: Duration = Duration::from_millis(50);

/// A request under way. Whoever gives it up before our own time-out would leave a connection to the
/// next call that nobody answers on.
struct Asked<'a> {
    lane: &'a Lane,
    open: &'a Arc<Connection>,
    answers: u64,
    since: Instant,
}

impl<'a> Asked<'a> {
    fn new(lane: &'a Lane, open: &'a Arc<Connection>) -> Self {
        Self {
            lane,
            open,
            answers: open.answers(),
            since: Instant::now(),
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // One that was answered counts itself.
        if self.answers == self.open.answers() && self.since.elapsed() > SILENCE {
            self.lane.discard(self.open);
        }
    }
}

impl Transport for Lanes {
    type Link = AsyncLink;

    fn config(&self) -> &Config {
        &self.config
    }

    fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    fn ties(&self) -> &Ties {
        &self.ties
    }

    #[cfg(feature = "near-cache")]
    fn identify_servers(&self) {
        self.servers.identify();
    }

    #[cfg(feature = "near-cache")]
    fn part(&self) {
        for lane in [&self.lookups, &self.bulk] {
            lane.open.store(None);
        }
    }

    fn listings(&self) -> &Listings {
        &self.listings
    }

    fn in_use(&self) -> usize {
        self.config.max_in_flight - self.in_flight.available_permits()
    }

    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error> {
        let _permit = self.permit(budget).await?;
        let lane = match request.class {
            Class::Lookup => &self.lookups,
            Class::Bulk => &self.bulk,
        };
        let open = self.open(lane, budget).await?;
        let _asked = Asked::new(lane, &open);
        let result = open.answer(&self.servers, request, budget).await;
        if result.as_ref().map_or(true, |answer| {
            answer.replies.iter().any(reply::ends_connection)
        }) {
            lane.discard(&open);
        }
        result
    }

    async fn dedicated(&self, budget: Budget) -> Result<AsyncLink, Error> {
        self.connect(budget).await.map(AsyncLink::new)
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        timeout(limit, future).await.ok()
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            monitor: _,
            ties: _,
            servers: _,
            listings: _,
            in_flight: _,
            lookups: _,
            bulk: _,
        } = self;
        f.debug_struct("Lanes")
            .field("config", config)
            .finish_non_exhaustive()
    }
}
