//! The bound of what all streams of a node may hold in their buffers together (SPEC 4, credit).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that have arrived and that no application has taken, over all sessions that share this budget.
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

    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }
}
