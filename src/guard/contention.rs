//! Holds back from paths that are overwritten again and again: somebody writes them wrongly as often
//! as they are mended, and readers would see them flicker. A row that changes often is none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many times in [`WINDOW`] a path is mended at once.
const FREE: u32 = 10;

/// After so long without being mended a path starts afresh.
const WINDOW: Duration = Duration::from_secs(10);

/// How long a contended path waits before it is mended again; it doubles each time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How many paths are kept in mind. More are not held back: a fleet that writes all of its paths
/// wrongly is mended as fast as it can be.
const MOST: usize = 4_096;

/// The paths that were mended lately.
#[derive(Debug, Default)]
pub(super) struct Contention(HashMap<String, Mended>);

#[derive(Debug)]
struct Mended {
    /// A hash of what was written the last time.
    written: u64,
    /// How often that was.
    times: u32,
    first: Instant,
    last: Instant,
}

impl Mended {
    /// How long it is left alone after it was last mended.
    fn delay(&self) -> Option<Duration> {
        let excess = self.times.checked_sub(FREE)?;
        let delay = FIRST_DELAY.saturating_mul(1 << excess.min(8));
        Some(delay.min(LONGEST_DELAY))
    }

    /// Until when it is kept in mind.
    fn end(&self) -> Instant {
        match self.delay() {
            // Twice as long as it is held back: peace must last longer than the pause does.
            Some(delay) => self.last + 2 * delay.max(WINDOW),
            None => self.first + WINDOW,
        }
    }
}

impl Contention {
    /// Until when this path is to be left alone, if it is.
    pub(super) fn held_until(&self, path: &str, now: Instant) -> Option<Instant> {
        let mended = self.0.get(path)?;
        let until = mended.last + mended.delay()?;
        (until > now).then_some(until)
    }

    /// A path was mended, with what has this hash; answers whether it is contended from now on.
    pub(super) fn mended(&mut self, path: &str, written: u64, now: Instant) -> bool {
        if let Some(mended) = self.0.get_mut(path)
            && mended.end() > now
            && mended.written == written
        {
            mended.times = mended.times.saturating_add(1);
            mended.last = now;
            return mended.times == FREE;
        }
        if self.0.len() >= MOST {
            self.forget(now);
        }
        if self.0.len() < MOST || self.0.contains_key(path) {
            let mended = Mended {
                written,
                times: 1,
                first: now,
                last: now,
            };
            self.0.insert(path.to_owned(), mended);
        }
        false
    }

    /// Forgets what has been at peace for long enough; answers which contended paths that ends for.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<String> {
        let mut settled = Vec::new();
        self.0.retain(|path, mended| {
            let stays = mended.end() > now;
            if !stays && mended.delay().is_some() {
                settled.push(path.clone());
            }
            stays
        });
        settled
    }

    /// How many paths are contended.
    pub(super) fn count(&self) -> usize {
        let contended = self.0.values().filter(|mended| mended.delay().is_some());
        contended.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_that_is_mended_too_often_waits_ever_longer_and_is_told_once() {
        let mut contention = Contention::default();
        let mut now = Instant::now();
        for _ in 1..FREE {
            assert!(!contention.mended("a", 1, now));
            assert_eq!(contention.held_until("a", now), None);
            now += MS;
        }
        assert!(contention.mended("a", 1, now), "the tenth time");
        assert_eq!(contention.count(), 1);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let until = contention.held_until("a", now).unwrap();
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(contention.held_until("a", now), None);
            assert!(!contention.mended("a", 1, now), "told once");
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(contention.held_until("b", now), None);
    }

    #[test]
    fn peace_is_forgotten_after_a_while() {
        let mut contention = Contention::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            contention.mended("a", 1, now);
        }
        contention.mended("b", 1, now);
        let last = now;
        now = last + 2 * WINDOW;
        assert!(contention.forget(last + WINDOW + MS).is_empty());
        assert_eq!(contention.forget(now), ["a"]);
        assert_eq!(contention.count(), 0);
        // Once a second is no contention.
        for _ in 0..100 {
            now += 2 * Duration::from_secs(1);
            contention.mended("c", 1, now);
            assert_eq!(contention.held_until("c", now), None);
        }
    }

    #[test]
    fn a_row_that_changes_often_is_not_contended() {
        let mut contention = Contention::default();
        let now = Instant::now();
        for content in 0..100 {
            assert!(!contention.mended("a", content, now));
        }
        assert_eq!(
            (contention.held_until("a", now), contention.count()),
            (None, 0)
        );
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut contention = Contention::default();
        let now = Instant::now();
        for n in 0..2 * MOST {
            contention.mended(&n.to_string(), 1, now);
        }
        assert_eq!(contention.0.len(), MOST);
    }
}
