//! What is known of one link of an instance, and how much is to be said against using it (SPEC 5, 7).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::{InstanceState, UNKNOWN, known, nanoseconds};

/// The number of one link at this gateway, over all instances; never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One link of an instance. `H` is what sends requests over it.
pub struct LinkState<H> {
    id: LinkId,
    /// Whose it is: who was sent over the link is known without another reference being counted.
    instance: Arc<InstanceState>,
    handle: H,
    /// The worker that drives it; requests of that worker prefer it, so that they never change threads.
    worker: usize,
    /// Which of several ways to this gateway it is on: the lowest is used as long as it can be.
    preference: u8,
    /// Whether bodies stream on it.
    streaming: bool,
    /// What speaks against it, the worst in the highest bit.
    against: AtomicU8,
    /// Moving average in nanoseconds; [`UNKNOWN`] until the first heartbeat is back.
    round_trip: AtomicU64,
}

/// What speaks against a link, in [`LinkState::against`].
mod against {
    /// No streams are opened on it any more.
    pub(super) const DRAINING: u8 = 0b100;
    /// The service's first heartbeat on it is not acknowledged yet.
    pub(super) const NEW: u8 = 0b010;
    /// Nothing was heard on it for `degraded_after`.
    pub(super) const SILENT: u8 = 0b001;
}

impl<H> LinkState<H> {
    /// A link on the way of the lowest preference; see [`LinkState::preferred`].
    #[must_use]
    pub const fn new(id: LinkId, instance: Arc<InstanceState>, handle: H, worker: usize) -> Self {
        let (against, round_trip) = (AtomicU8::new(against::NEW), AtomicU64::new(UNKNOWN));
        Self { id, instance, handle, worker, preference: 0, streaming: true, against, round_trip }
    }

    /// The same on the way of this preference, the lower the better.
    #[must_use]
    pub fn preferred(self, preference: u8) -> Self {
        Self { preference, ..self }
    }

    /// The same, of a link on which bodies stream, or which carries small messages only.
    #[must_use]
    pub fn streaming(self, streaming: bool) -> Self {
        Self { streaming, ..self }
    }

    #[must_use]
    pub const fn id(&self) -> LinkId {
        self.id
    }

    #[must_use]
    pub const fn instance(&self) -> &Arc<InstanceState> {
        &self.instance
    }

    #[must_use]
    pub const fn handle(&self) -> &H {
        &self.handle
    }

    #[must_use]
    pub const fn worker(&self) -> usize {
        self.worker
    }

    /// Whether it carries bodies of any length, or small messages only.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Whether a request that needs this can go over it.
    #[inline]
    pub(in crate::routing) const fn may_carry(&self, needs: Needs) -> bool {
        self.streaming || matches!(needs, Needs::Nothing)
    }

    /// Which of several ways to this gateway it is on, the lower the better.
    #[must_use]
    pub const fn preference(&self) -> u8 {
        self.preference
    }

    /// Whether no streams are opened on it any more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is(against::DRAINING)
    }

    /// Whether nothing was heard on it for `degraded_after`.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.is(against::SILENT)
    }

    /// How much is to be said against using it for a request of this worker: the least is the best. First whether it can be
    /// used at all, then the service's preference, then whether the request would change threads.
    pub(super) fn rank(&self, worker: usize) -> u32 {
        let against = self.against.load(Ordering::Relaxed);
        u32::from(against) << 16 | u32::from(self.preference) << 8 | u32::from(self.worker != worker)
    }

    /// The moving average of round trips on this link; `None` before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        known(self.round_trip.load(Ordering::Relaxed))
    }

    pub fn set_round_trip(&self, average: Duration) {
        self.round_trip.store(nanoseconds(average), Ordering::Relaxed);
    }

    /// The service's first heartbeat on it is acknowledged.
    pub fn set_routable(&self) {
        self.set(against::NEW, false);
    }

    pub fn set_draining(&self) {
        self.set(against::DRAINING, true);
    }

    pub fn set_silent(&self, silent: bool) {
        self.set(against::SILENT, silent);
    }

    fn is(&self, bit: u8) -> bool {
        self.against.load(Ordering::Relaxed) & bit != 0
    }

    fn set(&self, bit: u8, on: bool) {
        if on {
            self.against.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.against.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl<H> fmt::Debug for LinkState<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkState")
            .field("id", &self.id)
            .field("worker", &self.worker)
            .field("preference", &self.preference)
            .field("draining", &self.is_draining())
            .field("silent", &self.is_silent())
            .finish_non_exhaustive()
    }
}

/// What a request needs of the link that it goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Needs {
    /// Nothing that is known of.
    #[default]
    Nothing,
    /// Bodies of any length, and all else that takes more than one frame each way.
    Streaming,
}
