//! The last listing of the index, and which call fetches the next one.
//!
//! All clones of a reader share it. Nothing here waits or takes a lock: a forked child inherits it,
//! and with a lock could inherit it locked.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::index::PathIndex;

/// The index as it was at some moment.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) index: Arc<PathIndex>,
    /// A time before it was asked for: every change from before is in it.
    pub(crate) taken: Instant,
}

/// What all calls of a transport share.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    last: ArcSwapOption<Listing>,
    /// A listing that was taken before this is not fresh, however young it is: an observed writer
    /// has changed the index since.
    void_before: ArcSwapOption<Instant>,
    /// The id of the process in which a call fetches the next one, or 0. A flag would not do: a
    /// forked child may inherit it set, without the thread that would clear it.
    fetching: AtomicU32,
    /// Whether the last attempt to fetch one failed.
    failing: AtomicBool,
}

impl Listings {
    pub(crate) fn last(&self) -> Option<Arc<Listing>> {
        self.last.load_full()
    }

    /// The last one, if it is at most `max_age` older than the call that began at `start`. Counted
    /// from there and not from now: a call that waited must not reject what was fresh when it
    /// began.
    pub(crate) fn fresh(&self, start: Instant, max_age: Duration) -> Option<Arc<Listing>> {
        let listing = self.last()?;
        let is_young = start.saturating_duration_since(listing.taken) <= max_age;
        let void_before = self.void_before.load();
        let is_void = void_before
            .as_ref()
            .is_some_and(|end| listing.taken < **end);
        (is_young && !is_void).then_some(listing)
    }

    /// The index has changed at `then`: a listing that may be from before is not fresh any more.
    #[cfg(feature = "near-cache")]
    pub(crate) fn void(&self, then: Instant) {
        self.void_before.rcu(|before| {
            let before = before.as_deref().copied();
            // Two writers that end at the same time may come here in either order: the later
            // counts.
            Some(Arc::new(before.map_or(then, |before| before.max(then))))
        });
    }

    /// From now on this is the last one, unless one that was taken later is known.
    pub(crate) fn set(&self, listing: Listing) -> Arc<Listing> {
        let listing = Arc::new(listing);
        self.last.rcu(|last| match last {
            Some(last) if last.taken > listing.taken => Some(Arc::clone(last)),
            _ => Some(Arc::clone(&listing)),
        });
        self.failing.store(false, Ordering::Relaxed);
        listing
    }

    /// True if the last attempt to fetch one failed.
    pub(crate) fn are_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// The right to fetch the next one, unless the last one is fresh, or another call has it.
    pub(crate) fn claim(&self, start: Instant, max_age: Duration) -> Option<Claim<'_>> {
        let process = process::id();
        let claimed = |holder| (holder != process).then_some(process);
        self.fetching
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, claimed)
            .ok()?;
        let claim = Claim { listings: self };
        // Looked at after the right was taken: another call may have set a fresh one just before it
        // gave the right back, and then nothing is to be fetched.
        self.fresh(start, max_age).is_none().then_some(claim)
    }
}

/// The right to fetch the next listing. It ends when this is dropped, however its call ended:
/// cancelled, too.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    listings: &'a Listings,
}

impl Claim<'_> {
    pub(crate) fn set(self, listing: Listing) -> Arc<Listing> {
        self.listings.set(listing)
    }

    pub(crate) fn failed(&self) {
        self.listings.failing.store(true, Ordering::Relaxed);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.listings.fetching.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INSTANT: Duration = Duration::from_nanos(1);

    fn listing(taken: Instant) -> Listing {
        let index = Arc::default();
        Listing { index, taken }
    }

    #[test]
    fn its_age_is_that_at_the_beginning_of_a_call() {
        let (listings, before) = (Listings::default(), Instant::now());
        let taken = before + SECOND;
        assert!(listings.fresh(taken, SECOND).is_none());
        let claim = listings.claim(taken, SECOND).unwrap();
        claim.set(listing(taken));
        let is_fresh = |start, max_age| listings.fresh(start, max_age).is_some();
        assert!(is_fresh(taken + SECOND, SECOND));
        assert!(!is_fresh(taken + SECOND + INSTANT, SECOND));
        // One that was asked for after the call began.
        assert!(is_fresh(before, Duration::ZERO));
        assert!(is_fresh(taken, Duration::ZERO));
        assert!(!is_fresh(taken + INSTANT, Duration::ZERO));
    }

    #[test]
    #[cfg(feature = "near-cache")]
    fn what_is_void_or_old_does_not_come_back() {
        let (listings, before) = (Listings::default(), Instant::now());
        let (then, later) = (before + SECOND, before + 2 * SECOND);
        let is_fresh = || listings.fresh(later, 2 * SECOND).is_some();
        listings.set(listing(then));
        assert!(is_fresh());
        listings.void(later);
        listings.void(before);
        assert!(!is_fresh());
        listings.set(listing(later));
        listings.set(listing(then));
        assert!(is_fresh());
    }

    #[test]
    fn one_call_at_a_time_fetches_and_only_what_is_needed() {
        let (listings, start) = (Listings::default(), Instant::now());
        let claim = |start| listings.claim(start, SECOND);
        let first = claim(start).expect("it is free");
        assert!(claim(start).is_none());
        assert!(claim(start).is_none());
        drop(first);
        let second = claim(start).expect("it was given back");
        second.set(listing(start));
        assert!(claim(start).is_none(), "it is fresh");
        assert!(claim(start + 2 * SECOND).is_some());
        assert!(claim(start + 2 * SECOND).is_some());
    }

    #[test]
    fn a_failure_is_known_until_one_is_kept() {
        let (listings, start) = (Listings::default(), Instant::now());
        let claim = listings.claim(start, SECOND).unwrap();
        claim.failed();
        drop(claim);
        assert!(listings.are_failing());
        let claim = listings.claim(start, SECOND).unwrap();
        claim.set(listing(start));
        assert!(!listings.are_failing());
    }

    #[test]
    fn a_claim_of_a_parent_process_is_void() {
        let listings = Listings::default();
        let parent = process::id() + 1;
        listings.fetching.store(parent, Ordering::Relaxed);
        assert!(listings.claim(Instant::now(), SECOND).is_some());
    }
}
