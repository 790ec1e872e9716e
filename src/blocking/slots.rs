//! A bounded number of things, each lent to one caller at a time: for forked children.
//!
//! It waits with the standard library's mutex and condition variable, which share no table with
//! other threads of the process. A child may use those that it made itself.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) struct Slots<T> {
    size: usize,
    state: Mutex<State<T>>,
    returned: Condvar,
}

struct State<T> {
    /// What was returned. The last one is lent first: its connection is the least likely to have
    /// died of idleness.
    idle: Vec<T>,
    lent: usize,
}

/// A slot, with what its last borrower left in it. What stands in it at the end is idle.
pub(super) struct Lent<'a, T> {
    slots: &'a Slots<T>,
    content: Option<T>,
}

impl<T> Slots<T> {
    /// This many, all empty.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            state: Mutex::new(State {
                idle: Vec::new(),
                lent: 0,
            }),
            returned: Condvar::new(),
        }
    }

    /// A slot, once one is free; `None` if none is within `limit`.
    pub(super) fn lend(&self, limit: Duration) -> Option<Lent<'_, T>> {
        let are_all_lent = |state: &mut State<T>| state.lent >= self.size;
        let waited = self
            .returned
            .wait_timeout_while(self.state(), limit, are_all_lent);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if are_all_lent(&mut state) {
            return None;
        }
        state.lent += 1;
        Some(Lent {
            slots: self,
            content: state.idle.pop(),
        })
    }

    /// How many are lent.
    pub(super) fn lent(&self) -> usize {
        self.state().lent
    }

    /// Nothing panics while it is locked, so a poisoned lock is as good as another.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = Option<T>;

    fn deref(&self) -> &Option<T> {
        &self.content
    }
}

impl<T> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut Option<T> {
        &mut self.content
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.lent -= 1;
        state.idle.extend(self.content.take());
        drop(state);
        self.slots.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_left_last_is_lent_first() {
        let slots = Slots::new(3);
        let mut all = [1, 2, 3].map(|_| slots.lend(Duration::ZERO).unwrap());
        assert_eq!(slots.lent(), 3);
        for (slot, content) in all.iter_mut().zip(["first", "second", "third"]) {
            assert_eq!(slot.replace(content), None);
        }
        let [first, second, mut third] = all;
        third.take();
        drop((first, second, third));
        let again = [1, 2, 3].map(|_| slots.lend(Duration::ZERO).unwrap());
        assert_eq!(
            [*again[0], *again[1], *again[2]],
            [Some("second"), Some("first"), None]
        );
    }

    #[test]
    fn nobody_is_lent_more_than_there_is() {
        let slots = Slots::<()>::new(1);
        let only = slots.lend(Duration::ZERO);
        assert!(slots.lend(Duration::ZERO).is_none());
        assert!(slots.lend(Duration::from_millis(1)).is_none());
        drop(only);
        assert_eq!(slots.lent(), 0);
        assert!(slots.lend(Duration::ZERO).is_some());
    }

    #[test]
    fn everybody_who_waits_gets_one() {
        const THREADS: usize = 8;
        const ROUNDS: usize = 1_000;
        let slots = Slots::new(2);
        let (start, most) = (Barrier::new(THREADS), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..ROUNDS {
                        let mut slot = slots.lend(LONG).expect("each is returned");
                        most.fetch_max(slots.lent(), Ordering::Relaxed);
                        *slot = Some(slot.unwrap_or(0) + 1);
                        thread::yield_now();
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
        let [one, two] = [1, 2].map(|_| slots.lend(Duration::ZERO).unwrap());
        assert_eq!(one.unwrap_or(0) + two.unwrap_or(0), THREADS * ROUNDS);
    }
}
