//! Stella Router's link over TCP: the gateway's end calls, the service's end answers.
//!
//! There is no gateway here, only what a gateway and a service do with their link: a session, its driver, and a handle.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use microservice_sdk::{Microservice, endpoint, endpoints};
use router_common::endpoint::EndpointId;
use router_common::frame::{Hello, PROTOCOL_VERSION, ReceiveLimits};
use router_common::identity::{Identity, Incarnation, Instance, Version};
use router_common::session::lease::Lease;
use router_common::session::{Accepted, Common, GatewaySide, Joining, Secrets, ServiceSide, Session};
use router_link::{
    Application, Body, BoxListener, Call, ConnectionEvent, Connector as _, Driver, Environment as _, Handle, Refused,
    Responder, SystemEnvironment,
};
use tokio::sync::mpsc;
use transport_tcp::{TcpConnector, TcpListener};

use crate::load::Load;

/// A link without the SDK: the far end answers each request where it arrives.
pub(crate) async fn link(load: Load) -> Result<()> {
    let mut gateway = Gateway::start()?;
    let connector = TcpConnector::new(&format!("tcp://{}", gateway.address))?;
    let link = connector.connect().await?;
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
        key_id: None,
        nonce: [1; 32],
        limits: ReceiveLimits::default(),
        lease: room(load),
    };
    let side = ServiceSide { common: Common::default(), hello, secret: None, lease };
    let environment = Arc::new(SystemEnvironment);
    let session = Session::service(side, environment.now());
    let (driver, _service) = Driver::new(link, session, Echo, environment);
    tokio::spawn(driver);
    let (handle, lease) = gateway.routable().await?;
    drive(load, handle, lease, None).await
}

/// The same link, served by the SDK.
pub(crate) async fn sdk(load: Load) -> Result<()> {
    let mut gateway = Gateway::start()?;
    let service = Microservice::new("bench", "1.0.0")
        .endpoints(endpoints![echo])
        .lease(room(load))
        .gateway(format!("tcp://{}", gateway.address));
    let mut running = service.start()?;
    running.ready().await?;
    let (handle, lease) = gateway.routable().await?;
    drive(load, handle, lease, EndpointId::new(1)).await
}

#[endpoint(POST, "/echo")]
async fn echo(body: Bytes) -> Bytes {
    body
}

/// More than is ever in flight, so that no lease binds.
const fn room(load: Load) -> u32 {
    load.in_flight * 2 + 64
}

async fn drive(load: Load, handle: Handle, lease: Arc<Lease>, endpoint: Option<EndpointId>) -> Result<()> {
    load.drive(move |payload| {
        let (handle, lease) = (handle.clone(), Arc::clone(&lease));
        async move {
            let request = Request::post("/echo").body(Body::from(payload))?;
            let permit = Some(lease.try_acquire().context("no slot is free")?);
            let call = Call { endpoint, permit, ..Call::default() };
            let response = handle.call(request, call).await.map_err(|error| anyhow!("{error}"))?;
            Ok(response.into_body().collect().await?.to_bytes().len())
        }
    })
    .await
}

/// Answers in place, as the SDK does with a handler that need not wait.
struct Echo;

impl Application for Echo {
    fn event(&mut self, _: ConnectionEvent, _: &Handle) {}

    fn request(&mut self, request: Request<Body>, responder: Responder) {
        let mut answer = responder.respond(Response::new(request.into_body()));
        if Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(answer);
        }
    }
}

/// What accepts the one service, and says when requests can go to it.
struct Gateway {
    address: SocketAddr,
    joined: mpsc::Receiver<(Handle, Arc<Lease>)>,
}

impl Gateway {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr();
        let mut listener: BoxListener = Box::new(listener);
        let (joins, joined) = mpsc::channel(1);
        tokio::spawn(async move {
            let environment = Arc::new(SystemEnvironment);
            while let Ok(link) = listener.accept().await {
                let side = GatewaySide {
                    common: Common::default(),
                    node: "bench".parse().expect("a name"),
                    secrets: Secrets::none(),
                    nonce: [7; 32],
                    identity: Identity::Anonymous,
                };
                let session = Session::gateway(side, environment.now());
                let desk = Desk { joins: joins.clone(), lease: None };
                let (driver, _) = Driver::new(link, session, desk, environment.clone());
                tokio::spawn(driver);
            }
        });
        Ok(Self { address, joined })
    }

    async fn routable(&mut self) -> Result<(Handle, Arc<Lease>)> {
        self.joined.recv().await.context("nobody joined")
    }
}

struct Desk {
    joins: mpsc::Sender<(Handle, Arc<Lease>)>,
    lease: Option<Arc<Lease>>,
}

impl Application for Desk {
    fn join(&mut self, joining: Joining, _: &Handle) -> Result<Accepted, Refused> {
        let lease = self.lease.insert(Lease::new(joining.hello.lease));
        Ok(Accepted { lease: Arc::clone(lease), revision: 0, links: 1 })
    }

    fn event(&mut self, event: ConnectionEvent, handle: &Handle) {
        match event {
            ConnectionEvent::Endpoints { revision, .. } => handle.endpoints_result(revision, Vec::new()),
            ConnectionEvent::Routable => {
                if let Some(lease) = &self.lease {
                    // There is room for the one that is waited for.
                    let _ = self.joins.try_send((handle.clone(), Arc::clone(lease)));
                }
            }
            _ => {}
        }
    }

    fn request(&mut self, _: Request<Body>, responder: Responder) {
        drop(responder);
    }
}
