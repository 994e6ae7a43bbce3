//! `Microservice`: a name, a version, state and endpoints, put together by its user.
//!
//! It collects what is wrong with its definition and tells it all at once when it starts. It is a tower `Service`, so a
//! test can ask it without a gateway. How it is connected and run is `lifecycle`'s.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use router_common::endpoint::EndpointId;
use router_common::identity::{InstanceId, Region, ServiceName, Version};
use router_common::limits;
use router_config::MicroserviceConfig;
use router_config::microservice::OnRefused;
use router_link::{BoxFuture, Connector, Environment, SystemEnvironment};

use crate::connect::TlsAccess;
use crate::dispatch::{Endpoint, Table};
use crate::endpoints::{Endpoints, Handlers, Listed, Route};
use crate::handler::{Handler, Manner};
use crate::invocation::Surroundings;
use crate::message::{Request, Response};
use crate::pace::Pace;
use crate::start_error::{Mistake, StartError};

/// A service, as its user puts it together.
///
/// State comes before the endpoints that take it. What is wrong with names, templates and the like is collected and
/// told, all of it, by [`Microservice::run`].
pub struct Microservice<S = ()> {
    pub(crate) parts: ServiceParts,
    state: Arc<S>,
}

/// All of a service but its state, which the handlers already hold.
pub(crate) struct ServiceParts {
    pub(crate) name: Option<ServiceName>,
    pub(crate) version: Option<Version>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) settings: Settings,
    /// Built at the first request of a service that is asked without a gateway.
    table: Option<Arc<Table>>,
}

/// What the code says of running the service; microservice.yaml stands above it.
pub(crate) struct Settings {
    pub(crate) config: Option<MicroserviceConfig>,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) region: Option<Region>,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) lease: Option<u32>,
    pub(crate) grace: Option<Duration>,
    pub(crate) on_refused: Option<OnRefused>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) on_shutdown: Vec<Hook>,
}

pub(crate) type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// One gateway that the code names.
pub(crate) struct Gateway {
    pub(crate) by: Dial,
    pub(crate) secret: Option<Vec<u8>>,
    pub(crate) token: Option<String>,
    pub(crate) tls: TlsAccess,
    /// Over UDP.
    pub(crate) datagram: Option<usize>,
    /// `None`: as many as the gateway wants.
    pub(crate) links: Option<u16>,
    /// `None`: as is said of all.
    pub(crate) on_refused: Option<OnRefused>,
}

pub(crate) enum Dial {
    Url(String),
    Connector(Arc<dyn Connector>),
}

impl Microservice {
    /// A service without state. `version!()` gives the version of the crate.
    #[must_use]
    pub fn new(name: impl AsRef<str>, version: impl AsRef<str>) -> Self {
        let mut mistakes = Vec::new();
        let name = name.as_ref().parse().map_err(|error| mistakes.push(Mistake::Name(error))).ok();
        let version = version.as_ref().parse().map_err(|error| mistakes.push(Mistake::Name(error))).ok();
        let settings = Settings {
            config: None,
            config_file: None,
            gateways: Vec::new(),
            region: None,
            instance_id: None,
            lease: None,
            grace: None,
            on_refused: None,
            environment: Arc::new(SystemEnvironment),
            on_shutdown: Vec::new(),
        };
        let parts = ServiceParts { name, version, endpoints: Vec::new(), mistakes, settings, table: None };
        Self { parts, state: Arc::new(()) }
    }
}

impl<S: Send + Sync + 'static> Microservice<S> {
    /// The state of the endpoints that are added after it. A part of the service may have another.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(self, state: T) -> Microservice<T> {
        Microservice { parts: self.parts, state: Arc::new(state) }
    }

    /// Adds endpoints: `endpoints![get_order, watch_orders]`.
    #[must_use]
    pub fn endpoints(mut self, endpoints: Endpoints<S>) -> Self {
        for listed in endpoints.listed {
            self.parts.add(listed, &self.state);
        }
        self
    }

    /// Adds the endpoints of a value: its methods with `#[endpoint(..)]`, in an impl block with `#[service]`. They take
    /// what they need from `&self` and not from the state.
    #[must_use]
    pub fn service(mut self, service: impl Handlers) -> Self {
        let state = Arc::new(());
        for listed in Arc::new(service).endpoints().listed {
            self.parts.add(listed, &state);
        }
        self
    }

    /// Adds one endpoint that is described at run time.
    #[must_use]
    pub fn route<M: 'static, H: Handler<M, S>>(self, route: Route, handler: H) -> Self {
        self.endpoints(Endpoints::new().route(route, handler))
    }

    /// Adds one endpoint with a handler of the whole request: `async fn(Request) -> Response`, or of any extractors.
    #[must_use]
    pub fn raw<M: 'static, H: Handler<M, S>>(self, method: Method, path: impl Into<String>, handler: H) -> Self {
        self.route(Route::new(method, path), handler)
    }

    /// One more gateway to connect to: `tcp://127.0.0.1:5100`. Several may lead to one gateway, over different transports or by
    /// different addresses: the one named first is used as long as it can be. Where microservice.yaml names gateways, those take the place
    /// of all that are named by URL here.
    #[must_use]
    pub fn gateway(self, url: impl Into<String>) -> Self {
        self.dial(Dial::Url(url.into()))
    }

    /// One more gateway, reached by a connector of one's own: in memory, or over a transport from elsewhere.
    #[must_use]
    pub fn connector(self, connector: Arc<dyn Connector>) -> Self {
        self.dial(Dial::Connector(connector))
    }

    fn dial(mut self, by: Dial) -> Self {
        self.parts.settings.gateways.push(Gateway {
            by,
            secret: None,
            token: None,
            tls: TlsAccess::default(),
            datagram: None,
            links: None,
            on_refused: None,
        });
        self
    }

    fn of_last(mut self, method: &'static str, set: impl FnOnce(&mut Gateway)) -> Self {
        match self.parts.settings.gateways.last_mut() {
            Some(gateway) => set(gateway),
            None => self.parts.mistakes.push(Mistake::BeforeGateway(method)),
        }
        self
    }

    /// The shared secret of the gateway named last: at least 32 bytes, the same at both ends.
    #[must_use]
    pub fn shared_secret(self, secret: impl Into<Vec<u8>>) -> Self {
        self.of_last("shared_secret", |gateway| gateway.secret = Some(secret.into()))
    }

    /// The token to show to the gateway named last, in place of a secret or a certificate; over TLS alone.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        self.of_last("token", |gateway| gateway.token = Some(token.into()))
    }

    /// The CAs of which one has signed the certificate of the gateway named last, a PEM file. `tls://` needs it.
    #[must_use]
    pub fn ca(self, file: impl Into<PathBuf>) -> Self {
        self.of_last("ca", |gateway| gateway.tls.ca = Some(file.into()))
    }

    /// The certificate to show to the gateway named last, and its private key, PEM files. They are read anew when they
    /// change.
    #[must_use]
    pub fn certificate(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.of_last("certificate", |gateway| {
            gateway.tls.certificate = Some(certificate.into());
            gateway.tls.key = Some(key.into());
        })
    }

    /// The name that the certificate of the gateway named last is for. Default: the host of its URL.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        self.of_last("server_name", |gateway| gateway.tls.server_name = Some(name.into()))
    }

    /// The largest datagram to send to the gateway named last, which is reached over UDP, in bytes: 1200 to 65507. Default
    /// 1200. An answer that does not fit is told to the client as 502.
    #[must_use]
    pub fn datagram(self, bytes: usize) -> Self {
        self.of_last("datagram", |gateway| gateway.datagram = Some(bytes))
    }

    /// Parallel links to the gateway named last, 1 to 64. Default: as many as it can make use of, which is one for each of
    /// its workers, but 16 at most.
    #[must_use]
    pub fn links(mut self, links: u16) -> Self {
        match self.parts.settings.gateways.last_mut() {
            Some(_) if !(1..=limits::LINKS).contains(&links) => self.parts.mistakes.push(Mistake::Links(links)),
            Some(gateway) => gateway.links = Some(links),
            None => self.parts.mistakes.push(Mistake::BeforeGateway("links")),
        }
        self
    }

    /// What to do when the gateway named last refuses an endpoint. Default: as [`Microservice::on_refused`] says of all.
    #[must_use]
    pub fn gateway_on_refused(self, on_refused: OnRefused) -> Self {
        self.of_last("gateway_on_refused", |gateway| gateway.on_refused = Some(on_refused))
    }

    /// Reads `microservice.yaml` from here when the service starts; it stands above what the code says.
    #[must_use]
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.parts.settings.config_file = Some(path.into());
        self
    }

    /// A configuration that was read already.
    #[must_use]
    pub fn config(mut self, config: MicroserviceConfig) -> Self {
        self.parts.settings.config = Some(config);
        self
    }

    /// Where this instance runs. Default `local`.
    #[must_use]
    pub fn region(mut self, region: impl AsRef<str>) -> Self {
        match region.as_ref().parse() {
            Ok(region) => self.parts.settings.region = Some(region),
            Err(error) => self.parts.mistakes.push(Mistake::Name(error)),
        }
        self
    }

    /// The name of this instance. Default: a new UUIDv7 at each start.
    #[must_use]
    pub fn instance_id(mut self, id: impl AsRef<str>) -> Self {
        match id.as_ref().parse() {
            Ok(id) => self.parts.settings.instance_id = Some(id),
            Err(error) => self.parts.mistakes.push(Mistake::Name(error)),
        }
        self
    }

    /// Requests that may be in flight in this instance, over all its gateways. Default 1024.
    #[must_use]
    pub fn lease(mut self, requests: u32) -> Self {
        if (1..=limits::LEASE_MAX).contains(&requests) {
            self.parts.settings.lease = Some(requests);
        } else {
            self.parts.mistakes.push(Mistake::Lease(requests));
        }
        self
    }

    /// Time for what is in flight to finish when the service stops; then it is cut. Default 30 s.
    #[must_use]
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.parts.settings.grace = Some(grace);
        self
    }

    /// What to do when a gateway refuses an endpoint. Default: fail the start.
    #[must_use]
    pub fn on_refused(mut self, on_refused: OnRefused) -> Self {
        self.parts.settings.on_refused = Some(on_refused);
        self
    }

    /// Runs when the service has drained, before it ends; several run one after another, the last added first.
    #[must_use]
    pub fn on_shutdown<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.parts.settings.on_shutdown.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// The clock and the randomness; for tests and simulations.
    #[must_use]
    pub fn environment(mut self, environment: Arc<dyn Environment>) -> Self {
        self.parts.settings.environment = environment;
        self
    }
}

impl ServiceParts {
    fn add<S: Send + Sync + 'static>(&mut self, listed: Listed<S>, state: &Arc<S>) {
        let Route { name, path, detached, blocking, descriptor } = listed.route;
        let mut descriptor = match descriptor {
            Ok(descriptor) => descriptor,
            Err(error) => return self.mistakes.push(Mistake::Template { path, error }),
        };
        let id = u32::try_from(self.endpoints.len() + 1).ok().and_then(EndpointId::new);
        let Some(id) = id.filter(|_| self.endpoints.len() < limits::ENDPOINTS) else {
            // Said once, however many there are.
            if !self.mistakes.iter().any(|mistake| matches!(mistake, Mistake::TooManyEndpoints)) {
                self.mistakes.push(Mistake::TooManyEndpoints);
            }
            return;
        };
        descriptor.id = id;
        let manner = match blocking {
            true => Manner::Blocking { outlives: detached || descriptor.one_way },
            false => Manner::Ordinary,
        };
        let handler = listed.handler.bind(Arc::clone(state), manner);
        // Nothing drops what has a thread of its own: like a detached one, it holds its slot to its end.
        let outlives = detached || blocking || descriptor.one_way;
        let descriptor = Arc::new(descriptor);
        self.endpoints.push(Endpoint { name, descriptor, outlives, handler, pace: Pace::default() });
        self.table = None;
    }

    /// Everything that is wrong with the definition, or nothing.
    pub(crate) fn check(&mut self) -> Result<(), StartError> {
        let mut mistakes = std::mem::take(&mut self.mistakes);
        let mut owners = std::collections::HashMap::new();
        for endpoint in &self.endpoints {
            if let Err(error) = endpoint.descriptor.check() {
                mistakes.push(Mistake::Endpoint { endpoint: endpoint.to_string(), error });
            }
            let key = (endpoint.descriptor.method.clone(), endpoint.descriptor.path.canonical());
            if let Some(owner) = owners.insert(key, endpoint) {
                mistakes.push(Mistake::Duplicate { first: owner.to_string(), second: endpoint.to_string() });
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(StartError::Definition(mistakes)) }
    }

    pub(crate) fn table(&mut self) -> Result<Arc<Table>, StartError> {
        if let Some(table) = &self.table {
            return Ok(Arc::clone(table));
        }
        self.check()?;
        let table = Arc::new(Table {
            endpoints: self.endpoints.clone(),
            surroundings: Surroundings::new(Arc::clone(&self.settings.environment)),
        });
        self.table = Some(Arc::clone(&table));
        Ok(table)
    }
}

/// The service without a gateway: a request is answered by its method and path. For tests, `oneshot`.
///
/// # Errors
/// [`StartError::Definition`] where the service is not well defined; a request itself is always answered.
impl<S: Send + Sync + 'static> tower::Service<Request> for Microservice<S> {
    type Response = Response;
    type Error = StartError;
    type Future = BoxFuture<'static, Result<Response, StartError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StartError>> {
        Poll::Ready(self.parts.table().map(drop))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.parts.table() {
            Ok(table) => {
                let answer = table.answer(request);
                Box::pin(async move { Ok(answer.await) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

impl<S> fmt::Debug for Microservice<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Microservice")
            .field("name", &self.parts.name)
            .field("version", &self.parts.version)
            .field("endpoints", &self.parts.endpoints)
            .finish_non_exhaustive()
    }
}
