//! One client connection: detects the protocol, serves its requests, ends it when it is idle or told to stop.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use router_common::frame::Reason;
use router_link::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::body::{RequestBody, ResponseBody, Upload};
use super::client::{ClientConnection, OpenGuard};
use super::connect;
use super::floor::Seat;
use super::io::{EdgeIo, Protocol};
use super::opened::OpenTunnel;
use super::tunnel::Splice;
use super::worker::Edge;
use super::{Arrival, EdgeContext};
use crate::http_semantics;

/// Between two pings to an HTTP/2 client, and until a missing answer ends the connection.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// The largest window there is (RFC 9113 6.9.1).
const H2_WINDOW_MAX: u32 = (1 << 31) - 1;
/// Bytes of one request body that an HTTP/2 client may send ahead of its reader.
const H2_STREAM_WINDOW: u32 = 64 * 1024;

/// After how long without a request a connection's HTTP/1.1 state is given up until the next one: making it anew costs
/// a microsecond or two, keeping it some 10 KiB.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// What answers requests: the gateway's stack of layers, or a test's own service.
pub trait Answering:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Answering for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

pin_project! {
    /// One connection, served to its end. A state machine by hand and not an async block, because there are many of
    /// them, most of them idle, and a block holds room for each of its states, and for what it was given.
    pub(super) struct Connection<IO, S: Answering> {
        state: State<IO, S>,
        // Polled once to leave its waker, which locks; afterwards a flag is looked at.
        #[pin]
        stop: WaitForCancellationFutureOwned,
        awaits_stop: bool,
    }
}

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answering,
{
    pub(super) fn new(
        io: IO,
        peer: SocketAddr,
        stack: S,
        edge: Arc<Edge>,
        place: OwnedSemaphorePermit,
        seat: Seat,
    ) -> Self {
        let client = ClientConnection::new(peer);
        let io = EdgeIo::new(io, Arc::clone(&client), Arc::clone(&edge.context));
        let requests =
            Requests { stack: RefCell::new(stack), connection: Arc::clone(&client), edge: Arc::clone(&edge) };
        Self {
            stop: edge.stop.requested(),
            awaits_stop: false,
            state: State {
                stage: Stage::Fresh(io, requests),
                idle: Idle::new(edge.context.settings.header_timeout),
                ending: None,
                client,
                edge,
                _counted: (place, seat),
            },
        }
    }
}

impl<IO, S> Future for Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answering,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let state = this.state;
        if !state.is_ending() && (!*this.awaits_stop || state.edge.stop.is_requested()) {
            if !*this.awaits_stop {
                state.client.driven_by(cx.waker());
                *this.awaits_stop = true;
            }
            if this.stop.as_mut().poll(cx).is_ready() || state.edge.stop.is_requested() {
                state.stop();
            }
        }
        state.poll(cx)
    }
}

struct State<IO, S: Answering> {
    stage: Stage<IO, S>,
    idle: Idle,
    /// Once the connection is to stop.
    ending: Option<Pin<Box<Ending>>>,
    client: Arc<ClientConnection>,
    edge: Arc<Edge>,
    _counted: (OwnedSemaphorePermit, Seat),
}

impl<IO, S: Answering> Drop for State<IO, S> {
    fn drop(&mut self) {
        self.client.end();
    }
}

type Http1<IO, S> = http1::Connection<TokioIo<EdgeIo<IO>>, Requests<S>>;
type Http2<IO, S> = http2::Connection<TokioIo<EdgeIo<IO>>, Requests<S>, Spawn>;

/// How far a connection is. The HTTP library's state is boxed, so that an idle connection holds no room for it.
enum Stage<IO, S: Answering> {
    /// It is not known yet which HTTP the client speaks.
    Fresh(EdgeIo<IO>, Requests<S>),
    Http1(Pin<Box<Http1<IO, S>>>),
    /// Between two requests of HTTP/1.1 that are far apart.
    Resting(EdgeIo<IO>, Requests<S>),
    Http2(Pin<Box<Http2<IO, S>>>),
    /// HTTP/1.1 has given way to another protocol.
    Tunnel(Box<Splice<EdgeIo<IO>>>),
    Over,
}

impl<IO, S> State<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Answering,
{
    fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    fn is_finishing(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.is_finishing)
    }

    /// The next answer is to be the last. A client that asks for nothing may just be about to: it has the linger for it.
    fn stop(&mut self) {
        self.ending.get_or_insert_with(|| Box::pin(Ending::new(&self.edge)));
        self.give_notice();
    }

    fn give_notice(&mut self) {
        match &mut self.stage {
            Stage::Http1(_) => self.client.give_notice(),
            Stage::Http2(http) => http.as_mut().graceful_shutdown(),
            // It is told when it has begun to speak; and a tunnel has no answers any more.
            Stage::Fresh(..) | Stage::Resting(..) | Stage::Tunnel(_) | Stage::Over => {}
        }
    }

    /// What is in flight is finished, nothing more begins.
    fn finish(&mut self) {
        self.ending.get_or_insert_with(|| Box::pin(Ending::new(&self.edge))).is_finishing = true;
        match &mut self.stage {
            Stage::Http1(http) => http.as_mut().graceful_shutdown(),
            Stage::Http2(http) => http.as_mut().graceful_shutdown(),
            // It may last as long as the grace does.
            Stage::Tunnel(_) => {}
            // There is no request to answer.
            stage => *stage = Stage::Over,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(ending) = &mut self.ending {
            if ending.cut.as_mut().poll(cx).is_ready() {
                if let Stage::Tunnel(splice) = &mut self.stage {
                    splice.cut(Reason::Shutdown);
                }
                return Poll::Ready(());
            }
            if !ending.is_finishing && ending.linger_over.as_mut().poll(cx).is_ready() {
                self.finish();
            }
        }
        loop {
            let outcome = match &mut self.stage {
                Stage::Fresh(io, _) => {
                    match io.poll_protocol(cx) {
                        Poll::Ready(Ok(Some(protocol))) => self.begin(protocol),
                        // A client that says nothing, or half a preface, gets no answer.
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return self.idle.poll_limit(cx),
                    }
                    continue;
                }
                Stage::Resting(io, _) => {
                    match io.poll_next(cx) {
                        Poll::Ready(Ok(true)) => self.begin(Protocol::Http1),
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return self.idle.poll_limit(cx),
                    }
                    continue;
                }
                Stage::Http1(http) => http.as_mut().poll(cx),
                Stage::Http2(http) => {
                    connect::forget();
                    http.as_mut().poll(cx)
                }
                Stage::Tunnel(splice) => return splice.poll(cx),
                Stage::Over => return Poll::Ready(()),
            };
            if let Poll::Ready(outcome) = outcome {
                if outcome.is_ok() && self.tunnel() {
                    continue;
                }
                if let Err(error) = outcome {
                    tracing::debug!(peer = %self.client.peer(), %error, "client connection ended early");
                }
                return Poll::Ready(());
            }
            self.client.poll_leftover(cx);
            if self.is_finishing() {
                return Poll::Pending;
            }
            match ready!(self.idle.poll(&self.client, cx)) {
                Idleness::Quiet => self.rest(),
                Idleness::Over => self.finish(),
            }
        }
    }

    /// A client has begun to speak.
    fn begin(&mut self, protocol: Protocol) {
        let (Stage::Fresh(io, requests) | Stage::Resting(io, requests)) =
            std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return;
        };
        self.idle = Idle::new(self.edge.context.settings.keep_alive_timeout);
        let (io, context) = (TokioIo::new(io), &self.edge.context);
        self.stage = match protocol {
            Protocol::Http1 | Protocol::Opaque => {
                Stage::Http1(Box::pin(http1_builder(context).serve_connection(io, requests)))
            }
            Protocol::Http2 => {
                let builder = http2_builder(context, self.edge.tasks.clone());
                Stage::Http2(Box::pin(builder.serve_connection(io, requests)))
            }
        };
        if self.is_ending() {
            self.give_notice();
        }
    }

    /// The HTTP library is done. Says whether that is because a tunnel begins.
    fn tunnel(&mut self) -> bool {
        let Some(opened) = self.client.take_tunnel() else { return false };
        let Stage::Http1(http) = std::mem::replace(&mut self.stage, Stage::Over) else { return false };
        let parts = Pin::into_inner(http).into_parts();
        let mut io = parts.io.into_inner();
        io.turn_opaque(parts.read_buf);
        let open = OpenGuard::new(Arc::clone(&self.client));
        self.stage = Stage::Tunnel(Box::new(Splice::new(io, opened, open, Arc::clone(&self.edge.context))));
        self.idle.alarm = None;
        true
    }

    /// A client has not spoken for a while: the HTTP library's state and buffers are not kept.
    fn rest(&mut self) {
        if !self.client.is_quiet() {
            return;
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Http1(http) => {
                let parts = Pin::into_inner(http).into_parts();
                let mut io = parts.io.into_inner();
                // A beginning that came with an earlier request has been waiting there, and ends the rest at once.
                io.take_back(parts.read_buf);
                Stage::Resting(io, parts.service)
            }
            stage => stage,
        };
    }
}

/// What a connection that is to stop waits for, beside its client.
struct Ending {
    linger_over: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The grace is over, whatever is in flight.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Nothing more begins.
    is_finishing: bool,
}

impl Ending {
    fn new(edge: &Edge) -> Self {
        let linger_over = Box::pin(edge.linger_over.requested());
        Self { linger_over, cut: Box::pin(edge.cut.requested()), is_finishing: false }
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
    fn poll(&mut self, client: &ClientConnection, cx: &mut Context<'_>) -> Poll<Idleness> {
        let (since, limit) = (self.since, self.limit);
        let alarm = match &mut self.alarm {
            // Its waker is this task's already.
            Some(alarm) if !alarm.is_elapsed() => return Poll::Pending,
            Some(alarm) => alarm,
            none => none.insert(Box::pin(sleep_until(since + QUIET_AFTER.min(limit)))),
        };
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if client.has_stirred() || client.is_busy() {
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

    /// Ready when nothing has begun for too long.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.since + self.limit;
        self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx)
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
    // Room for every body that may wait unread, so that none keeps the others of its connection from getting on: one of
    // them may be what it waits for.
    let connection_window = H2_STREAM_WINDOW.saturating_mul(settings.max_concurrent_streams).min(H2_WINDOW_MAX);
    let mut builder = http2::Builder::new(Spawn(tasks));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING.0)
        .keep_alive_timeout(H2_PING.1)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(connection_window);
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
        // But what sends on a tunnel is the tunnel's.
        if let Some(future) = connect::take_over(future) {
            self.0.spawn(future);
        }
    }
}

/// The HTTP library's service: turns its requests into the house's and hands them to the stack.
struct Requests<S> {
    /// Called one at a time, by the connection's task alone; a copy a request would count references up and down.
    stack: RefCell<S>,
    connection: Arc<ClientConnection>,
    edge: Arc<Edge>,
}

impl<S: Answering> hyper::service::Service<Request<Incoming>> for Requests<S> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = &self.connection;
        let two_lengths = connection.begin();
        let open = OpenGuard::new(Arc::clone(connection));
        let (mut parts, incoming) = request.into_parts();
        let connect = if parts.method == Method::CONNECT { parts.extensions.remove::<OnUpgrade>() } else { None };
        let connect = connect.map(|upgrade| Box::new(Connect { upgrade, edge: Arc::clone(&self.edge) }));
        let waits_for_continue = http_semantics::expects_continue(parts.version, &parts.headers);
        let (body, upload) = if incoming.is_end_stream() {
            (Body::empty(), None)
        } else {
            let upload = Arc::new(Upload::new(incoming.size_hint().exact()));
            let open = OpenGuard::new(Arc::clone(connection));
            (
                Body::stream(RequestBody::new(incoming, &parts, Arc::clone(&upload), open, &self.edge.context)),
                Some(upload),
            )
        };
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(Arrival {
            two_lengths,
            client: connection.peer(),
            connection: Arc::clone(connection),
            upload,
            sender: None,
            waits_for_continue,
            explain: false,
            tunnel: None,
        });
        let head_only = *request.method() == Method::HEAD;
        // The stack's services are always ready: their bounds answer 503, they do not make the connection wait.
        Answer { answer: self.stack.borrow_mut().call(request), head_only, open: Some(open), connect }
    }
}

/// What a CONNECT needs, if it opens a tunnel.
struct Connect {
    upgrade: OnUpgrade,
    edge: Arc<Edge>,
}

/// The response is about to be given to the HTTP library: if it opens a tunnel, that is prepared.
#[cold]
fn prepare(response: &mut Response<Body>, open: &mut Option<OpenGuard>, connect: Option<Box<Connect>>) {
    let Some(opened) = OpenTunnel::take(response) else { return };
    match connect {
        None => {
            if let Some(open) = open {
                open.connection().leave_tunnel(opened);
            }
        }
        Some(connect) => {
            let Some(open) = open.take() else { return };
            let Connect { upgrade, edge } = *connect;
            let tasks = edge.tasks.clone();
            tasks.spawn(connect::run(upgrade, connect::expect(), opened, open, edge));
        }
    }
}

pin_project! {
    /// A request's answer on its way.
    pub(super) struct Answer<F> {
        #[pin]
        answer: F,
        head_only: bool,
        open: Option<OpenGuard>,
        connect: Option<Box<Connect>>,
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
        let mut open = this.open.take();
        if *this.head_only {
            // RFC 9110 9.3.2. HTTP/2's library would send it, a problem document say, and the client break the stream off.
            *response.body_mut() = Body::empty();
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !switches && open.as_ref().is_some_and(|open| open.connection().answers_last()) {
            // RFC 9112 9.6: a client that is not told would send its next request here.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if switches || this.connect.is_some() {
            prepare(&mut response, &mut open, this.connect.take());
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, open))))
    }
}
