//! The catalogue: the endpoint sets of all services and versions, who owns what of them, and what was lost (SPEC 2, 5).
//!
//! Instances that registered equal sets share one, so that a thousand replicas cost what one does. The catalogue knows
//! how many instances use a set, but none of them; the snapshot's shape and tombstones are made from it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use router_common::endpoint::EndpointDescriptor;
use router_common::frame::{RefusedEndpoint, bounded_text};
use router_common::identity::{ServiceName, Version};
use rustc_hash::FxHashMap;

use super::ownership::Ownership;
use super::policy::Policy;
use crate::routing::key::EndpointKey;
use crate::routing::table::{EndpointSet, RouteEndpoint, ServiceSets, Shape};
use crate::routing::tombstones::{Graveyard, TOMBSTONE_LIFE, Tombstone, Tombstones};

/// Distinct endpoints that one gateway holds, over all services: a bound on memory, ten times the largest instance's.
pub(super) const TABLE_ENDPOINTS: usize = 100_000;

/// All that some instances of one version offer.
#[derive(Debug)]
pub(super) struct OfferedSet {
    pub(super) service: ServiceName,
    pub(super) version: Version,
    /// By endpoint id.
    pub(super) offers: Vec<Offer>,
    /// Those that are not forbidden; which of them are owned is another question.
    allowed: Arc<EndpointSet>,
    /// Refused for want of room, and so not to be shared with who comes when there is room again.
    without_room: bool,
}

#[derive(Debug)]
pub(super) struct Offer {
    pub(super) key: EndpointKey,
    pub(super) endpoint: Arc<RouteEndpoint>,
    /// Why it can never be accepted as it stands.
    forbidden: Option<String>,
    /// It streams, and nothing leads to its instance but links for small messages.
    uncarried: bool,
}

impl Offer {
    fn is_allowed(&self) -> bool {
        self.forbidden.is_none() && !self.uncarried
    }

    fn why_not(&self) -> Option<String> {
        let uncarried = || self.uncarried.then(|| format!("{} {UNCARRIED}", self.key));
        self.forbidden.clone().or_else(uncarried)
    }
}

const UNCARRIED: &str = "streams, and the links of this instance carry small messages only";

/// What the links of an instance carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// Some of them, bodies of any length.
    Streams,
    /// None more than small messages.
    Messages,
}

/// A set, and how many instances use it.
#[derive(Debug)]
struct Shared {
    set: Arc<OfferedSet>,
    users: usize,
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    services: BTreeMap<ServiceName, BTreeMap<Version, Vec<Shared>>>,
    ownership: Ownership,
    graveyard: Graveyard,
    shape_is_stale: bool,
    tombstones: Arc<Tombstones>,
    tombstones_are_stale: bool,
}

/// What a shape is built from, once the books are free again: that takes time.
#[derive(Debug)]
pub(super) struct ShapePlan {
    sets: Vec<ServiceSets>,
    contested: FxHashMap<EndpointKey, ServiceName>,
}

impl ShapePlan {
    pub(super) fn build(&self) -> Shape {
        Shape::build(&self.sets, |service, key| self.contested.get(key).is_none_or(|owner| owner == service))
    }
}

impl Catalogue {
    /// Adds a user of the set of these endpoints, the gateway's overrides applied. `before` is what the same process
    /// offered until now: it may not give an id of it to another endpoint.
    pub(super) fn offer(
        &mut self,
        service: &ServiceName,
        version: &Version,
        mut endpoints: Vec<EndpointDescriptor>,
        before: Option<&OfferedSet>,
        carries: Carries,
        policy: &Policy,
    ) -> Arc<OfferedSet> {
        // The order in which a process happens to list its endpoints means nothing.
        endpoints.sort_by_key(|endpoint| endpoint.id);
        let sets = self.services.entry(service.clone()).or_default().entry(version.clone()).or_default();
        if before.is_none()
            && carries == Carries::Streams
            && !policy.overrides(service)
            && let Some(shared) = sets.iter_mut().find(|shared| shared.set.is_plainly(&endpoints))
        {
            shared.users += 1;
            return shared.set.clone();
        }
        let mut offers = read_offers(service, version, endpoints, before, policy);
        carry(&mut offers, carries);
        self.share(service, version, offers)
    }

    /// The set as it is now that the links of one of its users carry this, with that user; `None`: as it was.
    pub(super) fn offer_over(&mut self, set: &OfferedSet, carries: Carries) -> Option<Arc<OfferedSet>> {
        let streams = set.offers.iter().any(|offer| offer.endpoint.descriptor.is_streaming());
        if !streams || set.without_room {
            return None;
        }
        let same = |offer: &Offer| Offer {
            key: offer.key.clone(),
            endpoint: offer.endpoint.clone(),
            forbidden: offer.forbidden.clone(),
            uncarried: offer.uncarried,
        };
        let mut offers: Vec<Offer> = set.offers.iter().map(same).collect();
        carry(&mut offers, carries);
        let is_as_it_was = offers.iter().zip(&set.offers).all(|(one, other)| one.uncarried == other.uncarried);
        (!is_as_it_was).then(|| self.share(&set.service, &set.version, offers))
    }

    /// Adds a user of the set of these offers.
    fn share(&mut self, service: &ServiceName, version: &Version, offers: Vec<Offer>) -> Arc<OfferedSet> {
        let sets = self.services.entry(service.clone()).or_default().entry(version.clone()).or_default();
        if let Some(shared) = sets.iter_mut().find(|shared| shared.set.is_of(&offers)) {
            shared.users += 1;
            return shared.set.clone();
        }
        let unclaimed = offers.iter().filter(|offer| !self.ownership.is_claimed(&offer.key)).count();
        let without_room = self.ownership.len() + unclaimed > TABLE_ENDPOINTS;
        let set = Arc::new(OfferedSet::new(service.clone(), version.clone(), offers, without_room));
        sets.push(Shared { set: set.clone(), users: 1 });
        for (key, _) in &set.allowed.endpoints {
            self.ownership.claim(key, service);
            if self.ownership.owns(service, key) {
                self.tombstones_are_stale |= self.graveyard.revived(key, service, version);
            }
        }
        self.shape_is_stale = true;
        set
    }

    /// Takes a user of a set away; with `lost`, it did not say good-bye, and its endpoints are remembered for a while.
    /// Names the services that now own endpoints they were refused before.
    pub(super) fn withdraw(&mut self, set: &Arc<OfferedSet>, lost: Option<Instant>) -> BTreeSet<ServiceName> {
        let mut gained = BTreeSet::new();
        let Some(still) = self.let_go(set) else { return gained };
        for (key, endpoint) in &set.allowed.endpoints {
            if let Some(now) = lost
                && self.ownership.owns(&set.service, key)
                && !still.contains(key)
            {
                let until = now + TOMBSTONE_LIFE;
                let stone = Tombstone { service: set.service.clone(), version: set.version.clone(), until };
                self.graveyard.lost(key, &endpoint.descriptor.path, stone);
                self.tombstones_are_stale = true;
            }
            if let Some(owner) = self.ownership.release(key, &set.service) {
                // The path lives again, under another service.
                self.tombstones_are_stale |= self.graveyard.revived(key, &owner, &set.version);
                gained.insert(owner);
            }
        }
        self.shape_is_stale = true;
        gained
    }

    /// One user less. If it was the last one the set goes, and what other sets of the version still have is returned.
    fn let_go(&mut self, set: &Arc<OfferedSet>) -> Option<HashSet<EndpointKey>> {
        let versions = self.services.get_mut(&set.service)?;
        let sets = versions.get_mut(&set.version)?;
        let place = sets.iter().position(|shared| Arc::ptr_eq(&shared.set, set))?;
        let shared = sets.get_mut(place)?;
        shared.users = shared.users.saturating_sub(1);
        if shared.users > 0 {
            return None;
        }
        sets.remove(place);
        let keys =
            |shared: &Shared| shared.set.allowed.endpoints.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let still = sets.iter().flat_map(keys).collect();
        if sets.is_empty() {
            versions.remove(&set.version);
        }
        if versions.is_empty() {
            self.services.remove(&set.service);
        }
        Some(still)
    }

    /// The endpoints of a set that are refused as things stand, with the reason, by endpoint id.
    pub(super) fn refused(&self, set: &OfferedSet) -> Vec<RefusedEndpoint> {
        let reason = |offer: &Offer| match (offer.why_not(), self.ownership.owner(&offer.key)) {
            (Some(reason), _) => Some(reason),
            (None, Some(owner)) if *owner != set.service => {
                Some(format!("{} belongs to the service `{owner}`, which is live", offer.key))
            }
            _ => None,
        };
        let refused = |offer: &Offer| {
            let id = offer.endpoint.descriptor.id;
            reason(offer).map(|reason| RefusedEndpoint { id, reason: bounded_text(reason) })
        };
        set.offers.iter().filter_map(refused).collect()
    }

    /// Whether an endpoint of a set is accepted as things stand.
    pub(super) fn accepts(&self, set: &OfferedSet, offer: &Offer) -> bool {
        offer.is_allowed() && self.ownership.owns(&set.service, &offer.key)
    }

    /// The versions of a service, ascending, each with its sets in the places that the shape gives them.
    pub(super) fn versions(&self, service: &ServiceName) -> Vec<(Version, Vec<Arc<OfferedSet>>)> {
        let sets = |shared: &Vec<Shared>| shared.iter().map(|shared| shared.set.clone()).collect();
        let versions = self.services.get(service).into_iter().flatten();
        versions.map(|(version, shared)| (version.clone(), sets(shared))).collect()
    }

    /// The services that offer something, ascending.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// What a new shape is built from, if a set has come or gone since the last time.
    pub(super) fn new_shape(&mut self) -> Option<ShapePlan> {
        if !std::mem::take(&mut self.shape_is_stale) {
            return None;
        }
        let of_version = |(version, sets): (&Version, &Vec<Shared>)| {
            (version.clone(), sets.iter().map(|shared| shared.set.allowed.clone()).collect())
        };
        let of_service = |(name, versions): (&ServiceName, &BTreeMap<Version, Vec<Shared>>)| ServiceSets {
            name: name.clone(),
            versions: versions.iter().map(of_version).collect(),
        };
        let sets = self.services.iter().map(of_service).collect();
        Some(ShapePlan { sets, contested: self.ownership.contested() })
    }

    /// The tombstones as they are now.
    pub(super) fn tombstones(&mut self) -> Arc<Tombstones> {
        if std::mem::take(&mut self.tombstones_are_stale) {
            self.tombstones = self.graveyard.snapshot();
        }
        self.tombstones.clone()
    }

    /// Forgets what was lost long ago; says whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let any = self.graveyard.expire(now);
        self.tombstones_are_stale |= any;
        any
    }

    /// Endpoints that are claimed, and tombstones.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.ownership.len(), self.graveyard.len())
    }
}

impl OfferedSet {
    fn new(service: ServiceName, version: Version, mut offers: Vec<Offer>, without_room: bool) -> Self {
        if without_room {
            for offer in &mut offers {
                offer.forbidden.get_or_insert_with(|| {
                    format!("this gateway already holds as many endpoints as it may ({TABLE_ENDPOINTS})")
                });
            }
        }
        let allowed = offers.iter().filter(|offer| offer.is_allowed());
        let endpoints = allowed.map(|offer| (offer.key.clone(), offer.endpoint.clone())).collect();
        Self { service, version, offers, allowed: Arc::new(EndpointSet { endpoints }), without_room }
    }

    fn is_of(&self, offers: &[Offer]) -> bool {
        let same = |(one, other): (&Offer, &Offer)| {
            one.endpoint.descriptor == other.endpoint.descriptor
                && one.forbidden == other.forbidden
                && one.uncarried == other.uncarried
        };
        !self.without_room && self.offers.len() == offers.len() && self.offers.iter().zip(offers).all(same)
    }

    /// Whether it is what becomes of these endpoints, in the order of their ids, where neither the gateway's overrides nor
    /// an earlier set of the process have a say: that is seen without reading them any further.
    fn is_plainly(&self, endpoints: &[EndpointDescriptor]) -> bool {
        let same = |(offer, endpoint): (&Offer, &EndpointDescriptor)| {
            offer.is_allowed() && offer.endpoint.descriptor == *endpoint
        };
        self.offers.len() == endpoints.len() && self.offers.iter().zip(endpoints).all(same)
    }

    /// Whether the process gave this endpoint's id to another endpoint.
    fn contradicts(&self, descriptor: &EndpointDescriptor, key: &EndpointKey) -> bool {
        let place = self.offers.binary_search_by_key(&descriptor.id, |offer| offer.endpoint.descriptor.id);
        place.ok().and_then(|place| self.offers.get(place)).is_some_and(|offer| offer.key != *key)
    }
}

fn read_offers(
    service: &ServiceName,
    version: &Version,
    endpoints: Vec<EndpointDescriptor>,
    before: Option<&OfferedSet>,
    policy: &Policy,
) -> Vec<Offer> {
    let mut seen: HashSet<EndpointKey> = HashSet::with_capacity(endpoints.len());
    let offer = |mut descriptor: EndpointDescriptor| {
        let key = EndpointKey::new(descriptor.method.clone(), &descriptor.path);
        policy.apply(service, &key, &mut descriptor);
        let forbidden = if !seen.insert(key.clone()) {
            Some(format!("{key} stands twice in this registration"))
        } else if before.is_some_and(|before| before.contradicts(&descriptor, &key)) {
            Some(format!("this process gave the endpoint id {} to another method and path before", descriptor.id))
        } else {
            policy.refuses_path(service, &descriptor.path)
        };
        let (service, version) = (service.clone(), version.clone());
        Offer { key, endpoint: Arc::new(RouteEndpoint { service, version, descriptor }), forbidden, uncarried: false }
    };
    endpoints.into_iter().map(offer).collect()
}

/// Notes which of the offers no link carries.
fn carry(offers: &mut [Offer], carries: Carries) {
    for offer in offers {
        offer.uncarried = carries == Carries::Messages && offer.endpoint.descriptor.is_streaming();
    }
}
