//! Two drivers on one link's two ends: a service and a gateway as small as they can be.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use router_common::frame::{Hello, PROTOCOL_VERSION, ReceiveLimits};
use router_common::identity::{Identity, Incarnation, Instance, Version};
use router_common::session::lease::{Lease, Permit};
use router_common::session::{
    Accepted, Carrier, Closed, Common, GatewaySide, Joining, Secrets, ServiceSide, Session, Timers,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::application::{Application, ConnectionEvent, Refused};
use crate::body::Body;
use crate::call::Call;
use crate::driver::Driver;
use crate::environment::{Environment, SystemEnvironment};
use crate::exchange::Exchange;
use crate::handle::Handle;
use crate::link::BoxLink;
use crate::responder::Responder;

/// Longest a scenario may take, in seconds of tokio's clock.
const PATIENCE: Duration = Duration::from_secs(120);
/// Events that wait for a scenario to look.
const EVENTS: usize = 4096;

/// Longer than any scenario takes.
const RARE: Timers = Timers {
    heartbeat: Duration::from_secs(600),
    degraded_after: Duration::from_secs(1200),
    dead_after: Duration::from_secs(1800),
    handshake: Duration::from_secs(600),
};

/// What the heads of scenarios take at most, in bytes.
const SMALL_HEAD: usize = 600;

/// The two ends of one link: the dialling one is the service's.
#[expect(missing_debug_implementations, reason = "links need not have one")]
pub struct Ends {
    pub service: BoxLink,
    pub gateway: BoxLink,
}

impl Ends {
    /// Whether bodies may be of any length, and there are trailers and tunnels.
    #[must_use]
    pub fn are_streaming(&self) -> bool {
        self.gateway.capabilities().carrier().is_streaming()
    }

    /// As many bytes of a body as are wanted, or fit where a message is one frame, beside a small head.
    #[must_use]
    pub fn most(&self, wanted: usize) -> usize {
        match self.gateway.capabilities().carrier() {
            Carrier::Stream => wanted,
            Carrier::Datagrams { max_frame } => wanted.min((max_frame as usize).saturating_sub(SMALL_HEAD)),
        }
    }
}

/// Runs a scenario under a deadline, so that what hangs fails.
pub async fn within(scenario: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, scenario).await.expect("the scenario ends in time");
}

/// What handles one side's requests.
pub type Handler = Arc<dyn Fn(http::Request<Body>, Responder) + Send + Sync>;

/// A handler that runs each request in a task, and answers with what it returns.
pub fn handler<F, R>(handle: F) -> Handler
where
    F: Fn(http::Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = http::Response<Body>> + Send + 'static,
{
    Arc::new(move |request, responder| {
        let response = handle(request);
        tokio::spawn(async move {
            let cancelled = responder.cancelled();
            tokio::select! {
                biased;
                response = response => { let _ = responder.respond(response).await; }
                () = cancelled => {}
            }
        });
    })
}

/// How a pair is to be.
#[expect(missing_debug_implementations, reason = "handlers are functions")]
pub struct PairSettings {
    /// The service's handler. Default: echoes the request's body, streaming.
    pub service: Handler,
    /// The gateway's handler, for what the service sends. Default: likewise.
    pub gateway: Handler,
    /// The service's lease.
    pub lease: u32,
    /// What the gateway says to a service that joins; `None`: welcome.
    pub refuse: Option<Refused>,
    /// The gateway's timers. Default: so rare that no heartbeat ever hides a wake-up that was missed.
    pub timers: Timers,
}

impl Default for PairSettings {
    fn default() -> Self {
        let echo = handler(|request| async { http::Response::new(request.into_body()) });
        Self { service: Arc::clone(&echo), gateway: echo, lease: 1024, refuse: None, timers: RARE }
    }
}

/// What one side's application was told, in order.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<ConnectionEvent>);

impl Events {
    /// Waits for the next event for which `find` finds something.
    pub async fn until<T>(&mut self, mut find: impl FnMut(ConnectionEvent) -> Option<T>) -> T {
        loop {
            let event = self.0.recv().await.expect("the event comes before the link's end");
            if let Some(found) = find(event) {
                return found;
            }
        }
    }

    /// Waits for the link's end, and for the end of all events after it: exactly one.
    pub async fn closed(&mut self) -> Closed {
        let closed = self
            .until(|event| match event {
                ConnectionEvent::Closed(closed) => Some(closed),
                _ => None,
            })
            .await;
        assert!(self.0.recv().await.is_none(), "Closed is the last event");
        closed
    }
}

/// A service and a gateway that are joined.
#[derive(Debug)]
pub struct Pair {
    pub service: Side,
    pub gateway: Side,
    /// The instance's lease as the gateway sees it.
    pub lease: Arc<Lease>,
    /// The service's own.
    pub own_lease: Arc<Lease>,
}

/// One side of a pair.
pub struct Side {
    pub handle: Handle,
    pub events: Events,
    frozen: Arc<AtomicBool>,
    driver: JoinHandle<Closed>,
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Side({:?})", self.handle)
    }
}

impl Side {
    /// Ends this side as a killed process would end: without a word.
    pub async fn kill(&mut self) {
        self.driver.abort();
        let _ = (&mut self.driver).await;
    }

    /// Stops this side as a hung process would stop: its link stays, and nothing moves.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    pub(super) fn start(
        link: BoxLink,
        session: Session,
        player: Player,
        events: mpsc::Receiver<ConnectionEvent>,
    ) -> Self {
        let frozen = Arc::new(AtomicBool::new(false));
        let (driver, handle) = Driver::new(link, session, player, Arc::new(SystemEnvironment));
        let driver = tokio::spawn(Freezing { driver, frozen: Arc::clone(&frozen) });
        Self { handle, events: Events(events), frozen, driver }
    }
}

impl Pair {
    /// Joins two ends, and waits until the gateway may route to the service.
    pub async fn start(ends: Ends, settings: PairSettings) -> Self {
        let mut pair = Self::start_unjoined(ends, settings);
        pair.gateway.events.until(|event| matches!(event, ConnectionEvent::Routable).then_some(())).await;
        pair
    }

    /// Joins two ends, and waits for nothing.
    #[must_use]
    pub fn start_unjoined(ends: Ends, settings: PairSettings) -> Self {
        let Ends { service, gateway } = ends;
        let own_lease = Lease::new(settings.lease);
        let lease = Lease::new(settings.lease);
        let service = {
            let (player, events) = Player::new(settings.service, None);
            let session = service_session(&service, &own_lease);
            Side::start(service, session, player, events)
        };
        let gateway = {
            let admit = Admit { lease: Arc::clone(&lease), refuse: settings.refuse };
            let (player, events) = Player::new(settings.gateway, Some(admit));
            let session = gateway_session(&gateway, settings.timers);
            Side::start(gateway, session, player, events)
        };
        Self { service, gateway, lease, own_lease }
    }

    /// A slot of the lease.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn permit(&self) -> Permit {
        self.lease.try_acquire().expect("a free slot")
    }

    /// Sends a request from the gateway to the service.
    pub fn call(&self, request: http::Request<Body>) -> Exchange {
        self.gateway.handle.call(request, Call { permit: Some(self.permit()), ..Call::default() })
    }

    /// The same with a request that is wanted back.
    pub fn lend<'a>(&self, request: &'a mut http::Request<Body>) -> Exchange<&'a mut http::Request<Body>> {
        self.gateway.handle.call(request, Call { permit: Some(self.permit()), ..Call::default() })
    }

    /// Waits until nothing is in flight on either side, and all leases are free.
    pub async fn quiet(&self) {
        let busy = || {
            let streams = [&self.service, &self.gateway].map(|side| side.handle.streams());
            streams != [(0, 0); 2] || self.lease.in_flight() > 0 || self.own_lease.in_flight() > 0
        };
        while busy() {
            tokio::task::yield_now().await;
        }
    }
}

/// A service's session as small as it can be.
pub(super) fn service_session(link: &BoxLink, lease: &Arc<Lease>) -> Session {
    let environment = SystemEnvironment;
    let mut nonce = [0; 32];
    environment.random(&mut nonce);
    let hello = Hello {
        versions: vec![PROTOCOL_VERSION],
        extensions: Vec::new(),
        instance: Instance {
            service: "contract".parse().expect("a name"),
            version: Version::new(1, 0, 0),
            region: "local".parse().expect("a name"),
            id: "one".parse().expect("an id"),
        },
        incarnation: Incarnation([1; 16]),
        link: 0,
        links: 1,
        preference: 0,
        key_id: None,
        token: None,
        nonce,
        limits: ReceiveLimits::default(),
        lease: lease.limit(),
    };
    let common = Common { carrier: link.capabilities().carrier(), ..Common::default() };
    let side = ServiceSide { common, hello, secret: None, lease: Arc::clone(lease) };
    Session::service(side, environment.now())
}

/// A gateway's session as small as it can be.
pub(super) fn gateway_session(link: &BoxLink, timers: Timers) -> Session {
    let environment = SystemEnvironment;
    let mut nonce = [0; 32];
    environment.random(&mut nonce);
    let side = GatewaySide {
        common: Common { carrier: link.capabilities().carrier(), timers, ..Common::default() },
        node: "gateway".parse().expect("a name"),
        secrets: Secrets::none(),
        nonce,
        identity: Identity::Anonymous,
    };
    Session::gateway(side, environment.now())
}

pub(super) struct Admit {
    pub(super) lease: Arc<Lease>,
    pub(super) refuse: Option<Refused>,
}

/// An application that hands requests to a function and keeps a log of all else.
pub(super) struct Player {
    handler: Handler,
    events: mpsc::Sender<ConnectionEvent>,
    admit: Option<Admit>,
}

impl Player {
    pub(super) fn new(handler: Handler, admit: Option<Admit>) -> (Self, mpsc::Receiver<ConnectionEvent>) {
        let (events, log) = mpsc::channel(EVENTS);
        (Self { handler, events, admit }, log)
    }
}

impl Application for Player {
    fn join(&mut self, _: Joining, _: &Handle) -> Result<Accepted, Refused> {
        let admit = self.admit.as_mut().expect("only a gateway is joined");
        match admit.refuse.take() {
            Some(refused) => Err(refused),
            None => Ok(Accepted { lease: Arc::clone(&admit.lease), revision: 0, links: 1 }),
        }
    }

    fn event(&mut self, event: ConnectionEvent, _: &Handle) {
        // Scenarios that do not look at all events are shorter than the log.
        let _ = self.events.try_send(event);
    }

    fn request(&mut self, request: http::Request<Body>, responder: Responder) {
        (self.handler)(request, responder);
    }
}

/// A driver that can be made to hang.
struct Freezing {
    driver: Driver,
    frozen: Arc<AtomicBool>,
}

impl Future for Freezing {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        if self.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.driver).poll(cx)
    }
}
