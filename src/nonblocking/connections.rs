//! The multiplexed connections behind the asynchronous facade.
//!
//! Two are enough, measured: a pool of them was no faster. Replacing one after a failure is decided
//! here, because the library's connection stays "open" after a time-out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::Value;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::connect::{Dialer, open};
use super::connection::{Connection, Dedicated};
use crate::client::transport::{Answer, Budget, TRUSTED_IDLE, Transport};
use crate::command::request::{Class, Request};
use crate::command::server_id::Servers;
use crate::command::{connection, reply};
use crate::config::Config;
use crate::discovery::{self, migrating};
use crate::error::Error;

/// Two connections that all calls share: a large answer on one holds up no lookup on the other.
pub(crate) struct Connections {
    pub(super) config: Arc<Config>,
    servers: Servers,
    in_flight: Semaphore,
    lookups: Multiplexed,
    bulk: Multiplexed,
}

/// One connection that many calls share, and that is replaced when it fails.
#[derive(Default)]
struct Multiplexed {
    open: ArcSwapOption<Connection>,
    /// Held by the call that connects: after a loss, 256 calls must not make 256 connections.
    connecting: Mutex<()>,
}

impl Connections {
    /// Does no IO. `config` has been checked.
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let in_flight = Semaphore::new(config.max_in_flight);
        Self {
            config,
            servers: Servers::default(),
            in_flight,
            lookups: Multiplexed::default(),
            bulk: Multiplexed::default(),
        }
    }

    /// Bounds the calls in flight. Without a bound, a silent Redis would let a service collect
    /// calls until its memory is full.
    async fn permit(&self, budget: Budget) -> Result<SemaphorePermit<'_>, Error> {
        // Most calls need not wait, and are spared a timer.
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
        let deadline = Instant::now() + budget.connecting(&self.config);
        let opened = open(&self.config, None, deadline).await?;
        Ok(opened.connection.led_by(opened.moves))
    }

    /// Sees to it that what is known of the server is not too old.
    async fn confirm(&self, budget: Budget) {
        let config = &*self.config;
        let limit = budget.confirming(config);
        let pushes = None;
        discovery::confirm(&Dialer { config, pushes }, config, limit).await;
    }

    /// The answers to a read while its keys are on their way to another node.
    async fn complete(
        &self,
        request: &Request,
        answer: &Answer,
        open: &Connection,
        budget: Budget,
    ) -> Result<Option<Vec<Value>>, Error> {
        let (config, pushes) = (&*self.config, None);
        let source = async |request: &Request| open.exchange(request, budget).await;
        let deadline = Instant::now() + budget.attempt();
        let (dialer, replies) = (Dialer { config, pushes }, &answer.replies);
        migrating::complete(&dialer, config, request, replies, source, deadline).await
    }

    /// The shared connection, made by the first call that needs it while the others wait.
    async fn open(&self, shared: &Multiplexed, budget: Budget) -> Result<Arc<Connection>, Error> {
        self.confirm(budget).await;
        if let Some(open) = shared.usable(&self.config) {
            let trusted = !budget.once || open.idle() <= TRUSTED_IDLE;
            if trusted || open.exchange(&connection::ping(), budget).await.is_ok() {
                return Ok(open);
            }
            shared.discard(&open);
        }
        let Ok(_connecting) = timeout(budget.left(), shared.connecting.lock()).await else {
            return Err(reply::timed_out());
        };
        // Another call has connected while this one waited for the lock.
        if let Some(open) = shared.usable(&self.config) {
            return Ok(open);
        }
        // Within the budget of this call. Its failure is this call's alone: the next one tries
        // anew.
        let open = Arc::new(self.connect(budget).await?);
        shared.open.store(Some(Arc::clone(&open)));
        Ok(open)
    }
}

impl Multiplexed {
    /// The connection, unless its driver has ended: the server closed it, or the runtime that drove
    /// it is gone. Or it leads to another server than the one that holds the keys.
    fn usable(&self, config: &Config) -> Option<Arc<Connection>> {
        let leads_there = |open: &Arc<Connection>| open.moves() == config.known.moves();
        let open = self.open.load_full();
        open.filter(|open| !open.is_closed()).filter(leads_there)
    }

    /// Forgets `failed`, unless another call has replaced it already.
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

/// How long a connection may be silent before a call that is cancelled takes it for dead.
const SILENCE: Duration = Duration::from_millis(50);

/// An in-flight request. If its future is cancelled, our time-out never fires: `Drop` therefore
/// discards a connection that was silent meanwhile, or the next call would hang on it.
struct InFlight<'a> {
    shared: &'a Multiplexed,
    open: &'a Arc<Connection>,
    answers: u64,
    since: Instant,
}

impl<'a> InFlight<'a> {
    fn new(shared: &'a Multiplexed, open: &'a Arc<Connection>) -> Self {
        Self {
            shared,
            open,
            answers: open.answers(),
            since: Instant::now(),
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // This also runs after an answer, which has then counted itself, so nothing is discarded.
        if self.answers == self.open.answers() && self.since.elapsed() > SILENCE {
            self.shared.discard(self.open);
        }
    }
}

impl Transport for Connections {
    type Dedicated = Dedicated;

    #[cfg(feature = "near-cache")]
    fn identify_servers(&self) {
        self.servers.identify();
    }

    #[cfg(feature = "near-cache")]
    fn reconnect(&self) {
        for shared in [&self.lookups, &self.bulk] {
            shared.open.store(None);
        }
    }

    fn in_use(&self) -> usize {
        self.config.max_in_flight - self.in_flight.available_permits()
    }

    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error> {
        let _permit = self.permit(budget).await?;
        let shared = match request.class {
            Class::Lookup => &self.lookups,
            Class::Bulk => &self.bulk,
        };
        let open = self.open(shared, budget).await?;
        let _in_flight = InFlight::new(shared, &open);
        let mut result = open.answer(&self.servers, request, budget).await;
        if let Ok(answer) = &result {
            let completed = self.complete(request, answer, &open, budget).await;
            if let Some(replies) = completed.transpose() {
                let server = None;
                result = replies.map(|replies| Answer { replies, server });
            }
        }
        let is_last = |reply| reply::ends_connection(reply) || reply::leads_elsewhere(reply);
        if result
            .as_ref()
            .map_or(true, |answer| answer.replies.iter().any(is_last))
        {
            // No answer, or one after which the server closes: a late reply must not meet the next
            // call. Or one that the server would give for ever. Other calls on this connection may
            // still get their answers.
            shared.discard(&open);
        }
        result
    }

    async fn dedicated(&self, budget: Budget) -> Result<Dedicated, Error> {
        self.connect(budget).await.map(Dedicated::new)
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        timeout(limit, future).await.ok()
    }
}
