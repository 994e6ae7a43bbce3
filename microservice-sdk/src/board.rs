//! How a service stands with each of its gateways: what its links write down, and whoever waits or calls reads.
//!
//! It knows nothing of endpoints, and neither dials nor decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use router_common::frame::{HealthStatus, Welcome};
use router_common::identity::{Incarnation, NodeId};
use router_link::Handle;
use tokio::sync::watch;

/// A way to one gateway: over an entry of the configuration, which leads to one, or to as many as it finds. Several ways may
/// lead to one gateway. Ordered by preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The entry's place in the configuration: the lower, the sooner it is used (HELLO's `preference`).
    pub(crate) entry: u8,
    /// 0: the one gateway that is dialled there. Others were found; no number is given again.
    pub(crate) number: u64,
}

impl Place {
    /// The gateway of an entry that does not discover.
    pub(crate) const fn dialled(entry: u8) -> Self {
        Self { entry, number: 0 }
    }

    pub(crate) const fn is_dialled(self) -> bool {
        self.number == 0
    }
}

/// One run of one gateway's process. Its name alone is not enough: gateways that nobody has named are all called the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayId(pub(crate) NodeId, pub(crate) Incarnation);

impl GatewayId {
    /// Of one that says which it is; `None`: it cannot be told from others.
    pub(crate) fn of(welcome: &Welcome) -> Option<Self> {
        welcome.incarnation.map(|incarnation| Self(welcome.node.clone(), incarnation))
    }
}

/// What a request needs of the link that it is to go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// It did not fit into one message, and so needs a link that carries more.
    Streaming,
}

/// The state of a service towards all its gateways.
#[derive(Debug)]
pub(crate) struct Board {
    gateways: watch::Sender<Gateways>,
    health: watch::Sender<HealthStatus>,
}

/// All ways to gateways, and what outlasts them.
#[derive(Debug)]
pub(crate) struct Gateways {
    entries: Vec<Entry>,
    ways: BTreeMap<Place, Standing>,
}

/// How a service stands with an entry of its configuration, whoever comes and goes there.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// A gateway has taken the endpoints there once: from then on a refusal ends nothing, because the service has started.
    started: bool,
}

/// How a service stands with one gateway, over one entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// It has welcomed this process once.
    pub(crate) welcomed: bool,
    /// Which one did so last.
    pub(crate) gateway: Option<GatewayId>,
    /// Links that it said it can make use of; 0 before its first WELCOME.
    pub(crate) wanted: u16,
    /// It holds the endpoints.
    pub(crate) registered: bool,
    /// Links over which requests come, and calls can go.
    pub(crate) routable: Vec<Handle>,
    /// Endpoints it refuses, with the reasons.
    pub(crate) refused: Vec<String>,
}

impl Board {
    /// Of so many entries, at none of which a gateway is known yet.
    pub(crate) fn new(entries: usize) -> Arc<Self> {
        let gateways = Gateways { entries: vec![Entry::default(); entries], ways: BTreeMap::new() };
        Arc::new(Self { gateways: watch::Sender::new(gateways), health: watch::Sender::new(HealthStatus::Healthy) })
    }

    /// There is one more way to a gateway.
    pub(crate) fn add(&self, place: Place) {
        self.gateways.send_modify(|gateways| {
            gateways.ways.entry(place).or_default();
        });
    }

    /// Entries of the configuration.
    pub(crate) fn entries(&self) -> usize {
        self.gateways.borrow().entries.len()
    }

    /// A way is gone for good, and with it all that was known of it.
    pub(crate) fn remove(&self, place: Place) {
        self.gateways.send_modify(|gateways| {
            gateways.ways.remove(&place);
        });
    }

    /// Waits until at every entry a gateway has the endpoints and sends requests.
    pub(crate) async fn ready(&self) {
        let mut changes = self.gateways.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(Gateways::are_ready).await;
    }

    /// Wakes whenever something changes for a gateway.
    pub(crate) fn changes(&self) -> watch::Receiver<Gateways> {
        self.gateways.subscribe()
    }

    pub(crate) fn health(&self) -> HealthStatus {
        *self.health.borrow()
    }

    /// What the next heartbeats say.
    pub(crate) fn set_health(&self, status: HealthStatus) {
        self.health.send_replace(status);
        for link in self.gateways.borrow().links() {
            link.set_health(status, 0);
        }
    }

    /// Tells the gateways at these places of their present leases. Those whose links are not routable yet are told as soon
    /// as they are.
    pub(crate) fn announce_leases(&self, places: &[Place]) {
        let gateways = self.gateways.borrow();
        for standing in places.iter().filter_map(|place| gateways.ways.get(place)) {
            standing.routable.iter().for_each(Handle::announce_lease);
        }
    }

    /// A link over which such a request can be sent now: of the gateways' preferred ones the least busy.
    pub(crate) fn any_link(&self, needs: Needs) -> Option<Handle> {
        let gateways = self.gateways.borrow();
        let preferred = gateways.ways.iter().filter(|(place, way)| {
            let of_gateway =
                |(_, sooner): &(&Place, &Standing)| sooner.gateway.is_some() && sooner.gateway == way.gateway;
            // Another one of the same entry is another gateway.
            let mut sooner = gateways.ways.range(..Place::dialled(place.entry)).filter(of_gateway);
            !sooner.any(|(_, sooner)| sooner.usable(needs).next().is_some())
        });
        preferred.flat_map(|(_, way)| way.usable(needs)).min_by_key(|link| link.streams().0).cloned()
    }

    /// Whether there are links for such a request, and all of them are to be replaced.
    pub(crate) fn is_between_links(&self, needs: Needs) -> bool {
        let gateways = self.gateways.borrow();
        let mut links = gateways.links().filter(|link| link.is_open() && needs.are_met_by(link)).peekable();
        links.peek().is_some() && links.all(Handle::is_draining)
    }

    pub(crate) fn change(&self, place: Place, change: impl FnOnce(&mut Standing)) {
        self.gateways.send_modify(|gateways| {
            if let Some(way) = gateways.ways.get_mut(&place) {
                change(way);
            }
        });
    }

    pub(crate) fn look<R: Default>(&self, place: Place, look: impl FnOnce(&Standing) -> R) -> R {
        self.gateways.borrow().ways.get(&place).map(look).unwrap_or_default()
    }

    /// Whether a gateway has ever taken the endpoints at this entry.
    pub(crate) fn has_started(&self, entry: u8) -> bool {
        self.gateways.borrow().entries.get(usize::from(entry)).is_some_and(|entry| entry.started)
    }

    /// A gateway has taken the endpoints, but for these, which it refuses.
    pub(crate) fn registered(&self, place: Place, refused: Vec<String>) {
        self.gateways.send_modify(|gateways| {
            if let Some(entry) = gateways.entries.get_mut(usize::from(place.entry)) {
                entry.started = true;
            }
            if let Some(way) = gateways.ways.get_mut(&place) {
                way.registered = true;
                way.refused = refused;
            }
        });
    }
}

impl Gateways {
    fn are_ready(&self) -> bool {
        let is_ready = |entry: usize| {
            let mut ways = self.ways.iter().filter(|(place, _)| usize::from(place.entry) == entry);
            ways.any(|(_, way)| way.is_ready())
        };
        (0..self.entries.len()).all(is_ready)
    }

    fn links(&self) -> impl Iterator<Item = &Handle> {
        self.ways.values().flat_map(|way| &way.routable)
    }
}

impl Standing {
    pub(crate) fn is_ready(&self) -> bool {
        self.registered && !self.routable.is_empty()
    }

    /// Links over which such a request can be sent now.
    fn usable(&self, needs: Needs) -> impl Iterator<Item = &Handle> {
        self.routable.iter().filter(move |link| link.is_open() && !link.is_draining() && needs.are_met_by(link))
    }
}

impl Needs {
    fn are_met_by(self, link: &Handle) -> bool {
        self == Self::Nothing || link.is_streaming()
    }
}
