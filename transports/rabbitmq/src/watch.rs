//! Whether there is reason to look for what came back.
//!
//! The AMQP client (lapin 4.12) tells nobody of a return: it is no `Event`, no delegate is called, and what came back is kept
//! until somebody asks (`Channel::wait_for_confirms`). It could be learnt without asking in two ways. With confirms, each message
//! has a future of its own and an answer of the broker's. With an RPC behind each batch, its answer comes after whatever
//! was returned; that is a message each way. Both cost every message what now 50 looks a second cost all of them together:
//! a lock and an empty list. So a return is told up to 20 ms late, and nothing else waits for it.

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
