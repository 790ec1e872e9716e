//! The connections behind the synchronous facade.
//!
//! The pool lends *slots*; the borrower connects its slot itself, in its own thread and within its
//! own deadline. So waiting for one means exactly one thing, that all connections are in use, and
//! a dead server is seen by the caller at once and as itself, not as a pool that stays empty.

use std::mem;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::Value;

use super::connection::{Connection, Dialer};
use super::pool::{ConnectionManager, LentSlot, Open, Pool, is_forked};
use super::run;
use crate::client::transport::{Answer, Budget, TRUSTED_IDLE, Transport};
use crate::command::request::Request;
use crate::command::server_id::{Identity, Servers};
use crate::command::{connection, reply};
use crate::config::Config;
use crate::discovery::{self, Opened, migrating};
use crate::error::Error;

/// A connection that was unused for longer than this is looked at before it is used, which costs
/// three system calls. In a burst of lookups it would cost them at each one.
const PEEKED_IDLE: Duration = Duration::from_millis(5);

/// The connections behind one reader or writer and all of its clones, and what a fork makes of
/// them.
pub(crate) struct Connections {
    pub(super) config: Arc<Config>,
    servers: Servers,
    pool: ArcSwapOption<ProcessPool>,
}

/// The pool of one process: a forked child makes its own.
struct ProcessPool {
    process: u32,
    slots: Pool,
    /// Counts lost connections. All that were opened before the last loss are taken for lost, too:
    /// after a restart of the server every one of them is, and a retry must not meet the next dead
    /// one.
    losses: AtomicU64,
}

impl Connections {
    /// Does no IO. `config` has been checked.
    pub(crate) fn new(config: Arc<Config>) -> Self {
        // Notes the process id, so that processes which are forked from here on know that they
        // were.
        is_forked();
        Self {
            config,
            servers: Servers::default(),
            pool: ArcSwapOption::empty(),
        }
    }

    /// The same, on a pool that the caller brings. Its size becomes the setting, so that forked
    /// children have as many connections.
    pub(crate) fn with_pool(mut config: Config, builder: r2d2::Builder<ConnectionManager>) -> Self {
        let (slots, size) = Pool::built_by(builder);
        config.pool_size = size;
        let connections = Self::new(Arc::new(config));
        let pool = Arc::new(ProcessPool::new(slots));
        connections.pool.store(Some(pool));
        connections
    }

    fn open(&self, budget: Budget) -> Result<Opened<Connection>, Error> {
        let config = &self.config;
        Connection::open(config, Instant::now() + budget.connecting(config))
    }

    /// Sees to it that what is known of the server is not too old.
    fn confirm(&self, budget: Budget) {
        let config = &*self.config;
        let limit = budget.confirming(config);
        run(discovery::confirm(&Dialer { config }, config, limit));
    }

    /// The answers to a read while its keys are on their way to another node.
    fn complete(
        &self,
        request: &Request,
        answer: &Answer,
        connection: &mut Connection,
        budget: Budget,
    ) -> Result<Option<Vec<Value>>, Error> {
        let config = &*self.config;
        let source = async |request: &Request| connection.exchange(request, budget);
        let deadline = Instant::now() + budget.attempt();
        let (dialer, replies) = (Dialer { config }, &answer.replies);
        run(migrating::complete(
            &dialer, config, request, replies, source, deadline,
        ))
    }

    /// This process's pool, and whether it was made just now.
    fn pool(&self) -> (Arc<ProcessPool>, bool) {
        let process = process::id();
        let current = self.pool.load();
        if let Some(pool) = current.as_ref().filter(|pool| pool.process == process) {
            return (Arc::clone(pool), false);
        }
        let fresh = Arc::new(ProcessPool::new(Pool::new(self.config.pool_size)));
        let found = self
            .pool
            .compare_and_swap(&current, Some(Arc::clone(&fresh)));
        if found.as_ref().map(Arc::as_ptr) != current.as_ref().map(Arc::as_ptr) {
            // Another thread made this process's pool first.
            return self.pool();
        }
        drop(current);
        // The parent's pool, if any, is leaked. Closing its connections could disturb the parent,
        // and dropping it would wait for threads that don't exist in this process.
        if let Some(inherited) = arc_swap::Guard::into_inner(found) {
            mem::forget(inherited);
        }
        (fresh, true)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // In a forked child: see `pool`.
        if let Some(pool) = self.pool.swap(None)
            && pool.process != process::id()
        {
            mem::forget(pool);
        }
    }
}

impl Transport for Connections {
    type Dedicated = Connection;

    #[cfg(feature = "near-cache")]
    fn identify_servers(&self) {
        self.servers.identify();
    }

    #[cfg(feature = "near-cache")]
    fn reconnect(&self) {
        self.pool().0.losses.fetch_add(1, Ordering::Relaxed);
    }

    fn in_use(&self) -> usize {
        let pool = self.pool.load();
        // Asking the parent's pool takes a lock that may be held for ever.
        let ours = pool.as_ref().filter(|pool| pool.process == process::id());
        ours.map_or(0, |pool| pool.slots.lent())
    }

    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error> {
        let (pool, is_new) = self.pool();
        // Connects while the pool's thread makes the slots, instead of waiting for one first.
        let early = is_new.then(|| pool.connect(self, budget)).transpose()?;
        let mut slot = pool.slot(self.config.pool_timeout, budget)?;
        self.confirm(budget);
        let moves = self.config.known.moves();
        let mut open = match early.or_else(|| pool.reuse(&mut slot, budget, moves)) {
            Some(open) => open,
            None => pool.connect(self, budget)?,
        };
        let answer = open.exchange(&self.servers, request, budget);
        let mut answer = pool.watch(open.losses_before, answer)?;
        let completed = self.complete(request, &answer, &mut open.connection, budget);
        if let Some(replies) = pool.watch(open.losses_before, completed)? {
            answer = Answer {
                replies,
                server: None,
            };
        }
        if answer.replies.iter().any(reply::leads_elsewhere) {
            // So do all that are as old. The server keeps them open, and would refuse for ever.
            pool.lost(open.losses_before);
            return Ok(answer);
        }
        open.used = Instant::now();
        // Put back only now, after an answer.
        *slot = Some(open);
        Ok(answer)
    }

    async fn dedicated(&self, budget: Budget) -> Result<Connection, Error> {
        self.open(budget).map(|opened| opened.connection)
    }

    async fn pause(&self, duration: Duration) {
        thread::sleep(duration);
    }

    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        super::block_on::within(limit, future)
    }
}

impl ProcessPool {
    fn new(slots: Pool) -> Self {
        Self {
            process: process::id(),
            slots,
            losses: AtomicU64::new(0),
        }
    }

    /// A slot, or `Busy` after the pool time-out.
    fn slot(&self, limit: Duration, budget: Budget) -> Result<LentSlot<'_>, Error> {
        let limit = limit.min(budget.left());
        let slot = self.slots.lend(limit, budget);
        slot.ok_or_else(|| reply::busy(limit))
    }

    /// The slot's connection, unless it is likely to be dead. It is taken out of the slot, and put
    /// back after an answer only: no way out of a failed exchange can put it back.
    fn reuse(&self, slot: &mut Option<Open>, budget: Budget, moves: u64) -> Option<Open> {
        let mut open = slot.take()?;
        // To another server than the one that holds the keys.
        let is_elsewhere = open.moves != moves;
        if is_elsewhere || open.losses_before < self.losses.load(Ordering::Relaxed) {
            return None;
        }
        let idle = open.used.elapsed();
        // The server may have closed it meanwhile. A write would find that out too late: it can't
        // be repeated.
        if idle > PEEKED_IDLE && !open.connection.is_quiet() {
            self.lost(open.losses_before);
            return None;
        }
        // See `TRUSTED_IDLE`: a peer that went away without closing looks quiet, too.
        if budget.once && idle > TRUSTED_IDLE {
            let answer = open.connection.exchange(&connection::ping(), budget);
            self.watch(open.losses_before, answer).ok()?;
        }
        Some(open)
    }

    fn connect(&self, connections: &Connections, budget: Budget) -> Result<Open, Error> {
        let losses_before = self.losses.load(Ordering::Relaxed);
        let Opened { connection, moves } = connections.open(budget)?;
        Ok(Open {
            connection,
            moves,
            server: Identity::default(),
            losses_before,
            used: Instant::now(),
        })
    }

    /// Counts a loss once, however many connections of that age find it out. An error that the
    /// server sends is no loss: for want of a client slot it ends one connection, and the others
    /// live on.
    fn watch<T>(&self, losses_before: u64, result: Result<T, Error>) -> Result<T, Error> {
        let said = |error: &Error| matches!(error, Error::Unavailable { cause, .. } if cause.was_answered());
        if result.as_ref().is_err_and(|error| !said(error)) {
            self.lost(losses_before);
        }
        result
    }

    /// Counts the loss unless another connection of that age has.
    fn lost(&self, losses_before: u64) {
        let (now, then) = (losses_before + 1, losses_before);
        let _ = self
            .losses
            .compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}
