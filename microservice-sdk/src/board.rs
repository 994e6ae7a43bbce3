//! How a service stands with each of its gateways: what its links write down, and whoever waits or calls reads.
//!
//! It knows nothing of endpoints, and neither dials nor decides.

use std::sync::Arc;

use router_common::frame::HealthStatus;
use router_link::Handle;
use tokio::sync::watch;

/// The state of a service towards all its gateways.
#[derive(Debug)]
pub(crate) struct Board {
    gateways: watch::Sender<Vec<Standing>>,
    health: watch::Sender<HealthStatus>,
}

/// How a service stands with one gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// It has welcomed this process once.
    pub(crate) welcomed: bool,
    /// Links that it said it can make use of; 0 before its first WELCOME.
    pub(crate) wanted: u16,
    /// It holds the endpoints.
    pub(crate) registered: bool,
    /// It has taken them once: from then on a refusal ends nothing, because the service has started.
    pub(crate) started: bool,
    /// Links over which requests come, and calls can go.
    pub(crate) routable: Vec<Handle>,
    /// Endpoints it refuses, with the reasons.
    pub(crate) refused: Vec<String>,
}

impl Board {
    pub(crate) fn new(gateways: usize) -> Arc<Self> {
        Arc::new(Self {
            gateways: watch::Sender::new(vec![Standing::default(); gateways]),
            health: watch::Sender::new(HealthStatus::Healthy),
        })
    }

    /// Waits until every gateway has the endpoints and sends requests.
    pub(crate) async fn ready(&self) {
        let ready = |gateways: &Vec<Standing>| gateways.iter().all(Standing::is_ready);
        let mut changes = self.gateways.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(ready).await;
    }

    /// Wakes whenever something changes for a gateway.
    pub(crate) fn changes(&self) -> watch::Receiver<Vec<Standing>> {
        self.gateways.subscribe()
    }

    pub(crate) fn health(&self) -> HealthStatus {
        *self.health.borrow()
    }

    /// What the next heartbeats say.
    pub(crate) fn set_health(&self, status: HealthStatus) {
        self.health.send_replace(status);
        for link in self.gateways.borrow().iter().flat_map(|gateway| &gateway.routable) {
            link.set_health(status, 0);
        }
    }

    /// A link over which a request can be sent now.
    pub(crate) fn any_link(&self) -> Option<Handle> {
        let gateways = self.gateways.borrow();
        let links = gateways.iter().flat_map(|gateway| &gateway.routable);
        links.filter(|link| link.is_open() && !link.is_draining()).min_by_key(|link| link.streams().0).cloned()
    }

    /// Whether there are links, and all of them are to be replaced.
    pub(crate) fn is_between_links(&self) -> bool {
        let gateways = self.gateways.borrow();
        let mut links = gateways.iter().flat_map(|gateway| &gateway.routable).filter(|link| link.is_open()).peekable();
        links.peek().is_some() && links.all(Handle::is_draining)
    }

    pub(crate) fn change(&self, place: usize, change: impl FnOnce(&mut Standing)) {
        self.gateways.send_modify(|gateways| {
            if let Some(gateway) = gateways.get_mut(place) {
                change(gateway);
            }
        });
    }

    pub(crate) fn look<R: Default>(&self, place: usize, look: impl FnOnce(&Standing) -> R) -> R {
        self.gateways.borrow().get(place).map(look).unwrap_or_default()
    }
}

impl Standing {
    pub(crate) fn is_ready(&self) -> bool {
        self.registered && !self.routable.is_empty()
    }
}
