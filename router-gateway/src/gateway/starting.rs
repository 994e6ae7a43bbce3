//! How a gateway starts: its rooms are put together from the settings, and given their listeners and tasks (SPEC 10, 13).
//!
//! It knows no transport but the in-memory one, which every gateway has; the others' listeners are given to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use router_common::frame::ReceiveLimits;
use router_common::identity::Incarnation;
use router_common::session::{Budget, Carrier, Common, Secrets, Timers};
use router_config::router::AdminAccess;
use router_config::{RouterConfig, SecretError};
use router_link::{Environment, Handle};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use transport_in_memory::InMemory;

use super::{Builder, Gates, Gateway, StartError};
use crate::admin::{Access, Admin};
use crate::dispatch::{Dispatch, DispatchSettings, Inner, RetryBudget, WaitingLine};
use crate::edge::{
    BoxHttpListener, Door, Edge, EdgeContext, EdgeSettings, Floor, Gate, HeldBytes, HttpListener as _, Stop,
    TcpHttpListener, bind,
};
use crate::http_semantics::TrustedProxies;
use crate::layers::{Identify, Message, PolicyLayer};
use crate::links::{LinkWorker, Links};
use crate::publishing::publisher;
use crate::registry::{Registry, RegistrySettings};
use crate::request_id::RequestIds;
use crate::settings::ServiceListener;
use crate::sockets::{Purpose, Sockets};
use crate::stack::stack;
use crate::telemetry::{Metrics, WorkerMetrics};
use crate::token::AdminToken;

/// Between two looks of the registry at what is left over.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections to the admin listener.
const ADMIN_CONNECTIONS: usize = 64;

/// What the gateway takes from `router.yaml`, whatever its transports.
#[derive(Debug, Clone)]
pub(super) struct NodeSettings {
    config: RouterConfig<()>,
    edge: EdgeSettings,
    dispatch: DispatchSettings,
}

impl Builder {
    /// Starts. To be called within a runtime, on which accepting of links, sweeping and the admin listener run.
    ///
    /// # Errors
    /// [`StartError`]: an address that cannot be listened on, or a token that cannot be read.
    pub async fn start(self) -> Result<Gateway, StartError> {
        let Self { settings, environment, services, http, workers, admin, mut sockets, held } = self;
        let current = tokio::runtime::Handle::current();
        let workers = if workers.is_empty() { vec![current] } else { workers };
        let config = &settings.config;
        let access = if admin { Some(access(&config.admin.access)?) } else { None };
        let registry = Arc::new(Registry::new(RegistrySettings::from_config(config, workers.len())));
        let line = Arc::new(WaitingLine::new(config.limits.max_waiting.get()));
        let hook = Arc::clone(&line);
        registry.on_published(move || hook.changed());
        let clients = if held { Gate::held() } else { Gate::opened() };
        let admin_gate = if held { Gate::held() } else { Gate::opened() };
        // Each worker keeps a place for whom it waits: no worker is to wait for a place that another one keeps in vain.
        let places = config.limits.max_connections.get().saturating_add(workers.len() - 1);
        let mut node = Node {
            sockets: Sockets::default(),
            gates: Gates { clients, admin: admin_gate, services: Gate::opened() },
            held,
            environment: Arc::clone(&environment),
            node_bytes: Arc::new(HeldBytes::new(config.limits.max_aggregate_inflight_bytes.as_u64())),
            buffers: Budget::new(config.limits.max_buffered_bytes.as_usize()),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            floor: Floor::new(workers.len()),
            metrics: Arc::new(Metrics::default()),
            registry,
            line,
            stop: Stop::new(),
            linger_over: Stop::new(),
            http_tasks: TaskTracker::new(),
            other_tasks: TaskTracker::new(),
            cut: Stop::new(),
            access,
            settings,
        };
        let (http_addr, listeners) = node.http_listeners(http, &mut sockets, &workers)?;
        let mut link_workers = Vec::new();
        for (number, (runtime, listener)) in workers.iter().zip(listeners).enumerate() {
            let dispatch = node.worker(number, runtime, listener);
            link_workers.push(LinkWorker { runtime: runtime.clone(), dispatch });
        }
        let admin = sockets.take(Purpose::Admin, node.settings.config.admin.listen.addr());
        node.finish(http_addr, link_workers, services, admin).await
    }
}

fn access(configured: &AdminAccess) -> Result<Access, SecretError> {
    Ok(match configured {
        AdminAccess::Open => Access::Open,
        AdminAccess::Off => Access::Off,
        AdminAccess::Token(token) => Access::Token(AdminToken::new(token.resolve()?.expose())),
    })
}

/// A gateway on its way up.
struct Node {
    settings: NodeSettings,
    /// Who may use the admin listener; `None`: there is none.
    access: Option<Access>,
    environment: Arc<dyn Environment>,
    registry: Arc<Registry<Handle>>,
    line: Arc<WaitingLine>,
    metrics: Arc<Metrics>,
    node_bytes: Arc<HeldBytes>,
    buffers: Arc<Budget>,
    places: Arc<Semaphore>,
    floor: Arc<Floor>,
    /// Copies of those listened with, to be given to another process.
    sockets: Sockets,
    gates: Gates,
    held: bool,
    stop: Stop,
    linger_over: Stop,
    http_tasks: TaskTracker,
    other_tasks: TaskTracker,
    cut: Stop,
}

/// A worker's listener: given from outside, or bound here.
enum Clients {
    Given(BoxHttpListener),
    Tcp(TcpHttpListener),
    None,
}

impl Node {
    fn http_listeners(
        &mut self,
        given: Vec<BoxHttpListener>,
        sockets: &mut Sockets,
        workers: &[tokio::runtime::Handle],
    ) -> Result<(Option<SocketAddr>, Vec<Clients>), StartError> {
        if !given.is_empty() {
            let address = given.first().and_then(|listener| listener.local_addr().ok());
            let listeners = given.into_iter().map(Clients::Given).chain(std::iter::repeat_with(|| Clients::None));
            return Ok((address, listeners.take(workers.len()).collect()));
        }
        let configured = self.settings.config.http.listen.addr();
        let refused = |address| move |source| StartError::Listen { what: "http", address, source };
        let mut sockets = sockets.take(Purpose::Http, configured);
        let mut address = configured;
        if sockets.is_empty() {
            for _ in workers {
                let socket = bind(address, workers.len()).map_err(refused(address))?;
                // The first one finds the port where any would do; the others share it.
                address = socket.local_addr().map_err(refused(address))?;
                sockets.push(socket);
            }
        } else if let Some(socket) = sockets.first() {
            address = socket.local_addr().map_err(refused(address))?;
        }
        for socket in &sockets {
            self.keep(Purpose::Http, socket, configured).map_err(refused(address))?;
        }
        // Where there are more of them than workers, some have several; where there are fewer, doors bring connections to
        // those who have none.
        let mut shares: Vec<Vec<std::net::TcpListener>> = workers.iter().map(|_| Vec::new()).collect();
        for (number, socket) in sockets.into_iter().enumerate() {
            let worker = number % workers.len();
            shares[worker].push(socket);
        }
        let mut listeners = Vec::new();
        for ((runtime, door), share) in workers.iter().zip(Door::all(&self.floor)).zip(shares) {
            let _entered = runtime.enter();
            let listener = TcpHttpListener::from_all(share, address).map_err(refused(address))?;
            listeners.push(Clients::Tcp(if workers.len() > 1 { listener.with_door(door) } else { listener }));
        }
        Ok((Some(address), listeners))
    }

    /// Keeps a copy of a listening socket, if another process may ask for it.
    fn keep(&mut self, purpose: Purpose, socket: &std::net::TcpListener, configured: SocketAddr) -> io::Result<()> {
        if self.settings.config.upgrade.socket.is_some() {
            self.sockets.add(purpose, socket.try_clone()?, Some(configured));
        }
        Ok(())
    }

    fn worker(&self, number: usize, runtime: &tokio::runtime::Handle, clients: Clients) -> Dispatch {
        let config = &self.settings.config;
        let request_ids = Arc::new(RequestIds::new(&*self.environment));
        let context = Arc::new(EdgeContext {
            settings: self.settings.edge.clone(),
            node_bytes: Arc::clone(&self.node_bytes),
            request_ids: Arc::clone(&request_ids),
        });
        let dispatch = Dispatch::new(Inner {
            registry: Arc::clone(&self.registry),
            environment: Arc::clone(&self.environment),
            settings: self.settings.dispatch.clone(),
            worker: number,
            node_bytes: Arc::clone(&self.node_bytes),
            buffers: Arc::clone(&self.buffers),
            line: Arc::clone(&self.line),
            metrics: WorkerMetrics::new(Arc::clone(&self.metrics)),
            random: request_ids,
            budget: RetryBudget::new(self.environment.now()),
            tasks: self.other_tasks.clone(),
        });
        let trusted = TrustedProxies::new(config.http.trusted_proxies.clone());
        let explains_to = match &self.access {
            Some(Access::Token(token)) => Some(token.clone()),
            _ => None,
        };
        let node = config.node.id.as_str();
        let stack = stack(&context, &self.environment, node, trusted, explains_to, dispatch.clone());
        let edge = Edge {
            context,
            places: Arc::clone(&self.places),
            floor: Arc::clone(&self.floor),
            worker: number,
            gate: self.gates.clients.clone(),
            stop: self.stop.clone(),
            linger_over: self.linger_over.clone(),
            tasks: self.http_tasks.clone(),
            cut: self.cut.clone(),
        };
        match clients {
            Clients::Given(listener) => drop(self.http_tasks.spawn_on(edge.run(listener, stack), runtime)),
            Clients::Tcp(listener) => drop(self.http_tasks.spawn_on(edge.run(listener, stack), runtime)),
            Clients::None => {}
        }
        dispatch
    }

    async fn finish(
        mut self,
        http: Option<SocketAddr>,
        workers: Vec<LinkWorker>,
        services: Vec<ServiceListener>,
        admin: Vec<std::net::TcpListener>,
    ) -> Result<Gateway, StartError> {
        let ready = Arc::new(AtomicBool::new(false));
        let (stop_admin, drain_wanted) = (Stop::new(), Stop::new());
        let admin = match self.access.take() {
            Some(access) => Some(self.admin(access, admin, &ready, &stop_admin, &drain_wanted)?),
            None => None,
        };
        let config = &self.settings.config;
        let mut incarnation = [0; 16];
        self.environment.random(&mut incarnation);
        let links = Arc::new(Links {
            node: config.node.id.clone(),
            common: Common {
                // Of an ordinary link; the others are told what they can do.
                carrier: Carrier::Stream,
                limits: ReceiveLimits::default(),
                timers: Timers {
                    heartbeat: config.health.heartbeat.as_duration(),
                    degraded_after: config.health.degraded_after.as_duration(),
                    dead_after: config.health.dead_after.as_duration(),
                    ..Timers::default()
                },
                budget: Arc::clone(&self.buffers),
                incarnation: Some(Incarnation(incarnation)),
                ..Common::default()
            },
            environment: Arc::clone(&self.environment),
            registry: Arc::clone(&self.registry),
            line: Arc::clone(&self.line),
            metrics: Arc::clone(&self.metrics),
            workers,
            tasks: TaskTracker::new(),
            cut: self.cut.clone(),
            unwelcomed: std::sync::Mutex::default(),
        });
        let (in_memory, listener) = InMemory::new();
        let in_process = ServiceListener::new(Box::new(listener), Secrets::none());
        let names = services.iter().map(|service| service.listener.local().to_owned()).collect();
        for mut service in services.into_iter().chain([in_process]) {
            if let Some(certificates) = service.certificates.take() {
                self.metrics.add_certificates(certificates);
            }
            if let Some(kept) = service.socket.take()
                && config.upgrade.socket.is_some()
            {
                self.sockets.append(kept);
            }
            if let Some(discarded) = service.listener.discarded() {
                self.metrics.watch(discarded);
            }
            self.other_tasks.spawn(Arc::clone(&links).accept(service, self.gates.services.keeper()));
        }
        let publisher = publisher(Arc::clone(&self.registry), Arc::clone(&self.environment));
        let cut = self.cut.clone();
        self.other_tasks.spawn(async move { cut.unless_requested(publisher).await });
        let (registry, environment, cut) =
            (Arc::clone(&self.registry), Arc::clone(&self.environment), self.cut.clone());
        let buffers = Arc::clone(&self.buffers);
        self.other_tasks.spawn(async move {
            while cut.unless_requested(tokio::time::sleep(SWEEP)).await.is_some() {
                registry.sweep(environment.now());
                if buffers.is_high() {
                    // A link on which nothing happens does not look by itself.
                    registry.handles().iter().for_each(Handle::relieve_stalled);
                }
            }
        });
        ready.store(!self.held, Ordering::Release);
        Ok(Gateway {
            http,
            admin,
            services: names,
            in_memory,
            registry: self.registry,
            node_bytes: self.node_bytes,
            buffers: self.buffers,
            line: self.line,
            metrics: self.metrics,
            environment: self.environment,
            ready,
            sockets: self.sockets,
            gates: self.gates,
            stop: self.stop,
            linger_over: self.linger_over,
            stop_admin,
            drain_wanted,
            http_tasks: self.http_tasks,
            link_tasks: links.tasks.clone(),
            other_tasks: self.other_tasks,
            cut: self.cut,
            grace: config.shutdown.grace.as_duration(),
            idle_linger: config.shutdown.idle_linger.as_duration(),
        })
    }

    fn admin(
        &mut self,
        access: Access,
        given: Vec<std::net::TcpListener>,
        ready: &Arc<AtomicBool>,
        stop: &Stop,
        drain_wanted: &Stop,
    ) -> Result<SocketAddr, StartError> {
        let address = self.settings.config.admin.listen.addr();
        let refused = |source| StartError::Listen { what: "admin", address, source };
        let given = given.into_iter().next().map_or_else(|| bind(address, 1), Ok).map_err(refused)?;
        self.keep(Purpose::Admin, &given, address).map_err(refused)?;
        let listener = TcpHttpListener::from_std(given).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let context = Arc::new(EdgeContext {
            settings: EdgeSettings::default(),
            // What operators send is not what clients have in flight.
            node_bytes: Arc::default(),
            request_ids: Arc::new(RequestIds::new(&*self.environment)),
        });
        let pages = Admin {
            access,
            ready: Arc::clone(ready),
            drain_wanted: drain_wanted.clone(),
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            node_bytes: Arc::clone(&self.node_bytes),
            buffers: Arc::clone(&self.buffers),
            connections_limit: self.settings.config.limits.max_connections.get(),
            floor: Arc::clone(&self.floor),
            line: Arc::clone(&self.line),
            environment: Arc::clone(&self.environment),
        };
        let stack = ServiceBuilder::new()
            .layer(PolicyLayer::new(Identify::new(Arc::clone(&context.request_ids), Arc::clone(&self.environment))))
            .layer(PolicyLayer::new(Message::new(Arc::clone(&context))))
            .service(pages.service());
        let edge = Edge {
            context,
            places: Arc::new(Semaphore::new(ADMIN_CONNECTIONS)),
            // Operators' connections are not what workers have to do.
            floor: Floor::new(1),
            worker: 0,
            gate: self.gates.admin.clone(),
            stop: stop.clone(),
            // Operators who ask for nothing have as long as there is somebody to ask.
            linger_over: self.cut.clone(),
            tasks: self.other_tasks.clone(),
            cut: self.cut.clone(),
        };
        self.other_tasks.spawn(edge.run(listener, stack));
        Ok(bound)
    }
}

impl NodeSettings {
    pub(super) fn from_config<T>(config: &RouterConfig<T>) -> Self {
        let (http, limits) = (&config.http, &config.limits);
        Self {
            edge: EdgeSettings {
                header_timeout: http.header_timeout.as_duration(),
                keep_alive_timeout: http.keep_alive_timeout.as_duration(),
                body_idle_timeout: http.body_idle_timeout.as_duration(),
                tunnel_idle_timeout: limits.tunnel_idle_timeout.as_duration(),
                max_header_bytes: http.max_header_bytes.as_usize(),
                max_headers: http.max_headers.get(),
                max_connection_bytes: limits.max_request_bytes_per_connection.as_u64(),
                ..EdgeSettings::default()
            },
            dispatch: DispatchSettings {
                version_header: config.routing.version_header.as_name().clone(),
                tenant_header: config.routing.tenant_header.as_ref().map(|name| name.as_name().clone()),
                default_timeout: limits.default_timeout.as_duration(),
                max_timeout: limits.max_timeout.as_duration(),
                stream_idle_timeout: limits.stream_idle_timeout.as_duration(),
                max_request_bytes: limits.max_request_bytes_per_call.as_u64(),
                max_connection_bytes: limits.max_request_bytes_per_connection.as_u64(),
            },
            config: RouterConfig {
                node: config.node.clone(),
                http: config.http.clone(),
                admin: config.admin.clone(),
                transports: (),
                routing: config.routing.clone(),
                limits: config.limits.clone(),
                health: config.health.clone(),
                services: config.services.clone(),
                log: config.log.clone(),
                shutdown: config.shutdown.clone(),
                upgrade: config.upgrade.clone(),
            },
        }
    }
}
