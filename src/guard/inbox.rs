//! What is to be looked at: hints from both feeds, each path once, bounded.
//!
//! The feeds' threads and tasks put hints in and never wait; the guard's loop takes them out.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::keys::validate_path;

/// How many paths may wait. More become "everything".
pub(crate) const CAPACITY: usize = 20_000;

/// The hints that wait, and what else the feeds tell.
#[derive(Default)]
pub(crate) struct Inbox(Mutex<State>);

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a letter of its own")]
struct State {
    paths: HashMap<String, Times>,
    everything: bool,
    index: bool,
    /// What came back on the connection that listens.
    echoes: Vec<u64>,
    is_deaf: bool,
    is_stopped: bool,
    /// Whether something came since the loop last looked.
    has_news: bool,
    waker: Option<Waker>,
}

/// Of a path that waits.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// When it was first hinted at.
    arrived: Instant,
    not_before: Instant,
}

/// A path to be looked at, and when it was first hinted at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) path: String,
    pub(crate) arrived: Instant,
}

impl Inbox {
    /// These paths are to be looked at. What can't be a module's path is left out, whoever hints at
    /// it: under `index`, the guard would write over the index.
    pub(crate) fn add(&self, paths: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        self.tell(|state| {
            let paths = paths.into_iter();
            for path in paths.filter(|path| validate_path(path).is_ok()) {
                state.add(path, now, now);
            }
        });
    }

    /// A path that was taken is to be looked at again, and not before then.
    pub(crate) fn put_back(&self, hint: Hint, not_before: Instant) {
        self.tell(|state| state.add(hint.path, hint.arrived, not_before));
    }

    /// Anything may have changed.
    pub(crate) fn everything(&self) {
        self.tell(|state| state.everything = true);
    }

    /// The index changed, Redis does not say how.
    pub(crate) fn index(&self) {
        self.tell(|state| state.index = true);
    }

    /// A nonce came back over the connection that listens.
    pub(crate) fn echo(&self, nonce: u64) {
        self.tell(|state| state.echoes.push(nonce));
    }

    /// The connection that listens has ended.
    pub(crate) fn deaf(&self) {
        self.tell(|state| state.is_deaf = true);
    }

    /// The guard is to end.
    pub(crate) fn stop(&self) {
        self.tell(|state| state.is_stopped = true);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// A guard that was stopped may run again.
    pub(crate) fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Whether everything is to be looked at, which is taken for done.
    pub(crate) fn take_everything(&self) -> bool {
        std::mem::take(&mut self.lock().everything)
    }

    pub(crate) fn has_everything(&self) -> bool {
        self.lock().everything
    }

    pub(crate) fn has_index(&self) -> bool {
        self.lock().index
    }

    pub(crate) fn take_index(&self) -> bool {
        std::mem::take(&mut self.lock().index)
    }

    pub(crate) fn take_echoes(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().echoes)
    }

    pub(crate) fn take_deaf(&self) -> bool {
        std::mem::take(&mut self.lock().is_deaf)
    }

    /// The paths that arrived by `latest` and may be looked at `now`.
    pub(crate) fn take(&self, latest: Instant, now: Instant) -> Vec<Hint> {
        let mut state = self.lock();
        let due = |times: &Times| times.arrived <= latest && times.not_before <= now;
        let due = state.paths.extract_if(|_, times| due(times));
        due.map(|(path, Times { arrived, .. })| Hint { path, arrived })
            .collect()
    }

    /// All paths that wait.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.lock().paths.keys().cloned().collect()
    }

    /// Whether this path waits: it was hinted at again since it was taken.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.lock().paths.contains_key(path)
    }

    /// How many paths wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().paths.len()
    }

    /// When the next path that waits may be looked at, where each waits for `delay` at least.
    pub(crate) fn next_due(&self, delay: std::time::Duration) -> Option<Instant> {
        let state = self.lock();
        let due = |times: &Times| times.not_before.max(times.arrived + delay);
        state.paths.values().map(due).min()
    }

    /// Waits until something comes. What came since the last call counts, too.
    pub(crate) async fn news(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if std::mem::take(&mut state.has_news) {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.has_news = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, path: String, arrived: Instant, not_before: Instant) {
        let is_full = self.paths.len() >= CAPACITY;
        match self.paths.get_mut(&path) {
            // The older hint is the one that waits; the later delay is the one that holds.
            Some(times) => {
                times.arrived = times.arrived.min(arrived);
                times.not_before = times.not_before.max(not_before);
            }
            None if is_full => self.everything = true,
            None => {
                let times = Times {
                    arrived,
                    not_before,
                };
                self.paths.insert(path, times);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn paths(hints: &[Hint]) -> Vec<&str> {
        let mut paths: Vec<_> = hints.iter().map(|hint| hint.path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn each_path_waits_once_with_its_oldest_time() {
        let inbox = Inbox::default();
        inbox.add(["a".to_owned(), "b".to_owned()]);
        let soon = Instant::now() + SECOND;
        let first = inbox.take(soon, soon);
        assert_eq!(paths(&first), ["a", "b"]);
        assert_eq!(inbox.len(), 0);
        inbox.add(["a".to_owned()]);
        let old = first.into_iter().find(|hint| hint.path == "a").unwrap();
        inbox.put_back(old.clone(), Instant::now());
        assert_eq!(inbox.take(soon, soon), [old]);
    }

    #[test]
    fn none_is_taken_before_its_time() {
        let inbox = Inbox::default();
        let start = Instant::now();
        let hint = |path: &str, seconds: u64| Hint {
            path: path.to_owned(),
            arrived: start + SECOND * u32::try_from(seconds).unwrap(),
        };
        inbox.put_back(hint("late", 3), start);
        inbox.put_back(hint("early", 1), start);
        inbox.put_back(hint("middle", 2), start);
        inbox.put_back(hint("held", 0), start + 9 * SECOND);
        let take = |latest, now| inbox.take(start + latest, start + now);
        assert_eq!(inbox.next_due(Duration::ZERO), Some(start + SECOND));
        assert_eq!(inbox.next_due(5 * SECOND), Some(start + 6 * SECOND));
        assert_eq!(paths(&take(SECOND, 5 * SECOND)), ["early"]);
        assert_eq!(paths(&take(2 * SECOND, 5 * SECOND)), ["middle"]);
        assert_eq!(paths(&take(9 * SECOND, 9 * SECOND)), ["held", "late"]);
    }

    #[test]
    fn what_cannot_be_a_path_is_left_out() {
        let inbox = Inbox::default();
        inbox.add(["index", "/a", "a//b", ""].map(str::to_owned));
        assert_eq!(inbox.len(), 0);
    }

    #[test]
    fn too_many_become_everything() {
        let inbox = Inbox::default();
        inbox.add((0..CAPACITY).map(|n| n.to_string()));
        inbox.add(["0".to_owned()]);
        assert!(!inbox.take_everything());
        inbox.add(["one more".to_owned()]);
        assert!(inbox.take_everything());
        assert_eq!(inbox.len(), CAPACITY);
    }

    #[test]
    fn news_are_told_once_and_none_is_lost() {
        let inbox = Inbox::default();
        let poll = || {
            let news = pin!(inbox.news());
            news.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert!(poll().is_pending());
        inbox.index();
        inbox.everything();
        assert!(poll().is_ready());
        assert!(poll().is_pending());
    }
}
