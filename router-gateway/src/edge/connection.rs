//! One client connection: detects the protocol, serves its requests, and sees to what is left of their bodies.
//!
//! [`ClientConnection`] is what the connection's task, its requests and their bodies share. It is counters and flags:
//! nobody waits on it.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
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

use super::body::{HeldBytes, RequestBody, ResponseBody, Upload};
use super::io::{EdgeIo, Protocol};
use super::{Arrival, EdgeContext, Stop};
use crate::http_semantics;

/// What an unread request body may still bring before its connection is given up, in bytes (SPEC 12: early responses).
const DISCARD_BYTES: u64 = 64 * 1024;
/// How long it may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// Between two pings to an HTTP/2 client, and until a missing answer ends the connection.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Shared by a connection's task, its requests and their bodies.
pub struct ClientConnection {
    peer: SocketAddr,
    /// Request bytes held for this connection (SPEC 6).
    pub(super) held: Arc<HeldBytes>,
    /// Requests whose response or whose own body has not come to its end.
    open: AtomicU32,
    /// A request was handed to the stack since the last flush: what is written answers it.
    answering: AtomicBool,
    /// Something began or ended since the task last looked: the time of being idle begins anew.
    stirred: AtomicBool,
    /// The head that was read last had two lengths.
    two_lengths: AtomicBool,
    /// A body was not read to its end, so that closing must linger.
    unread: AtomicBool,
    leftover: Mutex<Option<Leftover>>,
    has_leftover: AtomicBool,
    task: AtomicWaker,
}

/// The rest of a request body that nobody wants.
struct Leftover {
    body: Incoming,
    left: u64,
    until: Pin<Box<Sleep>>,
    _open: OpenGuard,
}

impl ClientConnection {
    fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            held: Arc::default(),
            open: AtomicU32::new(0),
            answering: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            two_lengths: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            leftover: Mutex::new(None),
            has_leftover: AtomicBool::new(false),
            task: AtomicWaker::new(),
        })
    }

    /// The other end of the connection: the client, or the proxy before it.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    pub(super) fn owes_nothing(&self) -> bool {
        !self.answering.load(Ordering::Relaxed) && !self.is_busy()
    }

    pub(super) fn flushed(&self) {
        if self.answering.load(Ordering::Relaxed) && !self.is_busy() {
            self.answering.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn note_head(&self, two_lengths: bool) {
        self.two_lengths.store(two_lengths, Ordering::Relaxed);
    }

    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Takes over a body that nobody reads any more: a little more of it is read, so that the connection lives on.
    pub(super) fn leave(&self, body: Incoming, open: OpenGuard) {
        self.leave_unread();
        if body.size_hint().lower() > DISCARD_BYTES {
            return;
        }
        let leftover = Leftover { body, left: DISCARD_BYTES, until: Box::pin(sleep(DISCARD_TIME)), _open: open };
        *self.leftover.lock().unwrap_or_else(PoisonError::into_inner) = Some(leftover);
        self.has_leftover.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Reads on in what was left. Only the connection's task calls it.
    fn poll_leftover(&self, cx: &mut Context<'_>) {
        if !self.has_leftover.load(Ordering::Acquire) {
            return;
        }
        let mut slot = self.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(leftover) = slot.as_mut() else { return };
        let outcome = loop {
            match Pin::new(&mut leftover.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match leftover.left.checked_sub(length) {
                        Some(left) => leftover.left = left,
                        None => break Discarded::GivenUp,
                    }
                }
                Poll::Ready(Some(Err(_))) => break Discarded::GivenUp,
                Poll::Ready(None) => break Discarded::Whole,
                Poll::Pending if leftover.until.as_mut().poll(cx).is_ready() => break Discarded::GivenUp,
                Poll::Pending => return,
            }
        };
        if matches!(outcome, Discarded::Whole) {
            self.unread.store(false, Ordering::Relaxed);
        }
        let gone = slot.take();
        self.has_leftover.store(false, Ordering::Release);
        drop(slot);
        drop(gone);
        // The HTTP library was polled before; what it does about the end of the body, it does when polled again.
        cx.waker().wake_by_ref();
    }
}

enum Discarded {
    Whole,
    GivenUp,
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("peer", &self.peer).field("open", &self.open).finish_non_exhaustive()
    }
}

/// One open message of a connection; it is over when this is dropped.
pub(super) struct OpenGuard(Arc<ClientConnection>);

impl OpenGuard {
    fn new(connection: Arc<ClientConnection>) -> Self {
        connection.open.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    pub(super) fn connection(&self) -> &Arc<ClientConnection> {
        &self.0
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.stirred.store(true, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

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
    let requests = Requests { stack, connection: Arc::clone(&connection), context: Arc::clone(&context) };
    let io = TokioIo::new(io);
    let idle = Idle::new(context.settings.keep_alive_timeout);
    let outcome = match protocol {
        Protocol::Http1 => {
            let http = http1_builder(&context).serve_connection(io, requests);
            drive(http, |http| http.graceful_shutdown(), &connection, stop, idle).await
        }
        Protocol::Http2 => {
            let http = http2_builder(&context, tasks).serve_connection(io, requests);
            drive(http, |http| http.graceful_shutdown(), &connection, stop, idle).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "client connection ended early");
    }
}

/// Polls a connection, and beside it what stops it and what is left of its bodies.
async fn drive<C, G>(
    http: C,
    mut stop_http: G,
    connection: &ClientConnection,
    stop: Stop,
    mut idle: Idle,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
    G: FnMut(Pin<&mut C>),
{
    let mut http = pin!(http);
    let mut requested = pin!(stop.requested());
    let mut registered = false;
    let mut stopping = false;
    poll_fn(|cx| {
        // The flag is one load; the waiting future, which locks, is polled once to leave its waker.
        if !stopping && (!registered || stop.is_requested()) {
            connection.task.register(cx.waker());
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
        if connection.stirred.swap(false, Ordering::Relaxed) {
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
    stack: S,
    connection: Arc<ClientConnection>,
    context: Arc<EdgeContext>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = &self.connection;
        connection.answering.store(true, Ordering::Relaxed);
        // There is a next request: whatever was unread has been read after all.
        connection.unread.store(false, Ordering::Relaxed);
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
            two_lengths: connection.two_lengths.swap(false, Ordering::Relaxed),
            client: connection.peer,
            connection: Arc::clone(connection),
            upload,
            authority: None,
            waits_for_continue,
        });
        // The stack's services are always ready: their bounds answer 503, they do not make the connection wait.
        Answer { answer: self.stack.clone().call(request), open: Some(open) }
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
        let Ok(response) = ready!(this.answer.poll(cx));
        let open = this.open.take();
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, open))))
    }
}
