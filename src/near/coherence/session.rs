//! Whether Redis is followed, and since when: what makes all that is stored valid at once.
//!
//! Two facts decide about every hit. The *epoch* counts sessions and flushes: entries of another
//! one are void. The *lease* bounds how long a silent network goes unnoticed: it runs out by the
//! clock, and each heartbeat renews it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::clock::Tick;
use super::promise::Promise;
use super::rule::{Rule, Rules};
use crate::command::server_id::ServerId;
use crate::error::Error;

/// A hit reads two words, `epoch` and `lease`, and takes no lock. They change only with a session,
/// a heartbeat or a flush, so their cache lines stay shared between threads.
pub(crate) struct Session {
    rules: Rules,
    bound: Duration,
    /// Counts sessions and flushes. An entry that was stored under another number is void.
    epoch: AtomicU64,
    /// Until when all changes are known to have been announced. Zero if Redis is not followed.
    lease: AtomicU64,
    /// The id of the server that is followed; zero for none.
    server: AtomicU64,
    state: Mutex<State>,
}

struct State {
    following: Following,
    /// A reader was answered by another server.
    suspected: bool,
    since: SystemTime,
    last_failure: Option<String>,
    /// The epoch in which the connection was lost last, and until when its entries were known to
    /// be right.
    ended: Option<(u64, Tick)>,
    arrivals: Vec<Arc<Promise<()>>>,
    barriers: Vec<Arc<Promise<bool>>>,
}

/// Whether Redis is followed.
enum Following {
    NotYet,
    Yes,
    /// It can't be: why.
    Impossible(Error),
}

impl Session {
    pub(crate) fn new(bound: Duration, rules: Rules) -> Self {
        Self {
            rules,
            bound,
            epoch: AtomicU64::new(1),
            lease: AtomicU64::new(0),
            server: AtomicU64::new(0),
            state: Mutex::new(State {
                following: Following::NotYet,
                suspected: false,
                since: SystemTime::now(),
                last_failure: None,
                ended: None,
                arrivals: Vec::new(),
                barriers: Vec::new(),
            }),
        }
    }

    pub(crate) fn bound(&self) -> Duration {
        self.bound
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    pub(crate) fn lease(&self) -> Tick {
        Tick::from_bits(self.lease.load(SeqCst))
    }

    /// Whether the lease has not lapsed. By the clock and not by a flag: a forked child has no
    /// listener to clear one.
    pub(crate) fn is_live(&self, now: Tick) -> bool {
        now < self.lease() || !self.rules.enforces(Rule::Lease)
    }

    /// Whether an entry of that epoch may be served.
    ///
    /// The lease is read before the epoch. In the other order a loss and a new session could come
    /// between the two, and the new lease would cover an entry from before the loss: that was seen
    /// once in 0.2 s under load.
    pub(crate) fn covers(&self, epoch: u64, now: Tick) -> bool {
        self.is_live(now) && (epoch == self.epoch() || !self.rules.enforces(Rule::EpochOnHit))
    }

    /// The epoch of a read that begins now, if its answer may be stored. Here the epoch is read
    /// before the lease: if a session begins between the two, the old epoch keeps the answer from
    /// being stored.
    pub(crate) fn begin_read(&self, now: Tick) -> Option<u64> {
        let epoch = self.epoch();
        self.is_live(now).then_some(epoch)
    }

    /// Whether an answer may be stored that was asked for in that epoch and came from that server.
    ///
    /// After a failover the old server's tracking connection may stay up for ever. Answers of the
    /// new server would then be stored, and their changes never be announced.
    pub(crate) fn accepts(&self, epoch: u64, server: Option<ServerId>) -> bool {
        let same = server.is_some_and(|server| server.get() == self.server.load(SeqCst));
        (same || !self.rules.enforces(Rule::SameServer)) && epoch == self.epoch()
    }

    /// True for the first answer from another server than the one that is followed. The session is
    /// over then, because it can't be told to which of the two servers writers write now.
    pub(crate) fn suspects(&self, server: Option<ServerId>) -> bool {
        let is_other = |server: ServerId| ![0, server.get()].contains(&self.server.load(SeqCst));
        if !server.is_some_and(is_other) || !self.rules.enforces(Rule::SameServer) {
            return false;
        }
        let mut state = self.lock();
        // Under the lock once more: meanwhile the session may have ended, or a new one may follow
        // just this server.
        if !server.is_some_and(is_other) {
            return false;
        }
        self.lease.store(0, SeqCst);
        !std::mem::replace(&mut state.suspected, true)
    }

    /// Whether an answer came from another server than the one that is followed.
    pub(crate) fn is_suspected(&self) -> bool {
        self.lock().suspected
    }

    /// Redis has confirmed, in answer to a greeting that was sent at `sent`, that it announces
    /// changes. Before that confirmation a change may pass unannounced, so no session begins
    /// earlier.
    pub(crate) fn begin(&self, server: ServerId, sent: Tick) {
        let mut state = self.lock();
        state.suspected = false;
        self.server.store(server.get(), SeqCst);
        // A new epoch before the new lease: the lease must not cover entries of an earlier session.
        if self.rules.enforces(Rule::Begin) {
            self.epoch.fetch_add(1, SeqCst);
        }
        self.lease.store(sent.plus(self.bound).to_bits(), SeqCst);
        state.following = Following::Yes;
        state.since = SystemTime::now();
        arrive(state);
    }

    /// Redis answered a heartbeat that was asked for at `sent`, and all that it announced before
    /// has been applied.
    ///
    /// The lease counts from the sending. A late answer only proves that Redis was there when it
    /// left: counted from its arrival, the bound would stretch by the delay.
    pub(crate) fn renew(&self, sent: Tick) {
        let state = self.lock();
        if !state.suspected {
            self.lease.store(sent.plus(self.bound).to_bits(), SeqCst);
            // For callers that began to wait while the lease had lapsed.
            arrive(state);
        }
    }

    /// All entries are void, and Redis is still followed.
    pub(crate) fn flush(&self) {
        if self.rules.enforces(Rule::Flush) {
            self.epoch.fetch_add(1, SeqCst);
        }
    }

    /// Redis is not followed any more, or could not be. True if it was.
    pub(crate) fn end(&self, why: &Error) -> bool {
        let mut state = self.lock();
        let lease = Tick::from_bits(self.lease.swap(0, SeqCst));
        self.server.store(0, SeqCst);
        state.suspected = false;
        let was_live = matches!(state.following, Following::Yes);
        if was_live {
            state.ended = Some((self.epoch(), lease.minus(self.bound)));
            state.since = SystemTime::now();
        }
        state.last_failure = Some(why.to_string());
        let impossible = !why.is_transient();
        state.following = if impossible {
            Following::Impossible(why.copied())
        } else {
            Following::NotYet
        };
        let barriers = std::mem::take(&mut state.barriers);
        let arrivals = if impossible {
            std::mem::take(&mut state.arrivals)
        } else {
            Vec::new()
        };
        drop(state);
        for barrier in barriers {
            barrier.fulfil(false);
        }
        for arrival in arrivals {
            arrival.fulfil(());
        }
        was_live
    }

    /// Until when entries of that epoch were known to be right, if the connection was lost in it:
    /// the age of a value in an outage counts from there.
    pub(crate) fn known_until(&self, epoch: u64) -> Option<Tick> {
        let ended = self.lock().ended;
        ended.filter(|ended| ended.0 == epoch).map(|ended| ended.1)
    }

    /// A promise that is fulfilled when a session begins or is known to be impossible; `None` if
    /// one runs.
    ///
    /// # Errors
    ///
    /// Why there can be no session.
    pub(crate) fn arrival(&self, now: Tick) -> Result<Option<Arc<Promise<()>>>, Error> {
        let mut state = self.lock();
        match &state.following {
            Following::Yes if self.is_live(now) => Ok(None),
            Following::Impossible(why) => Err(why.copied()),
            _ => {
                let arrival = Arc::new(Promise::new());
                // Callers that gave up left their promises here, and an outage may be long.
                state
                    .arrivals
                    .retain(|arrival| Arc::strong_count(arrival) > 1);
                state.arrivals.push(Arc::clone(&arrival));
                Ok(Some(arrival))
            }
        }
    }

    /// A promise that is fulfilled when all that Redis did before now has been announced and
    /// applied: with true then, with false if the session ended first.
    ///
    /// A write that was acknowledged before a heartbeat was asked for is announced before its
    /// answer. So this waits for the answer to one that is asked for after now.
    pub(crate) fn barrier(&self) -> Arc<Promise<bool>> {
        let barrier = Arc::new(Promise::new());
        self.lock().barriers.push(Arc::clone(&barrier));
        barrier
    }

    /// Whether a caller waits for a heartbeat: the listener then sends one at once, not at the next
    /// quarter of the bound.
    pub(crate) fn has_barriers(&self) -> bool {
        !self.lock().barriers.is_empty()
    }

    /// The barriers that the next heartbeat covers: all that wait when it is sent.
    pub(crate) fn take_barriers(&self) -> Vec<Arc<Promise<bool>>> {
        std::mem::take(&mut self.lock().barriers)
    }

    pub(crate) fn since(&self) -> SystemTime {
        self.lock().since
    }

    pub(crate) fn last_failure(&self) -> Option<String> {
        self.lock().last_failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells callers that wait for a session. The lock is released first, because waking may run them
/// in this thread.
fn arrive(mut state: MutexGuard<'_, State>) {
    let arrivals = std::mem::take(&mut state.arrivals);
    drop(state);
    for arrival in arrivals {
        arrival.fulfil(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Waker};
    use std::thread;

    fn session() -> Session {
        Session::new(Duration::from_secs(60), Rules::default())
    }

    fn lost() -> Error {
        crate::command::reply::outage(crate::error::Outage::Lost, None)
    }

    #[test]
    fn what_was_kept_before_a_loss_is_never_covered_again() {
        let (session, server, now) = (session(), ServerId::new(1), Tick::now());
        let is_over = AtomicBool::new(false);
        // The last epoch that has ended.
        let ended = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(SeqCst) {
                        let epoch = ended.load(SeqCst);
                        assert!(!session.covers(epoch, now), "epoch {epoch}");
                    }
                });
            }
            for _ in 0..200_000 {
                session.begin(server, now);
                let epoch = session.epoch();
                assert!(session.covers(epoch, now));
                session.end(&lost());
                ended.store(epoch, SeqCst);
            }
            is_over.store(true, SeqCst);
        });
    }

    #[test]
    fn an_answer_of_another_server_ends_a_session_once_and_for_all() {
        let (session, now) = (session(), Tick::now());
        let [here, there] = [1, 2].map(|server| Some(ServerId::new(server)));
        // Nothing is followed, so nothing can be elsewhere.
        assert!(!session.suspects(there));
        session.begin(ServerId::new(1), now);
        assert!(!session.suspects(here) && !session.suspects(None));
        assert!(session.is_live(now) && !session.is_suspected());
        assert!(session.suspects(there) && !session.suspects(there));
        session.renew(now);
        assert!(!session.is_live(now) && session.is_suspected());
        session.end(&lost());
        session.begin(ServerId::new(2), now);
        assert!(session.is_live(now) && !session.is_suspected());
        assert!(session.suspects(here));
    }

    #[test]
    fn those_who_gave_up_waiting_leave_nothing_behind() {
        let session = session();
        let waiting = session.arrival(Tick::now()).unwrap().unwrap();
        for _ in 0..1_000 {
            assert!(session.arrival(Tick::now()).unwrap().is_some());
        }
        assert!(session.lock().arrivals.len() <= 2);
        session.begin(ServerId::new(1), Tick::now());
        let mut context = Context::from_waker(Waker::noop());
        let arrived = std::pin::pin!(waiting.wait()).poll(&mut context);
        assert!(arrived.is_ready());
    }
}
