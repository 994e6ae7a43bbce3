//! One client connection: detects the protocol, serves its requests, ends it when it is idle or told to stop.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use router_link::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::body::{RequestBody, ResponseBody, Upload};
use super::client::{ClientConnection, OpenGuard};
use super::io::{EdgeIo, Protocol};
use super::stop::Stop;
use super::{Arrival, EdgeContext};
use crate::http_semantics;

/// Between two pings to an HTTP/2 client, and until a missing answer ends the connection.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Serves one connection to its end.
pub(super) async fn serve<IO, S>(
    io: IO,
    peer: SocketAddr,
    stack: S,
    context: Arc<EdgeContext>,
    stop: Stop,
    tasks: TaskTracker,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let connection = ClientConnection::new(peer);
    let mut io = EdgeIo::new(io, Arc::clone(&connection), Arc::clone(&context));
    let first_byte = tokio::time::timeout(context.settings.header_timeout, poll_fn(|cx| io.poll_protocol(cx)));
    let protocol = tokio::select! {
        biased;
        protocol = first_byte => protocol,
        () = stop.requested() => return,
    };
    // A client that says nothing, or half a preface, gets no answer: there is no request to answer.
    let Ok(Ok(Some(protocol))) = protocol else { return };
    let requests =
        Requests { stack: RefCell::new(stack), connection: Arc::clone(&connection), context: Arc::clone(&context) };
    let io = TokioIo::new(io);
    let idle = Idle::new(context.settings.keep_alive_timeout);
    let outcome = match protocol {
        Protocol::Http1 => {
            let http = Box::pin(http1_builder(&context).serve_connection(io, requests));
            drive(http, |http| http.graceful_shutdown(), &connection, stop, idle).await
        }
        Protocol::Http2 => {
            let http = Box::pin(http2_builder(&context, tasks).serve_connection(io, requests));
            drive(http, |http| http.graceful_shutdown(), &connection, stop, idle).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}

/// Polls a connection, and beside it what stops it and what is left of its bodies. The connection is boxed, so that one
/// that is idle holds no room for what it might have been.
async fn drive<C, G>(
    mut http: Pin<Box<C>>,
    mut stop_http: G,
    connection: &ClientConnection,
    stop: Stop,
    mut idle: Idle,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
    G: FnMut(Pin<&mut C>),
{
    let mut requested = pin!(stop.requested());
    let mut registered = false;
    let mut stopping = false;
    poll_fn(|cx| {
        // The flag is one load; the waiting future, which locks, is polled once to leave its waker.
        if !stopping && (!registered || stop.is_requested()) {
            connection.driven_by(cx.waker());
            registered = true;
            if requested.as_mut().poll(cx).is_ready() || stop.is_requested() {
                stopping = true;
                stop_http(http.as_mut());
            }
        }
        let outcome = http.as_mut().poll(cx);
        if outcome.is_ready() {
            return outcome;
        }
        connection.poll_leftover(cx);
        if !stopping && idle.poll(connection, cx).is_ready() {
            stopping = true;
            stop_http(http.as_mut());
            return http.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// How long a connection has had nothing open. The timer is not touched by requests: it wakes early, and is then set to
/// what is left.
struct Idle {
    limit: Duration,
    since: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), alarm: None }
    }

    /// Ready when the connection has been idle for too long.
    fn poll(&mut self, connection: &ClientConnection, cx: &mut Context<'_>) -> Poll<()> {
        if connection.has_stirred() {
            self.since = Instant::now();
        }
        let limit = self.limit;
        let alarm = match &mut self.alarm {
            // Its waker is this task's already.
            Some(alarm) if !alarm.is_elapsed() => return Poll::Pending,
            Some(alarm) => alarm,
            none => none.insert(Box::pin(sleep(limit))),
        };
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if connection.is_busy() {
                self.since = now;
            }
            if now >= self.since + limit {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.since + limit);
        }
        Poll::Pending
    }
}

fn http1_builder(context: &EdgeContext) -> http1::Builder {
    let settings = &context.settings;
    let mut builder = http1::Builder::new();
    // Patience is the byte stream's, which can say 408; the library's own timer cannot.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.max_header_size(settings.max_header_bytes);
    // Any other number than the library's own costs two allocations a request.
    if settings.max_headers != LIBRARY_MAX_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

/// The number of fields that the HTTP library has room for on its stack, and its limit unless told otherwise.
const LIBRARY_MAX_HEADERS: usize = 100;

fn http2_builder(context: &EdgeContext, tasks: TaskTracker) -> http2::Builder<Spawn> {
    let settings = &context.settings;
    let mut builder = http2::Builder::new(Spawn(tasks));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .adaptive_window(true);
    builder
}

/// Runs the library's tasks (one an HTTP/2 stream) under the worker's tracker, so that they are waited for.
#[derive(Clone)]
struct Spawn(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// The HTTP library's service: turns its requests into the house's and hands them to the stack.
struct Requests<S> {
    /// Called one at a time, by the connection's task alone; a copy a request would count references up and down.
    stack: RefCell<S>,
    connection: Arc<ClientConnection>,
    context: Arc<EdgeContext>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = &self.connection;
        let two_lengths = connection.begin();
        let open = OpenGuard::new(Arc::clone(connection));
        let (parts, incoming) = request.into_parts();
        let waits_for_continue = http_semantics::expects_continue(parts.version, &parts.headers);
        let (body, upload) = if incoming.is_end_stream() {
            (Body::empty(), None)
        } else {
            let upload = Arc::new(Upload::new(incoming.size_hint().exact()));
            let open = OpenGuard::new(Arc::clone(connection));
            (Body::stream(RequestBody::new(incoming, &parts, Arc::clone(&upload), open, &self.context)), Some(upload))
        };
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(Arrival {
            two_lengths,
            client: connection.peer(),
            connection: Arc::clone(connection),
            upload,
            sender: None,
            waits_for_continue,
        });
        // The stack's services are always ready: their bounds answer 503, they do not make the connection wait.
        Answer { answer: self.stack.borrow_mut().call(request), open: Some(open) }
    }
}

pin_project_lite::pin_project! {
    /// A request's answer on its way.
    pub(super) struct Answer<F> {
        #[pin]
        answer: F,
        open: Option<OpenGuard>,
    }
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.answer.poll(cx));
        let open = this.open.take();
        if open.as_ref().is_some_and(|open| open.connection().has_given_up()) {
            // RFC 9112 9.6: a client that is not told would send its next request here.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, open))))
    }
}
