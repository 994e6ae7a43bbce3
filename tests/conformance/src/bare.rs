//! A service without the SDK: a link, a session, and endpoint sets as the scenario wants them.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{HealthStatus, Hello, PROTOCOL_VERSION, ReceiveLimits, RefusedEndpoint};
use router_common::identity::{Incarnation, Instance, KeyId};
use router_common::session::lease::Lease;
use router_common::session::{Common, ServiceSide, Session};
use router_link::{
    Application, Body, BoxLink, ConnectionEvent, Connector, Discovered, Driver, Environment as _, Handle, LinkError,
    Responder, SystemEnvironment,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stage::{Stage, secret};
use crate::within;

/// Results that may wait to be read.
const TOLD: usize = 16;

/// One link of an instance `bare`, which answers every request with its endpoint's path. Dropped, it leaves without a word.
pub(crate) struct Bare {
    handle: Handle,
    results: mpsc::Receiver<(u64, Vec<RefusedEndpoint>)>,
    driver: JoinHandle<()>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Bare {
    /// Joins a gateway; it offers nothing yet.
    pub(crate) async fn join(stage: &Stage) -> Self {
        let environment = Arc::new(SystemEnvironment);
        let link = within("a link", dial(stage.connector())).await.unwrap_or_else(|error| panic!("{error}"));
        let capabilities = link.capabilities();
        let mut limits = ReceiveLimits::default();
        limits.max_frame = limits.max_frame.min(capabilities.max_frame);
        let secret = stage.is_guarded().then(secret);
        let mut nonce = [0; 32];
        environment.random(&mut nonce);
        let hello = Hello {
            versions: vec![PROTOCOL_VERSION],
            extensions: Vec::new(),
            instance: Instance {
                service: "bare".parse().expect("a name"),
                version: "1.0.0".parse().expect("a version"),
                region: "local".parse().expect("a region"),
                id: "bare".parse().expect("an id"),
            },
            incarnation: Incarnation([1; 16]),
            link: 0,
            links: 1,
            preference: 0,
            key_id: secret.is_some().then(KeyId::sole),
            token: None,
            nonce,
            limits,
            lease: 64,
        };
        let side = ServiceSide {
            common: Common { carrier: capabilities.carrier(), limits, ..Common::default() },
            hello,
            secret,
            lease: Lease::new(64),
        };
        let (told, results) = mpsc::channel(TOLD);
        let session = Session::service(side, environment.now());
        let (driver, handle) = Driver::new(link, session, Answers { told }, environment);
        let driver = tokio::spawn(async move {
            driver.await;
        });
        let mut bare = Self { handle, results, driver };
        bare.told(0).await;
        bare.handle.set_health(HealthStatus::Healthy, 0);
        bare
    }

    /// Offers these `GET` endpoints and no others, and returns which ids the gateway refuses.
    pub(crate) async fn offer(&mut self, revision: u64, endpoints: &[(u32, &str)]) -> Vec<u32> {
        let describe = |(id, path): &(u32, &str)| {
            let id = EndpointId::new(*id).expect("not 0");
            EndpointDescriptor::new(id, http::Method::GET, path.parse().expect("a template"))
        };
        self.handle.register(revision, endpoints.iter().map(describe).collect()).expect("a legal set");
        self.told(revision).await.into_iter().map(|refused| refused.id.as_u32()).collect()
    }

    /// What the gateway refuses of a revision; 0: that it has welcomed the link.
    async fn told(&mut self, revision: u64) -> Vec<RefusedEndpoint> {
        loop {
            let (answered, refused) = within("a result", self.results.recv()).await.expect("the link lives");
            if answered == revision {
                return refused;
            }
        }
    }
}

/// A link to the one gateway that a connector leads to.
async fn dial(connector: Arc<dyn Connector>) -> Result<BoxLink, LinkError> {
    let Some(mut search) = connector.discover() else { return connector.connect().await };
    loop {
        if let Ok(Discovered::Found { connector, .. }) = poll_fn(|cx| search.poll_change(cx)).await {
            // The search goes on meanwhile: what it found is not there without it or a link.
            return connector.connect().await;
        }
    }
}

struct Answers {
    told: mpsc::Sender<(u64, Vec<RefusedEndpoint>)>,
}

impl Application for Answers {
    fn event(&mut self, event: ConnectionEvent, _: &Handle) {
        let told = match event {
            ConnectionEvent::Welcomed(_) => (0, Vec::new()),
            ConnectionEvent::EndpointsResult { revision, refused } => (revision, refused),
            _ => return,
        };
        let _ = self.told.try_send(told);
    }

    fn request(&mut self, request: Request<Body>, responder: Responder) {
        let path = Bytes::from(request.uri().path().to_owned());
        tokio::spawn(responder.respond(Response::new(path.into())));
    }
}
