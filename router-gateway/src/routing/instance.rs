//! What is known of a live instance and its links, in atomics that the decision reads without a lock (SPEC 4, 5).
//!
//! The registry writes here when heartbeats and drains are reported; requests only read. Nothing here knows paths.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use router_common::frame::HealthStatus;
use router_common::identity::Instance;
use router_common::session::lease::Lease;

use super::changes::Changes;

/// One stay of one instance at this gateway: never given again, so a key that was kept cannot name a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey(pub u64);

/// The number of one link at this gateway, over all instances; never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// How much an instance may be used, best first. What a service says and what its silence says, whichever is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Degraded,
    /// Serves nothing, by its own word.
    Unhealthy,
    /// Nothing was heard yet, or a word of a later version: serves nothing.
    Unknown,
}

impl Health {
    /// As a word for lists and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }

    const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Healthy,
            1 => Self::Degraded,
            2 => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

impl From<HealthStatus> for Health {
    fn from(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Healthy => Self::Healthy,
            HealthStatus::Degraded => Self::Degraded,
            HealthStatus::Unhealthy => Self::Unhealthy,
            _ => Self::Unknown,
        }
    }
}

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

/// Whether an instance may serve at all, in one byte: what it says, whether it is heard, whether it may be routed to, and
/// whether it has failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitness(u8);

impl Fitness {
    /// The lowest two bits: what the service last said of itself.
    const STATUS: u8 = 0b0000_0011;
    /// No link of it was heard of for `degraded_after`.
    const SILENT: u8 = 0b0000_0100;
    /// Its first heartbeat was acknowledged, on some link.
    const ROUTABLE: u8 = 0b0000_1000;
    /// All its links drain.
    const DRAINING: u8 = 0b0001_0000;
    /// It has failed too often: passed over while anybody else is fit.
    const EJECTED: u8 = 0b0010_0000;

    /// The service's own word and its silence, whichever is worse.
    #[must_use]
    pub fn health(self) -> Health {
        let silence = u8::from(self.0 & Self::SILENT != 0) * Health::Degraded as u8;
        Health::from_u8((self.0 & Self::STATUS).max(silence))
    }

    /// Nothing was heard of it for `degraded_after`.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        self.0 & Self::SILENT != 0
    }

    #[must_use]
    pub const fn is_routable(self) -> bool {
        self.0 & Self::ROUTABLE != 0
    }

    #[must_use]
    pub const fn is_draining(self) -> bool {
        self.0 & Self::DRAINING != 0
    }

    /// Whether it is passed over while another instance of its version is fit. It is fit itself all the same.
    #[must_use]
    pub const fn is_ejected(self) -> bool {
        self.0 & Self::EJECTED != 0
    }

    /// Routable, not draining, and healthy or degraded.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        self.0 & (Self::ROUTABLE | Self::DRAINING) == Self::ROUTABLE && self.0 & Self::STATUS <= Health::Degraded as u8
    }
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
    pub(super) const fn may_carry(&self, needs: Needs) -> bool {
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
    fn rank(&self, worker: usize) -> u32 {
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

/// An instance as one snapshot sees it.
pub struct Candidate<H> {
    pub instance: Arc<InstanceState>,
    /// 0: the own region; then the neighbours in their configured order; then all others.
    pub tier: u16,
    /// Which of its version's endpoint sets it has.
    pub set: usize,
    pub links: Arc<[Arc<LinkState<H>>]>,
}

impl<H> Candidate<H> {
    /// The link to use: if possible one that does not drain, works, was heard of lately, is on the way that the service
    /// prefers, and is of the own worker, in this order; among equals by turn; never one that was `tried` already where there are others. `None` if there are none.
    /// All drain only if they have begun to since the instance was looked at: then they refuse the request, and it goes
    /// elsewhere unseen.
    #[must_use]
    pub fn link(&self, worker: usize, tried: &[LinkId], needs: Needs) -> Option<ChosenLink<'_, H>> {
        if let [only] = &*self.links {
            return Some(ChosenLink { link: only, next_turn: None });
        }
        let rank = |link: &LinkState<H>| link.rank(worker);
        let serves = |link: &LinkState<H>| (tried.is_empty() || !tried.contains(&link.id)) && link.may_carry(needs);
        let links = || self.links.iter().enumerate().filter(|(_, link)| serves(link));
        let best = links().map(|(_, link)| rank(link)).min()?;
        let mut equals = links().filter(|(_, link)| rank(link) == best);
        let (first, second) = (equals.next()?, equals.next());
        let Some(second) = second else { return Some(ChosenLink { link: first.1, next_turn: None }) };
        let turn = self.instance.link_turn() as usize;
        let (place, link) =
            [first, second].into_iter().chain(equals).find(|(place, _)| *place >= turn).unwrap_or(first);
        Some(ChosenLink { link, next_turn: u32::try_from(place + 1).ok() })
    }
}

/// A link, and where the turn stands once it has been used; `None`: it was no matter of turn.
pub struct ChosenLink<'c, H> {
    pub link: &'c Arc<LinkState<H>>,
    pub(super) next_turn: Option<u32>,
}

impl<H> fmt::Debug for ChosenLink<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChosenLink").field(&self.link.id()).finish()
    }
}

impl<H> Clone for Candidate<H> {
    fn clone(&self) -> Self {
        Self { instance: self.instance.clone(), tier: self.tier, set: self.set, links: self.links.clone() }
    }
}

impl<H> fmt::Debug for Candidate<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("instance", &self.instance)
            .field("tier", &self.tier)
            .field("set", &self.set)
            .field("links", &self.links)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceState {
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

    #[test]
    fn a_link_of_the_own_worker_is_preferred_and_equals_take_turns() {
        let state = Arc::new(instance());
        let link = |id, worker| Arc::new(LinkState::new(LinkId(id), state.clone(), (), worker));
        let candidate =
            Candidate { instance: state.clone(), tier: 0, set: 0, links: [link(0, 0), link(1, 1), link(2, 1)].into() };
        let picked = |worker| candidate.link(worker, &[], Needs::Nothing).map(|chosen| chosen.link.id().0);
        assert_eq!(picked(0), Some(0));
        assert_eq!(picked(1), Some(1));
        candidate.instance.set_link_turn(candidate.link(1, &[], Needs::Nothing).unwrap().next_turn.unwrap());
        assert_eq!(picked(1), Some(2));
        candidate.instance.set_link_turn(candidate.link(1, &[], Needs::Nothing).unwrap().next_turn.unwrap());
        assert_eq!(picked(1), Some(1));
        let tried = [LinkId(1)];
        assert_eq!(
            candidate.link(1, &tried, Needs::Nothing).map(|chosen| chosen.link.id().0),
            Some(2),
            "whosever turn it is"
        );
        candidate.links[2].set_silent(true);
        assert_eq!(picked(1), Some(1));
        candidate.links[1].set_draining();
        assert_eq!(picked(1), Some(0));
        candidate.links[0].set_draining();
        assert_eq!(picked(1), Some(2));
        candidate.links[2].set_draining();
        assert_eq!(picked(1), Some(1), "one that has only just begun to drain refuses, unseen");
    }

    #[test]
    fn a_link_of_the_preferred_way_is_used_as_long_as_it_works_and_again_when_it_does() {
        let state = Arc::new(instance());
        let link = |id, worker, preference| {
            let link = LinkState::new(LinkId(id), state.clone(), (), worker).preferred(preference);
            link.set_routable();
            Arc::new(link)
        };
        let links = [link(0, 0, 1), link(1, 1, 1), link(2, 1, 0)];
        let candidate = |links: &[Arc<LinkState<()>>]| Candidate {
            instance: state.clone(),
            tier: 0,
            set: 0,
            links: links.iter().cloned().collect(),
        };
        let picked = |links: &[Arc<LinkState<()>>], worker| {
            candidate(links).link(worker, &[], Needs::Nothing).map(|chosen| chosen.link.id().0)
        };
        assert_eq!(picked(&links, 0), Some(2), "whichever worker asks");
        links[2].set_silent(true);
        assert_eq!([picked(&links, 0), picked(&links, 1)], [Some(0), Some(1)]);
        links[2].set_silent(false);
        assert_eq!(picked(&links, 0), Some(2));
        links[2].set_draining();
        assert_eq!(picked(&links, 0), Some(0));
        let new = Arc::new(LinkState::new(LinkId(3), state.clone(), (), 0));
        let links = [links[0].clone(), new.clone()];
        assert_eq!(picked(&links, 0), Some(0), "the better one has not shown that it works");
        new.set_routable();
        assert_eq!(picked(&links, 0), Some(3));
    }
}
