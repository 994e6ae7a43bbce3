//! What is known of a live instance and its links, in atomics that the decision reads without a lock (SPEC 4, 5).
//!
//! `fitness` is whether it may serve at all, `link` what is known of each of its links, and `candidate` how a snapshot sees
//! it: which of the links a request goes over. The registry writes here when heartbeats and drains are reported; requests
//! only read. Nothing here knows paths.

mod candidate;
mod fitness;
mod link;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use router_common::identity::Instance;
use router_common::session::lease::Lease;

pub use self::candidate::{Candidate, ChosenLink};
pub use self::fitness::{Fitness, Health};
pub use self::link::{LinkId, LinkState, Needs};
use super::changes::Changes;

/// One stay of one instance at this gateway: never given again, so a key that was kept cannot name a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey(pub u64);

/// The changing state of one instance.
pub struct InstanceState {
    hot: Hot,
    instance: Instance,
    /// Those of all instances of the service.
    changes: Arc<Changes>,
    /// What the service last said of its load, in thousandths.
    load: AtomicU32,
    /// Where the turn among equally good links stands.
    link_turn: AtomicU32,
}

/// What every decision reads, on a cache line of its own: away from what requests write, such as reference counts.
#[repr(align(64))]
struct Hot {
    lease: Arc<Lease>,
    key: InstanceKey,
    /// Mean of its links' moving averages, in nanoseconds; [`UNKNOWN`] until the first heartbeat is back.
    round_trip: AtomicU64,
    /// Heartbeats that were not answered in time since the last one that was.
    missed: AtomicU32,
    /// Requests that failed on it since the last one that did not.
    failures: AtomicU32,
    /// A [`Fitness`]. Only the registry writes it, under its lock.
    fitness: AtomicU8,
}

impl InstanceState {
    /// `changes` are to be the same for all instances of a service.
    #[must_use]
    pub fn new(key: InstanceKey, instance: Instance, lease: Arc<Lease>, changes: Arc<Changes>) -> Self {
        let hot = Hot {
            lease,
            key,
            round_trip: AtomicU64::new(UNKNOWN),
            missed: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            fitness: AtomicU8::new(Health::Unknown as u8),
        };
        Self { hot, instance, changes, load: AtomicU32::new(0), link_turn: AtomicU32::new(0) }
    }

    #[must_use]
    pub const fn key(&self) -> InstanceKey {
        self.hot.key
    }

    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The request credit of the instance, shared by all its links; its slots are what is in flight.
    #[must_use]
    pub const fn lease(&self) -> &Arc<Lease> {
        &self.hot.lease
    }

    /// What counts the changes of all instances of its service.
    #[must_use]
    pub const fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Whether it may serve at all.
    #[must_use]
    pub fn fitness(&self) -> Fitness {
        Fitness(self.hot.fitness.load(Ordering::Relaxed))
    }

    /// The service's own word and its silence, whichever is worse.
    #[must_use]
    pub fn health(&self) -> Health {
        self.fitness().health()
    }

    /// Whether its first heartbeat was acknowledged: before that, nothing is routed to it (SPEC 4).
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.fitness().is_routable()
    }

    /// Whether all its links drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.fitness().is_draining()
    }

    /// All that decisions compare, as it is now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            fitness: self.fitness(),
            in_flight: self.lease().in_flight(),
            lease: self.lease().limit(),
            missed: self.heartbeats_missed(),
            round_trip: self.round_trip_or_worst(),
        }
    }

    /// The moving average of round trips; `None` before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        known(self.hot.round_trip.load(Ordering::Relaxed))
    }

    /// The same in nanoseconds, `u64::MAX` before the first: unknown is worst.
    pub(super) fn round_trip_or_worst(&self) -> u64 {
        self.hot.round_trip.load(Ordering::Relaxed)
    }

    /// Heartbeats that were not answered in time since the last one that was.
    #[must_use]
    pub fn heartbeats_missed(&self) -> u32 {
        self.hot.missed.load(Ordering::Relaxed)
    }

    /// Requests in flight, then heartbeats missed: in one figure, the first in the high bits.
    pub(super) fn load_figure(&self) -> u64 {
        load_figure(self.hot.lease.in_flight(), self.heartbeats_missed())
    }

    /// What the service last said of its load, in thousandths of what it can bear.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    pub fn set_routable(&self) {
        self.set_fitness(Fitness::ROUTABLE, Fitness::ROUTABLE);
    }

    pub fn set_draining(&self, draining: bool) {
        self.set_fitness(Fitness::DRAINING, if draining { Fitness::DRAINING } else { 0 });
    }

    /// To be passed over, or not any more; then its failures are forgotten.
    pub fn set_ejected(&self, ejected: bool) {
        if !ejected {
            self.succeeded();
        }
        self.set_fitness(Fitness::EJECTED, if ejected { Fitness::EJECTED } else { 0 });
    }

    /// A request was served: the end of a row of failures. Writes only where there was one.
    #[inline]
    pub fn succeeded(&self) {
        if self.hot.failures.load(Ordering::Relaxed) != 0 {
            self.hot.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed on it; returns how many have, in a row.
    pub fn failed(&self) -> u32 {
        // Wrapping takes years, and ends the row.
        self.hot.failures.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Requests that failed on it since the last one that did not.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.hot.failures.load(Ordering::Relaxed)
    }

    pub fn set_silent(&self, silent: bool) {
        self.set_fitness(Fitness::SILENT, if silent { Fitness::SILENT } else { 0 });
    }

    /// What the service says of itself, and of its load in thousandths of what it can bear.
    pub fn set_status(&self, health: Health, load: u32) {
        self.set_fitness(Fitness::STATUS, health as u8);
        self.load.store(load, Ordering::Relaxed);
    }

    fn set_fitness(&self, mask: u8, bits: u8) {
        let before = self.hot.fitness.load(Ordering::Relaxed);
        let now = (before & !mask) | (bits & mask);
        if now != before {
            self.hot.fitness.store(now, Ordering::Relaxed);
            self.changes.fitness();
        }
    }

    /// A heartbeat came back: the new average of the links' round trips, and the end of a row of missed ones.
    pub fn set_round_trip(&self, average: Duration) {
        let (before, now) = (self.round_trip_or_worst(), nanoseconds(average));
        self.hot.round_trip.store(now, Ordering::Relaxed);
        self.hot.missed.store(0, Ordering::Relaxed);
        self.changes.round_trip(before, now);
    }

    pub fn miss_heartbeat(&self) {
        // Only the registry writes here, under its lock.
        self.hot.missed.store(self.heartbeats_missed().saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn link_turn(&self) -> u32 {
        self.link_turn.load(Ordering::Relaxed)
    }

    pub(super) fn set_link_turn(&self, turn: u32) {
        self.link_turn.store(turn, Ordering::Relaxed);
    }
}

/// What decisions compare of an instance, read once.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub fitness: Fitness,
    /// Requests in flight on it.
    pub in_flight: u32,
    /// Requests that may be.
    pub lease: u32,
    /// Heartbeats that were not answered in time since the last one that was.
    pub missed: u32,
    /// Nanoseconds; [`UNKNOWN`] before the first heartbeat is back.
    pub(super) round_trip: u64,
}

impl Figures {
    /// The moving average of round trips; `None` before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        known(self.round_trip)
    }
}

pub(super) fn load_figure(in_flight: u32, missed: u32) -> u64 {
    u64::from(in_flight) << 32 | u64::from(missed)
}

/// A round trip that nobody has measured: worse than any other.
const UNKNOWN: u64 = u64::MAX;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(UNKNOWN - 1)
}

fn known(nanoseconds: u64) -> Option<Duration> {
    (nanoseconds != UNKNOWN).then(|| Duration::from_nanos(nanoseconds))
}

impl fmt::Debug for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceState")
            .field("key", &self.hot.key)
            .field("instance", &self.instance)
            .field("health", &self.health())
            .field("routable", &self.is_routable())
            .field("draining", &self.is_draining())
            .field("in_flight", &self.hot.lease.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn instance() -> InstanceState {
        let instance = Instance {
            service: "orders".parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            region: "here".parse().unwrap(),
            id: "a".parse().unwrap(),
        };
        InstanceState::new(InstanceKey(1), instance, Lease::new(8), Arc::default())
    }

    #[test]
    fn health_is_the_worse_of_word_and_silence() {
        let state = instance();
        assert_eq!(state.health(), Health::Unknown);
        state.set_status(Health::Healthy, 0);
        assert_eq!(state.health(), Health::Healthy);
        state.set_silent(true);
        assert_eq!(state.health(), Health::Degraded);
        state.set_status(Health::Unhealthy, 0);
        assert_eq!(state.health(), Health::Unhealthy);
    }

    #[test]
    fn a_round_trip_forgives_missed_heartbeats_and_is_never_nothing() {
        let state = instance();
        assert_eq!(state.round_trip(), None);
        state.miss_heartbeat();
        assert_eq!(state.heartbeats_missed(), 1);
        state.set_round_trip(Duration::from_millis(8));
        assert_eq!((state.round_trip(), state.heartbeats_missed()), (Some(Duration::from_millis(8)), 0));
        state.set_round_trip(Duration::ZERO);
        assert!(state.round_trip().is_some(), "an immeasurably short one is still one");
    }

    #[test]
    fn a_success_ends_a_row_of_failures_and_so_does_the_end_of_an_ejection() {
        let state = instance();
        assert_eq!([state.failed(), state.failed()], [1, 2]);
        state.succeeded();
        assert_eq!((state.failed(), state.failures()), (1, 1));
        state.set_routable();
        state.set_status(Health::Healthy, 0);
        state.set_ejected(true);
        assert!(state.fitness().is_ejected() && state.fitness().is_fit() && state.failures() == 1);
        state.set_ejected(false);
        assert!(!state.fitness().is_ejected() && state.failures() == 0);
    }
}
