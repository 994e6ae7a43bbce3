//! What operators are told of an instance's health: each change once, as a line of the log (SPEC 4, 13).
//!
//! An instance that dies is told of where it leaves the books.

use router_common::identity::Instance;

use crate::routing::instance::{Fitness, Health};

/// Says what has changed, if anything has.
pub(super) fn tell(instance: &Instance, before: Fitness, after: Fitness) {
    let (was, is) = (before.health(), after.health());
    match (was, is) {
        _ if was == is => {}
        // It has just come.
        (Health::Unknown, Health::Healthy) => {}
        (_, Health::Healthy) => tracing::info!(%instance, was = was.as_str(), "instance healthy again"),
        (_, Health::Degraded) if after.is_silent() => {
            tracing::warn!(%instance, was = was.as_str(), "instance degraded: nothing is heard of it");
        }
        (_, Health::Degraded) => {
            tracing::warn!(%instance, was = was.as_str(), "instance degraded: it says so itself");
        }
        (_, Health::Unhealthy | Health::Unknown) => {
            tracing::warn!(%instance, was = was.as_str(), is = is.as_str(), "instance gets no requests: it says so itself");
        }
    }
}
