//! A service of the test's own behind a real gateway: a session over the in-memory transport, and a function that
//! answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::memory::{Clients, network};
use http::{Request, Response};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{HealthStatus, Hello, PROTOCOL_VERSION, ReceiveLimits};
use router_common::identity::{Incarnation, Instance};
use router_common::session::lease::Lease;
use router_common::session::{Common, ServiceSide, Session};
use router_config::RouterConfig;
use router_gateway::Gateway;
use router_gateway::registry::views::InstanceView;
use router_link::{
    Application, Body, ConnectionEvent, Connector as _, Driver, Environment as _, Handle, Responder, SystemEnvironment,
};
use tokio::task::JoinHandle;

type Answer = Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>;

/// Answers as it likes, or not at all.
pub(crate) type Answers = Arc<dyn Fn(Request<Body>, Responder) + Send + Sync>;

/// Makes a handler of an async function; `None` is a handler that fails.
pub(crate) fn handler<F, A>(function: F) -> Handler
where
    F: Fn(Request<Body>) -> A + Send + Sync + 'static,
    A: Future<Output = Option<Response<Body>>> + Send + 'static,
{
    Arc::new(move |request| Box::pin(function(request)))
}

/// A gateway on ports of its own, within the test's runtime.
pub(crate) async fn gateway(change: impl FnOnce(&mut RouterConfig<()>)) -> Gateway {
    gateway_on(&[], change).await
}

/// The same, on other runtimes.
pub(crate) async fn gateway_on(
    workers: &[tokio::runtime::Handle],
    change: impl FnOnce(&mut RouterConfig<()>),
) -> Gateway {
    let mut config = RouterConfig::<()>::default();
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    change(&mut config);
    Gateway::builder(&config).workers(workers).start().await.unwrap()
}

/// A gateway whose clients need no network, and that has no admin listener: with paused time, nothing but the test's
/// own steps moves the clock.
pub(crate) async fn gateway_in_memory(change: impl FnOnce(&mut RouterConfig<()>)) -> (Gateway, Clients) {
    let mut config = RouterConfig::<()>::default();
    change(&mut config);
    let (listener, clients) = network();
    (Gateway::builder(&config).http_listener(listener).without_admin().start().await.unwrap(), clients)
}

/// A running stub; it leaves without a word when dropped.
pub(crate) struct Stub {
    pub(crate) handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) id: &'static str,
    pub(crate) lease: u32,
    /// Which of the instance's links; join them in order.
    pub(crate) link: u16,
    pub(crate) endpoints: Vec<EndpointDescriptor>,
}

impl Plan {
    pub(crate) fn new(endpoints: &[(&str, &str)]) -> Self {
        let endpoints = endpoints
            .iter()
            .zip(1..)
            .map(|((method, path), id)| {
                EndpointDescriptor::new(EndpointId::new(id).unwrap(), method.parse().unwrap(), path.parse().unwrap())
            })
            .collect();
        Self { name: "stub", version: "1.0.0", id: "a", lease: 64, link: 0, endpoints }
    }

    /// Joins, and returns when the gateway routes to it.
    pub(crate) async fn join(self, gateway: &Gateway, handler: Handler) -> Stub {
        let answers = move |request, responder: Responder| {
            let answer = handler(request);
            tokio::spawn(async move {
                tokio::select! {
                    () = responder.cancelled() => {}
                    response = answer => if let Some(response) = response {
                        let _ = responder.respond(response).await;
                    },
                }
            });
        };
        self.join_as(gateway, Arc::new(answers)).await
    }

    /// The same, for what is no ordinary answer.
    pub(crate) async fn join_as(self, gateway: &Gateway, answers: Answers) -> Stub {
        let environment = Arc::new(SystemEnvironment);
        let hello = Hello {
            versions: vec![PROTOCOL_VERSION],
            extensions: Vec::new(),
            instance: Instance {
                service: self.name.parse().unwrap(),
                version: self.version.parse().unwrap(),
                region: "local".parse().unwrap(),
                id: self.id.parse().unwrap(),
            },
            incarnation: Incarnation([self.id.as_bytes()[0]; 16]),
            link: self.link,
            links: self.link + 1,
            preference: 0,
            key_id: None,
            token: None,
            nonce: [7; 32],
            limits: ReceiveLimits::default(),
            lease: self.lease,
        };
        let side = ServiceSide { common: Common::default(), hello, secret: None, lease: Lease::new(self.lease) };
        let session = Session::service(side, environment.now());
        let link = gateway.in_memory().connect().await.unwrap();
        let application = Service { answers, endpoints: self.endpoints };
        let (driver, handle) = Driver::new(link, session, application, environment.clone());
        let driver = tokio::spawn(async move {
            driver.await;
        });
        loop {
            let views = gateway.registry().instances(environment.now());
            let is_here = |view: &InstanceView| view.routable && view.endpoints > 0 && view.id == self.id;
            if views.iter().any(|view| is_here(view) && view.links > usize::from(self.link)) {
                return Stub { handle, driver };
            }
            tokio::task::yield_now().await;
        }
    }
}

struct Service {
    answers: Answers,
    endpoints: Vec<EndpointDescriptor>,
}

impl Application for Service {
    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        if let ConnectionEvent::Welcomed(_) = event {
            handle.set_health(HealthStatus::Healthy, 0);
            handle.register(1, std::mem::take(&mut self.endpoints)).unwrap();
        }
    }

    fn request(&mut self, request: Request<Body>, responder: Responder) {
        (self.answers)(request, responder);
    }
}
