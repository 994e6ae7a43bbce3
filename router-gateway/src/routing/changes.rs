//! Changes: how often something changed about the instances of a service that lasts longer than a request.
//!
//! What was found out about them stays true until a count moves. Nothing here knows what was found out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Round trips this close to the best one are equal, whatever they are (SPEC 5).
pub const TOLERANCE: Duration = Duration::from_millis(5);
/// The same in nanoseconds.
pub(super) const TOLERANCE_NANOS: u64 = TOLERANCE.as_nanos() as u64;

/// Counts what changes about the instances of a service and lasts longer than a request.
#[derive(Debug, Default)]
pub struct Changes {
    /// Every change that may matter.
    all: AtomicU32,
    /// Those among them that matter even where all round trips are within the tolerance of none at all.
    notable: AtomicU32,
}

impl Changes {
    /// An instance may serve from now on, or may not, or is well or ill.
    pub(super) fn fitness(&self) {
        self.notable.fetch_add(1, Ordering::Release);
        self.all.fetch_add(1, Ordering::Release);
    }

    /// An instance's round trip, in nanoseconds.
    pub(super) fn round_trip(&self, before: u64, now: u64) {
        if before == now {
            return;
        }
        if before.max(now) > TOLERANCE_NANOS {
            self.notable.fetch_add(1, Ordering::Release);
        }
        self.all.fetch_add(1, Ordering::Release);
    }

    /// How many there were, of all or of the notable ones.
    pub(super) fn count(&self, notable_alone: bool) -> u32 {
        let counter = if notable_alone { &self.notable } else { &self.all };
        counter.load(Ordering::Acquire)
    }
}
