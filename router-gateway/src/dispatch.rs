//! Dispatch: a request onto an instance's link, and its answer back (SPEC 5, 6).
//!
//! The innermost service of the stack, and all of the stack that a service's own requests go through. It asks the
//! routing decision where a request goes, holds it to its limits and its deadline, and sends it again where that is
//! safe. It knows nothing of how clients came, nor how frames travel.
//!
//! The road is here, in [`Inner::answer`]: `admission` is what a request brings and whether limits let it in, `choice` where
//! it goes, with its place in the `waiting` line, `failure` what it means that it failed there, after what `tries`, within
//! which `budget`, and to whose `blame`; `problems` is what clients are told then, `stream` an answer's body on its way.

mod admission;
mod blame;
mod budget;
mod choice;
mod failure;
mod problems;
mod stream;
mod tries;
mod waiting;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HeaderName};
use http::{Method, Request, Response, StatusCode, Version};
use router_common::session::Budget;
use router_link::{Body, Call, CallError, Environment, Handle, Tunnel};
use tokio_util::task::TaskTracker;

use self::admission::{Origin, origin};
pub(crate) use self::budget::RetryBudget;
use self::problems::{deadline_exceeded, no_capacity};
use self::stream::Streaming;
use self::tries::Tries;
pub(crate) use self::waiting::WaitingLine;
use crate::edge::{Explained, HeldBytes, OpenTunnel};
use crate::http_semantics;
use crate::registry::Registry;
use crate::request_id::RequestIds;
use crate::respond;
use crate::routing::instance::LinkState;
use crate::routing::{Rejection, RouteEndpoint};
use crate::telemetry::{InFlight, RouteMetrics, Shed, WorkerMetrics};

/// The bounds of requests (SPEC 6).
#[derive(Debug, Clone)]
pub(crate) struct DispatchSettings {
    pub(crate) version_header: HeaderName,
    /// Names the tenant, for taking turns in the waiting line.
    pub(crate) tenant_header: Option<HeaderName>,
    pub(crate) default_timeout: Duration,
    pub(crate) max_timeout: Duration,
    /// Longest silence within a response that streams.
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) max_request_bytes: u64,
    /// Request bytes held for one client connection.
    pub(crate) max_connection_bytes: u64,
}

/// One worker's dispatch. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatch(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry<Handle>>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) settings: DispatchSettings,
    pub(crate) worker: usize,
    pub(crate) node_bytes: Arc<HeldBytes>,
    /// What all links of the node have in their buffers.
    pub(crate) buffers: Arc<Budget>,
    pub(crate) line: Arc<WaitingLine>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) random: Arc<RequestIds>,
    pub(crate) budget: RetryBudget,
    /// Owns what outlives its request: one-way exchanges.
    pub(crate) tasks: TaskTracker,
}

/// What counts a request until its answer has ended.
struct Counted {
    metrics: Arc<RouteMetrics>,
    status: StatusCode,
    began: Instant,
    environment: Arc<dyn Environment>,
    _in_flight: InFlight,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.answered(self.status, self.environment.now().saturating_duration_since(self.began));
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dispatch(worker {})", self.0.worker)
    }
}

impl Dispatch {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Answers one request; a refusal comes unrendered (see `respond`).
    ///
    /// The request is lent, so that it stays in one place until it need not be sent again.
    pub(crate) async fn run(&self, request: &mut Request<Body>) -> Response<Body> {
        let this = &*self.0;
        let began = this.environment.now();
        let in_flight = this.metrics.enter();
        let (mut metrics, mut tries) = (None, Tries::default());
        let mut response = match this.answer(request, began, &mut metrics, &mut tries).await {
            Ok(response) => response,
            Err(Rejection::Options { allow }) => respond::allowed(&allow),
            Err(Rejection::LeasedOut(endpoint, _)) => {
                metrics.get_or_insert_with(|| this.metrics.of(&endpoint));
                respond::refusal(no_capacity())
            }
            Err(Rejection::Problem(problem)) => respond::refusal(problem),
        };
        if let Some(line) = tries.explained() {
            response.extensions_mut().insert(Explained(line));
        }
        let mut counted = Counted {
            metrics: metrics.unwrap_or_else(|| Arc::clone(this.metrics.unrouted())),
            status: response.status(),
            began,
            environment: Arc::clone(&this.environment),
            _in_flight: in_flight,
        };
        if response.body().whole().is_some() {
            if !response.extensions().is_empty()
                && let Some(tunnel) = Tunnel::of(&mut response)
            {
                if request.version() <= Version::HTTP_11 {
                    // What the client is told.
                    counted.status = StatusCode::SWITCHING_PROTOCOLS;
                }
                OpenTunnel::put_into(&mut response, tunnel, counted);
            }
            return response;
        }
        response.map(|body| Body::stream(Streaming::new(body, this.settings.stream_idle_timeout, counted)))
    }
}

impl Inner {
    async fn answer(
        &self,
        request: &mut Request<Body>,
        began: Instant,
        metrics: &mut Option<Arc<RouteMetrics>>,
        tries: &mut Tries,
    ) -> Result<Response<Body>, Rejection> {
        if self.buffers.is_nearly_full() {
            // Its answer would find no room, and take it from those that have begun.
            return Err(self.shed(Shed::BufferedBytes).into());
        }
        let Origin { upload, connection_full, explain, call } = origin(request, self.settings.max_connection_bytes)?;
        let asked = self.asked_timeout(request)?.map(|timeout| began + timeout.min(self.settings.max_timeout));
        // What was asked for rules from the start, in the waiting line too; the endpoint's own timeout once it is known.
        tries.deadline = [asked, call.deadline].into_iter().flatten().min();
        tries.explain = explain;
        let method = request.method().clone();
        loop {
            let chosen = self.find(request, &method, began, tries).await?;
            *metrics = Some(self.metrics.of(&chosen.endpoint));
            let descriptor = &chosen.endpoint.descriptor;
            let deadline = self.deadline(&chosen.endpoint, began, tries.deadline);
            self.admit(upload.as_deref(), connection_full, call.tunnel.is_some(), &chosen.endpoint)?;
            if chosen.head_from_get {
                *request.method_mut() = Method::GET;
            }
            let (idempotent, one_way) = (descriptor.idempotent, descriptor.one_way);
            let head_only = method == Method::HEAD;
            let call = Call {
                endpoint: Some(descriptor.id),
                deadline: Some(deadline),
                hops: call.hops,
                scheme: call.scheme,
                parameters: chosen.parameters,
                client: call.client,
                claims: call.claims.clone(),
                permit: Some(chosen.permit),
                tunnel: call.tunnel.clone().filter(|_| !one_way),
                open_first: call.open_first,
            };
            let handle = chosen.link.handle();
            let outcome = if one_way {
                // A client that leaves does not cancel it (SPEC 4): the exchange is not the request's own.
                let (handle, mut whole) = (handle.clone(), std::mem::take(request));
                let sent = async move { (handle.call(&mut whole, call).await, whole) };
                match self.tasks.spawn(sent).await {
                    Ok((outcome, whole)) => {
                        *request = whole;
                        outcome
                    }
                    Err(_) => Err(CallError::Closed),
                }
            } else {
                handle.call(&mut *request, call).await
            };
            let error = match outcome {
                Ok(response) => {
                    if response.status().is_server_error() {
                        self.failed_on(&chosen.link);
                    } else {
                        chosen.link.instance().succeeded();
                    }
                    return Ok(self.finish(response, head_only, one_way));
                }
                Err(error) => error,
            };
            let had_its_time = || {
                let whole = request.body().whole().map(|body| body.len() as u64);
                let came_whole = upload.as_deref().is_none_or(|upload| upload.declared() == whole);
                // Not if somebody asked for less time, or it was spent elsewhere.
                let has_all = deadline == self.deadline(&chosen.endpoint, began, None);
                came_whole && has_all && !tries.has_waited && !tries.are_any()
            };
            if upload.as_deref().is_none_or(|upload| upload.failure().is_none())
                && blame::is_of_the_instance(&error, had_its_time)
            {
                self.failed_on(&chosen.link);
            }
            let (again, problem) = self.failure(&error, upload.as_deref(), idempotent, request.body(), tries);
            if !again {
                return Err(problem.into());
            }
            if self.environment.now() >= deadline {
                return Err(deadline_exceeded().into());
            }
            if matches!(error, CallError::TooLarge | CallError::Streams) {
                // It has not been anywhere.
                continue;
            }
            self.metrics.node().retries.inc();
            if matches!(error, CallError::ResponseTooLarge) {
                // The link is to be another one, and may be the same instance's.
                continue;
            }
            tries.note(chosen.link.instance().key(), chosen.link.id(), &error);
        }
    }

    /// When a request must be answered: the endpoint's own time, or less if less was asked for (SPEC 6).
    fn deadline(&self, endpoint: &RouteEndpoint, began: Instant, asked: Option<Instant>) -> Instant {
        let timeout = endpoint.descriptor.timeout.unwrap_or(self.settings.default_timeout);
        let latest = began + timeout.min(self.settings.max_timeout);
        asked.map_or(latest, |asked| asked.min(latest))
    }

    /// A request failed on an instance, by its own fault: it may be ejected for that.
    #[cold]
    fn failed_on(&self, link: &LinkState<Handle>) {
        let instance = link.instance();
        if self.registry.failed(instance, self.environment.now()) {
            self.metrics.node().ejected(instance.instance());
        }
    }

    fn finish(&self, mut response: Response<Body>, head_only: bool, one_way: bool) -> Response<Body> {
        self.budget.deposit();
        if !http_semantics::response_has_body(if head_only { &Method::HEAD } else { &Method::GET }, response.status()) {
            let body = std::mem::take(response.body_mut());
            // RFC 9110 9.3.2: HEAD has the fields of GET, and here the library cannot know the length any more.
            if head_only
                && http_semantics::response_has_body(&Method::GET, response.status())
                && let Some(length) = http_body::Body::size_hint(&body).exact()
            {
                response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
            }
        } else if one_way && response.body().whole().is_none() {
            // The END follows the handler, and the client has its answer: what is left is only waited for.
            let body = std::mem::take(response.body_mut());
            self.tasks.spawn(run_out(body));
        }
        response
    }
}

/// Reads a body to its end, for its end.
async fn run_out(mut body: Body) {
    while let Some(Ok(_)) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {}
}
