//! From the registry's books to the snapshot's live half, and when a version becomes the default (SPEC 2).
//!
//! A publication costs what changed: the instances of the services that changed, and one pointer for each other
//! service; the shape only if an endpoint set came or went.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use router_common::identity::{ServiceName, Version};

use super::catalogue::{Catalogue, OfferedSet};
use super::member::Member;
use crate::routing::instance::Candidate;
use crate::routing::strategy::Strategy;
use crate::routing::table::{RouteTable, ServiceLive, VersionLive};

/// When a new highest version becomes its service's default (SPEC 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// How many of its instances must be in service. Default 1.
    pub instances: u32,
    /// For how long. Default 30 s.
    pub after: Duration,
}

impl Default for Promotion {
    fn default() -> Self {
        Self { instances: 1, after: Duration::from_secs(30) }
    }
}

/// The live half of the last snapshot, service by service.
pub(super) struct Publisher<H> {
    strategy: Strategy,
    promotion: Promotion,
    services: BTreeMap<ServiceName, Published<H>>,
    changed: BTreeSet<ServiceName>,
}

struct Published<H> {
    live: Arc<ServiceLive<H>>,
    /// From when each release version may be the default.
    default_from: BTreeMap<Version, Instant>,
}

impl<H> Publisher<H> {
    pub(super) fn new(strategy: Strategy, promotion: Promotion) -> Self {
        Self { strategy, promotion, services: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// Something changed about a service's instances, links or endpoint sets.
    pub(super) fn changed(&mut self, service: &ServiceName) {
        if !self.changed.contains(service) {
            self.changed.insert(service.clone());
        }
    }

    /// Whether something changed since the last snapshot.
    pub(super) fn is_stale(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The snapshot as of now. `members` are a service's instances, `configured_default` its configured version.
    pub(super) fn publish<'m>(
        &mut self,
        catalogue: &mut Catalogue,
        members: impl Fn(&ServiceName) -> Vec<&'m Member<H>>,
        configured_default: impl Fn(&ServiceName) -> Option<Version>,
        now: Instant,
    ) -> RouteTable<H>
    where
        H: 'm,
    {
        for name in std::mem::take(&mut self.changed) {
            let versions = catalogue.versions(&name);
            if versions.is_empty() {
                self.services.remove(&name);
                continue;
            }
            let mut default_from = self.services.remove(&name).map(|old| old.default_from).unwrap_or_default();
            let members = members(&name);
            self.promote(&mut default_from, &versions, &members, now);
            let version = |(version, sets): &(Version, Vec<Arc<OfferedSet>>)| {
                let in_service = count_in_service(version, &members) > 0;
                let candidates = candidates(sets, &members).into();
                VersionLive::new(version.clone(), candidates, in_service, default_from.get(version).copied())
            };
            let versions = versions.iter().map(version).collect();
            let live = ServiceLive { name: name.clone(), configured_default: configured_default(&name), versions };
            self.services.insert(name, Published { live: Arc::new(live), default_from });
        }
        let shape = catalogue.shape();
        // Both are ascending by name, and a service stands in both as long as it offers a set.
        let services = shape.services().iter().filter_map(|name| self.services.get(name));
        let services = services.map(|published| published.live.clone()).collect();
        RouteTable::new(shape, services, catalogue.tombstones(), self.strategy)
    }

    fn promote(
        &self,
        default_from: &mut BTreeMap<Version, Instant>,
        versions: &[(Version, Vec<Arc<OfferedSet>>)],
        members: &[&Member<H>],
        now: Instant,
    ) {
        let counts: BTreeMap<&Version, usize> =
            versions.iter().map(|(version, _)| (version, count_in_service(version, members))).collect();
        let needed = usize::try_from(self.promotion.instances).unwrap_or(usize::MAX).max(1);
        // Once the default, it may shrink; before that it must not.
        default_from.retain(|version, from| match counts.get(version) {
            Some(&count) => count >= if *from <= now { 1 } else { needed },
            None => false,
        });
        for (version, count) in counts {
            if count >= needed && !version.is_prerelease() && !default_from.contains_key(version) {
                let settled = default_from.values().any(|from| *from <= now);
                let from = if settled { now + self.promotion.after } else { now };
                default_from.insert(version.clone(), from);
            }
        }
    }
}

fn count_in_service<H>(version: &Version, members: &[&Member<H>]) -> usize {
    let of_version = members.iter().filter(|member| member.state.instance().version == *version);
    of_version.filter(|member| member.is_in_service()).count()
}

/// In canonical order, so that the order of connecting means nothing.
fn candidates<H>(sets: &[Arc<OfferedSet>], members: &[&Member<H>]) -> Vec<Candidate<H>> {
    let candidate = |member: &&Member<H>| {
        let own = member.set.as_ref()?;
        let set = sets.iter().position(|set| Arc::ptr_eq(set, own))?;
        let (instance, links) = (member.state.clone(), member.shared_links.clone());
        Some(Candidate { instance, tier: member.tier, set, links })
    };
    let mut candidates: Vec<Candidate<H>> = members.iter().filter_map(candidate).collect();
    candidates.sort_by(|one, other| {
        let order = |candidate: &Candidate<H>| candidate.tier;
        let (a, b) = (one.instance.instance(), other.instance.instance());
        order(one).cmp(&order(other)).then_with(|| a.id.cmp(&b.id)).then_with(|| a.region.cmp(&b.region))
    });
    candidates
}
