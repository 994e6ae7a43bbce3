//! Members: the live instances as the registry keeps them, and links that are on their way out.
//!
//! It knows nothing of other instances, of ownership or of snapshots.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use router_common::frame::{CloseCode, Hello, RefusedEndpoint};
use router_common::identity::{Identity, Incarnation};
use router_common::limits;

use super::catalogue::{Carries, OfferedSet};
use crate::routing::instance::{InstanceState, LinkState};
use crate::routing::outlier::Circuit;

/// One live instance.
pub(super) struct Member<H> {
    pub(super) state: Arc<InstanceState>,
    pub(super) incarnation: Incarnation,
    /// Who it has proved to be: as the first link did, and as others did that came another way. No more than it may have
    /// links.
    identities: Vec<Identity>,
    pub(super) tier: u16,
    pub(super) since: Instant,
    links: Vec<Linked<H>>,
    /// The links as snapshots hold them.
    pub(super) shared_links: Arc<[Arc<LinkState<H>>]>,
    /// Of the set below; 0: none yet.
    pub(super) revision: u64,
    pub(super) set: Option<Arc<OfferedSet>>,
    /// Whether it is counted among those in service.
    pub(super) counted: bool,
    /// Whether it is ejected, and how often it was.
    pub(super) circuit: Circuit,
    /// What the service was last told of that revision.
    pub(super) refused: Vec<RefusedEndpoint>,
}

/// One link of an instance.
pub(super) struct Linked<H> {
    pub(super) state: Arc<LinkState<H>>,
    /// As HELLO numbers it, among those of its preference.
    pub(super) number: u16,
    pub(super) transport: &'static str,
    /// Transport and address, for lists.
    pub(super) peer: String,
    /// Who was proved to be at its other end.
    pub(super) identity: Identity,
    pub(super) since: Instant,
    /// The service was asked to replace it, because this node was about to leave.
    pub(super) released: bool,
}

impl<H> Linked<H> {
    /// What it is known by within its instance: one that comes with the same takes its place.
    pub(super) fn berth(&self) -> (u8, u16) {
        (self.state.preference(), self.number)
    }
}

/// A link that belongs to no instance any more and may end as soon as it is idle.
pub(super) struct Leaving<H> {
    pub(super) handle: H,
    pub(super) until: Instant,
    /// What is said at its end.
    pub(super) farewell: (CloseCode, &'static str),
}

impl<H> Member<H> {
    pub(super) fn new(
        state: Arc<InstanceState>,
        incarnation: Incarnation,
        identity: Identity,
        tier: u16,
        since: Instant,
    ) -> Self {
        Self {
            state,
            incarnation,
            identities: vec![identity],
            tier,
            since,
            links: Vec::new(),
            shared_links: Arc::new([]),
            revision: 0,
            set: None,
            counted: false,
            circuit: Circuit::default(),
            refused: Vec::new(),
        }
    }

    pub(super) fn links(&self) -> &[Linked<H>] {
        &self.links
    }

    /// Who it proved to be first.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identities.first()
    }

    /// Whether a link comes from its own process, as far as can be proved: on each way all links prove the same.
    pub(super) fn may_be(&self, identity: &Identity, hello: &Hello) -> bool {
        let mut of_way = self.links.iter().filter(|linked| linked.state.preference() == hello.preference);
        self.incarnation == hello.incarnation && of_way.all(|linked| linked.identity == *identity)
    }

    /// Whether any of its links has proved to be this.
    pub(super) fn has_been(&self, identity: &Identity) -> bool {
        self.identities.contains(identity)
    }

    /// Notes that the service is asked to replace all its links.
    pub(super) fn release(&mut self) {
        for linked in &mut self.links {
            linked.released = true;
        }
    }

    pub(super) fn find_link(&self, id: crate::routing::instance::LinkId) -> Option<&Arc<LinkState<H>>> {
        self.links.iter().map(|linked| &linked.state).find(|state| state.id() == id)
    }

    pub(super) fn add_link(&mut self, linked: Linked<H>) {
        if !self.has_been(&linked.identity) && self.identities.len() < usize::from(limits::LINKS) {
            self.identities.push(linked.identity.clone());
        }
        self.links.push(linked);
        // The order of arrival means nothing.
        self.links.sort_by_key(Linked::berth);
        self.links_changed();
    }

    /// Takes out the links that `which` names.
    pub(super) fn take_links(&mut self, which: impl Fn(&Linked<H>) -> bool) -> Vec<Linked<H>> {
        let taken: Vec<Linked<H>> = self.links.extract_if(.., |linked| which(linked)).collect();
        // Tables that were made before have them still.
        taken.iter().for_each(|linked| linked.state.set_draining());
        if !taken.is_empty() {
            self.links_changed();
        }
        taken
    }

    /// What its links carry.
    pub(super) fn carries(&self) -> Carries {
        let streams = self.links.iter().any(|linked| linked.state.is_streaming());
        if streams { Carries::Streams } else { Carries::Messages }
    }

    fn links_changed(&mut self) {
        self.shared_links = self.links.iter().map(|linked| linked.state.clone()).collect();
        self.refresh();
    }

    /// Draws the instance's state from its links': it drains when all drain, and is silent when all are.
    pub(super) fn refresh(&self) {
        let all = |test: fn(&LinkState<H>) -> bool| {
            !self.links.is_empty() && self.links.iter().all(|linked| test(&linked.state))
        };
        self.state.set_draining(all(LinkState::is_draining));
        self.state.set_silent(all(LinkState::is_silent));
    }

    /// The mean of what the links measured that serve now: those of the preferred way that is there.
    pub(super) fn mean_round_trip(&self) -> Option<Duration> {
        let measured = || {
            let links = self.links.iter().map(|linked| &linked.state).filter(|link| !link.is_draining());
            links.filter_map(|link| Some((link.preference(), link.round_trip()?)))
        };
        let preferred = measured().map(|(preference, _)| preference).min()?;
        let known = || measured().filter(|(preference, _)| *preference == preferred).map(|(_, average)| average);
        known().sum::<Duration>().checked_div(u32::try_from(known().count()).ok()?)
    }

    /// Whether requests that name no version count on it.
    pub(super) fn is_in_service(&self) -> bool {
        self.set.is_some() && self.state.is_routable() && !self.state.is_draining()
    }

    /// Whose turn is before whose: by tier, then by id, then by region.
    pub(super) fn canonical_order(&self, other: &Self) -> Ordering {
        let (one, two) = (self.state.instance(), other.state.instance());
        self.tier.cmp(&other.tier).then_with(|| one.id.cmp(&two.id)).then_with(|| one.region.cmp(&two.region))
    }
}
