//! What is known of the server that holds the keys: shared by all connections of one client.
//!
//! Without a lock, which a forked child could inherit locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::ConnectionAddr;

/// What is known, and what was asked.
pub(crate) struct Known {
    state: ArcSwap<State>,
    /// How often another server was found, or is to be looked for.
    moves: AtomicU64,
    /// When the sentinels were asked last, in milliseconds since `start`, and 1.
    asked: AtomicU64,
    start: Instant,
    /// The sentinel that answered last.
    first: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// The server that has proved that it holds the keys.
    holder: Option<Arc<ConnectionAddr>>,
    /// As `moves` was then.
    moves: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            state: ArcSwap::default(),
            moves: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            start: Instant::now(),
            first: AtomicUsize::new(0),
        }
    }
}

impl Known {
    /// The server that has proved to hold the keys, unless it is to be looked for anew.
    pub(crate) fn holder(&self) -> Option<Arc<ConnectionAddr>> {
        self.state.load().holder.clone()
    }

    /// A connection that was opened under another number leads to a server that may not hold the
    /// keys any more.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(SeqCst)
    }

    /// This server holds the keys. Returns the number for a connection to it.
    pub(crate) fn found(&self, server: &ConnectionAddr) -> u64 {
        self.set(Some(server))
    }

    /// A sentinel names this server. If it is not the holder, the holder is looked for anew: it is
    /// one when it has proved it.
    pub(crate) fn named(&self, server: &ConnectionAddr) {
        if self.holder().is_some_and(|holder| *holder != *server) {
            self.set(None);
        }
    }

    fn set(&self, server: Option<&ConnectionAddr>) -> u64 {
        let mut moves = 0;
        self.state.rcu(|state| {
            let is_same = state.holder.as_deref() == server;
            // From none to one is the end of a move that was counted, unless it is the first.
            let is_move = !is_same && state.holder.is_some();
            moves = state.moves + u64::from(is_move);
            State {
                holder: server.cloned().map(Arc::new),
                moves,
            }
        });
        self.moves.fetch_max(moves, SeqCst);
        moves
    }

    /// True for one caller, if no caller has asked for so long.
    pub(crate) fn is_to_be_asked(&self, max_age: Duration) -> bool {
        let (asked, now) = (self.asked.load(SeqCst), self.now());
        let age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(asked) >= age
            && self
                .asked
                .compare_exchange(asked, now, SeqCst, SeqCst)
                .is_ok()
    }

    /// Whether the last answer is younger than this.
    pub(crate) fn was_asked_within(&self, max_age: Duration) -> bool {
        let age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        let asked = self.asked.load(SeqCst);
        asked > 0 && self.now().saturating_sub(asked) < age
    }

    /// The sentinels were asked just now.
    pub(crate) fn was_asked(&self) {
        self.asked.store(self.now(), SeqCst);
    }

    fn now(&self) -> u64 {
        let since = self.start.elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Who is asked first: the one that was right last.
    pub(crate) fn first(&self) -> usize {
        self.first.load(SeqCst)
    }

    pub(crate) fn set_first(&self, sentinel: usize) {
        self.first.store(sentinel, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> ConnectionAddr {
        ConnectionAddr::Tcp("h".to_owned(), port)
    }

    #[test]
    fn a_move_is_counted_once() {
        let known = Known::default();
        assert_eq!((known.found(&server(1)), known.moves()), (0, 0));
        assert_eq!(known.found(&server(1)), 0);
        known.named(&server(1));
        assert_eq!(known.moves(), 0);
        known.named(&server(2));
        assert_eq!((known.holder(), known.moves()), (None, 1));
        assert_eq!((known.found(&server(2)), known.moves()), (1, 1));
        assert_eq!((known.found(&server(3)), known.moves()), (2, 2));
    }

    #[test]
    fn one_caller_asks_at_a_time() {
        let known = Known::default();
        let age = Duration::from_secs(60);
        assert!(!known.was_asked_within(age));
        known.was_asked();
        assert!(known.was_asked_within(age) && !known.is_to_be_asked(age));
        assert!(known.is_to_be_asked(Duration::ZERO));
    }
}
