//! HeldBytes: how many request bytes a client connection, and the node, hold now (SPEC 6).
//!
//! Every byte that is read from a client is counted until the last reference to it is dropped, so the counters are what
//! they say, and go back to zero in every failure path. What is done when one is full is decided elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// A count of bytes with an upper bound.
#[derive(Debug)]
pub struct HeldBytes {
    held: AtomicU64,
    limit: u64,
}

impl Default for HeldBytes {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl HeldBytes {
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { held: AtomicU64::new(0), limit }
    }

    /// What is held now, in bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether nothing more may be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held() >= self.limit
    }

    /// Whether seven eighths are taken: what is new had better stay away, so that what has begun finds room.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.held() > self.limit - self.limit / 8
    }

    /// Counts `bytes`, whether they fit or not; says whether they did within `limit`.
    pub(super) fn add(&self, bytes: u64, limit: u64) -> bool {
        self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= limit
    }

    fn subtract(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are counted while they live.
pub(super) struct Counted {
    bytes: Bytes,
    connection: Arc<HeldBytes>,
    node: Arc<HeldBytes>,
}

impl Counted {
    /// `bytes`, which both counters have in them already.
    pub(super) const fn new(bytes: Bytes, connection: Arc<HeldBytes>, node: Arc<HeldBytes>) -> Self {
        Self { bytes, connection, node }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let length = self.bytes.len() as u64;
        self.connection.subtract(length);
        self.node.subtract(length);
    }
}
