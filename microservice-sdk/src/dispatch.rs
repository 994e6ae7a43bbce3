//! From a request to the user's function and back: the table of handlers, and the future that runs one.
//!
//! A handler that panics is a 500 for its request alone (SPEC 11). Nothing here knows links: `serve` feeds this from
//! them, and `Microservice` from a test.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Method};
use router_common::endpoint::{EndpointDescriptor, EndpointId, PathTemplate, Segment};
use router_common::path::RequestPath;
use router_common::problem::{self, ProblemCode};
use router_link::{Body, Fields, Inbound, Parameters, RequestContext, Responder};

use crate::error::Problem;
use crate::handler::{BoundHandler, HandlerFuture, Reads};
use crate::invocation::{Invocation, Surroundings};
use crate::message::{Request, Response};
use crate::outgoing;
use crate::pace::Pace;

/// One endpoint with its handler.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The function's name, for people; empty for a closure.
    pub(crate) name: String,
    pub(crate) descriptor: Arc<EndpointDescriptor>,
    /// The handler goes on when nobody waits for its answer any more.
    pub(crate) outlives: bool,
    pub(crate) handler: BoundHandler,
    pub(crate) pace: Pace,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.descriptor.method, self.descriptor.path)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " (`{}`)", self.name) }
    }
}

/// All endpoints of a service, in the order of their ids: an id is an index plus one, for the life of the process.
pub(crate) struct Table {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) surroundings: Arc<Surroundings>,
}

impl Table {
    pub(crate) fn by_id(&self, id: EndpointId) -> Option<&Endpoint> {
        let index = usize::try_from(id.as_u32()).ok()?.checked_sub(1)?;
        self.endpoints.get(index)
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Arc<EndpointDescriptor>> {
        self.endpoints.iter().map(|endpoint| &endpoint.descriptor)
    }

    /// Starts the handler of an endpoint on a request from a link, of which as much is made HTTP as the handler looks at.
    /// `None`: HTTP's types cannot say it. See [`Running::poll_on`] for what is left of the request.
    pub(crate) fn accept(&self, endpoint: &Endpoint, inbound: &mut Inbound, responder: &Responder) -> Option<Running> {
        let fields = match endpoint.handler.reads() {
            Reads::Nothing => None,
            Reads::Line => Some(Fields::Unread),
            Reads::Fields => Some(Fields::All),
        };
        let request = match fields {
            None => Request::default(),
            Some(fields) => {
                let parts = inbound.parts(fields)?;
                let mut request = Request::from_parts(parts, inbound.take_body());
                self.invoke(endpoint, &mut request, inbound.context(responder));
                request
            }
        };
        let future = endpoint.handler.call(request);
        // Nobody reads a body that the handler does not ask for.
        drop(inbound.take_body());
        Some(Running::new(endpoint, future, None))
    }

    /// Starts the handler of an endpoint on a request that is HTTP.
    fn start(&self, endpoint: &Endpoint, mut request: Request, context: RequestContext) -> Running {
        let request_id = outgoing::request_id(request.headers()).map(Into::into);
        self.invoke(endpoint, &mut request, context);
        Running::new(endpoint, endpoint.handler.call(request), request_id)
    }

    fn invoke(&self, endpoint: &Endpoint, request: &mut Request, context: RequestContext) {
        request.extensions_mut().insert(Invocation {
            surroundings: Arc::clone(&self.surroundings),
            endpoint: Arc::clone(&endpoint.descriptor),
            context,
        });
    }

    /// Answers a request by its method and path, as a gateway with this one service would (SPEC 2).
    pub(crate) fn answer(&self, mut request: Request) -> impl Future<Output = Response> + Send + use<> {
        let started = match self.matched(request.method(), request.uri().path()) {
            Ok((endpoint, parameters, head_from_get)) => {
                let mut context = request.extensions_mut().remove::<RequestContext>().unwrap_or_default();
                context.endpoint = Some(endpoint.descriptor.id);
                context.parameters = parameters;
                Ok((self.start(endpoint, request, context), head_from_get))
            }
            Err(problem) => Err(not_served(problem, request.headers())),
        };
        async move {
            match started {
                Ok((running, head_from_get)) => {
                    let mut response = running.await;
                    if head_from_get {
                        *response.body_mut() = Body::empty();
                    }
                    response
                }
                Err(response) => response,
            }
        }
    }

    fn matched(&self, method: &Method, path: &str) -> Result<(&Endpoint, Parameters, bool), problem::Problem> {
        let path = RequestPath::parse(path)?;
        let mut fitting: Vec<(&Endpoint, Parameters)> = self
            .endpoints
            .iter()
            .filter_map(|endpoint| {
                let parameters = endpoint.descriptor.path.matches(&path)?;
                Some((endpoint, Parameters::new(parameters.as_slice())))
            })
            .collect();
        let Some(best) = fitting.iter().map(|(endpoint, _)| specificity(&endpoint.descriptor.path)).min() else {
            return Err(problem::Problem::new(ProblemCode::RouteNotFound));
        };
        fitting.retain(|(endpoint, _)| specificity(&endpoint.descriptor.path) == best);
        let place = |wanted: &Method| fitting.iter().position(|(endpoint, _)| endpoint.descriptor.method == *wanted);
        let (place, head_from_get) = match place(method) {
            Some(place) => (place, false),
            None => match (method == Method::HEAD).then(|| place(&Method::GET)).flatten() {
                Some(place) => (place, true),
                None => {
                    let allowed: Vec<&str> =
                        fitting.iter().map(|(endpoint, _)| endpoint.descriptor.method.as_str()).collect();
                    return Err(problem::Problem::new(ProblemCode::MethodNotAllowed).allow(allowed.join(", ")));
                }
            },
        };
        let (endpoint, parameters) = fitting.swap_remove(place);
        Ok((endpoint, parameters, head_from_get))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

fn not_served(problem: problem::Problem, request: &HeaderMap) -> Response {
    let allow = problem.allow.as_ref().and_then(|allow| allow.parse().ok());
    let mut response = Problem::from(problem).render();
    if let Some(allow) = allow {
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    outgoing::finish(&mut response, || outgoing::request_id(request));
    response
}

/// Literal beats parameter beats catch-all, segment by segment.
fn specificity(template: &PathTemplate) -> Vec<u8> {
    template
        .segments()
        .iter()
        .map(|segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Parameter(_) => 1,
            Segment::CatchAll(_) => 2,
        })
        .collect()
}

/// A handler at work. A panic ends it with 500 `internal_error`.
#[must_use = "a handler works only while it is polled"]
pub(crate) struct Running {
    /// `None` once it has ended.
    future: Option<HandlerFuture>,
    endpoint: Arc<EndpointDescriptor>,
    /// Under which id the request is known, which only a problem says.
    request_id: Option<Box<str>>,
}

impl Running {
    fn new(endpoint: &Endpoint, future: HandlerFuture, request_id: Option<Box<str>>) -> Self {
        Self { future: Some(future), endpoint: Arc::clone(&endpoint.descriptor), request_id }
    }

    /// Keeps of the request's fields what may be needed later. They are not to be kept alive themselves while a handler
    /// takes its time: the buffer that they came in would be.
    pub(crate) fn settle(&mut self, inbound: &Inbound) {
        self.request_id = inbound.field(outgoing::REQUEST_ID).map(Into::into);
    }

    /// Polls while the request's fields are at hand.
    pub(crate) fn poll_on(&mut self, inbound: Option<&Inbound>, cx: &mut Context<'_>) -> Poll<Response> {
        let Some(future) = self.future.as_mut() else { return Poll::Pending };
        // The future is dropped after a panic and never polled again, so nobody sees what it left half done but state
        // that is shared, where poisoning and the like are its own.
        let mut response = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(response)) => response,
            Err(panic) => {
                let EndpointDescriptor { method, path, .. } = &*self.endpoint;
                tracing::error!(%method, %path, panic = panic_text(&*panic), "a handler panicked");
                Problem::internal().render()
            }
        };
        self.future = None;
        outgoing::finish(&mut response, || match inbound {
            Some(inbound) => inbound.field(outgoing::REQUEST_ID),
            None => self.request_id.as_deref(),
        });
        Poll::Ready(response)
    }
}

impl Future for Running {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.get_mut().poll_on(None, cx)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({} {})", self.endpoint.method, self.endpoint.path)
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(not a text)")
}
