//! The pool behind the synchronous facade.
//!
//! It lends out *places*; the borrower connects its place itself, in its own thread and within its
//! own deadline. So waiting for one means exactly one thing, that all connections are in use, and
//! a dead server is seen by the caller at once and as itself, not as a pool that stays empty.

use std::fmt;
use std::mem;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::connection::Wire;
use super::places::{ConnectionManager, Open, Place, Places, is_forked};
use crate::client::stats::Monitor;
use crate::client::transport::{Answer, Budget, TRUSTED_IDLE, Transport};
use crate::client::write_observers::Ties;
use crate::command::request::Request;
use crate::command::server_id::{Identity, Servers};
use crate::command::{connection, reply};
use crate::config::Config;
use crate::error::Error;
use crate::paths::listing::Listings;

/// A connection unused for longer than this is looked at, which costs three system calls.
const PEEKED_IDLE: Duration = Duration::from_millis(5);

pub(crate) struct Pool {
    config: Config,
    monitor: Monitor,
    ties: Ties,
    servers: Servers,
    listings: Listings,
    lender: ArcSwapOption<Lender>,
}

/// The pool of one process: a forked child makes its own.
struct Lender {
    process: u32,
    places: Places,
    /// Counts lost connections. All that were opened before the last loss are taken for lost too:
    /// after a restart of the server every one of them is.
    losses: AtomicU64,
}

impl Pool {
    /// Does no IO. `config` has been checked.
    pub(crate) fn new(config: Config) -> Self {
        // Those who are forked from here on are to know.
        is_forked();
        Self {
            config,
            monitor: Monitor::default(),
            ties: Ties::default(),
            servers: Servers::default(),
            listings: Listings::default(),
            lender: ArcSwapOption::empty(),
        }
    }

    /// The same, with a pool of the caller's.
    pub(crate) fn with(config: Config, builder: r2d2::Builder<ConnectionManager>) -> Self {
        let mut pool = Self::new(config);
        let (places, size) = Places::built_by(builder);
        pool.config.pool_size = size;
        pool.lender = ArcSwapOption::from_pointee(Lender::new(places));
        pool
    }

    fn connect(&self, budget: Budget) -> Result<Wire, Error> {
        let timeout = self.config.connect_timeout.min(budget.left());
        Wire::connect(&self.config, Instant::now() + timeout)
    }

    /// This process's, and whether it was made just now.
    fn lender(&self) -> (Arc<Lender>, bool) {
        let process = process::id();
        let current = self.lender.load();
        if let Some(lender) = current.as_ref().filter(|lender| lender.process == process) {
            return (Arc::clone(lender), false);
        }
        let fresh = Arc::new(Lender::new(Places::new(self.config.pool_size)));
        let found = self
            .lender
            .compare_and_swap(&current, Some(Arc::clone(&fresh)));
        if found.as_ref().map(Arc::as_ptr) != current.as_ref().map(Arc::as_ptr) {
            return self.lender(); // another thread was first
        }
        drop(current);
        // The parent's, if any: closing its connections could disturb the parent, and the threads
        // that it would wait for don't exist in this process.
        if let Some(inherited) = arc_swap::Guard::into_inner(found) {
            mem::forget(inherited);
        }
        (fresh, true)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.swap(None)
            && lender.process != process::id()
        {
            mem::forget(lender);
        }
    }
}

impl Transport for Pool {
    type Link = Wire;

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
        self.lender().0.losses.fetch_add(1, Ordering::Relaxed);
    }

    fn listings(&self) -> &Listings {
        &self.listings
    }

    fn in_use(&self) -> usize {
        let lender = self.lender.load();
        // A parent's may be locked for ever.
        let ours = lender
            .as_ref()
            .filter(|lender| lender.process == process::id());
        ours.map_or(0, |lender| lender.places.lent())
    }

    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error> {
        let (lender, is_new) = self.lender();
        // While its thread makes the places.
        let early = is_new.then(|| lender.connect(self, budget)).transpose()?;
        let mut place = lender.place(self.config.pool_timeout, budget)?;
        let mut open = match early.or_else(|| lender.reuse(&mut place, budget)) {
            Some(open) => open,
            None => lender.connect(self, budget)?,
        };
        let answer = open.exchange(&self.servers, request, budget);
        let answer = lender.watch(open.losses_before, answer)?;
        open.used = Instant::now();
        *place = Some(open);
        Ok(answer)
    }

    async fn dedicated(&self, budget: Budget) -> Result<Wire, Error> {
        self.connect(budget)
    }

    async fn pause(&self, duration: Duration) {
        thread::sleep(duration);
    }

    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        super::block_on::within(limit, future)
    }
}

impl Lender {
    fn new(places: Places) -> Self {
        Self {
            process: process::id(),
            places,
            losses: AtomicU64::new(0),
        }
    }

    fn place(&self, limit: Duration, budget: Budget) -> Result<Place<'_>, Error> {
        let limit = limit.min(budget.left());
        let place = self.places.lend(limit, budget);
        place.ok_or_else(|| reply::busy(limit))
    }

    /// The place's connection, unless it is likely to be dead. While it is in use the place is
    /// empty, so that no way out of a failed exchange can put it back.
    fn reuse(&self, place: &mut Option<Open>, budget: Budget) -> Option<Open> {
        let mut open = place.take()?;
        if open.losses_before < self.losses.load(Ordering::Relaxed) {
            return None;
        }
        let idle = open.used.elapsed();
        // What the server has closed meanwhile, a write would find out too late.
        if idle > PEEKED_IDLE && !open.wire.is_quiet() {
            self.lost(open.losses_before);
            return None;
        }
        if budget.once && idle > TRUSTED_IDLE {
            let answer = open.wire.exchange(&connection::ping(), budget);
            self.watch(open.losses_before, answer).ok()?;
        }
        Some(open)
    }

    fn connect(&self, pool: &Pool, budget: Budget) -> Result<Open, Error> {
        let losses_before = self.losses.load(Ordering::Relaxed);
        Ok(Open {
            wire: pool.connect(budget)?,
            server: Identity::default(),
            losses_before,
            used: Instant::now(),
        })
    }

    /// Counts a loss once, however many connections of that age find it out. For want of a client
    /// slot the server ends one connection and keeps the others.
    fn watch<T>(&self, losses_before: u64, result: Result<T, Error>) -> Result<T, Error> {
        let said = |error: &Error| matches!(error, Error::Unavailable { cause, .. } if cause.was_answered());
        if result.as_ref().is_err_and(|error| !said(error)) {
            self.lost(losses_before);
        }
        result
    }

    fn lost(&self, losses_before: u64) {
        let (now, then) = (losses_before + 1, losses_before);
        let _ = self
            .losses
            .compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            monitor: _,
            ties: _,
            servers: _,
            listings: _,
            lender: _,
        } = self;
        f.debug_struct("Pool")
            .field("config", config)
            .finish_non_exhaustive()
    }
}
