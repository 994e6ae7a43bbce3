//! Gateway: what is told to one before it starts, and asked of one that runs.
//!
//! It can be embedded: its listeners, its clock and its randomness can be given from outside, and it runs on whatever
//! runtimes it is given. How the rooms are put together and started is `starting`'s, how they stop in good order `ending`'s.

mod ending;
mod starting;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use router_common::session::Budget;
use router_config::{RouterConfig, SecretError};
use router_link::{Connector, Environment, Handle, SystemEnvironment};
use tokio_util::task::TaskTracker;

use self::starting::NodeSettings;
use crate::dispatch::WaitingLine;
use crate::edge::{BoxHttpListener, Gate, HeldBytes, Stop};
use crate::registry::Registry;
use crate::settings::ServiceListener;
use crate::sockets::Sockets;
use crate::telemetry::Metrics;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{what} cannot listen on {address}: {source}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("admin.access.token: {0}")]
    Token(#[from] SecretError),
}

/// A gateway to be started.
pub struct Builder {
    settings: NodeSettings,
    environment: Arc<dyn Environment>,
    services: Vec<ServiceListener>,
    http: Vec<BoxHttpListener>,
    workers: Vec<tokio::runtime::Handle>,
    admin: bool,
    sockets: Sockets,
    held: bool,
}

/// A running gateway. It stops at once when dropped; [`Gateway::shutdown`] stops it in good order.
pub struct Gateway {
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    services: Vec<String>,
    in_memory: transport_in_memory::InMemoryConnector,
    registry: Arc<Registry<Handle>>,
    node_bytes: Arc<HeldBytes>,
    buffers: Arc<Budget>,
    line: Arc<WaitingLine>,
    metrics: Arc<Metrics>,
    environment: Arc<dyn Environment>,
    ready: Arc<AtomicBool>,
    /// Its listening sockets, to be given to another process.
    sockets: Sockets,
    gates: Gates,
    stop: Stop,
    linger_over: Stop,
    stop_admin: Stop,
    drain_wanted: Stop,
    http_tasks: TaskTracker,
    link_tasks: TaskTracker,
    other_tasks: TaskTracker,
    cut: Stop,
    grace: Duration,
    idle_linger: Duration,
}

/// Who is let in.
#[derive(Debug, Clone)]
struct Gates {
    /// HTTP clients.
    clients: Gate,
    /// Operators.
    admin: Gate,
    services: Gate,
}

impl Gateway {
    /// A gateway as `router.yaml` says. Listeners for services are given with [`Builder::services`]; the in-memory one
    /// is always there.
    #[must_use]
    pub fn builder<T>(config: &RouterConfig<T>) -> Builder {
        Builder {
            settings: NodeSettings::from_config(config),
            environment: Arc::new(SystemEnvironment),
            services: Vec::new(),
            http: Vec::new(),
            workers: Vec::new(),
            admin: true,
            sockets: Sockets::default(),
            held: false,
        }
    }

    /// Where HTTP clients come in; `None` if their listener was given from outside and has no address.
    #[must_use]
    pub const fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where operators come in; `None` if there is no admin listener.
    #[must_use]
    pub const fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where services come in, for people.
    #[must_use]
    pub fn service_listeners(&self) -> &[String] {
        &self.services
    }

    /// Connects services of this very process.
    #[must_use]
    pub fn in_memory(&self) -> impl Connector + Clone + use<> {
        self.in_memory.clone()
    }

    /// Who is connected, and what they registered.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry<Handle>> {
        &self.registry
    }

    /// Request bytes held in this node (SPEC 6).
    #[must_use]
    pub fn inflight_bytes(&self) -> u64 {
        self.node_bytes.held()
    }

    /// Body bytes that have arrived over links and that nobody has taken yet: bounded by `limits.max_buffered_bytes`, and
    /// by what one frame may exceed it.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffers.used()
    }

    /// Requests that are not answered to their end.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.metrics.in_flight()
    }

    /// Looks at the certificates of its listeners now, and puts to use what has changed and is in order. They are looked at
    /// now and then in any case.
    pub async fn renew_certificates(&self) {
        for certificates in self.metrics.with_certificates() {
            // It reads files. What came of it is logged and counted where it is found.
            let _ = tokio::task::spawn_blocking(move || certificates.renew()).await;
        }
    }

    /// Requests that wait because every instance is leased out (SPEC 5).
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.line.len()
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("http", &self.http).field("admin", &self.admin).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Builder {
    /// Takes time and randomness from `environment`.
    #[must_use]
    pub fn environment(mut self, environment: Arc<dyn Environment>) -> Self {
        self.environment = environment;
        self
    }

    /// Lets services in through `listener`.
    #[must_use]
    pub fn services(mut self, listener: ServiceListener) -> Self {
        self.services.push(listener);
        self
    }

    /// Lets HTTP clients in through `listener`, in place of the configured address. One for each worker; with fewer,
    /// the others have none.
    #[must_use]
    pub fn http_listener(mut self, listener: BoxHttpListener) -> Self {
        self.http.push(listener);
        self
    }

    /// Serves on these runtimes, in place of the current one.
    #[must_use]
    pub fn workers(mut self, runtimes: &[tokio::runtime::Handle]) -> Self {
        self.workers = runtimes.to_vec();
        self
    }

    /// Has no admin listener: for tests and embedding.
    #[must_use]
    pub const fn without_admin(mut self) -> Self {
        self.admin = false;
        self
    }

    /// Listens with these sockets where they are those of HTTP or of the admin pages, in place of binding the configured
    /// addresses. However many they are, all workers have connections of them.
    #[must_use]
    pub fn sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// Lets services in, and neither clients nor operators until [`Gateway::open`].
    #[must_use]
    pub const fn held(mut self) -> Self {
        self.held = true;
        self
    }
}
