//! Small route tables for tests: instances in a line each. It knows nothing of the registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use router_common::endpoint::{ClaimRequirement, EndpointDescriptor, EndpointId};
use router_common::identity::{Instance, ServiceName, Version};
use router_common::session::lease::Lease;

use super::changes::Changes;
use super::instance::{Candidate, Health, InstanceKey, InstanceState, LinkId, LinkState};
use super::key::EndpointKey;
use super::strategy::Strategy;
use super::table::{EndpointSet, RouteEndpoint, RouteTable, ServiceLive, ServiceSets, Shape, VersionLive};
use super::tombstones::Tombstones;

/// One instance: ready, healthy, 1 ms away, in the own region, with a lease of 100 and one link of worker 0.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) service: &'static str,
    pub(crate) version: &'static str,
    pub(crate) id: String,
    pub(crate) tier: u16,
    /// As `GET /path`.
    pub(crate) endpoints: Vec<String>,
    pub(crate) claims: Vec<ClaimRequirement>,
    pub(crate) health: Health,
    pub(crate) round_trip: Duration,
    pub(crate) routable: bool,
    pub(crate) lease: u32,
    /// One of each worker.
    pub(crate) links: u64,
}

pub(crate) fn spec(service: &'static str, version: &'static str, id: &str, endpoints: &[&str]) -> Spec {
    Spec {
        service,
        version,
        id: id.to_owned(),
        tier: 0,
        endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(),
        claims: Vec::new(),
        health: Health::Healthy,
        round_trip: Duration::from_millis(1),
        routable: true,
        lease: 100,
        links: 1,
    }
}

pub(crate) fn descriptor(id: u32, text: &str) -> EndpointDescriptor {
    let (method, path) = text.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    EndpointDescriptor::new(EndpointId::new(id).unwrap(), method, path.parse().unwrap())
}

/// What a test may say of a table besides its instances.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) strategy: Strategy,
    pub(crate) configured_default: Option<&'static str>,
    pub(crate) default_from: BTreeMap<&'static str, Instant>,
    pub(crate) tombstones: Arc<Tombstones>,
}

pub(crate) fn table(specs: &[Spec], settings: &Settings) -> RouteTable<()> {
    type Numbered<'s> = Vec<(usize, &'s Spec)>;
    let mut versions: BTreeMap<ServiceName, BTreeMap<Version, Numbered<'_>>> = BTreeMap::new();
    for (number, spec) in specs.iter().enumerate() {
        let of_service = versions.entry(spec.service.parse().unwrap()).or_default();
        of_service.entry(spec.version.parse().unwrap()).or_default().push((number, spec));
    }
    let (mut sets, mut live) = (Vec::new(), Vec::new());
    for (name, versions) in &versions {
        let mut service_sets = ServiceSets { name: name.clone(), versions: Vec::new() };
        let configured_default = settings.configured_default.map(|text| text.parse().unwrap());
        let mut service = ServiceLive { name: name.clone(), configured_default, versions: Vec::new() };
        for (version, specs) in versions {
            let mut distinct: Vec<&Vec<String>> = Vec::new();
            let mut candidates = Vec::new();
            let changes = Arc::default();
            for (number, spec) in specs {
                let set = distinct.iter().position(|known| **known == spec.endpoints).unwrap_or(distinct.len());
                if set == distinct.len() {
                    distinct.push(&spec.endpoints);
                }
                candidates.push(candidate(*number as u64, spec, set, &changes));
            }
            candidates.sort_by_key(|candidate| (candidate.tier, candidate.instance.instance().id.clone()));
            let claims = &specs.first().unwrap().1.claims;
            let endpoint_set = |endpoints: &&Vec<String>| Arc::new(endpoint_set(name, version, endpoints, claims));
            service_sets.versions.push((version.clone(), distinct.iter().map(endpoint_set).collect()));
            let in_service = specs.iter().any(|(_, spec)| spec.routable);
            let default_from = settings.default_from.get(version.to_string().as_str()).copied();
            service.versions.push(VersionLive::new(version.clone(), candidates.into(), in_service, default_from));
        }
        sets.push(service_sets);
        live.push(Arc::new(service));
    }
    let shape = Arc::new(Shape::build(&sets, |_, _| true));
    RouteTable::new(shape, live, settings.tombstones.clone(), settings.strategy)
}

fn endpoint_set(
    service: &ServiceName,
    version: &Version,
    endpoints: &[String],
    claims: &[ClaimRequirement],
) -> EndpointSet {
    let endpoint = |(number, text): (usize, &String)| {
        let mut descriptor = descriptor(u32::try_from(number).unwrap() + 1, text);
        descriptor.requiring_claims = claims.to_vec();
        let key = EndpointKey::new(descriptor.method.clone(), &descriptor.path);
        (key, Arc::new(RouteEndpoint { service: service.clone(), version: version.clone(), descriptor }))
    };
    EndpointSet { endpoints: endpoints.iter().enumerate().map(endpoint).collect() }
}

fn candidate(number: u64, spec: &Spec, set: usize, changes: &Arc<Changes>) -> Candidate<()> {
    let instance = Instance {
        service: spec.service.parse().unwrap(),
        version: spec.version.parse().unwrap(),
        region: "here".parse().unwrap(),
        id: spec.id.parse().unwrap(),
    };
    let state = InstanceState::new(InstanceKey(number), instance, Lease::new(spec.lease), changes.clone());
    state.set_status(spec.health, 0);
    state.set_round_trip(spec.round_trip);
    if spec.routable {
        state.set_routable();
    }
    let state = Arc::new(state);
    let links = (0..spec.links).map(|link| {
        // Of each worker in turn.
        let id = LinkId(number * 100 + link);
        Arc::new(LinkState::new(id, state.clone(), (), usize::try_from(link).unwrap()))
    });
    let links = links.collect();
    Candidate { instance: state, tier: spec.tier, set, links }
}
