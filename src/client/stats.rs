//! Counters for an operator. They are `Relaxed`: each is right by itself, and no two of them are
//! read at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::breaker::{Breaker, BreakerState};
use crate::error::Error;

/// What a reader or writer has done since it was made, all clones together: returned by their
/// `stats`. Counters only grow; a forked child goes on from its parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that needed Redis: reads and writes, also those that failed. The long ones (`refresh`,
    /// warm-up, `verify`, `repair`) report for themselves.
    pub calls: u64,
    /// Modules that Redis said are absent, and names that are not found.
    pub absent: u64,
    /// Calls that were tried a second time: reads without an answer, and what a server refused
    /// because another one holds the keys now.
    pub retries: u64,
    /// Calls that failed as [`Error::Unavailable`], the rejected ones included.
    pub unavailable: u64,
    /// Calls that the open breaker failed at once.
    pub rejected: u64,
    /// Calls that failed as [`Error::Busy`].
    pub busy: u64,
    /// Calls that failed as [`Error::Corrupt`].
    pub corrupt: u64,
    /// Calls that failed as [`Error::Refused`].
    pub refused: u64,
    /// Modules whose content did not match their hash, where
    /// [`Integrity`](crate::config::Integrity) is not off.
    pub mismatched: u64,
    /// Members of the index that could not be paths and were skipped.
    pub bad_members: u64,
    /// Whether the breaker lets calls through.
    pub breaker: BreakerState,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// Connections in use now (`blocking`), or calls in flight (`nonblocking`).
    pub in_use: usize,
}

/// The counters and the breaker behind one set of connections.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    pub(crate) breaker: Breaker,
    pub(crate) calls: Counter,
    pub(crate) absent: Counter,
    pub(crate) retries: Counter,
    pub(crate) rejected: Counter,
    pub(crate) mismatched: Counter,
    pub(crate) bad_members: Counter,
    unavailable: Counter,
    busy: Counter,
    corrupt: Counter,
    refused: Counter,
    /// How often another server was found to hold the keys.
    moves: AtomicU64,
}

impl Monitor {
    /// True for one caller after each move.
    pub(crate) fn has_moved(&self, moves: u64) -> bool {
        let before = self.moves.load(Ordering::Relaxed);
        before != moves && self.moves.swap(moves, Ordering::Relaxed) != moves
    }

    pub(crate) fn failed(&self, error: &Error) {
        match error {
            Error::Unavailable { .. } => self.unavailable.add(1),
            Error::Busy { .. } => self.busy.add(1),
            Error::Corrupt { .. } => self.corrupt.add(1),
            Error::Refused { .. } => self.refused.add(1),
            _ => {}
        }
    }

    pub(crate) fn stats(&self, in_use: usize) -> Stats {
        Stats {
            calls: self.calls.get(),
            absent: self.absent.get(),
            retries: self.retries.get(),
            unavailable: self.unavailable.get(),
            rejected: self.rejected.get(),
            busy: self.busy.get(),
            corrupt: self.corrupt.get(),
            refused: self.refused.get(),
            mismatched: self.mismatched.get(),
            bad_members: self.bad_members.get(),
            breaker: self.breaker.state(),
            breaker_opened: self.breaker.opened(),
            in_use,
        }
    }
}

/// A counter for what a round trip goes with: one atomic is no cost beside it. Hits have striped
/// ones.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
