//! Where connections wait to be used: a bounded number of places, each lent to one caller at a time.

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

/// r2d2's pool in the process that made it, and slots in its forked children: r2d2 waits with
/// `parking_lot`, which keeps all waiting threads of a process in one table. A child inherits their
/// entries, in memory that it uses anew, and its own pool would walk them for ever.
pub(super) enum Pool {
    Pooled {
        pool: r2d2::Pool<ConnectionManager>,
        /// How many places are looked at by borrowers that will use one only.
        looked_at: AtomicUsize,
        /// Keeps the pool's thread waiting until this is dropped.
        _thread: Option<mpsc::Sender<()>>,
    },
    /// Also where the pool's thread can't be started.
    Slots(Slots<Open>),
}

/// A place that is lent, with what its last borrower left in it.
pub(super) enum LentSlot<'a> {
    Pooled(PooledConnection<ConnectionManager>),
    Slots(Lent<'a, Open>),
}

/// Makes what an [`r2d2`] pool of this crate lends.
///
/// It does no IO: whoever borrows a [`Slot`] connects it, in its own thread and within its
/// own deadline. So a pool that is empty means exactly one thing, that all connections are in use,
/// and a dead server is seen by its caller at once and as itself.
#[derive(Debug)]
pub struct ConnectionManager(());

/// What an [`r2d2`] pool of this crate lends: a connection, or the place for one.
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

/// Whether this process was forked after a pool had been made, here or by its parents.
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
        // It panics where the system has no more threads.
        let threads = (!is_forked()).then(|| catch_unwind(|| threads.build()).ok());
        let Some(threads) = threads.flatten().map(Arc::new) else {
            return Self::Slots(Slots::new(size as usize));
        };
        // All places are made at once and kept, so the thread has nothing more to do.
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(size))
            .idle_timeout(None)
            .max_lifetime(None)
            .thread_pool(Arc::clone(&threads))
            .error_handler(Box::new(NopErrorHandler));
        let pool = Self::pooled(pool);
        // Then it must not wait for work in the way it does: a child would inherit its entry, and
        // whatever else waits with `parking_lot` there would walk it.
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

    fn pooled(builder: r2d2::Builder<ConnectionManager>) -> r2d2::Pool<ConnectionManager> {
        builder
            .test_on_check_out(false)
            .build_unchecked(ConnectionManager(()))
    }

    /// Those of a pool of the caller's, and how many there are.
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

    /// How many are lent.
    pub(super) fn lent(&self) -> usize {
        match self {
            Self::Pooled { pool, .. } => {
                let state = pool.state();
                state.connections.saturating_sub(state.idle_connections) as usize
            }
            Self::Slots(slots) => slots.lent(),
        }
    }

    /// A place, once one is free; `None` if all are in use for as long as `limit`.
    pub(super) fn lend(&self, mut limit: Duration, budget: Budget) -> Option<LentSlot<'_>> {
        let (pool, looked_at) = match self {
            Self::Pooled {
                pool, looked_at, ..
            } => (pool, looked_at),
            Self::Slots(slots) => return slots.lend(limit).map(LentSlot::Slots),
        };
        loop {
            if let Ok(place) = pool.get_timeout(limit) {
                return Some(LentSlot::Pooled(warmest(pool, looked_at, place)));
            }
            // A place that the pool's thread, which is late, has made just now or has still to
            // make is not in use.
            limit = limit.min(budget.left());
            let in_use = self.lent().saturating_sub(looked_at.load(Ordering::SeqCst));
            if limit.is_zero() || in_use >= pool.max_size() as usize {
                return None;
            }
        }
    }
}

/// This place, or instead of an empty one another that has a connection. The pool's thread puts the
/// places that it makes on top of those that are in use already.
fn warmest(
    pool: &r2d2::Pool<ConnectionManager>,
    looked_at: &AtomicUsize,
    place: PooledConnection<ConnectionManager>,
) -> PooledConnection<ConnectionManager> {
    if place.0.is_some() {
        return place;
    }
    // Counted before they are taken, and for longer than they are held: no other borrower may find
    // all in use because of them.
    let most = pool.max_size() as usize;
    looked_at.fetch_add(most, Ordering::SeqCst);
    let mut empty = vec![place];
    while empty[empty.len() - 1].0.is_none()
        && let Some(other) = pool.try_get()
    {
        empty.push(other);
    }
    let warm = empty.iter().position(|place| place.0.is_some());
    let place = empty.swap_remove(warm.unwrap_or(0));
    drop(empty);
    looked_at.fetch_sub(most, Ordering::SeqCst);
    place
}

impl Deref for LentSlot<'_> {
    type Target = Option<Open>;

    fn deref(&self) -> &Option<Open> {
        match self {
            Self::Pooled(place) => &place.0,
            Self::Slots(slot) => slot,
        }
    }
}

impl DerefMut for LentSlot<'_> {
    fn deref_mut(&mut self) -> &mut Option<Open> {
        match self {
            Self::Pooled(place) => &mut place.0,
            Self::Slots(slot) => slot,
        }
    }
}

pub(super) struct Open {
    pub(super) connection: Connection,
    pub(super) server: Identity,
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
