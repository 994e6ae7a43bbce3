//! From the registry's books to the snapshot's live half, and when a version becomes the default (SPEC 2).
//!
//! A publication costs what changed: the instances of the services that changed, and one pointer for each other
//! service; the shape only if an endpoint set came or went, and that is built from a [`Draft`], without the books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use router_common::identity::{Instance, ServiceName, Version};

use super::catalogue::{Catalogue, OfferedSet, ShapePlan};
use super::member::Member;
use crate::routing::instance::Candidate;
use crate::routing::strategy::Strategy;
use crate::routing::table::{RouteTable, ServiceLive, Shape, VersionLive};
use crate::routing::tombstones::Tombstones;

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
    /// How many instances of each version are in service.
    in_service: BTreeMap<ServiceName, BTreeMap<Version, usize>>,
    /// What was settled elsewhere before this node served: the default of each service.
    inherited: BTreeMap<ServiceName, Version>,
    changed: BTreeSet<ServiceName>,
    is_stale: bool,
}

struct Published<H> {
    live: Arc<ServiceLive<H>>,
    /// From when each release version may be the default.
    default_from: BTreeMap<Version, Instant>,
}

/// What an instance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InService {
    Came,
    Left,
}

/// A table to be made: what was taken from the books for it.
pub(super) struct Draft<H> {
    shape: Option<ShapePlan>,
    services: Vec<Arc<ServiceLive<H>>>,
    tombstones: Arc<Tombstones>,
    strategy: Strategy,
}

impl<H> Publisher<H> {
    pub(super) fn new(strategy: Strategy, promotion: Promotion) -> Self {
        Self {
            strategy,
            promotion,
            services: BTreeMap::new(),
            in_service: BTreeMap::new(),
            inherited: BTreeMap::new(),
            changed: BTreeSet::new(),
            is_stale: false,
        }
    }

    /// Something changed about a service's instances, links or endpoint sets.
    pub(super) fn changed(&mut self, service: &ServiceName) {
        self.is_stale = true;
        if !self.changed.contains(service) {
            self.changed.insert(service.clone());
        }
    }

    /// Something else changed that a table shows.
    pub(super) const fn changed_otherwise(&mut self) {
        self.is_stale = true;
    }

    /// An instance came into service, or left it. Requests see that of the instance itself; the table changes only where
    /// it makes a difference to who names no version.
    pub(super) fn count(&mut self, instance: &Instance, change: InService) {
        let Instance { service, version, .. } = instance;
        let versions = self.in_service.entry(service.clone()).or_default();
        let count = versions.entry(version.clone()).or_default();
        let before = *count;
        *count = match change {
            InService::Came => before + 1,
            InService::Left => before.saturating_sub(1),
        };
        let after = *count;
        if after == 0 {
            versions.remove(version);
            if versions.is_empty() {
                self.in_service.remove(service);
            }
        }
        let needed = self.needed();
        if (before == 0) != (after == 0) || (before >= needed) != (after >= needed) {
            self.changed(service);
        }
    }

    /// Whether something changed since the last snapshot.
    pub(super) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What the snapshot as of now is made from; `None`: nothing has changed. `members` are a service's instances,
    /// `configured_default` its configured version.
    pub(super) fn draft<'m>(
        &mut self,
        catalogue: &mut Catalogue,
        members: impl Fn(&ServiceName) -> Vec<&'m Member<H>>,
        configured_default: impl Fn(&ServiceName) -> Option<Version>,
        now: Instant,
    ) -> Option<Draft<H>>
    where
        H: 'm,
    {
        if !std::mem::take(&mut self.is_stale) {
            return None;
        }
        for name in std::mem::take(&mut self.changed) {
            let versions = catalogue.versions(&name);
            if versions.is_empty() {
                self.services.remove(&name);
                continue;
            }
            let mut default_from = self.services.remove(&name).map(|old| old.default_from).unwrap_or_default();
            let members = members(&name);
            self.promote(&mut default_from, &name, &versions, now);
            self.inherited.retain(|service, inherited| {
                *service != name || !default_from.range(&*inherited..).any(|(_, from)| *from <= now)
            });
            let version = |(version, sets): &(Version, Vec<Arc<OfferedSet>>)| {
                let in_service = self.count_of(&name, version) > 0;
                let candidates = candidates(sets, &members).into();
                VersionLive::new(version.clone(), candidates, in_service, default_from.get(version).copied())
            };
            let versions = versions.iter().map(version).collect();
            let live = ServiceLive { name: name.clone(), configured_default: configured_default(&name), versions };
            self.services.insert(name, Published { live: Arc::new(live), default_from });
        }
        // Both halves are ascending by name, and a service stands in both as long as it offers a set.
        let services = self.services.values().map(|published| published.live.clone()).collect();
        let (shape, tombstones) = (catalogue.new_shape(), catalogue.tombstones());
        Some(Draft { shape, services, tombstones, strategy: self.strategy })
    }

    fn promote(
        &self,
        default_from: &mut BTreeMap<Version, Instant>,
        service: &ServiceName,
        versions: &[(Version, Vec<Arc<OfferedSet>>)],
        now: Instant,
    ) {
        let count = |(version, _): &(Version, _)| (version.clone(), self.count_of(service, version));
        let counts: BTreeMap<Version, usize> = versions.iter().map(count).collect();
        let needed = self.needed();
        // Once the default, it may shrink; before that it must not.
        default_from.retain(|version, from| match counts.get(version) {
            Some(&count) => count >= if *from <= now { 1 } else { needed },
            None => false,
        });
        for (version, count) in counts {
            if count >= needed && !version.is_prerelease() && !default_from.contains_key(&version) {
                let is_new = match self.inherited.get(service) {
                    Some(inherited) => version > *inherited,
                    None => default_from.values().any(|from| *from <= now),
                };
                let from = if is_new { now + self.promotion.after } else { now };
                default_from.insert(version, from);
            }
        }
    }

    /// The highest version of each service that may be the default.
    pub(super) fn settled(&self, now: Instant) -> BTreeMap<ServiceName, Version> {
        let settled = |(name, published): (&ServiceName, &Published<H>)| {
            let mut versions = published.default_from.iter().rev();
            let (version, _) = versions.find(|(_, from)| **from <= now)?;
            Some((name.clone(), version.clone()))
        };
        self.services.iter().filter_map(settled).collect()
    }

    pub(super) fn inherit(&mut self, defaults: BTreeMap<ServiceName, Version>) {
        self.inherited = defaults;
    }

    fn needed(&self) -> usize {
        usize::try_from(self.promotion.instances).unwrap_or(usize::MAX).max(1)
    }

    fn count_of(&self, service: &ServiceName, version: &Version) -> usize {
        self.in_service.get(service).and_then(|versions| versions.get(version)).copied().unwrap_or_default()
    }
}

impl<H> Draft<H> {
    /// The table. `shape` is the last one's, and then this one's.
    pub(super) fn into_table(self, shape: &mut Arc<Shape>) -> RouteTable<H> {
        if let Some(plan) = self.shape {
            *shape = Arc::new(plan.build());
        }
        RouteTable::new(shape.clone(), self.services, self.tombstones, self.strategy)
    }
}

/// The members stand in canonical order, and so do the candidates.
fn candidates<H>(sets: &[Arc<OfferedSet>], members: &[&Member<H>]) -> Vec<Candidate<H>> {
    let candidate = |member: &&Member<H>| {
        let own = member.set.as_ref()?;
        let set = sets.iter().position(|set| Arc::ptr_eq(set, own))?;
        let (instance, links) = (member.state.clone(), member.shared_links.clone());
        Some(Candidate { instance, tier: member.tier, set, links })
    };
    debug_assert!(members.is_sorted_by(|one, other| one.canonical_order(other).is_le()));
    members.iter().filter_map(candidate).collect()
}
