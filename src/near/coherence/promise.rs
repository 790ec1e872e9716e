//! A value that comes once and that many wait for, whatever runs them.
//!
//! A channel of tokio would do, but the blocking facade has no tokio.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A value to come. Waiting is a future that only needs its waker called: a task of any runtime
/// can wait, and a thread that parks.
pub(crate) struct Promise<T>(Mutex<State<T>>);

enum State<T> {
    Awaited(Vec<Waker>),
    Fulfilled(T),
}

impl<T: Clone> Promise<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Awaited(Vec::new())))
    }

    /// Gives the value to all waiters, of now and of later. Only the first call counts.
    pub(crate) fn fulfil(&self, value: T) {
        let mut state = self.lock();
        if let State::Awaited(waiters) = &mut *state {
            let waiters = std::mem::take(waiters);
            *state = State::Fulfilled(value);
            // A waker may run its task at once, in this thread, and that may come back here.
            drop(state);
            waiters.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn wait(&self) -> Waiting<'_, T> {
        Waiting {
            promise: self,
            place: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Waiting<'a, T> {
    promise: &'a Promise<T>,
    /// Where our waker is in the list, so that a future which is polled again replaces it.
    place: Option<usize>,
}

impl<T: Clone> Future for Waiting<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.promise.lock();
        match &mut *state {
            State::Fulfilled(value) => Poll::Ready(value.clone()),
            State::Awaited(waiters) => {
                let waker = context.waker().clone();
                if let Some(place) = self.place {
                    waiters[place] = waker;
                } else {
                    waiters.push(waker);
                    let place = waiters.len() - 1;
                    drop(state);
                    self.place = Some(place);
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_who_wait_are_woken_once_and_get_the_first_value() {
        let promise = Promise::new();
        let woken: [Arc<Woken>; 2] = Default::default();
        let wakers = woken.clone().map(Waker::from);
        let (mut first, mut second) = (pin!(promise.wait()), pin!(promise.wait()));
        for _ in 0..3 {
            assert!(
                first
                    .as_mut()
                    .poll(&mut Context::from_waker(&wakers[0]))
                    .is_pending()
            );
            assert!(
                second
                    .as_mut()
                    .poll(&mut Context::from_waker(&wakers[1]))
                    .is_pending()
            );
        }
        promise.fulfil(1);
        promise.fulfil(2);
        for woken in &woken {
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        }
        for waiting in [first, second, pin!(promise.wait())] {
            let poll = waiting.poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(poll, Poll::Ready(1));
        }
    }
}
