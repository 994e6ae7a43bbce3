//! Route tables of any number of endpoints and instances, and requests that are spread over them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::identity::{Instance, Version};
use router_common::path::RequestPath;
use router_common::session::lease::Lease;
use router_gateway::routing::changes::Changes;
use router_gateway::routing::instance::{Candidate, Health, InstanceKey, InstanceState, LinkId, LinkState, Needs};
use router_gateway::routing::key::EndpointKey;
use router_gateway::routing::table::{
    EndpointSet, RouteEndpoint, RouteTable, ServiceLive, ServiceSets, Shape, VersionLive,
};
use router_gateway::routing::{RequestFacts, Strategy};

/// Endpoints of one service: a service of a large table has a hundred.
const ENDPOINTS_A_SERVICE: usize = 100;

/// A table without a registry: every service has the same number of instances, all equally good.
///
/// # Panics
/// Never: the names are well formed.
#[must_use]
pub fn table(endpoints: usize, instances: usize) -> RouteTable<()> {
    let version = Version::new(1, 0, 0);
    let (mut sets, mut live) = (Vec::new(), Vec::new());
    let mut number = 0;
    for first in (0..endpoints).step_by(ENDPOINTS_A_SERVICE) {
        let name: router_common::identity::ServiceName = format!("service-{first}").parse().expect("a service name");
        let of_service = first..endpoints.min(first + ENDPOINTS_A_SERVICE);
        let endpoints = of_service
            .enumerate()
            .map(|(id, place)| {
                let id = EndpointId::new(id as u32 + 1).expect("from 1");
                let descriptor = EndpointDescriptor::new(id, Method::GET, template(place).parse().expect("a template"));
                let key = EndpointKey::new(Method::GET, &descriptor.path);
                (key, Arc::new(RouteEndpoint { service: name.clone(), version: version.clone(), descriptor }))
            })
            .collect();
        sets.push(ServiceSets {
            name: name.clone(),
            versions: vec![(version.clone(), vec![Arc::new(EndpointSet { endpoints })])],
        });
        let changes = Arc::default();
        let candidates = (0..instances)
            .map(|_| {
                number += 1;
                let id = format!("instance-{number:06}").parse().expect("an instance id");
                let region = "here".parse().expect("a region");
                let instance = Instance { service: name.clone(), version: version.clone(), region, id };
                candidate(number, instance, &changes)
            })
            .collect();
        let versions = vec![VersionLive::new(version.clone(), candidates, true, None)];
        live.push(Arc::new(ServiceLive { name, configured_default: None, versions }));
    }
    let shape = Arc::new(Shape::build(&sets, |_, _| true));
    RouteTable::new(shape, live, Arc::default(), Strategy::default())
}

fn candidate(number: u64, instance: Instance, changes: &Arc<Changes>) -> Candidate<()> {
    let state = InstanceState::new(InstanceKey(number), instance, Lease::new(1024), changes.clone());
    state.set_status(Health::Healthy, 0);
    state.set_round_trip(Duration::from_millis(1));
    state.set_routable();
    let state = Arc::new(state);
    let links = [Arc::new(LinkState::new(LinkId(number), state.clone(), (), 0))].into();
    Candidate { instance: state, tier: 0, set: 0, links }
}

fn template(place: usize) -> String {
    format!("/shop-{}/orders-{place}/{{id}}/items", place % 7)
}

/// Up to `count` requests, spread evenly over the endpoints of a table.
#[must_use]
pub fn paths(endpoints: usize, count: usize) -> Vec<String> {
    let step = (endpoints / count).max(1);
    (0..endpoints).step_by(step).map(|place| template(place).replace("{id}", "4711")).collect()
}

/// What is known of a GET of this path, without a version.
#[must_use]
pub fn facts<'a>(path: &'a RequestPath<'a>, now: Instant) -> RequestFacts<'a> {
    RequestFacts {
        method: &Method::GET,
        path,
        version_header: None,
        claims: None,
        worker: 0,
        excluded: &[],
        excluded_links: &[],
        needs: Needs::Nothing,
        random: 0,
        now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_gateway::routing::decide;

    #[test]
    fn every_path_of_a_table_is_decided() {
        let table = table(1_000, 10);
        let paths = paths(1_000, 64);
        assert!(paths.len() >= 64);
        for raw in &paths {
            let path = RequestPath::parse(raw).expect("a path");
            let decision = decide(&table, &facts(&path, Instant::now())).expect("a live endpoint");
            assert_eq!(decision.parameters.values(raw).collect::<Vec<_>>(), ["4711"]);
        }
    }
}
