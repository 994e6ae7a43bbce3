//! A gateway that knows one service and does as a test says. It routes nothing: a test names the endpoint by its path.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use microservice_sdk::Body;
use microservice_sdk::http::{Method, Request, Response};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{CloseCode, HealthStatus, Hello, RefusedEndpoint};
use router_common::identity::{Identity, Incarnation};
use router_common::path::RequestPath;
use router_common::session::lease::Lease;
use router_common::session::{Accepted, Common, GatewaySide, Joining, Secrets, Session};
use router_link::{
    Application, BodyError, BoxListener, Call, CallError, ConnectionEvent, Connector, Driver, Environment, Handle,
    Parameters, Refused, RequestContext, Responder, SystemEnvironment,
};
use tokio::sync::watch;
use transport_in_memory::InMemory;

#[derive(Clone)]
pub(crate) struct FakeGateway {
    connector: Arc<dyn Connector>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Its own: all are called `fake`.
    incarnation: Incarnation,
    state: Mutex<State>,
    /// Bumped whenever the state changes.
    changes: watch::Sender<u64>,
    clock: Arc<Clock>,
}

/// The gateway's time, which can be made to stand still.
#[derive(Default)]
struct Clock(Mutex<Option<Instant>>);

impl Environment for Clock {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().unwrap_or_else(|| SystemEnvironment.now())
    }

    fn random(&self, bytes: &mut [u8]) {
        SystemEnvironment.random(bytes);
    }
}

#[derive(Default)]
struct State {
    hellos: Vec<Hello>,
    /// One for each time that the instance came: its links share it.
    leases: Vec<Arc<Lease>>,
    /// Links that have joined and not ended.
    joined: usize,
    /// The preferences of the links over which the service has called others.
    called_by: Vec<u8>,
    endpoints: Vec<EndpointDescriptor>,
    refused: HashMap<String, String>,
    routable: Vec<Routable>,
    opened: usize,
    draining: bool,
    health: Option<HealthStatus>,
    /// What WELCOME says; 0 and 1 are the same.
    wanted: u16,
    /// Links that are to end as soon as they are welcomed.
    hang_ups: usize,
}

#[derive(Clone)]
struct Routable {
    preference: u8,
    number: u16,
    link: Handle,
}

impl FakeGateway {
    pub(crate) fn start() -> Self {
        let (connector, listener) = InMemory::new();
        let (changes, clock) = (watch::Sender::new(0), Arc::default());
        let mut incarnation = [0; 16];
        SystemEnvironment.random(&mut incarnation);
        let incarnation = Incarnation(incarnation);
        let shared = Arc::new(Shared { incarnation, state: Mutex::default(), changes, clock });
        tokio::spawn(accept(Box::new(listener), Arc::clone(&shared)));
        Self { connector: Arc::new(connector), shared }
    }

    pub(crate) fn connector(&self) -> Arc<dyn Connector> {
        Arc::clone(&self.connector)
    }

    /// Refuses the endpoint of a path when it is offered.
    pub(crate) fn refuse(&self, path: &str, reason: &str) {
        self.shared.change(|state| state.refused.insert(path.to_owned(), reason.to_owned()));
    }

    /// Ends the next link right after its WELCOME.
    pub(crate) fn hang_up_once(&self) {
        self.shared.change(|state| state.hang_ups = 1);
    }

    /// Says in WELCOME that it can make use of so many links.
    pub(crate) fn want_links(&self, wanted: u16) {
        self.shared.change(|state| state.wanted = wanted);
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        let mut hellos = self.shared.lock().hellos.clone();
        hellos.sort_by_key(|hello| hello.link);
        hellos
    }

    pub(crate) fn endpoint(&self, path: &str) -> EndpointDescriptor {
        let state = self.shared.lock();
        state.endpoints.iter().find(|endpoint| endpoint.path.as_str() == path).unwrap().clone()
    }

    /// The newest link over which requests can go.
    pub(crate) async fn link(&self) -> Handle {
        self.shared.wait(|state| state.routable.last().map(|routable| routable.link.clone())).await
    }

    /// A link over which requests can go, on the way of this preference.
    pub(crate) async fn link_on(&self, preference: u8) -> Handle {
        let on_way = |routable: &&Routable| routable.preference == preference;
        self.shared.wait(|state| state.routable.iter().find(on_way).map(|routable| routable.link.clone())).await
    }

    /// Waits until the instance has no link.
    pub(crate) async fn deserted(&self) {
        self.shared.wait(|state| (state.joined == 0).then_some(())).await;
    }

    /// Waits until so many requests may be in flight on the instance.
    pub(crate) async fn lease(&self, limit: u32) {
        let is_limit = |lease: &Arc<Lease>| lease.limit() == limit;
        self.shared.wait(|state| state.leases.last().is_some_and(is_limit).then_some(())).await;
    }

    /// The preferences of the links over which the service has called others, since this was asked last.
    pub(crate) fn called_by(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.lock().called_by)
    }

    /// No deadline passes for this side any more.
    pub(crate) fn stop_clock(&self) {
        *self.shared.clock.0.lock().unwrap() = Some(SystemEnvironment.now());
    }

    /// Ends the link of this number, which is routable.
    pub(crate) fn close_link(&self, number: u16) {
        let links = self.shared.lock().routable.clone();
        let of_number = links.iter().find(|routable| routable.number == number);
        of_number.unwrap().link.close(CloseCode::Shutdown, "a test says so");
    }

    /// Waits until as many links have become routable, lost ones included.
    pub(crate) async fn links(&self, count: usize) {
        self.shared.wait(|state| (state.opened >= count).then_some(())).await;
    }

    pub(crate) async fn peer_draining(&self) {
        self.shared.wait(|state| state.draining.then_some(())).await;
    }

    pub(crate) async fn health(&self, wanted: HealthStatus) {
        self.shared.wait(|state| (state.health == Some(wanted)).then_some(())).await;
    }

    /// Waits until no slot of any lease is taken.
    pub(crate) async fn idle(&self) {
        self.shared.wait(|state| state.leases.iter().all(|lease| lease.in_flight() == 0).then_some(())).await;
    }

    pub(crate) async fn get(&self, target: &str) -> Result<Response<Body>, CallError> {
        self.request("GET", target, Body::empty(), None).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        body: Body,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>, CallError> {
        let method: Method = method.parse().unwrap();
        let path = RequestPath::parse(target).unwrap();
        let fits = |endpoint: &EndpointDescriptor| {
            let parameters = (endpoint.method == method).then(|| endpoint.path.matches(&path))??;
            Some((endpoint.id, Parameters::new(parameters.as_slice())))
        };
        // A link may be routable before the endpoints have come over it.
        let (id, parameters) = self.shared.wait(|state| state.endpoints.iter().find_map(fits)).await;
        let deadline = timeout.map(|timeout| SystemEnvironment.now() + timeout);
        let request =
            Request::builder().method(method).uri(target).header("traceparent", "00-trace").body(body).unwrap();
        self.send(request, Call { endpoint: Some(id), parameters, deadline, ..Call::default() }).await
    }

    pub(crate) async fn call_id(&self, id: u32, target: &str) -> Result<Response<Body>, CallError> {
        let request = Request::get(target).body(Body::empty()).unwrap();
        self.send(request, Call { endpoint: EndpointId::new(id), ..Call::default() }).await
    }

    async fn send(&self, request: Request<Body>, mut call: Call) -> Result<Response<Body>, CallError> {
        let link = self.link().await;
        call.permit = self.shared.lock().leases.last().and_then(Lease::try_acquire);
        link.call(request, call).await
    }
}

/// The whole body, or how it was cut short.
pub(crate) async fn text(response: Response<Body>) -> Result<String, BodyError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A lease whose changes are heard of.
    fn lease(self: &Arc<Self>, limit: u32) -> Arc<Lease> {
        let lease = Lease::new(limit);
        let shared = Arc::downgrade(self);
        lease.on_freed(move || {
            if let Some(shared) = shared.upgrade() {
                shared.changes.send_modify(|version| *version += 1);
            }
        });
        lease
    }

    fn hangs_up(&self) -> bool {
        let mut state = self.lock();
        let hangs_up = state.hang_ups > 0;
        state.hang_ups = state.hang_ups.saturating_sub(1);
        hangs_up
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changes.send_modify(|version| *version += 1);
        result
    }

    async fn wait<R>(&self, look: impl Fn(&State) -> Option<R>) -> R {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }
}

async fn accept(mut listener: BoxListener, shared: Arc<Shared>) {
    let environment = Arc::clone(&shared.clock);
    while let Ok(link) = listener.accept().await {
        let side = GatewaySide {
            common: Common { incarnation: Some(shared.incarnation), ..Common::default() },
            node: "fake".parse().unwrap(),
            secrets: Secrets::none(),
            nonce: [7; 32],
            identity: Identity::InProcess,
        };
        let session = Session::gateway(side, environment.now());
        let desk = Desk { shared: Arc::clone(&shared), number: 0, preference: 0 };
        let (mut driver, handle) = Driver::new(link, session, desk, environment.clone());
        let shared = Arc::clone(&shared);
        tokio::spawn(poll_fn(move |cx| {
            let polled = Pin::new(&mut driver).poll(cx);
            // WELCOME has left, and the service has not looked yet.
            if polled.is_pending() && handle.is_open() && shared.hangs_up() {
                handle.close(CloseCode::Shutdown, "that was all");
                return Pin::new(&mut driver).poll(cx);
            }
            polled
        }));
    }
}

struct Desk {
    shared: Arc<Shared>,
    /// The link's, as HELLO says it.
    number: u16,
    preference: u8,
}

impl Application for Desk {
    fn join(&mut self, joining: Joining, _: &Handle) -> Result<Accepted, Refused> {
        (self.number, self.preference) = (joining.hello.link, joining.hello.preference);
        let lease = self.shared.change(|state| {
            if state.joined == 0 {
                state.leases.push(self.shared.lease(joining.hello.lease));
            }
            state.joined += 1;
            state.hellos.push(joining.hello);
            state.leases.last().unwrap().clone()
        });
        Ok(Accepted { lease, revision: 0, links: self.shared.lock().wanted })
    }

    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        match event {
            ConnectionEvent::Endpoints { revision, endpoints } => {
                let refused = self.shared.change(|state| {
                    state.endpoints = endpoints;
                    let refuse = |endpoint: &EndpointDescriptor| {
                        let reason = state.refused.get(endpoint.path.as_str())?.clone();
                        Some(RefusedEndpoint { id: endpoint.id, reason })
                    };
                    state.endpoints.iter().filter_map(refuse).collect()
                });
                handle.endpoints_result(revision, refused);
            }
            ConnectionEvent::Routable => self.shared.change(|state| {
                state.opened += 1;
                let (preference, number) = (self.preference, self.number);
                state.routable.push(Routable { preference, number, link: handle.clone() });
            }),
            ConnectionEvent::PeerDraining => self.shared.change(|state| state.draining = true),
            ConnectionEvent::Heartbeat { status, .. } => self.shared.change(|state| state.health = Some(status)),
            ConnectionEvent::Closed(_) => self.shared.change(|state| {
                state.joined -= 1;
                state.routable.retain(|routable| !routable.link.is_same(handle));
            }),
            _ => {}
        }
    }

    /// What the service calls: answered with what arrived.
    fn request(&mut self, request: Request<Body>, responder: Responder) {
        self.shared.lock().called_by.push(self.preference);
        let context = request.extensions().get::<RequestContext>().unwrap();
        let left = context.deadline.map(|at| at.saturating_duration_since(SystemEnvironment.now()).as_secs());
        let trace = request.headers().get("traceparent");
        let answer = format!("{} {} within {left:?}, trace {trace:?}", request.method(), request.uri());
        tokio::spawn(responder.respond(Response::new(answer.into())));
    }
}
