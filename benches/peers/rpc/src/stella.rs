//! Stella Router's link: the gateway's end calls, the service's end answers.
//!
//! There is no gateway here, only what a gateway and a service do with their link: a session, its driver, and a handle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use microservice_sdk::{Microservice, endpoint, endpoints};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{Hello, PROTOCOL_VERSION, ReceiveLimits};
use router_common::identity::{Identity, Incarnation, Instance, KeyId, Version};
use router_common::session::lease::Lease;
use router_common::session::{Accepted, Common, GatewaySide, Joining, Secret, Secrets, ServiceSide, Session};
use router_link::{
    Application, Body, BoxListener, Call, ConnectionEvent, Connector, Driver, Environment as _, Handle, Refused,
    Responder, SystemEnvironment,
};
use tokio::sync::mpsc;

use crate::load::Load;

/// The far end of a link without the SDK: each request is answered where it arrives.
pub(crate) async fn answer(load: Load, connector: Arc<dyn Connector>, secret: Option<Secret>) -> Result<()> {
    let link = connector.connect().await?;
    let mut limits = ReceiveLimits::default();
    limits.max_frame = limits.max_frame.min(link.capabilities().max_frame);
    let lease = Lease::new(room(load));
    let hello = Hello {
        versions: vec![PROTOCOL_VERSION],
        extensions: Vec::new(),
        instance: Instance {
            service: "bench".parse()?,
            version: Version::new(1, 0, 0),
            region: "local".parse()?,
            id: "one".parse()?,
        },
        incarnation: Incarnation([1; 16]),
        link: 0,
        links: 1,
        preference: 0,
        key_id: secret.is_some().then(KeyId::sole),
        token: None,
        nonce: [1; 32],
        limits,
        lease: room(load),
    };
    let common = Common { limits, carrier: link.capabilities().carrier(), ..Common::default() };
    let side = ServiceSide { common, hello, secret, lease };
    let environment = Arc::new(SystemEnvironment);
    let session = Session::service(side, environment.now());
    let (driver, _service) = Driver::new(link, session, Echo, environment);
    let closed = driver.await;
    bail!("the link ended: {}", closed.text)
}

/// The same with a service of the SDK.
pub(crate) async fn answer_by_sdk(load: Load, connector: Arc<dyn Connector>) -> Result<()> {
    let service = Microservice::new("bench", "1.0.0")
        .endpoints(endpoints![echo])
        .lease(room(load))
        .connector(connector);
    service.start()?.ended().await?;
    Ok(())
}

#[endpoint(POST, "/echo")]
async fn echo(body: Bytes) -> Bytes {
    body
}

/// More than is ever in flight, so that no lease binds.
const fn room(load: Load) -> u32 {
    load.in_flight * 2 + 64
}

/// The near end, a gateway's: it waits until the service is there.
pub(crate) async fn ask(load: Load, listener: BoxListener, secret: Option<Secret>) -> Result<()> {
    let mut joined = accept(listener, secret.map_or_else(Secrets::none, Secrets::sole));
    let Joined { handle, lease, endpoint } = joined.recv().await.context("nobody joined")?;
    load.drive(move |payload| {
        let (handle, lease) = (handle.clone(), Arc::clone(&lease));
        async move {
            let request = Request::post("/echo").body(Body::from(payload))?;
            let permit = Some(lease.try_acquire().context("no slot is free")?);
            let call = Call { endpoint: Some(endpoint), permit, ..Call::default() };
            let response = handle.call(request, call).await.map_err(|error| anyhow!("{error}"))?;
            Ok(response.into_body().collect().await?.to_bytes().len())
        }
    })
    .await
}

/// Answers in place, as the SDK does with a handler that need not wait.
struct Echo;

impl Application for Echo {
    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        if let ConnectionEvent::Welcomed(_) = event {
            let path = "/echo".parse().expect("a template");
            let id = EndpointId::new(1).expect("not 0");
            handle.register(1, vec![EndpointDescriptor::new(id, Method::POST, path)]).expect("one endpoint");
        }
    }

    fn request(&mut self, request: Request<Body>, responder: Responder) {
        let mut answer = responder.respond(Response::new(request.into_body()));
        if Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(answer);
        }
    }
}

/// The one service, when requests can go to it.
struct Joined {
    handle: Handle,
    lease: Arc<Lease>,
    endpoint: EndpointId,
}

/// Accepts the service, and says when requests can go to it.
fn accept(mut listener: BoxListener, secrets: Secrets) -> mpsc::Receiver<Joined> {
    let (joins, joined) = mpsc::channel(1);
    tokio::spawn(async move {
        let environment = Arc::new(SystemEnvironment);
        while let Ok(link) = listener.accept().await {
            let mut limits = ReceiveLimits::default();
            limits.max_frame = limits.max_frame.min(link.capabilities().max_frame);
            let side = GatewaySide {
                common: Common { limits, carrier: link.capabilities().carrier(), ..Common::default() },
                node: "bench".parse().expect("a name"),
                secrets: secrets.clone(),
                nonce: link.peer().handshake_nonce.unwrap_or([7; 32]),
                identity: Identity::Anonymous,
            };
            let session = Session::gateway(side, environment.now());
            let desk = Desk { joins: joins.clone(), lease: None, endpoint: None, routable: false };
            let (driver, _) = Driver::new(link, session, desk, environment.clone());
            tokio::spawn(driver);
        }
    });
    joined
}

/// What is known of the service so far.
struct Desk {
    joins: mpsc::Sender<Joined>,
    lease: Option<Arc<Lease>>,
    endpoint: Option<EndpointId>,
    routable: bool,
}

impl Application for Desk {
    fn join(&mut self, joining: Joining, _: &Handle) -> Result<Accepted, Refused> {
        let lease = self.lease.insert(Lease::new(joining.hello.lease));
        Ok(Accepted { lease: Arc::clone(lease), revision: 0, links: 1 })
    }

    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        match event {
            ConnectionEvent::Endpoints { revision, endpoints } => {
                self.endpoint = endpoints.first().map(|endpoint| endpoint.id);
                handle.endpoints_result(revision, Vec::new());
            }
            ConnectionEvent::Routable => self.routable = true,
            _ => return,
        }
        if let (true, Some(endpoint), Some(lease)) = (self.routable, self.endpoint, &self.lease) {
            // There is room for the one that is waited for.
            let _ = self.joins.try_send(Joined { handle: handle.clone(), lease: Arc::clone(lease), endpoint });
        }
    }

    fn request(&mut self, _: Request<Body>, responder: Responder) {
        drop(responder);
    }
}
