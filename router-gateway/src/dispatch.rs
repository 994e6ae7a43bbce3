//! Dispatch: a request onto an instance's link, and its answer back (SPEC 5, 6).
//!
//! The innermost service of the stack, and all of the stack that a service's own requests go through. It asks the
//! routing decision where a request goes, holds it to its limits and its deadline, and sends it again where that is
//! safe. It knows nothing of how clients came, nor how frames travel.

mod blame;
mod budget;
mod stream;
mod tries;
mod waiting;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HeaderName};
use http::{Method, Request, Response, StatusCode, Version};
use router_common::frame::Reason;
use router_common::limits;
use router_common::path::RequestPath;
use router_common::problem::{Problem, ProblemCode};
use router_common::session::Budget;
use router_common::session::lease::Permit;
use router_link::{Body, Call, CallError, Environment, Handle, Parameters, RequestContext, Tunnel};
use tokio_util::task::TaskTracker;

pub(crate) use self::budget::RetryBudget;
use self::stream::Streaming;
use self::tries::{Excluded, Tries};
pub(crate) use self::waiting::WaitingLine;
use self::waiting::{Full, Wanted};
use crate::edge::{Arrival, Explained, HeldBytes, OpenTunnel, Upload, UploadFailure};
use crate::http_semantics;
use crate::registry::Registry;
use crate::request_id::RequestIds;
use crate::respond;
use crate::routing::explain::explain;
use crate::routing::instance::LinkState;
use crate::routing::{Rejection, RequestFacts, RouteEndpoint, Servers, decide};
use crate::telemetry::{InFlight, RouteMetrics, Shed, WorkerMetrics};

/// How often a request that was provably not seen is sent again.
const UNSEEN_RETRIES: usize = 3;
/// How often a decision is made again because what it rested on changed meanwhile: somebody else took the slot, or a
/// newer table has come.
const LOST_RACES: usize = 4;
/// The largest body that is kept for sending it again, in bytes.
const RETRY_BODY: usize = 64 * 1024;
/// What clients are told to wait when the node or the line is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The header with which a client asks for a shorter deadline.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

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

/// What a request brings beside HTTP, whoever sent it.
#[derive(Default)]
struct Origin {
    upload: Option<Arc<Upload>>,
    connection_full: bool,
    explain: bool,
    call: Call,
}

/// Where a request goes, free of the snapshot it was found in.
struct Chosen {
    link: Arc<LinkState<Handle>>,
    endpoint: Arc<RouteEndpoint>,
    parameters: Parameters,
    permit: Permit,
    head_from_get: bool,
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

    /// Decides, and waits in line while every instance is leased out (SPEC 5).
    ///
    /// # Errors
    /// [`Rejection::LeasedOut`] only when there is nothing left to wait for.
    async fn find(
        &self,
        // Not changed; but a shared reference to a body could not be held across an await.
        request: &mut Request<Body>,
        method: &Method,
        began: Instant,
        tries: &mut Tries,
    ) -> Result<Chosen, Rejection> {
        loop {
            let (endpoint, servers) = match self.choose_untried(request, method, tries) {
                Ok(chosen) => {
                    tries.place = None;
                    return Ok(chosen);
                }
                Err(Rejection::LeasedOut(endpoint, servers)) => (endpoint, servers),
                Err(Rejection::Problem(problem))
                    if problem.code == ProblemCode::NoInstance && tries.unfit.is_some() =>
                {
                    return Err(tries.unfit.map_or(problem, unfit).into());
                }
                Err(Rejection::Problem(problem)) if tries.are_any() && problem.code == ProblemCode::NoInstance => {
                    // Others were tried and did not see it: it is not that there is nobody.
                    return Err(no_capacity().into());
                }
                Err(rejection) => return Err(rejection),
            };
            let wanted = Wanted::new(&endpoint, servers);
            let place = match tries.place.take_if(|place| *place.wanted() == wanted) {
                Some(place) => tries.place.insert(place),
                // The first one, or routes have changed: what is waited for now is something else.
                None => {
                    tries.place = None;
                    let tenant = self.settings.tenant_header.as_ref().and_then(|name| request.headers().get(name));
                    let place = match self.line.join(wanted, tenant.cloned()) {
                        Ok(place) => place,
                        Err(Full::Lane) => {
                            self.metrics.node().shed(Shed::Waiting);
                            return Err(Rejection::LeasedOut(endpoint, servers));
                        }
                        Err(Full::Line) => return Err(self.shed(Shed::WaitingInNode).into()),
                    };
                    tries.has_waited = true;
                    let place = tries.place.insert(place);
                    if place.begins() {
                        continue;
                    }
                    place
                }
            };
            let until = self.deadline(&endpoint, began, tries.deadline);
            if tokio::time::timeout_at(until.into(), place.woken()).await.is_err() {
                return Err(Rejection::LeasedOut(endpoint, servers));
            }
        }
    }

    /// Where a request goes that may have been somewhere in vain: to an instance that it has not been to; if there is none,
    /// to one that it has, over another link.
    fn choose_untried(&self, request: &Request<Body>, method: &Method, tries: &Tries) -> Result<Chosen, Rejection> {
        let nobody = |rejection: &Rejection| match rejection {
            Rejection::Problem(problem) => problem.code == ProblemCode::NoInstance,
            _ => false,
        };
        let is_out = |rejection: &Rejection| matches!(rejection, Rejection::LeasedOut(..)) || nobody(rejection);
        match (self.choose(request, method, tries, tries.anew()), tries.over_other_links()) {
            (Err(first), Some(others)) if is_out(&first) => match self.choose(request, method, tries, others) {
                // There is somebody to wait for.
                Err(second) if nobody(&second) => Err(first),
                second => second,
            },
            (first, _) => first,
        }
    }

    /// One decision, with its slot taken. No await: the snapshot is let go at the end.
    fn choose(
        &self,
        request: &Request<Body>,
        method: &Method,
        tries: &Tries,
        excluded: Excluded<'_>,
    ) -> Result<Chosen, Rejection> {
        let path = RequestPath::parse(request.uri().path()).map_err(Problem::from)?;
        let mut versions = request.headers().get_all(&self.settings.version_header).iter();
        let version = versions.next();
        if versions.next().is_some() {
            let detail = "The request names a version more than once.";
            return Err(Problem::new(ProblemCode::InvalidVersion).detail(detail).into());
        }
        let facts = RequestFacts {
            method,
            path: &path,
            version_header: version.map(|version| version.to_str().unwrap_or_default()),
            claims: None,
            worker: self.worker,
            excluded: excluded.instances,
            excluded_links: excluded.links,
            needs: tries.needs(),
            random: self.random.random(),
            now: self.environment.now(),
        };
        let mut raced = 0;
        loop {
            raced += 1;
            let table = self.registry.table();
            if tries.explain {
                tries.note_decision(&explain(&table, &facts));
            }
            let decision = match decide(&table, &facts) {
                // The instances of this table have left, or others have come that it does not know.
                Err(Rejection::Problem(problem))
                    if raced < LOST_RACES
                        && is_for_want_of_somebody(problem.code)
                        && self.registry.is_outdated(&table, facts.now) =>
                {
                    continue;
                }
                decision => decision?,
            };
            let is_others = self.is_others(decision.endpoint, decision.servers, tries);
            let permit = if is_others { None } else { decision.instance.lease().try_acquire() };
            if let Some(permit) = permit {
                return Ok(Chosen {
                    link: Arc::clone(decision.link),
                    endpoint: Arc::clone(decision.endpoint),
                    parameters: Parameters::new(decision.parameters.as_slice()),
                    permit,
                    head_from_get: decision.head_from_get,
                });
            }
            if is_others || raced >= LOST_RACES {
                return Err(Rejection::LeasedOut(Arc::clone(decision.endpoint), decision.servers));
            }
        }
    }

    /// Whether a slot that is free belongs to somebody who waits for it, and not to who comes now. Who is sent again
    /// has had its turn.
    fn is_others(&self, endpoint: &RouteEndpoint, servers: Servers, tries: &Tries) -> bool {
        if self.line.len() == 0 || tries.are_any() {
            return false;
        }
        let wanted = Wanted::new(endpoint, servers);
        if tries.place.as_ref().is_some_and(|place| *place.wanted() == wanted) || !self.line.is_awaited(&wanted) {
            return false;
        }
        // It is being told already; but should a change ever come that tells nobody, this does.
        self.line.freed(&endpoint.service, &endpoint.version);
        true
    }

    /// A request failed on an instance, by its own fault: it may be ejected for that.
    #[cold]
    fn failed_on(&self, link: &LinkState<Handle>) {
        let instance = link.instance();
        if self.registry.failed(instance, self.environment.now()) {
            self.metrics.node().ejected(instance.instance());
        }
    }

    /// The limits of SPEC 6, before a byte of the body is read.
    fn admit(
        &self,
        upload: Option<&Upload>,
        connection_full: bool,
        is_tunnel: bool,
        endpoint: &RouteEndpoint,
    ) -> Result<(), Problem> {
        if upload.is_none() && !is_tunnel {
            return Ok(());
        }
        let limit = endpoint.descriptor.max_request_bytes.unwrap_or(self.settings.max_request_bytes);
        if upload.and_then(Upload::declared).is_some_and(|declared| declared > limit) {
            return Err(too_large());
        }
        if connection_full {
            return Err(self.shed(Shed::ConnectionBytes));
        }
        if self.node_bytes.is_nearly_full() {
            return Err(self.shed(Shed::InflightBytes));
        }
        if let Some(upload) = upload {
            upload.set_limit(limit);
        }
        Ok(())
    }

    /// What a body that was not read to its end means to its sender.
    fn upload_problem(&self, failure: Option<UploadFailure>) -> Problem {
        match failure.unwrap_or(UploadFailure::Malformed) {
            UploadFailure::TooLarge => too_large(),
            UploadFailure::ConnectionBytes => self.shed(Shed::ConnectionBytes),
            UploadFailure::NodeBytes => self.shed(Shed::InflightBytes),
            UploadFailure::Stalled => {
                Problem::new(ProblemCode::RequestTimeout).detail("The request body did not get on.")
            }
            UploadFailure::Malformed => {
                Problem::new(ProblemCode::BadRequest).detail("The request body is not well-formed.")
            }
        }
    }

    /// Refuses a request, so that the node stays within its bounds.
    #[cold]
    fn shed(&self, reason: Shed) -> Problem {
        self.metrics.node().shed(reason);
        let code = match reason {
            Shed::ConnectionBytes => ProblemCode::ConnectionBytesExceeded,
            _ => ProblemCode::NodeOverloaded,
        };
        Problem::new(code).retry_after(RETRY_AFTER)
    }

    /// The client may ask for less time, in whole milliseconds.
    fn asked_timeout(&self, request: &Request<Body>) -> Result<Option<Duration>, Problem> {
        let Some(value) = request.headers().get(X_REQUEST_TIMEOUT_MS) else { return Ok(None) };
        let asked = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|ms| *ms > 0);
        asked.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
            Problem::new(ProblemCode::BadRequest)
                .detail("x-request-timeout-ms is not a whole number of milliseconds, 1 or more.")
        })
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

    /// What it means that a request, or its answer, did not fit the link that was chosen: another one may carry it, if there
    /// is any on which bodies stream. A request that fitted has been seen, and goes again only if it may.
    #[cold]
    fn unfit(
        &self,
        error: &CallError,
        upload: Option<&Upload>,
        idempotent: bool,
        tries: &mut Tries,
    ) -> (bool, Problem) {
        if let Some(failure) = upload.and_then(Upload::failure) {
            return (false, self.upload_problem(Some(failure)));
        }
        let code = match error {
            CallError::TooLarge => ProblemCode::PayloadTooLarge,
            CallError::Streams => ProblemCode::NotImplemented,
            _ => ProblemCode::ResponseTooLarge,
        };
        let first = tries.unfit.replace(code).is_none();
        let again = first
            && (code != ProblemCode::ResponseTooLarge || {
                idempotent
                    && !std::mem::replace(&mut tries.retried, true)
                    && self.budget.withdraw(self.environment.now())
            });
        (again, unfit(code))
    }

    /// What a failed exchange means: whether the request may be sent again, and what to say otherwise.
    fn failure(
        &self,
        error: &CallError,
        upload: Option<&Upload>,
        idempotent: bool,
        body: &Body,
        tries: &mut Tries,
    ) -> (bool, Problem) {
        use ProblemCode as Code;
        let (unseen, code) = match error {
            CallError::Unseen { .. } | CallError::Cancelled { reason: Reason::Refused, .. } => (true, Code::NoCapacity),
            CallError::Lost { .. } => (false, Code::ConnectionLost),
            CallError::Expired | CallError::Cancelled { reason: Reason::DeadlineExceeded, .. } => {
                return (false, deadline_exceeded());
            }
            CallError::Cancelled { reason: Reason::PayloadLimit, .. } => return (false, too_large()),
            CallError::Body(_) => {
                return (false, self.upload_problem(upload.and_then(Upload::failure)));
            }
            CallError::Head(_) | CallError::HeadTooLarge => return (false, Problem::new(Code::HeadersTooLarge)),
            CallError::TooLarge | CallError::Streams | CallError::ResponseTooLarge => {
                return self.unfit(error, upload, idempotent, tries);
            }
            CallError::Cancelled { reason, text, .. } => {
                tracing::debug!(%reason, text, "a service cancelled a request");
                (false, Code::ServiceFailed)
            }
            _ => (false, Code::ServiceFailed),
        };
        if let Some(failure) = upload.and_then(Upload::failure) {
            return (false, self.upload_problem(Some(failure)));
        }
        let problem = match code {
            Code::NoCapacity => no_capacity(),
            _ => Problem::new(code),
        };
        let again = if unseen {
            tries.unseen += 1;
            tries.unseen <= UNSEEN_RETRIES
        } else {
            idempotent && !tries.retried && {
                tries.retried = true;
                self.budget.withdraw(self.environment.now())
            }
        };
        // What nobody saw may go again as it is; what somebody may have seen only if it is cheap to keep.
        let fits = || unseen || body.whole().is_some_and(|body| body.len() <= RETRY_BODY);
        (again && error.leaves_whole() && fits(), problem)
    }
}

/// Whether a newer table may say otherwise.
const fn is_for_want_of_somebody(code: ProblemCode) -> bool {
    use ProblemCode as Code;
    matches!(code, Code::NoInstance | Code::RouteNotFound | Code::VersionNotFound | Code::MethodNotAllowed)
}

/// What a request brings, by who sent it.
fn origin(request: &mut Request<Body>, max_connection_bytes: u64) -> Result<Origin, Problem> {
    if let Some(arrival) = request.extensions_mut().remove::<Arrival>() {
        let call = Call {
            client: Some(arrival.client),
            open_first: arrival.waits_for_continue,
            tunnel: arrival.tunnel.clone(),
            ..Call::default()
        };
        return Ok(Origin {
            connection_full: arrival.connection_full(max_connection_bytes),
            upload: arrival.upload,
            explain: arrival.explain,
            call,
        });
    }
    let Some(context) = request.extensions_mut().remove::<RequestContext>() else { return Ok(Origin::default()) };
    let hops = context.hops.saturating_add(1);
    if hops > limits::HOPS {
        return Err(Problem::new(ProblemCode::LoopDetected));
    }
    let call =
        Call { deadline: context.deadline, hops, scheme: context.scheme, client: context.client, ..Call::default() };
    Ok(Origin { call, ..Origin::default() })
}

/// Reads a body to its end, for its end.
async fn run_out(mut body: Body) {
    while let Some(Ok(_)) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {}
}

/// The service is only reached by links that carry small messages.
fn unfit(code: ProblemCode) -> Problem {
    let problem = Problem::new(code);
    match code {
        ProblemCode::PayloadTooLarge => {
            problem.detail("The request does not fit into one message of the service's transport.")
        }
        ProblemCode::NotImplemented => problem.detail("The service's transport carries neither upgrades nor trailers."),
        _ => problem.detail("The response does not fit into one message of the service's transport."),
    }
}

fn deadline_exceeded() -> Problem {
    Problem::new(ProblemCode::DeadlineExceeded)
}

fn no_capacity() -> Problem {
    Problem::new(ProblemCode::NoCapacity).retry_after(RETRY_AFTER)
}

fn too_large() -> Problem {
    Problem::new(ProblemCode::PayloadTooLarge)
}
