//! Fails fast while Redis is down: without it, every import of every worker would wait for its
//! whole deadline. Pure state, without a clock of its own.
//!
//! It counts calls, not attempts, and only those that got no answer: an error that Redis sends
//! shows that Redis is there.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Outage;

/// So many failed calls in a row open the breaker.
const FAILURES: u32 = 5;

/// How long after it opened, or after a failed probe, a call is let through: doubling from the
/// first to the last. At most 1 s, so that an outage ends for workers within a second of its end.
const FIRST_PROBE: Duration = Duration::from_millis(250);
const LAST_PROBE: Duration = Duration::from_secs(1);

/// How often a lock is tried that other threads hold for some nanoseconds. All tries together take
/// milliseconds.
const LOCK_ATTEMPTS: usize = 10_000;

/// Whether calls are let through: `breaker` of [`Stats`](crate::Stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// They are.
    #[default]
    Closed,
    /// They fail at once as [`Error::Unavailable`](crate::Error::Unavailable), never as absent,
    /// except for a probe every 250 ms to 1 s.
    Open,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
        })
    }
}

/// Opens after calls have failed in a row; a probe that is answered closes it.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Whether the last call failed. While it is false, a call neither takes the lock to ask nor to
    /// tell: that is the hot path.
    troubled: AtomicBool,
    opened: AtomicU64,
    /// Counts counted failures, so that a call can tell whether one came while it ran.
    epoch: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    next_probe: Instant,
    /// The pause before the next probe but one.
    pause: Duration,
    /// Since when a probe is under way. A time and not a flag: a child that was forked during a
    /// probe would wait for its end for ever.
    probing: Option<Instant>,
}

/// A call that was let through: tell how it went.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Pass {
    epoch: u64,
    probe: bool,
}

impl Pass {
    /// A probe that times out counts, also one of a bulk call: the breaker waits for its end.
    pub(crate) fn is_probe(self) -> bool {
        self.probe
    }
}

impl Breaker {
    /// Asks to make a call; `None`: fail at once. `longest` is how long a probe may take before it
    /// is taken for abandoned.
    pub(crate) fn admit(&self, now: Instant, longest: Duration) -> Option<Pass> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let through = Some(Pass {
            epoch,
            probe: false,
        });
        if !self.troubled.load(Ordering::Acquire) {
            return through;
        }
        let Some(mut state) = self.lock() else {
            return through;
        };
        let Some(open) = &mut state.open else {
            return through;
        };
        let busy = open
            .probing
            .is_some_and(|since| now.saturating_duration_since(since) < longest);
        if busy || now < open.next_probe {
            return None;
        }
        open.probing = Some(now);
        Some(Pass { epoch, probe: true })
    }

    /// Redis answered, be it with an error.
    pub(crate) fn answered(&self) {
        if self.troubled.load(Ordering::Acquire)
            && let Some(mut state) = self.lock()
        {
            state.failures = 0;
            state.open = None;
            self.troubled.store(false, Ordering::Release);
        }
    }

    /// The call got no answer, its retry included. `jitter` is random.
    pub(crate) fn failed(&self, pass: Pass, cause: Outage, now: Instant, jitter: u64) {
        let Some(mut state) = self.lock() else {
            return;
        };
        // One lost connection takes down all calls that share it, and counts once: those that began
        // before the first of them failed carry an older epoch.
        let counted_already =
            cause == Outage::Lost && pass.epoch != self.epoch.load(Ordering::Acquire);
        if counted_already && !pass.probe {
            return;
        }
        self.troubled.store(true, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        let failures = state.failures;
        match &mut state.open {
            Some(open) if pass.probe => {
                open.probing = None;
                open.next_probe = now + jittered(open.pause, jitter);
                open.pause = (open.pause * 2).min(LAST_PROBE);
            }
            None if failures >= FAILURES => {
                let next_probe = now + jittered(FIRST_PROBE, jitter);
                state.open = Some(Open {
                    next_probe,
                    pause: FIRST_PROBE * 2,
                    probing: None,
                });
                self.opened.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// The call never reached Redis, for reasons of its own.
    pub(crate) fn unused(&self, pass: Pass) {
        if pass.probe
            && let Some(mut state) = self.lock()
            && let Some(open) = &mut state.open
        {
            open.probing = None;
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        let open = self.lock().is_some_and(|state| state.open.is_some());
        if open {
            BreakerState::Open
        } else {
            BreakerState::Closed
        }
    }

    /// How often it opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// `None` if the lock will never be released: a fork copies it as it is, and a thread that held
    /// it in the parent does not exist in the child. Then the child goes on without a breaker.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        for _ in 0..LOCK_ATTEMPTS {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                // A thread panicked under the lock, but each change leaves a valid state.
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        self.troubled.store(false, Ordering::Release);
        None
    }
}

/// Between four fifths and all of it, so that a fleet does not probe in step.
fn jittered(pause: Duration, random: u64) -> Duration {
    pause / 1_000 * (1_000 - u32::try_from(random % 200).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_millis(600);

    fn fail(breaker: &Breaker, now: Instant, cause: Outage) {
        if let Some(pass) = breaker.admit(now, LONGEST) {
            breaker.failed(pass, cause, now, 0);
        }
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_an_answer_closes_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            fail(&breaker, now, Outage::TimedOut);
        }
        breaker.answered();
        for _ in 0..4 {
            fail(&breaker, now, Outage::TimedOut);
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        fail(&breaker, now, Outage::TimedOut);
        assert_eq!((breaker.state(), breaker.opened()), (BreakerState::Open, 1));
        assert!(breaker.admit(now + FIRST_PROBE / 2, LONGEST).is_none());
        let probe = breaker.admit(now + FIRST_PROBE, LONGEST).expect("a probe");
        assert!(
            breaker.admit(now + FIRST_PROBE, LONGEST).is_none(),
            "one probe at a time"
        );
        assert!(probe.probe);
        breaker.answered();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.admit(now, LONGEST).is_some());
    }

    #[test]
    fn probes_come_at_doubling_intervals_up_to_a_second() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            fail(&breaker, now, Outage::Connect);
        }
        for pause in [250, 500, 1_000, 1_000] {
            let pause = Duration::from_millis(pause);
            assert!(breaker.admit(now + pause / 100 * 99, LONGEST).is_none());
            now += pause;
            fail(&breaker, now, Outage::Connect);
        }
    }

    #[test]
    fn a_fleet_does_not_probe_in_step() {
        let opened = Instant::now();
        let mut early = [0, 0];
        for jitter in 0..200 {
            let breaker = Breaker::default();
            let fail = |now| {
                let pass = breaker.admit(now, LONGEST).expect("let through");
                breaker.failed(pass, Outage::TimedOut, now, jitter);
            };
            for _ in 0..4 {
                fail(opened);
            }
            let mut now = opened;
            for (probe, early) in early.iter_mut().enumerate() {
                fail(now);
                let pause = FIRST_PROBE * (1 << probe);
                assert!(breaker.admit(now + pause / 5 * 4, LONGEST).is_none());
                if let Some(pass) = breaker.admit(now + pause / 10 * 9, LONGEST) {
                    breaker.unused(pass);
                    *early += 1;
                }
                now += pause;
            }
        }
        assert_eq!(early, [100, 100]);
    }

    #[test]
    fn one_lost_connection_counts_once_and_silence_counts_each_time() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let passes: Vec<_> = (0..64)
            .map(|_| breaker.admit(now, LONGEST).unwrap())
            .collect();
        for pass in &passes {
            breaker.failed(*pass, Outage::Lost, now, 0);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for pass in passes {
            breaker.failed(pass, Outage::TimedOut, now, 0);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn connections_lost_one_after_another_open_it_each_time() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for opened in 1..=3 {
            for _ in 0..5 {
                fail(&breaker, now, Outage::Lost);
            }
            assert_eq!(breaker.opened(), opened);
            breaker.answered();
        }
    }

    #[test]
    fn a_probe_that_was_given_up_does_not_keep_it_open_for_ever() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            fail(&breaker, now, Outage::TimedOut);
        }
        let later = now + FIRST_PROBE;
        let _abandoned = breaker.admit(later, LONGEST).expect("a probe");
        assert!(breaker.admit(later + LONGEST / 2, LONGEST).is_none());
        assert!(breaker.admit(later + LONGEST, LONGEST).is_some());
    }

    proptest! {
        #[test]
        fn whatever_happens_a_call_is_let_through_within_a_second_and_a_probe(
            steps in prop::collection::vec((0..3_u8, 0..2_000_u64, any::<u64>()), 0..60)
        ) {
            let (breaker, mut now) = (Breaker::default(), Instant::now());
            for (step, wait, jitter) in steps {
                now += Duration::from_millis(wait);
                if let Some(pass) = breaker.admit(now, LONGEST) {
                    match step {
                        0 => breaker.answered(),
                        1 => breaker.failed(pass, Outage::TimedOut, now, jitter),
                        _ => {} // given up
                    }
                }
            }
            prop_assert!(breaker.admit(now + LAST_PROBE + LONGEST, LONGEST).is_some());
        }
    }
}
