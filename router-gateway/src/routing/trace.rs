//! The steps of a decision, and how somebody can listen to them (SPEC 5, explain).
//!
//! Nothing here decides, and nothing knows what an instance is but its place among the candidates.

use router_common::identity::Version;

/// The steps in which instances fall, in their order (SPEC 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// (4) connected, not draining, with lease.
    Available,
    /// (5)
    Health,
    /// (6)
    Region,
    /// (7) `lowest_ping`
    RoundTrip,
    /// (8) `lowest_ping`
    InFlight,
    /// (8) `lowest_ping`
    HeartbeatsMissed,
    /// (8) `lowest_ping`, `round_robin`
    Turn,
    /// `least_loaded`
    Load,
    /// `random`
    Chance,
}

/// Why an instance fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It has not registered this endpoint, though others of its version have.
    WithoutEndpoint,
    /// This request has already tried it.
    Tried,
    /// Its first heartbeat is not yet acknowledged.
    NotYetRoutable,
    Draining,
    /// All its leased requests are in flight.
    LeasedOut,
    Unhealthy,
    /// Nothing is known of its health.
    HealthUnknown,
    /// Degraded, and others are healthy.
    Degraded,
    /// In a region that is farther away.
    Farther,
    Slower,
    Busier,
    MissedMore,
    NotItsTurn,
    NotDrawn,
}

/// Listens to a decision. What is not listened to costs nothing.
pub trait Trace {
    /// Whether anybody listens: then all candidates are looked at, even those that cannot win any more, and each step
    /// is told.
    const LISTENS: bool;

    /// The version in question, and how many instances of it are live.
    fn version(&mut self, version: &Version, candidates: usize);
    /// A candidate, by its place in the version's canonical order, is out.
    fn fell(&mut self, step: Step, place: usize, why: Why);
    /// How many are left after a step.
    fn survived(&mut self, step: Step, count: usize);
}

/// Nobody listens: the ordinary case.
#[derive(Debug, Clone, Copy)]
pub struct Untraced;

impl Trace for Untraced {
    const LISTENS: bool = false;

    fn version(&mut self, _: &Version, _: usize) {}
    fn fell(&mut self, _: Step, _: usize, _: Why) {}
    fn survived(&mut self, _: Step, _: usize) {}
}
