//! Whether there is reason to look for what came back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Whether anything was published lately: only then can something come back, which the AMQP client tells nobody of who
/// does not ask.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    published: AtomicU64,
    is_watched: AtomicBool,
    wanted: Notify,
}

impl Watch {
    pub(crate) fn note(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
        if !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::AcqRel) {
            self.wanted.notify_one();
        }
    }

    /// Waits until there is something to watch for.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Nothing has been published since `count`, for long enough: the next one says so again.
    pub(crate) fn rest(&self, count: u64) -> bool {
        self.is_watched.store(false, Ordering::Release);
        if self.published() == count {
            return true;
        }
        // One came between; nobody else need wake whoever looks now.
        self.is_watched.store(true, Ordering::Release);
        false
    }
}
