//! The books: who is live, over which links, and what follows for others when somebody comes or goes.
//!
//! Plain bookkeeping under the registry's lock. Nothing is said on a link here, and nothing is published: what is to be
//! said is noted for after the lock, and for after the publication if there is to be one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use router_common::frame::{CloseCode, RefusedEndpoint};
use router_common::identity::{Instance, ServiceName};
use router_common::limits;
use router_common::session::Joining;
use router_common::session::lease::Lease;
use rustc_hash::FxHashMap;

use super::catalogue::Catalogue;
use super::member::{Leaving, Member};
use super::placement::Placement;
use super::publish::{InService, Publisher};
use super::{LEAVING_GRACE, LinkHandle, SUPERSEDED};
use crate::routing::instance::{InstanceKey, InstanceState, LinkId};

/// All that changes, under one lock.
pub(super) struct Books<H> {
    pub(super) members: FxHashMap<InstanceKey, Member<H>>,
    pub(super) by_instance: FxHashMap<Instance, InstanceKey>,
    /// In canonical order, so that the order of connecting means nothing.
    pub(super) by_service: BTreeMap<ServiceName, Vec<InstanceKey>>,
    /// Links of live instances.
    pub(super) links: Placement,
    pub(super) leaving: FxHashMap<LinkId, Leaving<H>>,
    pub(super) catalogue: Catalogue,
    pub(super) publisher: Publisher<H>,
    /// Those that are ejected, and perhaps some that have left meanwhile.
    pub(super) ejected: Vec<InstanceKey>,
    /// This node is about to leave: no link joins.
    pub(super) is_leaving: bool,
    /// What is to be said once the next table is published.
    pub(super) says: Vec<Say<H>>,
    next: u64,
}

/// What is to be said on links once the lock is free.
pub(super) enum Say<H> {
    Drain(H),
    Close(H, CloseCode, &'static str),
    Result(H, u64, Vec<RefusedEndpoint>),
}

pub(super) fn members_of<'m, H>(
    members: &'m FxHashMap<InstanceKey, Member<H>>,
    by_service: &BTreeMap<ServiceName, Vec<InstanceKey>>,
    name: &ServiceName,
) -> Vec<&'m Member<H>> {
    by_service.get(name).into_iter().flatten().filter_map(|key| members.get(key)).collect()
}

impl<H: LinkHandle> Books<H> {
    pub(super) fn new(publisher: Publisher<H>, workers: usize) -> Self {
        Self {
            members: FxHashMap::default(),
            by_instance: FxHashMap::default(),
            by_service: BTreeMap::new(),
            links: Placement::new(workers),
            leaving: FxHashMap::default(),
            catalogue: Catalogue::default(),
            publisher,
            ejected: Vec::new(),
            is_leaving: false,
            says: Vec::new(),
            next: 1,
        }
    }

    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    pub(super) fn add(&mut self, joining: &Joining, tier: u16, now: Instant) -> InstanceKey {
        let hello = &joining.hello;
        let key = InstanceKey(self.take_number());
        let lease = Lease::new(hello.lease.min(limits::LEASE_MAX));
        // All instances of a service count their changes together.
        let changes = self.members_of(&hello.instance.service).first().map(|member| member.state.changes().clone());
        let state = Arc::new(InstanceState::new(key, hello.instance.clone(), lease, changes.unwrap_or_default()));
        let member = Member::new(state, hello.incarnation, joining.identity.clone(), tier, now);
        let of_service = self.by_service.entry(hello.instance.service.clone()).or_default();
        let is_before =
            |other: &InstanceKey| self.members.get(other).is_some_and(|other| other.canonical_order(&member).is_lt());
        of_service.insert(of_service.partition_point(is_before), key);
        self.members.insert(key, member);
        self.by_instance.insert(hello.instance.clone(), key);
        key
    }

    /// Takes an instance out at once; links that it still has drain and then close.
    pub(super) fn remove(
        &mut self,
        key: InstanceKey,
        lost: Option<Instant>,
        now: Instant,
        says: &mut Vec<Say<H>>,
    ) -> Option<Member<H>> {
        let mut member = self.members.remove(&key)?;
        let instance = member.state.instance().clone();
        self.by_instance.remove(&instance);
        if let Some(of_service) = self.by_service.get_mut(&instance.service) {
            of_service.retain(|other| *other != key);
            if of_service.is_empty() {
                self.by_service.remove(&instance.service);
            }
        }
        for linked in member.take_links(|_| true) {
            let (id, handle) = (linked.state.id(), linked.state.handle().clone());
            self.links.remove(id);
            says.push(Say::Drain(handle.clone()));
            let farewell = (CloseCode::Superseded, SUPERSEDED);
            self.leaving.insert(id, Leaving { handle, until: now + LEAVING_GRACE, farewell });
        }
        // Tables that were made before have it still.
        member.state.set_draining(true);
        if std::mem::take(&mut member.counted) {
            self.publisher.count(&instance, InService::Left);
        }
        if let Some(set) = member.set.take() {
            self.publisher.changed(&instance.service);
            let gained = self.catalogue.withdraw(&set, lost);
            self.offer_again(gained, says);
        }
        Some(member)
    }

    /// Notes whether an instance is in service, after anything that this depends on has changed.
    pub(super) fn recount(&mut self, key: InstanceKey) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let is = member.is_in_service();
        if std::mem::replace(&mut member.counted, is) != is {
            let change = if is { InService::Came } else { InService::Left };
            self.publisher.count(member.state.instance(), change);
        }
    }

    /// Counts an instance's set anew where its links carry more than before, or less, and tells it so over any link but
    /// this, which has just come or gone (SPEC 7).
    pub(super) fn carry_anew(&mut self, key: InstanceKey, but: LinkId, says: &mut Vec<Say<H>>) {
        let Self { members, catalogue, publisher, .. } = self;
        let Some(member) = members.get_mut(&key) else { return };
        let Some(before) = &member.set else { return };
        let Some(set) = catalogue.offer_over(before, member.carries()) else { return };
        member.refused = catalogue.refused(&set);
        let before = member.set.replace(set);
        let gained = before.map(|before| catalogue.withdraw(&before, None)).unwrap_or_default();
        if let Some(linked) = member.links().iter().find(|linked| linked.state.id() != but) {
            says.push(Say::Result(linked.state.handle().clone(), member.revision, member.refused.clone()));
        }
        publisher.changed(&member.state.instance().service);
        self.offer_again(gained, says);
    }

    /// Tells services of endpoints that have become theirs (SPEC 2).
    pub(super) fn offer_again(&mut self, gained: BTreeSet<ServiceName>, says: &mut Vec<Say<H>>) {
        let Self { members, by_service, catalogue, .. } = self;
        for name in gained {
            for key in by_service.get(&name).into_iter().flatten() {
                let Some(member) = members.get_mut(key) else { continue };
                let Some(set) = &member.set else { continue };
                let refused = catalogue.refused(set);
                if refused == member.refused {
                    continue;
                }
                member.refused.clone_from(&refused);
                if let Some(linked) = member.links().first() {
                    says.push(Say::Result(linked.state.handle().clone(), member.revision, refused));
                }
            }
        }
    }

    /// Of all links, those on their way out included.
    pub(super) fn handles(&self) -> Vec<H> {
        let live = self.members.values().flat_map(|member| member.links().iter().map(|link| link.state.handle()));
        live.chain(self.leaving.values().map(|leaving| &leaving.handle)).cloned().collect()
    }

    pub(super) fn members_of(&self, name: &ServiceName) -> Vec<&Member<H>> {
        members_of(&self.members, &self.by_service, name)
    }

    /// By service, version, id and region.
    pub(super) fn members_in_order(&self) -> Vec<&Member<H>> {
        let mut members: Vec<&Member<H>> = self.members.values().collect();
        members.sort_by(|one, other| {
            let (a, b) = (one.state.instance(), other.state.instance());
            (&a.service, &a.version, &a.id, &a.region).cmp(&(&b.service, &b.version, &b.id, &b.region))
        });
        members
    }
}
