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
use tokio::time::{Instant, Sleep, sleep_until};
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

/// After how long without a request a connection's HTTP state is given up until the next one: making it anew costs some
/// microseconds, keeping it some 20 KiB.
const QUIET_AFTER: Duration = Duration::from_secs(1);

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
    let mut driving = Driving { connection: &connection, stop, idle: Idle::new(context.settings.keep_alive_timeout) };
    let outcome = match protocol {
        Protocol::Http1 => driving.http1(io, requests, &context).await,
        Protocol::Http2 => {
            let http = Box::pin(http2_builder(&context, tasks).serve_connection(TokioIo::new(io), requests));
            match driving.drive(http, |http| http.graceful_shutdown(), false).await {
                Driven::Over(outcome) => outcome,
                Driven::Quiet(_) => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}

/// Polls the HTTP library's connection, and beside it what stops it and what is left of its bodies.
struct Driving<'a> {
    connection: &'a ClientConnection,
    stop: Stop,
    idle: Idle,
}

/// Why a connection is not polled any more.
enum Driven<C> {
    Over(Result<(), hyper::Error>),
    /// It has done nothing for a while, and nothing was begun.
    Quiet(Pin<Box<C>>),
}

impl Driving<'_> {
    /// Serves HTTP/1.1. While a client says nothing, the HTTP library's state and buffers are not kept.
    async fn http1<IO, S>(
        &mut self,
        mut io: EdgeIo<IO>,
        mut requests: Requests<S>,
        context: &EdgeContext,
    ) -> Result<(), hyper::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        loop {
            let http = Box::pin(http1_builder(context).serve_connection(TokioIo::new(io), requests));
            let quiet = match self.drive(http, |http| http.graceful_shutdown(), true).await {
                Driven::Over(outcome) => return outcome,
                Driven::Quiet(http) => http,
            };
            let parts = Pin::into_inner(quiet).into_parts();
            debug_assert!(parts.read_buf.is_empty(), "a quiet connection has read nothing that it has not given on");
            (io, requests) = (parts.io.into_inner(), parts.service);
            let begins = tokio::select! {
                biased;
                begins = poll_fn(|cx| io.poll_next(cx)) => matches!(begins, Ok(true)),
                () = self.stop.requested() => false,
                () = self.idle.over() => false,
            };
            if !begins {
                return Ok(());
            }
            self.idle.begin_anew();
        }
    }

    /// Polls until the connection is over, or if it `may_rest`, until it is quiet. It is boxed, so that its task holds no
    /// room for what it might be.
    async fn drive<C, G>(&mut self, http: Pin<Box<C>>, mut stop_http: G, may_rest: bool) -> Driven<C>
    where
        C: Future<Output = Result<(), hyper::Error>>,
        G: FnMut(Pin<&mut C>),
    {
        let Self { connection, stop, idle } = self;
        let mut requested = pin!(stop.requested());
        let mut registered = false;
        let mut stopping = false;
        let mut http = Some(http);
        poll_fn(|cx| {
            let Some(driven) = http.as_mut() else { return Poll::Pending };
            // The flag is one load; the waiting future, which locks, is polled once to leave its waker.
            if !stopping && (!registered || stop.is_requested()) {
                connection.driven_by(cx.waker());
                registered = true;
                if requested.as_mut().poll(cx).is_ready() || stop.is_requested() {
                    stopping = true;
                    stop_http(driven.as_mut());
                }
            }
            if let Poll::Ready(outcome) = driven.as_mut().poll(cx) {
                return Poll::Ready(Driven::Over(outcome));
            }
            connection.poll_leftover(cx);
            while !stopping && let Poll::Ready(idleness) = idle.poll(connection, cx) {
                match idleness {
                    Idleness::Quiet if may_rest && connection.is_quiet() => {
                        return http.take().map_or(Poll::Pending, |http| Poll::Ready(Driven::Quiet(http)));
                    }
                    Idleness::Quiet => {}
                    Idleness::Over => {
                        stopping = true;
                        stop_http(driven.as_mut());
                        return driven.as_mut().poll(cx).map(Driven::Over);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// How long a connection has had nothing open. Requests do not touch the timer: it looks at times whether there were
/// any, so it may say so late by [`QUIET_AFTER`], and never early.
struct Idle {
    limit: Duration,
    since: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// How idle a connection is.
enum Idleness {
    /// For [`QUIET_AFTER`] at least.
    Quiet,
    /// For longer than it may.
    Over,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), alarm: None }
    }

    /// Ready when there is something to say about idleness; it wants to be asked again then.
    fn poll(&mut self, connection: &ClientConnection, cx: &mut Context<'_>) -> Poll<Idleness> {
        let (since, limit) = (self.since, self.limit);
        let alarm = match &mut self.alarm {
            // Its waker is this task's already.
            Some(alarm) if !alarm.is_elapsed() => return Poll::Pending,
            Some(alarm) => alarm,
            none => none.insert(Box::pin(sleep_until(since + QUIET_AFTER.min(limit)))),
        };
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if connection.has_stirred() || connection.is_busy() {
                self.since = now;
            }
            let idle = now - self.since;
            if idle >= limit {
                return Poll::Ready(Idleness::Over);
            }
            if idle >= QUIET_AFTER {
                alarm.as_mut().reset(self.since + limit);
                // Leaves its waker; should it have rung already, the next look at it says so.
                let _ = alarm.as_mut().poll(cx);
                return Poll::Ready(Idleness::Quiet);
            }
            alarm.as_mut().reset(self.since + QUIET_AFTER.min(limit));
        }
        Poll::Pending
    }

    /// Something has begun after a long silence.
    fn begin_anew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Waits until the connection has been idle for too long, if nothing stirs.
    async fn over(&mut self) {
        if let Some(alarm) = &mut self.alarm {
            alarm.await;
        }
    }
}

fn http1_builder(context: &EdgeContext) -> http1::Builder {
    let settings = &context.settings;
    let mut builder = http1::Builder::new();
    // Patience is the byte stream's, which can say 408; the library's own timer cannot.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    // The byte stream sees whether a client has gone.
    builder.half_close(true);
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
