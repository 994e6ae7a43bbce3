//! The gateway's side of the links: accepts them, bounds those that have not proved themselves, places them on workers,
//! and lets the registry and the dispatch have what they bring (SPEC 4, abuse).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::Request;
use router_common::frame::CloseCode;
use router_common::identity::{Identity, Instance, NodeId};
use router_common::limits;
use router_common::session::{Accepted, Closed, ClosedBy, Common, GatewaySide, Joining, Session};
use router_link::{Application, Body, BoxLink, ConnectionEvent, Driver, Environment, Handle, Refused, Responder};
use tokio_util::task::TaskTracker;

use crate::dispatch::{Dispatch, WaitingLine};
use crate::edge::{Keeper, Stop};
use crate::registry::Registry;
use crate::respond::{self, X_REQUEST_ID};
use crate::routing::instance::LinkId;
use crate::settings::ServiceListener;
use crate::telemetry::Metrics;

/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One worker, as links see it.
#[derive(Debug, Clone)]
pub(crate) struct LinkWorker {
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) dispatch: Dispatch,
}

/// What all links of a node share.
pub(crate) struct Links {
    pub(crate) node: NodeId,
    pub(crate) common: Common,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) registry: Arc<Registry<Handle>>,
    pub(crate) line: Arc<WaitingLine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) workers: Vec<LinkWorker>,
    pub(crate) tasks: TaskTracker,
    /// Cuts everything: the grace is over.
    pub(crate) cut: Stop,
    pub(crate) unwelcomed: Mutex<Unwelcomed>,
}

/// Links that are accepted and not yet welcomed, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unwelcomed {
    next: u64,
    links: VecDeque<(u64, Option<IpAddr>, Handle)>,
}

impl Unwelcomed {
    /// Takes one more in; returns those that must go for it.
    fn push(&mut self, address: Option<IpAddr>, handle: Handle) -> (u64, Vec<Handle>) {
        let number = self.next;
        self.next += 1;
        self.links.push_back((number, address, handle));
        let mut gone = Vec::new();
        if address.is_some() {
            let of_address = self.links.iter().filter(|(_, other, _)| *other == address).count();
            if of_address > limits::UNWELCOMED_PER_ADDRESS
                && let Some(oldest) = self.links.iter().position(|(_, other, _)| *other == address)
            {
                gone.extend(self.links.remove(oldest));
            }
        }
        if self.links.len() > limits::UNWELCOMED {
            gone.extend(self.links.pop_front());
        }
        (number, gone.into_iter().map(|(_, _, handle)| handle).collect())
    }

    fn remove(&mut self, number: u64) {
        self.links.retain(|(other, _, _)| *other != number);
    }
}

impl Links {
    /// Accepts links until the gate is closed for good.
    pub(crate) async fn accept(self: Arc<Self>, mut from: ServiceListener, mut gate: Keeper) {
        let mut count = 0_usize;
        loop {
            if gate.is_held() {
                from.listener.release();
            }
            if !gate.opens().await {
                return;
            }
            let accepted = tokio::select! {
                biased;
                () = gate.changes() => continue,
                accepted = from.listener.accept() => accepted,
            };
            match accepted {
                Ok(link) => {
                    let worker = count % self.workers.len().max(1);
                    count = count.wrapping_add(1);
                    self.place(link, &from, worker);
                }
                Err(router_link::LinkError::Closed) => return,
                Err(error @ router_link::LinkError::Handshake { .. }) => {
                    // Others wait for nothing because of this one.
                    tracing::warn!(%error, listener = from.listener.local(), "a link was not let in");
                    self.metrics.link_refused("handshake");
                }
                Err(error) => {
                    tracing::warn!(%error, listener = from.listener.local(), "cannot accept a service's link");
                    tokio::select! {
                        biased;
                        () = gate.changes() => {}
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Gives a link to a worker, which drives it from its first frame on, until it is known whose it is.
    fn place(self: &Arc<Self>, link: BoxLink, from: &ServiceListener, number: usize) {
        let Some(worker) = self.workers.get(number) else { return };
        // The listener's runtime is not the worker's, not even of an only worker: a link that stayed with it would wake
        // two threads for what one reads.
        let link = match attached(link, &worker.runtime) {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%error, "a link could not be moved to its worker");
                return;
            }
        };
        let peer = link.peer();
        let nonce = peer.handshake_nonce.unwrap_or_else(|| {
            let mut nonce = [0; 32];
            self.environment.random(&mut nonce);
            nonce
        });
        let mut common = self.common.clone();
        common.carrier = link.capabilities().carrier();
        common.channel_binding = peer.channel_binding.clone().unwrap_or_default();
        let side = GatewaySide {
            common,
            node: self.node.clone(),
            secrets: from.secrets.clone(),
            nonce,
            identity: peer.identity.clone().unwrap_or(Identity::Anonymous),
        };
        let address = peer.socket.map(|socket| socket.ip());
        // The time that its carrier took to be made counts.
        let accepted = peer.accepted.unwrap_or_else(|| self.environment.now());
        let session = Session::gateway(side, accepted);
        let pending = Arc::new(Mutex::new(None));
        let destination = Destination::default();
        let application = GatewayLink {
            links: Arc::clone(self),
            worker: number,
            dispatch: worker.dispatch.clone(),
            joined: None,
            pending: Some(Arc::clone(&pending)),
            destination: Arc::clone(&destination),
        };
        let (driver, handle) = Driver::new(link, session, application, Arc::clone(&self.environment));
        let (entry, gone) = self.unwelcomed().push(address, handle);
        *pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry);
        for handle in gone {
            handle.close(CloseCode::Overload, "too many links that have not said who they are");
        }
        let links = Arc::clone(self);
        let driving = async move {
            let mut driver = driver;
            match links.cut.unless_requested(until_placed(&mut driver, &destination)).await {
                Some(Ok(place)) if place != number => links.take_over(driver, place),
                Some(Ok(_)) => links.drive(&mut driver).await,
                Some(Err(closed)) => tell(&closed),
                None => {}
            }
        };
        self.tasks.spawn_on(driving, &worker.runtime);
    }

    /// Moves a driver to the worker that its link was placed on. What the peer has sent, and what is to be sent, moves
    /// with it, and the session's deadlines are its own.
    fn take_over(self: Arc<Self>, driver: Driver, number: usize) {
        let Some(worker) = self.workers.get(number) else { return };
        let runtime = worker.runtime.clone();
        let detached = driver.detach();
        let links = Arc::clone(&self);
        let driving = async move {
            match detached.attach() {
                Ok(mut driver) => links.drive(&mut driver).await,
                Err(error) => tracing::warn!(%error, "a link could not be moved to its worker"),
            }
        };
        // The tracker has this task before the present one ends: at no time is the link nobody's.
        self.tasks.spawn_on(driving, &runtime);
    }

    async fn drive(&self, driver: &mut Driver) {
        if let Some(closed) = self.cut.unless_requested(driver).await {
            tell(&closed);
        }
    }

    fn unwelcomed(&self) -> std::sync::MutexGuard<'_, Unwelcomed> {
        self.unwelcomed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a link one of this runtime.
fn attached(link: BoxLink, runtime: &tokio::runtime::Handle) -> io::Result<BoxLink> {
    let detached = link.detach();
    let _entered = runtime.enter();
    detached.attach()
}

fn tell(closed: &Closed) {
    tracing::debug!(code = %closed.code, text = closed.text, "link closed");
}

/// Where a link belongs, once it is known.
type Destination = Arc<OnceLock<usize>>;

/// Drives a link until it has joined, and says which worker it belongs to.
///
/// # Errors
/// The link is over.
async fn until_placed(driver: &mut Driver, destination: &OnceLock<usize>) -> Result<usize, Closed> {
    poll_fn(|cx| match (Pin::new(&mut *driver).poll(cx), destination.get()) {
        (Poll::Ready(closed), _) => Poll::Ready(Err(closed)),
        (Poll::Pending, Some(&worker)) => Poll::Ready(Ok(worker)),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// The number under which a link waits for its welcome; set right after its driver was made, before it is polled.
type Pending = Arc<Mutex<Option<u64>>>;

/// One link's application: what it brings goes to registry and dispatch.
struct GatewayLink {
    links: Arc<Links>,
    worker: usize,
    dispatch: Dispatch,
    joined: Option<LinkId>,
    pending: Option<Pending>,
    /// Set when it joins; whoever drives it looks there.
    destination: Destination,
}

impl GatewayLink {
    fn no_longer_pending(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        if let Some(entry) = pending.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.links.unwelcomed().remove(entry);
        }
    }
}

impl Application for GatewayLink {
    fn join(&mut self, joining: Joining, handle: &Handle) -> Result<Accepted, Refused> {
        let joined = self.links.registry.join(&joining, handle, self.worker, self.links.environment.now())?;
        self.no_longer_pending();
        self.joined = Some(joined.link);
        if joined.worker != self.worker
            && let Some(worker) = self.links.workers.get(joined.worker)
        {
            self.worker = joined.worker;
            self.dispatch = worker.dispatch.clone();
        }
        // A link joins once.
        let _ = self.destination.set(self.worker);
        let line = Arc::clone(&self.links.line);
        let Instance { service, version, .. } = joining.hello.instance;
        joined.accepted.lease.on_freed(move || line.freed(&service, &version));
        Ok(joined.accepted)
    }

    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        if let ConnectionEvent::Closed(closed) = &event {
            self.no_longer_pending();
            if self.joined.is_none() && !self.links.cut.is_requested() {
                // Refusals are logged, counted, visible (SPEC 8).
                // Bytes that are no frames, or an end without a word, have no code of the protocol.
                let code = if closed.by == ClosedBy::Link { "link" } else { closed.code.as_str() };
                tracing::warn!(peer = %handle.peer(), code, reason = closed.text, "a link was not let in");
                self.links.metrics.link_refused(code);
            }
        }
        if let Some(link) = self.joined {
            let told = matches!(event, ConnectionEvent::Heartbeat { .. } | ConnectionEvent::Silence(_));
            self.links.registry.event(link, event, self.links.environment.now());
            if told {
                // An instance that is well again may serve who waits for another one.
                self.links.line.changed();
            }
        }
    }

    fn request(&mut self, mut request: Request<Body>, responder: Responder) {
        let dispatch = self.dispatch.clone();
        let cut = self.links.cut.clone();
        let Some(worker) = self.links.workers.get(self.worker) else { return };
        self.links.tasks.spawn_on(
            async move {
                let id = request.headers().get(X_REQUEST_ID).cloned();
                let answer = async {
                    let mut response = dispatch.run(&mut request).await;
                    respond::render(&mut response, id.as_ref());
                    response
                };
                let response = tokio::select! {
                    biased;
                    () = responder.cancelled() => return,
                    () = cut.requested() => return,
                    response = answer => response,
                };
                if let Err(error) = responder.respond(response).await {
                    tracing::debug!(%error, "the answer to a service's request was not delivered");
                }
            },
            &worker.runtime,
        );
    }
}
