//! A gateway to put services on, over the transport that a scenario is run with. Ports are whatever is free.

use std::net::SocketAddr;
use std::sync::Arc;

use microservice_sdk::{Microservice, OnRefused, Running, StartError};
use router_common::session::{Secret, Secrets};
use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{ServiceListener, Settings};
use router_gateway::workers::Workers;
use router_link::Connector;

use crate::carrier::{Place, Transport};
use crate::client::Client;
use crate::within;

/// The secret of a gateway that has one.
pub const SECRET: &str = "a secret that both ends know, 32 bytes or more";

/// A running gateway.
pub struct Stage {
    pub gateway: Gateway,
    transport: Transport,
    place: Arc<dyn Place>,
    is_guarded: bool,
    /// Threads of its own; none where it runs on the test's.
    _workers: Option<Workers>,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Stage {
    /// A gateway with the defaults.
    pub async fn new(transport: Transport) -> Self {
        Self::with(transport, "").await
    }

    /// A gateway with this `router.yaml`, but for its addresses.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with(transport: Transport, yaml: &str) -> Self {
        Self::load(transport, place(transport).await, yaml, transport.needs_secret(), None).await
    }

    /// A gateway that services have to prove [`SECRET`] to.
    pub async fn guarded(transport: Transport) -> Self {
        Self::load(transport, place(transport).await, "", true, None).await
    }

    /// A gateway with the defaults and so many workers.
    ///
    /// # Panics
    /// When there are no threads for them.
    pub async fn with_workers(transport: Transport, workers: usize) -> Self {
        let workers = Workers::start(workers).expect("threads");
        let place = place(transport).await;
        Self::load(transport, place, "", transport.needs_secret(), Some(workers)).await
    }

    /// A gateway whose services come in at this very place, as one that was restarted.
    pub async fn again(transport: Transport, place: Arc<dyn Place>) -> Self {
        Self::load(transport, place, "", transport.needs_secret(), None).await
    }

    async fn load(
        transport: Transport,
        place: Arc<dyn Place>,
        yaml: &str,
        is_guarded: bool,
        workers: Option<Workers>,
    ) -> Self {
        let sources = Sources::router().text("router.yaml", yaml).overrides(FIXED.map(str::to_owned));
        let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
        let secrets = if is_guarded { Secrets::sole(secret()) } else { Secrets::none() };
        let listener = within("a listener", place.listen(&secrets)).await.unwrap_or_else(|error| panic!("{error}"));
        let runtimes = workers.as_ref().map(Workers::handles).unwrap_or_default();
        let builder = Gateway::builder(&settings).workers(runtimes).services(ServiceListener::new(listener, secrets));
        let gateway = within("the gateway starts", builder.start()).await.unwrap_or_else(|error| panic!("{error}"));
        Self { gateway, transport, place, is_guarded, _workers: workers }
    }

    /// Where its services come in.
    #[must_use]
    pub fn place(&self) -> Arc<dyn Place> {
        Arc::clone(&self.place)
    }

    /// The same for people, as its listener tells: `tcp://127.0.0.1:45678`.
    ///
    /// # Panics
    /// Never: there is a listener.
    #[must_use]
    pub fn url(&self) -> &str {
        self.gateway.service_listeners().first().expect("a listener")
    }

    pub(crate) const fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// Leads to this gateway.
    ///
    /// # Panics
    /// When the transport has no way.
    #[must_use]
    pub fn connector(&self) -> Arc<dyn Connector> {
        let secret = self.is_guarded.then(secret);
        self.place.connector(secret.as_ref()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Tells a service where this gateway is. What the transport cannot carry is refused, and the rest works.
    #[must_use]
    pub fn connect<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Microservice<S> {
        let service = self.connect_strictly(service);
        if self.transport.capabilities().streaming { service } else { service.on_refused(OnRefused::Warn) }
    }

    /// The same for a service that is to fail when anything of it is refused.
    fn connect_strictly<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Microservice<S> {
        self.connect_by(service, self.connector())
    }

    /// The same by another connector.
    pub(crate) fn connect_by<S>(&self, service: Microservice<S>, connector: Arc<dyn Connector>) -> Microservice<S>
    where
        S: Send + Sync + 'static,
    {
        let service = service.connector(connector);
        if self.is_guarded { service.shared_secret(SECRET) } else { service }
    }

    /// Starts a service and waits until requests reach it.
    ///
    /// # Panics
    /// When it does not get there.
    pub async fn join<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Running {
        self.try_join(service).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, for services that may be turned away.
    ///
    /// # Errors
    /// Why it was.
    pub async fn try_join<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Result<Running, StartError> {
        ready(self.connect(service)).await
    }

    /// The same, for services that fail when anything of them is refused.
    ///
    /// # Errors
    /// Why it was.
    pub async fn try_join_strictly<S>(&self, service: Microservice<S>) -> Result<Running, StartError>
    where
        S: Send + Sync + 'static,
    {
        ready(self.connect_strictly(service)).await
    }

    /// HTTP/1.1, with connections kept alive.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::http1(self.http())
    }

    /// HTTP/2 with prior knowledge.
    #[must_use]
    pub fn http2(&self) -> Client {
        Client::http2(self.http())
    }

    /// # Panics
    /// Never: there is an HTTP listener.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.gateway.http_addr().expect("an HTTP listener")
    }

    /// What operators look at.
    ///
    /// # Panics
    /// Never: there is an admin listener.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::http1(self.gateway.admin_addr().expect("an admin listener"))
    }
}

/// Ports are whatever is free, and nobody waits for requests that no scenario sends any more.
const FIXED: [&str; 3] = ["http.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "shutdown.idle_linger=0s"];

async fn place(transport: Transport) -> Arc<dyn Place> {
    within("a place", transport.place()).await.unwrap_or_else(|error| panic!("{transport:?}: {error:#}"))
}

async fn ready<S: Send + Sync + 'static>(service: Microservice<S>) -> Result<Running, StartError> {
    let mut running = service.start()?;
    within("the service is ready", running.ready()).await?;
    Ok(running)
}

pub(crate) fn secret() -> Secret {
    Secret::new(SECRET.as_bytes()).expect("long enough")
}
