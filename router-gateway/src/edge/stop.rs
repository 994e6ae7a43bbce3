//! Stop: the wish that work ends in good order, for everybody who holds a clone. It knows nothing of the work.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The wish that work ends in good order, seen by everybody who holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    /// The same as the token's state, readable without its lock: connections look at it on every wake-up.
    flag: Arc<AtomicBool>,
}

impl Stop {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits until somebody asks.
    pub fn requested(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// Runs a future until it is done, or somebody asks: then it is dropped, and this is `None`. It stays with the task
    /// that polled it first.
    pub async fn unless_requested<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut requested = pin!(self.requested());
        let mut registered = false;
        poll_fn(|cx| {
            // The flag is one load; the waiting future, which locks, is polled once to leave its waker.
            if !registered || self.is_requested() {
                registered = true;
                if requested.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}
