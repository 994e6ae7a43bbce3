//! Stop: the wish that work ends in good order, for everybody who holds a clone. It knows nothing of the work.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

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
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.token.clone().cancelled_owned()
    }
}
