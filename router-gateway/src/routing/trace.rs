//! The steps of a decision, and how somebody can listen to them (SPEC 5, explain).
//!
//! Nothing here decides, and nothing knows what an instance is but its place among the candidates and its figures.

use http::Method;
use router_common::endpoint::{ClaimRequirement, PathTemplate};
use router_common::identity::{ServiceName, Version};

use super::instance::Figures;

/// The steps in which instances fall, in their order (SPEC 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// (4) connected, not draining, with lease.
    Available,
    /// Between (4) and (5): not ejected, as long as anybody else is fit.
    Circuit,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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
    /// It has failed too often in a row, and another instance is fit.
    Ejected,
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

/// Why a version was selected (SPEC 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionBy {
    /// The request names it.
    Header,
    /// The gateway's configuration names it.
    ConfiguredDefault,
    /// The highest release that has been promoted.
    HighestPromoted,
    /// No release has been promoted: the highest that is in service.
    HighestInService,
    /// None is in service: the highest that is live.
    HighestLive,
}

/// Listens to a decision. What is not listened to costs nothing.
pub trait Trace {
    /// Whether anybody listens: then all candidates are looked at, even those that cannot win any more, and each step
    /// is told.
    const LISTENS: bool;

    /// (1) The service whose path it is.
    fn service(&mut self, _: &ServiceName) {}
    /// (2) The version in question.
    fn version(&mut self, _: &Version, _: VersionBy) {}
    /// The endpoint in that version, and what a caller must hold.
    fn endpoint(&mut self, _: &Method, _: &PathTemplate, _: &[ClaimRequirement]) {}
    /// (3) The caller may use it.
    fn authorized(&mut self) {}
    /// A candidate, by its place in the version's canonical order, with all that will be compared of it.
    fn saw(&mut self, _: usize, _: &Figures) {}
    /// A candidate is out.
    fn fell(&mut self, _: Step, _: usize, _: Why) {}
    /// How many are left after a step.
    fn survived(&mut self, _: Step, _: usize) {}
}

/// Nobody listens: the ordinary case.
#[derive(Debug, Clone, Copy)]
pub struct Untraced;

impl Trace for Untraced {
    const LISTENS: bool = false;
}
