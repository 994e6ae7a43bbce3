//! How often something happened at the registry.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Instances that joined.
    pub joined: u64,
    /// Joins refused, for whatever reason.
    pub refused: u64,
    /// Instances whose place a newer process took.
    pub superseded: u64,
    /// Instances that ended without a good-bye.
    pub lost: u64,
    /// Tables published.
    pub published: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) joined: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) published: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            joined: read(&self.joined),
            refused: read(&self.refused),
            superseded: read(&self.superseded),
            lost: read(&self.lost),
            published: read(&self.published),
        }
    }
}
