//! The bound of what all streams of a node, and the links below them, may hold in their buffers together (SPEC 4, credit).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that have arrived and that no application has taken, over all sessions that share this budget and their links.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// What windows have beyond their first size, all together: it may come to be used at any time.
    grown: AtomicUsize,
    given_up: AtomicU64,
}

impl Budget {
    /// `limit` in bytes; [`crate::limits::NODE_BUFFER_BYTES`] is the default of a node.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), grown: AtomicUsize::new(0), given_up: AtomicU64::new(0) })
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Streams that were given up because nobody read them while it filled up.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(super) fn note_given_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: usize) {
        // All workers share this counter: it is not touched for nothing.
        if bytes > 0 {
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn sub(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Lets a window grow by `bytes`, if all that have grown take no more than a quarter then. Whoever lets them grow
    /// gives that back.
    pub(super) fn grow(&self, bytes: u32) -> bool {
        let bytes = bytes as usize;
        let fits = self.grown.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit / 4;
        if !fits {
            self.shrink(bytes);
        }
        fits
    }

    pub(super) fn shrink(&self, bytes: usize) {
        if bytes > 0 {
            self.grown.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// What all windows have grown by.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn grown(&self) -> usize {
        self.grown.load(Ordering::Relaxed)
    }

    /// Seven eighths are used: what is new had better stay away, so that what has begun finds room.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.used() > self.limit - self.limit / 8
    }

    /// Three quarters are used: streams that have stalled for long are given up, on whatever link they are, so that
    /// fresh ones on another need not be.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.used() > self.limit - self.limit / 4
    }

    /// All of it is used: whoever holds something here gives up what it can.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }
}

/// What somebody beside the sessions holds of a budget: a link in which bytes wait for their session. Dropped, it gives
/// everything back.
#[derive(Debug)]
pub struct Holding {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Holding {
    /// Nothing yet.
    #[must_use]
    pub const fn of(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Holds so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        self.budget.add(bytes.saturating_sub(self.bytes));
        self.budget.sub(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_and_comes_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (Holding::of(Arc::clone(&budget)), Holding::of(Arc::clone(&budget)));
        one.set(60);
        other.set(50);
        assert!(budget.is_exceeded());
        one.set(10);
        assert_eq!(budget.used(), 60);
        drop(other);
        assert_eq!(budget.used(), 10);
        drop(one);
        assert_eq!(budget.used(), 0);
    }
}
