//! What the events of a link bring about: registration, readiness, or the end of the service.
//!
//! It dials nothing and serves nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use router_common::frame::{CloseCode, RefusedEndpoint};
use router_common::limits;
use router_common::session::RegisterError;
use router_common::session::lease::Lease;
use router_config::microservice::OnRefused;
use router_link::{Backoff, ConnectionEvent, Connector, Handle};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, GatewayId, Place, Standing};
use crate::dispatch::Table;
use crate::outage::{Outage, SoFar};
use crate::plan::GatewayPlan;
use crate::reasons::Reasons;
use crate::shares::Shares;
use crate::start_error::StartError;

/// The endpoint set of a process never changes, so it has one revision;
const REVISION: u64 = 2;
/// but over links for small messages it goes without its schemas, and is good enough only until there is another link.
const SMALL_REVISION: u64 = 1;

/// What is registered over this link, unless the gateway has as much.
fn revision(handle: &Handle) -> u64 {
    if handle.is_streaming() { REVISION } else { SMALL_REVISION }
}

/// The longest wait between two diallings of a gateway that was found.
const FOUND_BACKOFF: Duration = Duration::from_secs(2);

/// One gateway, over all links to it that one entry of the configuration makes.
pub(crate) struct GatewayState {
    /// What is dialled, for people.
    pub(crate) target: String,
    on_refused: OnRefused,
    /// Links that were asked for; `None`: as many as the gateway wants.
    asked: Option<u16>,
    /// What follows from all gateways together.
    board: Arc<Board>,
    shares: Arc<Shares>,
    /// This one's place on the board, and among the shares.
    place: Place,
    /// The service drains, or this gateway is gone: nothing more is dialled.
    pub(crate) over: CancellationToken,
    /// How it is dialled. A lock and no channel: it changes when the gateway is found again.
    connector: Mutex<Arc<dyn Connector>>,
    /// A lock and no channel: it is taken once a dial or a link's end, and for an instant.
    outage: Mutex<Outage>,
    /// The numbers of links that the gateway drains: others are to be dialled in their place. At most one for each link.
    replaceable: Mutex<BTreeSet<u16>>,
    /// To dial at once: the gateway's process has ended in good order, or it was found again.
    pub(crate) reasons: Reasons,
}

impl GatewayState {
    /// A gateway of the plan's entry, which is dialled by `connector` until `over`.
    pub(crate) fn new(
        (board, shares): (Arc<Board>, Arc<Shares>),
        place: Place,
        plan: &GatewayPlan,
        connector: Arc<dyn Connector>,
        over: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            target: connector.target().to_owned(),
            on_refused: plan.on_refused,
            // What is found is reached through something that all share: one link each.
            asked: if place.is_dialled() { plan.links } else { Some(1) },
            board,
            shares,
            place,
            over,
            connector: Mutex::new(connector),
            outage: Mutex::default(),
            replaceable: Mutex::default(),
            reasons: Reasons::default(),
        })
    }

    /// How it is dialled now.
    pub(crate) fn connector(&self) -> Arc<dyn Connector> {
        Arc::clone(&self.connector.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It is there, and is dialled like this from now on; at once, where that is waited for.
    pub(crate) fn found_again(&self, connector: Arc<dyn Connector>) {
        *self.connector.lock().unwrap_or_else(PoisonError::into_inner) = connector;
        self.reasons.give();
    }

    /// The preference of its links.
    pub(crate) const fn preference(&self) -> u8 {
        self.place.entry
    }

    /// What the next link is bound by.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        self.shares.lease(self.place)
    }

    /// How many links there are to be now. Where no number was asked for it is one, until the gateway has said how many it
    /// wants.
    pub(crate) fn links(&self) -> u16 {
        let wanted = || self.board.look(self.place, |standing| standing.wanted);
        self.asked.unwrap_or_else(|| wanted().clamp(1, limits::LINKS_WANTED))
    }

    pub(crate) fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateway drains the link of this number: its process leaves, and another one may already be there. The link
    /// itself serves on until it ends.
    pub(crate) fn replace(&self, number: u16) {
        self.replaceable.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        // Wakes whoever opens links.
        self.board.change(self.place, |_| {});
    }

    /// The numbers of the links to be replaced, once.
    pub(crate) fn take_replaceable(&self) -> BTreeSet<u16> {
        std::mem::take(&mut *self.replaceable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The gateway's process has ended in good order, so that another may come soon.
    pub(crate) fn process_ended(&self) {
        self.reasons.give();
    }

    /// How long to wait between two diallings. One that was found is known to be there, whatever it is reached through
    /// (SPEC 7).
    pub(crate) const fn backoff(&self) -> Backoff {
        Backoff::new(Backoff::FIRST, if self.place.is_dialled() { Backoff::MAX } else { FOUND_BACKOFF })
    }

    /// Whether it may be a mistake of the configuration that it does not let this process in: it never has. One that was
    /// found may be somebody else's, who shares what it was found through.
    pub(crate) fn may_be_misconfigured(&self) -> bool {
        self.place.is_dialled() && !self.board.look(self.place, |standing| standing.welcomed)
    }

    /// It was dialled, and nobody has let this process in: the others may have its share of the lease meanwhile.
    pub(crate) fn dialled_in_vain(&self) {
        self.board.announce_leases(&self.shares.dialled_in_vain(self.place));
    }

    fn is_ready(&self) -> bool {
        self.board.look(self.place, Standing::is_ready)
    }
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").field("target", &self.target).field("place", &self.place).finish_non_exhaustive()
    }
}

/// One link, from its handshake to its end.
#[derive(Debug)]
pub(crate) struct LinkState {
    gateway: Arc<GatewayState>,
    number: u16,
    /// What its session was begun with.
    lease: Arc<Lease>,
    /// Set when nothing of the gateway's is in flight on the link and nothing more will come.
    pub(crate) drained: CancellationToken,
    outcome: Mutex<Outcome>,
}

/// What the link brought about, for whoever decides whether to dial again.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) welcomed: bool,
    /// Another link has its number: it was only to serve to its end.
    pub(crate) replaced: bool,
    /// The service is to end because of it.
    pub(crate) fatal: Option<StartError>,
}

impl LinkState {
    pub(crate) fn new(gateway: Arc<GatewayState>, number: u16, lease: Arc<Lease>) -> Arc<Self> {
        Arc::new(Self { gateway, number, lease, drained: CancellationToken::new(), outcome: Mutex::default() })
    }

    pub(crate) fn take_outcome(&self) -> Outcome {
        std::mem::take(&mut *self.outcome())
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn event(&self, event: ConnectionEvent, handle: &Handle, table: &Table) {
        let GatewayState { board, place, target, .. } = &*self.gateway;
        match event {
            ConnectionEvent::Welcomed(welcome) => {
                self.outcome().welcomed = true;
                let registered = welcome.revision >= revision(handle);
                let id = GatewayId::of(&welcome);
                self.share_lease(id.as_ref(), handle);
                board.change(*place, |standing| {
                    standing.welcomed = true;
                    standing.gateway = id;
                    standing.registered = registered;
                    standing.wanted = welcome.links;
                });
                tracing::debug!(gateway = %target, node = %welcome.node, "welcomed");
                handle.set_health(board.health(), 0);
                if !registered {
                    self.register(handle, table);
                }
            }
            ConnectionEvent::EndpointsResult { refused, .. } => self.registered(&refused, handle, table),
            ConnectionEvent::Routable => {
                // They may have changed since WELCOME, when this link was not yet among those that are told.
                handle.set_health(board.health(), 0);
                announce(&self.gateway.lease(), handle);
                board.change(*place, |standing| standing.routable.push(handle.clone()));
                let over = self.gateway.outage().over(table.surroundings.environment.now());
                if let Some(SoFar { failures, lasting }) = over {
                    tracing::info!(gateway = %target, failures, ?lasting, "connected to the gateway");
                }
                self.tell_if_ready(table);
            }
            ConnectionEvent::PeerDraining => self.peer_drains(),
            ConnectionEvent::Drained => self.drained.cancel(),
            ConnectionEvent::Closed(_) => {
                board.change(*place, |standing| standing.routable.retain(|link| !link.is_same(handle)));
                if self.outcome().welcomed {
                    board.announce_leases(&self.gateway.shares.lost(*place));
                }
            }
            _ => {}
        }
    }

    /// The gateway has one lease, whatever leads to it: the session is bound by that one from now on.
    fn share_lease(&self, id: Option<&GatewayId>, handle: &Handle) {
        let GatewayState { board, shares, place, .. } = &*self.gateway;
        let (lease, changed) = shares.welcomed(*place, id);
        if !Arc::ptr_eq(&lease, &self.lease) {
            handle.share_lease(Arc::clone(&lease));
        }
        announce(&lease, handle);
        board.announce_leases(&changed);
    }

    /// A gateway drains its links when it leaves, or when another process has this instance's place.
    fn peer_drains(&self) {
        let was_replaced = std::mem::replace(&mut self.outcome().replaced, true);
        if !was_replaced {
            let gateway = &self.gateway.target;
            tracing::info!(%gateway, link = self.number, "the gateway drains the link; dialling anew");
            self.gateway.replace(self.number);
        }
    }

    fn register(&self, handle: &Handle, table: &Table) {
        let GatewayState { target, on_refused, .. } = &*self.gateway;
        let mut descriptors: Vec<_> = table.descriptors().map(|descriptor| (**descriptor).clone()).collect();
        loop {
            match handle.register(revision(handle), descriptors.clone()) {
                // It ended as soon as it was welcomed. That is no fault of the set, which the next link offers.
                Ok(()) | Err(RegisterError::NotEstablished) => return,
                // Refused, by name, before the gateway could; another link may carry it.
                Err(RegisterError::EndpointTooLarge { id, .. })
                    if !handle.is_streaming() && *on_refused == OnRefused::Warn =>
                {
                    let name = table.by_id(id).map(ToString::to_string);
                    tracing::warn!(gateway = %target, endpoint = name, "refused: it fits no message of the transport");
                    descriptors.retain(|descriptor| descriptor.id != id);
                }
                Err(error) => return self.fail(StartError::Register { gateway: target.clone(), error }, handle),
            }
        }
    }

    /// The gateway's answer to the endpoint set. Said again when a refused endpoint is accepted later.
    fn registered(&self, refused: &[RefusedEndpoint], handle: &Handle, table: &Table) {
        let GatewayState { board, place, target, on_refused, .. } = &*self.gateway;
        let refusals: Vec<String> = refused
            .iter()
            .map(|refusal| match table.by_id(refusal.id) {
                Some(endpoint) => format!("{endpoint}: {}", refusal.reason),
                None => format!("endpoint {}: {}", refusal.id, refusal.reason),
            })
            .collect();
        let started = board.has_started(place.entry);
        // What streams may still come to be carried by a link of another entry.
        let is_final = |refusal: &RefusedEndpoint| {
            let streams = table.by_id(refusal.id).is_some_and(|endpoint| endpoint.descriptor.is_streaming());
            handle.is_streaming() || !streams || board.entries() == 1
        };
        if refused.iter().any(is_final) && *on_refused == OnRefused::Fail && !started {
            return self.fail(StartError::Refused { gateway: target.clone(), refusals }, handle);
        }
        let before = board.look(*place, |standing| standing.refused.clone());
        for refusal in refusals.iter().filter(|refusal| !before.contains(refusal)) {
            tracing::warn!(gateway = %target, "refused: {refusal}");
        }
        if refusals.len() < before.len() {
            tracing::info!(gateway = %target, left = refusals.len(), "endpoints that were refused are accepted now");
        }
        board.registered(*place, refusals);
        self.tell_if_ready(table);
    }

    fn tell_if_ready(&self, table: &Table) {
        if self.gateway.is_ready() {
            let endpoints = table.endpoints.len();
            tracing::info!(gateway = %self.gateway.target, endpoints, "requests can come");
        }
    }

    fn fail(&self, error: StartError, handle: &Handle) {
        handle.close(CloseCode::Normal, error.to_string());
        self.outcome().fatal.get_or_insert(error);
    }
}

/// Tells the gateway of a lease that is not the one which HELLO spoke of, or may not be.
fn announce(lease: &Lease, handle: &Handle) {
    if lease.generation() > 0 {
        handle.announce_lease();
    }
}
