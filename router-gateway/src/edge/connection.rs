//! One client connection: detects the protocol, serves its requests, ends it when it is idle or told to stop.
//!
//! `library` sets the HTTP library up, which hands each request to `requests`; `idle` knows how long there was none.

mod idle;
mod library;
mod requests;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use router_common::frame::Reason;
use router_link::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::Service;

use self::idle::{Idle, Idleness};
use self::library::{Spawn, http1_builder, http2_builder};
use self::requests::Requests;
use super::client::{ClientConnection, OpenGuard};
use super::connect;
use super::floor::Seat;
use super::io::{EdgeIo, Protocol};
use super::tunnel::Splice;
use super::worker::Edge;

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
