//! What the admin listener lists: routes, instances and connections, as plain values (SPEC 13).
//!
//! Made on demand under the registry's lock, never on a request's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use router_common::endpoint::ClaimRequirement;
use serde::Serialize;

use super::{LinkHandle, Registry};
use crate::routing::instance::Health;

/// One endpoint of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteView {
    pub method: String,
    pub path: String,
    pub service: String,
    pub version: String,
    /// Instances of this version that have it.
    pub instances: usize,
    /// Milliseconds; absent: the gateway's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
    pub idempotent: bool,
    pub one_way: bool,
    pub deprecated: bool,
    pub requiring_claims: Vec<ClaimRequirement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    pub tags: Vec<String>,
}

/// One live instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceView {
    pub service: String,
    pub version: String,
    pub region: String,
    pub id: String,
    pub identity: String,
    pub health: Health,
    /// Nothing was heard for `degraded_after` on any of its links.
    pub silent: bool,
    /// Its first heartbeat was acknowledged.
    pub routable: bool,
    pub draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    pub heartbeats_missed: u32,
    pub in_flight: u32,
    pub lease: u32,
    /// Thousandths of what it says it can bear.
    pub load: u32,
    pub circuit: CircuitView,
    pub links: usize,
    /// The ways that its links are on, the preferred one first.
    pub ways: Vec<WayView>,
    pub endpoints: usize,
    pub refused: Vec<RefusedView>,
    pub connected_seconds: u64,
}

/// The links of an instance that are on one way to this gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WayView {
    pub transport: &'static str,
    /// The lower, the sooner its links are used.
    pub preference: u8,
    pub links: usize,
    /// Those among them that drain.
    pub draining: usize,
}

/// Whether requests reach an instance (SPEC 5, outlier ejection).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CircuitView {
    pub state: CircuitState,
    /// Requests that failed on it since the last one that did not.
    pub consecutive_failures: u32,
    /// Ejections in a row; good time makes them fewer.
    pub ejections: u32,
    /// How long it is still passed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircuitState {
    /// Requests reach it.
    Closed,
    /// It is ejected: passed over as long as another instance of its version is fit.
    Open,
}

/// One endpoint that an instance offers and that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedView {
    pub endpoint: String,
    pub reason: String,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectionView {
    pub service: String,
    pub version: String,
    pub instance: String,
    pub transport: &'static str,
    /// Which of the instance's ways to this gateway it is on; the lower, the sooner it is used.
    pub preference: u8,
    /// As the instance numbers its links of this preference, from 0.
    pub link: u16,
    pub peer: String,
    /// Who was proved to be at its other end.
    pub identity: String,
    /// The worker that drives it.
    pub worker: usize,
    pub draining: bool,
    /// Nothing was heard for `degraded_after`.
    pub silent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    pub connected_seconds: u64,
}

fn ways<H>(member: &super::Member<H>) -> Vec<WayView> {
    let mut ways: Vec<WayView> = Vec::new();
    for linked in member.links() {
        let (transport, preference) = (linked.transport, linked.state.preference());
        let is_same = |way: &&mut WayView| (way.transport, way.preference) == (transport, preference);
        let draining = usize::from(linked.state.is_draining());
        match ways.iter_mut().find(is_same) {
            Some(way) => {
                way.links += 1;
                way.draining += draining;
            }
            None => ways.push(WayView { transport, preference, links: 1, draining }),
        }
    }
    ways
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl<H: LinkHandle> Registry<H> {
    /// All endpoints that are routed, by service, version and endpoint id.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteView> {
        let books = self.books();
        let mut routes: Vec<RouteView> = Vec::new();
        for name in books.catalogue.services() {
            let members = books.members_of(name);
            for (version, sets) in books.catalogue.versions(name) {
                let first_of_version = routes.len();
                for set in &sets {
                    let of_set = |own: &Arc<_>| Arc::ptr_eq(own, set);
                    let instances = members.iter().filter(|member| member.set.as_ref().is_some_and(of_set)).count();
                    for offer in set.offers.iter().filter(|offer| books.catalogue.accepts(set, offer)) {
                        let descriptor = &offer.endpoint.descriptor;
                        let (method, path) = (descriptor.method.to_string(), descriptor.path.to_string());
                        let known = routes.get_mut(first_of_version..).unwrap_or_default();
                        if sets.len() > 1
                            && let Some(known) =
                                known.iter_mut().find(|route| route.method == method && route.path == path)
                        {
                            known.instances += instances;
                            continue;
                        }
                        routes.push(RouteView {
                            method,
                            path,
                            service: name.to_string(),
                            version: version.to_string(),
                            instances,
                            timeout_ms: descriptor.timeout.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
                            max_request_bytes: descriptor.max_request_bytes,
                            idempotent: descriptor.idempotent,
                            one_way: descriptor.one_way,
                            deprecated: descriptor.deprecated,
                            requiring_claims: descriptor.requiring_claims.clone(),
                            summary: descriptor.summary.clone(),
                            tags: descriptor.tags.clone(),
                        });
                    }
                }
            }
        }
        routes
    }

    /// All live instances, by service, version and id.
    #[must_use]
    pub fn instances(&self, now: Instant) -> Vec<InstanceView> {
        // Whoever is listed is found by requests too.
        self.catch_up(now);
        let books = self.books();
        let view = |member: &super::Member<H>| {
            let (state, instance) = (&member.state, member.state.instance());
            let offers = member.set.iter().flat_map(|set| &set.offers);
            let refused = offers.filter_map(|offer| {
                let id = offer.endpoint.descriptor.id;
                let refused = member.refused.iter().find(|refused| refused.id == id)?;
                let descriptor = &offer.endpoint.descriptor;
                let endpoint = format!("{} {}", descriptor.method, descriptor.path);
                Some(RefusedView { endpoint, reason: refused.reason.clone() })
            });
            InstanceView {
                service: instance.service.to_string(),
                version: instance.version.to_string(),
                region: instance.region.to_string(),
                id: instance.id.to_string(),
                identity: member.identity().map(ToString::to_string).unwrap_or_default(),
                health: state.health(),
                silent: state.fitness().is_silent(),
                routable: state.is_routable(),
                draining: state.is_draining(),
                round_trip_ms: state.round_trip().map(milliseconds),
                heartbeats_missed: state.heartbeats_missed(),
                in_flight: state.lease().in_flight(),
                lease: state.lease().limit(),
                load: state.load(),
                circuit: self.circuit(member, now),
                links: member.links().len(),
                ways: ways(member),
                endpoints: member.set.as_ref().map_or(0, |set| set.offers.len().saturating_sub(member.refused.len())),
                refused: refused.collect(),
                connected_seconds: now.saturating_duration_since(member.since).as_secs(),
            }
        };
        books.members_in_order().into_iter().map(view).collect()
    }

    /// All links of live instances, by service, version, instance, preference and number.
    #[must_use]
    pub fn connections(&self, now: Instant) -> Vec<ConnectionView> {
        let books = self.books();
        let mut connections = Vec::new();
        for member in books.members_in_order() {
            let instance = member.state.instance();
            connections.extend(member.links().iter().map(|linked| ConnectionView {
                service: instance.service.to_string(),
                version: instance.version.to_string(),
                instance: instance.id.to_string(),
                transport: linked.transport,
                preference: linked.state.preference(),
                link: linked.number,
                peer: linked.peer.clone(),
                identity: linked.identity.to_string(),
                worker: linked.state.worker(),
                draining: linked.state.is_draining(),
                silent: linked.state.is_silent(),
                round_trip_ms: linked.state.round_trip().map(milliseconds),
                connected_seconds: now.saturating_duration_since(linked.since).as_secs(),
            }));
        }
        connections
    }
}
