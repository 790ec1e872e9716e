//! Waits in a thread for what other threads or tasks do: the only place where `blocking` parks a
//! thread for a future. Not tokio's `block_on`, because this facade starts no runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The future's output, or `None` if there is none within `limit`. A wake-up that comes between the
/// poll and `park` is not lost: `unpark` leaves a token, and `park` returns at once.
pub(super) fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let deadline = Instant::now() + limit;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future;

    #[test]
    fn a_thread_waits_until_it_is_woken_or_the_time_is_up() {
        let mut polled = false;
        let woken_later = future::poll_fn(|context| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(5);
            }
            let waker = context.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        });
        assert_eq!(within(Duration::from_secs(60), woken_later), Some(5));
        assert_eq!(
            within(Duration::from_millis(5), future::pending::<()>()),
            None
        );
    }
}
