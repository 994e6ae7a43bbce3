//! A gateway to put services on, over the transport that a scenario is run with. Ports are whatever is free.

use std::net::SocketAddr;
use std::sync::Arc;

use microservice_sdk::{Microservice, Running, StartError};
use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{Settings, listen};
use router_gateway::workers::Workers;

use crate::client::Client;
use crate::within;

/// The secret of a gateway that has one.
pub const SECRET: &str = "a secret that both ends know, 32 bytes or more";

/// What carries the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    InMemory,
    Tcp,
}

/// A running gateway.
#[derive(Debug)]
pub struct Stage {
    pub gateway: Gateway,
    transport: Transport,
    /// Threads of its own; none where it runs on the test's.
    _workers: Option<Workers>,
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
        Self::load(transport, Sources::router().text("router.yaml", yaml).overrides(free_ports()), None).await
    }

    /// A gateway with the defaults and so many workers.
    ///
    /// # Panics
    /// When there are no threads for them.
    pub async fn with_workers(transport: Transport, workers: usize) -> Self {
        let workers = Workers::start(workers).expect("threads");
        Self::load(transport, Sources::router().overrides(free_ports()), Some(workers)).await
    }

    /// A gateway whose services come in at this very address, as one that was restarted.
    pub async fn again(transport: Transport, tcp: SocketAddr) -> Self {
        let addresses = [
            "http.listen=127.0.0.1:0".into(),
            "admin.listen=127.0.0.1:0".into(),
            format!("transports.tcp.listen={tcp}"),
            NO_LINGER.into(),
        ];
        Self::load(transport, Sources::router().overrides(addresses), None).await
    }

    async fn load(transport: Transport, sources: Sources, workers: Option<Workers>) -> Self {
        let settings: Settings = router_config::load(sources).unwrap_or_else(|error| panic!("{error}"));
        let listeners = listen(&settings.transports).expect("free ports");
        let runtimes = workers.as_ref().map(Workers::handles).unwrap_or_default();
        let builder = Gateway::builder(&settings).workers(runtimes);
        let builder = listeners.into_iter().fold(builder, |builder, listener| builder.services(listener));
        Self { gateway: builder.start().await.expect("the gateway starts"), transport, _workers: workers }
    }

    /// Where services come in over TCP: `tcp://127.0.0.1:45678`.
    ///
    /// # Panics
    /// Never: there is a listener.
    #[must_use]
    pub fn url(&self) -> &str {
        self.gateway.service_listeners().iter().find(|address| address.starts_with("tcp://")).expect("a TCP listener")
    }

    /// The same as a socket address.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.url().trim_start_matches("tcp://").parse().expect("an address")
    }

    /// Tells a service where this gateway is.
    #[must_use]
    pub fn connect<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Microservice<S> {
        match self.transport {
            Transport::InMemory => service.connector(Arc::new(self.gateway.in_memory())),
            Transport::Tcp => service.gateway(self.url()),
        }
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
        let mut running = self.connect(service).start()?;
        within("the service is ready", running.ready()).await?;
        Ok(running)
    }

    /// HTTP/1.1, with connections kept alive.
    ///
    /// # Panics
    /// Never: there is an HTTP listener.
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

/// Nobody waits for requests that no test sends any more.
const NO_LINGER: &str = "shutdown.idle_linger=0s";

fn free_ports() -> impl Iterator<Item = String> {
    let listen = ["http", "admin", "transports.tcp"].map(|section| format!("{section}.listen=127.0.0.1:0"));
    listen.into_iter().chain([NO_LINGER.into()])
}
