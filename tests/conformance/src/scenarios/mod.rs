//! The scenarios, by area.

mod authentication;
mod bodies;
mod cancellation;
mod ends;
mod events;
mod health;
mod leases;
mod malformed;
mod refusals;
mod registration;
mod requests;
mod storm;
mod tunnels;

use crate::scenario::Scenario;

/// All of them, in the order in which they are told.
pub(crate) const AREAS: &[(&str, &[Scenario])] = &[
    ("registration", registration::SCENARIOS),
    ("requests", requests::SCENARIOS),
    ("bodies", bodies::SCENARIOS),
    ("refusals", refusals::SCENARIOS),
    ("leases", leases::SCENARIOS),
    ("cancellation", cancellation::SCENARIOS),
    ("ends", ends::SCENARIOS),
    ("health", health::SCENARIOS),
    ("events", events::SCENARIOS),
    ("tunnels", tunnels::SCENARIOS),
    ("authentication", authentication::SCENARIOS),
    ("malformed", malformed::SCENARIOS),
    ("storm", storm::SCENARIOS),
];
