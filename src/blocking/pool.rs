//! Where connections wait to be used: a bounded number of slots, each lent to one caller at a time.
//!
//! r2d2 as it comes sends a PING at each check-out, opens ten connections at once, waits 30 s, and
//! reports a dead server as an empty pool. Here it lends slots, empty or not, and does no IO.

use std::convert::Infallible;
use std::ops::{Deref, DerefMut};
use std::panic::catch_unwind;
use std::process;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::time::Instant;

use r2d2::{ManageConnection, NopErrorHandler, PooledConnection};
use scheduled_thread_pool::ScheduledThreadPool;

use super::connection::Connection;
use super::run;
use super::slots::{Lent, Slots};
use crate::client::transport::{Answer, Budget};
use crate::command::request::Request;
use crate::command::server_id::{Identity, Servers};
use crate::error::Error;

/// r2d2's pool in the process that made it, and slots of our own in its forked children.
///
/// r2d2 waits with `parking_lot`, which has all waiting threads of a process in one table. A child
/// inherits their entries, in memory that it uses anew, and its own pool would walk them for ever:
/// measured, r2d2 hung in 4 of 4 runs, these slots in none of 38.
pub(super) enum Pool {
    Pooled {
        pool: r2d2::Pool<ConnectionManager>,
        /// How many slots are held for a moment by borrowers that will use one only: see `warmest`.
        looked_at: AtomicUsize,
        /// The pool's thread waits for this to be dropped.
        _thread: Option<mpsc::Sender<()>>,
    },
    /// In a forked child, and where the pool's thread can't be started.
    Slots(Slots<Open>),
}

/// A slot that is lent, with the connection that its last borrower left in it, if any.
pub(super) enum LentSlot<'a> {
    Pooled(PooledConnection<ConnectionManager>),
    Slots(Lent<'a, Open>),
}

/// Makes what an [`r2d2`] pool of this crate lends.
///
/// It does no IO: the borrower of a [`Slot`] connects it, in its own thread and within its own
/// deadline. So a pool that is empty means exactly one thing, that all connections are in use, and
/// a caller sees a dead server at once and as itself.
///
/// Made by [`ModuleReader::with_pool`](super::ModuleReader::with_pool), which shows an example; a
/// service names it only as the type that its `r2d2::Builder` is for.
#[derive(Debug)]
pub struct ConnectionManager(());

/// What an [`r2d2`] pool of this crate lends: a connection, or room for one.
#[derive(Default)]
pub struct Slot(Option<Open>);

impl ManageConnection for ConnectionManager {
    type Connection = Slot;
    type Error = Infallible;

    fn connect(&self) -> Result<Slot, Infallible> {
        Ok(Slot::default())
    }

    fn is_valid(&self, _: &mut Slot) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Slot) -> bool {
        false
    }
}

/// Whether this process was forked after a pool had been made, here or by its parents. The first
/// call notes the process id, and children inherit what it noted.
pub(super) fn is_forked() -> bool {
    static FIRST: AtomicU32 = AtomicU32::new(0);
    let this = process::id();
    let first = FIRST.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed);
    first.is_err_and(|first| first != this)
}

impl Pool {
    pub(super) fn new(size: u32) -> Self {
        let threads = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("bifrost-pool-{}");
        // `build` panics where the system has no more threads.
        let threads = (!is_forked()).then(|| catch_unwind(|| threads.build()).ok());
        let Some(threads) = threads.flatten().map(Arc::new) else {
            return Self::Slots(Slots::new(size as usize));
        };
        // All slots are made at once and live as long as the pool, so its thread has nothing more
        // to do.
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(size))
            .idle_timeout(None)
            .max_lifetime(None)
            .thread_pool(Arc::clone(&threads))
            .error_handler(Box::new(NopErrorHandler));
        let pool = Self::pooled(pool);
        // Left alone, the pool's thread would wait for work in `parking_lot`'s table. A child would
        // inherit that entry, and any `parking_lot` of the child would walk it. So it waits on a
        // channel.
        let (thread, held) = mpsc::channel();
        threads.execute(move || {
            let _ = held.recv();
        });
        Self::Pooled {
            pool,
            looked_at: AtomicUsize::new(0),
            _thread: Some(thread),
        }
    }

    /// `build_unchecked` makes no connection and does not wait, and a check at the check-out would
    /// be a round trip.
    fn pooled(builder: r2d2::Builder<ConnectionManager>) -> r2d2::Pool<ConnectionManager> {
        builder
            .test_on_check_out(false)
            .build_unchecked(ConnectionManager(()))
    }

    /// The slots of a pool that the caller brings, and how many there are. Its threads are the
    /// caller's own, so this can't promise what [`new`](Self::new) does for forked children.
    pub(super) fn built_by(builder: r2d2::Builder<ConnectionManager>) -> (Self, u32) {
        let pool = Self::pooled(builder);
        let size = pool.max_size();
        let thread = None;
        (
            Self::Pooled {
                pool,
                looked_at: AtomicUsize::new(0),
                _thread: thread,
            },
            size,
        )
    }

    /// How many slots are lent.
    pub(super) fn lent(&self) -> usize {
        match self {
            Self::Pooled { pool, .. } => {
                let state = pool.state();
                state.connections.saturating_sub(state.idle_connections) as usize
            }
            Self::Slots(slots) => slots.lent(),
        }
    }

    /// A slot, once one is free; `None` if all are in use for as long as `limit`.
    pub(super) fn lend(&self, mut limit: Duration, budget: Budget) -> Option<LentSlot<'_>> {
        let (pool, looked_at) = match self {
            Self::Pooled {
                pool, looked_at, ..
            } => (pool, looked_at),
            Self::Slots(slots) => return slots.lend(limit).map(LentSlot::Slots),
        };
        loop {
            if let Ok(slot) = pool.get_timeout(limit) {
                return Some(LentSlot::Pooled(warmest(pool, looked_at, slot)));
            }
            // The time is over, but not because all are in use: the pool's thread is late, and has
            // still to make slots. That would be a wrong `Busy`, so wait on, within the call's
            // budget.
            limit = limit.min(budget.left());
            let in_use = self.lent().saturating_sub(looked_at.load(Ordering::SeqCst));
            if limit.is_zero() || in_use >= pool.max_size() as usize {
                return None;
            }
        }
    }
}

/// This slot or, if it is empty, another one that has a connection. r2d2 lends the slot that came
/// last, and at the beginning its thread puts empty slots on top of those that are connected
/// already: without this, the first calls would connect again and again.
fn warmest(
    pool: &r2d2::Pool<ConnectionManager>,
    looked_at: &AtomicUsize,
    slot: PooledConnection<ConnectionManager>,
) -> PooledConnection<ConnectionManager> {
    if slot.0.is_some() {
        return slot;
    }
    // Counted before they are taken, and for longer than they are held: another borrower must not
    // report `Busy` because of slots that this one only looks at.
    let most = pool.max_size() as usize;
    looked_at.fetch_add(most, Ordering::SeqCst);
    let mut empty = vec![slot];
    while empty[empty.len() - 1].0.is_none()
        && let Some(other) = pool.try_get()
    {
        empty.push(other);
    }
    let warm = empty.iter().position(|slot| slot.0.is_some());
    let slot = empty.swap_remove(warm.unwrap_or(0));
    drop(empty);
    looked_at.fetch_sub(most, Ordering::SeqCst);
    slot
}

impl Deref for LentSlot<'_> {
    type Target = Option<Open>;

    fn deref(&self) -> &Option<Open> {
        match self {
            Self::Pooled(slot) => &slot.0,
            Self::Slots(slot) => slot,
        }
    }
}

impl DerefMut for LentSlot<'_> {
    fn deref_mut(&mut self) -> &mut Option<Open> {
        match self {
            Self::Pooled(slot) => &mut slot.0,
            Self::Slots(slot) => slot,
        }
    }
}

/// An open connection in a slot.
pub(super) struct Open {
    pub(super) connection: Connection,
    /// See [`Opened`](crate::discovery::Opened).
    pub(super) moves: u64,
    pub(super) server: Identity,
    /// How many connections had been lost when this one was made: see `ProcessPool::losses`.
    pub(super) losses_before: u64,
    pub(super) used: Instant,
}

impl Open {
    pub(super) fn exchange(
        &mut self,
        servers: &Servers,
        request: &Request,
        budget: Budget,
    ) -> Result<Answer, Error> {
        let Self {
            connection, server, ..
        } = self;
        let ask = async |request: &Request| connection.exchange(request, budget);
        let server = run(servers.ask(server, ask))?;
        let replies = connection.exchange(request, budget)?;
        Ok(Answer { replies, server })
    }
}
