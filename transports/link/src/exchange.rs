//! Exchange: one request on its way, until its response's head is here (SPEC 4, 5).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use router_common::frame::Reason;
use router_common::head::HeadError;
use router_common::session::{OpenError, Opening, ReadHead, StreamFailure, StreamKey};

use crate::body::Body;
use crate::body_error::BodyError;
use crate::call::Call;
use crate::convert;
use crate::pump::{self, Gathered, Progress, Pump, Pumped};
use crate::shared::{Begun, Interest, Shared};

/// A request given back whole, so that it can be sent again; `None` if some of its body is gone.
pub type Whole = Option<Box<http::Request<Body>>>;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request provably never reached a handler: it may be sent elsewhere.
    #[error("the request was not seen by the other side")]
    Unseen(Whole),
    /// The link was lost after the request was sent: nobody knows the outcome.
    #[error("the link was lost; the outcome is unknown")]
    Lost(Whole),
    /// The peer cancelled.
    #[error("cancelled by the other side: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Cancelled { reason: Reason, text: String, request: Whole },
    /// The deadline passed before the request was sent.
    #[error("the deadline passed before the request was sent")]
    Expired(Whole),
    /// The request's head cannot be sent.
    #[error("the request's head: {0}")]
    Head(HeadError),
    /// The head does not fit into the peer's frames.
    #[error("the request's head does not fit into a frame")]
    HeadTooLarge,
    /// Our side's body failed. The stream was cancelled.
    #[error("the request's body: {0}")]
    Body(BodyError),
    /// The response broke the protocol.
    #[error("the response is not well-formed")]
    Response,
    /// This side cancelled.
    #[error("cancelled on this side")]
    Closed,
}

impl CallError {
    /// The request, if it came back whole.
    #[must_use]
    pub fn into_request(self) -> Option<http::Request<Body>> {
        match self {
            Self::Unseen(request) | Self::Lost(request) | Self::Expired(request) => request.map(|request| *request),
            Self::Cancelled { request, .. } => request.map(|request| *request),
            _ => None,
        }
    }
}

/// One request on its way: a future of its response.
///
/// Dropping it before the response is here cancels the stream, with [`Exchange::set_cancel_reason`]'s reason. Afterwards
/// the response's body holds the stream.
#[must_use = "a request is only sent when its exchange is polled"]
pub struct Exchange {
    shared: Arc<Shared>,
    /// `None` once given away.
    parts: Option<Parts>,
    /// The body, as long as it is whole.
    body: Body,
    call: Call,
    state: State,
    reason: Reason,
}

enum State {
    /// The first bytes of the body are being gathered.
    Gathering { gathered: Gathered, yielded: bool },
    /// The stream is open.
    Open { key: StreamKey, pump: Option<Pump>, whole: bool },
    /// The outcome was given.
    Done,
}

impl Exchange {
    pub(crate) fn new(shared: Arc<Shared>, request: http::Request<Body>, call: Call) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            shared,
            parts: Some(parts),
            body,
            call,
            state: State::Gathering { gathered: Gathered::default(), yielded: false },
            reason: Reason::ClientDisconnected,
        }
    }

    /// What the peer is told if this exchange is dropped before its response; `client_disconnected` unless set. The
    /// response's body inherits it.
    pub const fn set_cancel_reason(&mut self, reason: Reason) {
        self.reason = reason;
    }

    /// Cancels now: the exchange then ends with [`CallError::Closed`].
    pub fn cancel(&mut self, reason: Reason) {
        self.reason = reason;
        self.close();
    }

    /// Whether the request may have left: before that, nobody has seen it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    fn close(&mut self) {
        if let State::Open { key, .. } = std::mem::replace(&mut self.state, State::Done) {
            self.shared.release(key, Some(self.reason));
        }
    }

    /// Gathers the first bytes, and opens.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let State::Gathering { gathered, yielded } = &mut self.state else { return Poll::Ready(Ok(())) };
        let whole = match self.body.whole() {
            Some(bytes) => Some(bytes),
            None if self.call.open_first => None,
            None => match gathered.poll(&mut self.body, cx) {
                Err(error) => return Poll::Ready(Err(CallError::Body(error))),
                Ok(Progress::Waits) if !*yielded => {
                    // Whoever feeds the body may be about to run: one turn, no timer.
                    *yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Progress::Enough) if gathered.is_whole() => {
                    let bytes = gathered.take_bytes();
                    self.body = bytes.clone().into();
                    Some(bytes)
                }
                Ok(Progress::Enough | Progress::Waits) => None,
            },
        };
        let (bytes, end) = match whole {
            Some(bytes) => (bytes, true),
            None => (gathered.take_bytes(), false),
        };
        let (carry, trailers, ended) = (gathered.carry.take(), gathered.trailers.take(), gathered.ended);
        let key = match self.open(bytes, end, cx) {
            Ok(key) => key,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.state = State::Open { key, pump: None, whole: end };
        if end {
            return Poll::Ready(Ok(()));
        }
        if ended {
            return Poll::Ready(match pump::finish(&self.shared, key, trailers.as_ref()) {
                Pumped::Failed(error) => Err(CallError::Body(error)),
                Pumped::Finished | Pumped::StreamClosed => Ok(()),
            });
        }
        let pump = Pump::new(Arc::clone(&self.shared), key, std::mem::take(&mut self.body), carry);
        self.state = State::Open { key, pump: Some(pump), whole: false };
        Poll::Ready(Ok(()))
    }

    fn open(&mut self, body: bytes::Bytes, end: bool, cx: &Context<'_>) -> Result<StreamKey, CallError> {
        let Some(parts) = &self.parts else { return Err(CallError::Closed) };
        let now = self.shared.now();
        if self.call.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(CallError::Expired(self.take_request(end)));
        }
        let call = &mut self.call;
        let opened = self.shared.act(|state| {
            let head = convert::request_head(parts, call, now, &mut state.heads).map_err(CallError::Head)?;
            let opening = Opening { head, body, end, tunnel: call.tunnel.is_some(), permit: call.permit.take() };
            let opened = state.session.open(opening);
            if let Ok(key) = opened {
                state.wait(key, Interest::Read, cx);
            }
            Ok(opened)
        })?;
        opened.map_err(|error| match error {
            OpenError::HeadTooLarge => CallError::HeadTooLarge,
            _ => CallError::Unseen(self.take_request(end)),
        })
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, CallError>> {
        let State::Open { key, pump, whole } = &mut self.state else { return Poll::Ready(Err(CallError::Closed)) };
        let (key, whole) = (*key, *whole);
        let (read, driver) = self.shared.look(|state| match state.session.read_head(key) {
            ReadHead::Ready(head) => {
                let begun = state.begin_body(key);
                let driver = match begun {
                    Begun::Whole(_) => {
                        state.release(key);
                        None
                    }
                    // The credit of what was read is to be sent back.
                    Begun::Partial(..) => state.take_driver(),
                };
                (Ok(Some((head, begun))), driver)
            }
            ReadHead::Pending => {
                state.wait(key, Interest::Read, cx);
                (Ok(None), None)
            }
            ReadHead::Failed(failure) => (Err(failure), None),
        });
        if let Some(driver) = driver {
            driver.wake();
        }
        match read {
            Ok(Some((head, begun))) => {
                let rest = pump.take();
                self.state = State::Done;
                let body = Body::incoming(&self.shared, key, begun, head.content_length(), Some(self.reason));
                if let Some(rest) = rest {
                    upload(rest, key, &self.shared);
                }
                Poll::Ready(match convert::response_parts(&head) {
                    Some(parts) => Ok(http::Response::from_parts(parts, body)),
                    None => Err(CallError::Response),
                })
            }
            Ok(None) => {
                match pump.as_mut().map(|pump| pump.poll(cx)) {
                    Some(Poll::Ready(Pumped::Failed(error))) => {
                        self.reason = error.reason(self.reason);
                        self.close();
                        return Poll::Ready(Err(CallError::Body(error)));
                    }
                    Some(Poll::Ready(Pumped::Finished | Pumped::StreamClosed)) => *pump = None,
                    Some(Poll::Pending) | None => {}
                }
                Poll::Pending
            }
            Err(failure) => {
                self.state = State::Done;
                self.shared.release(key, None);
                let request = self.take_request(whole);
                Poll::Ready(Err(match failure {
                    StreamFailure::Unseen => CallError::Unseen(request),
                    StreamFailure::Lost => CallError::Lost(request),
                    StreamFailure::Cancelled { reason, text } => CallError::Cancelled { reason, text, request },
                    StreamFailure::Length => CallError::Response,
                    _ => CallError::Closed,
                }))
            }
        }
    }

    /// The request, if its body is still whole.
    fn take_request(&mut self, whole: bool) -> Whole {
        let parts = self.parts.take().filter(|_| whole)?;
        Some(Box::new(http::Request::from_parts(parts, std::mem::take(&mut self.body))))
    }
}

/// Goes on sending a body whose response has begun, until it or the stream ends.
fn upload(mut rest: Pump, key: StreamKey, shared: &Arc<Shared>) {
    let mut unfinished = Unfinished { shared: Arc::clone(shared), key, reason: Some(Reason::ClientDisconnected) };
    shared.uploads.spawn(async move {
        let pumped = std::future::poll_fn(|cx| rest.poll(cx)).await;
        unfinished.end(&pumped);
    });
}

/// Cancels a stream whose upload failed, or was dropped by a panic or a shutdown.
struct Unfinished {
    shared: Arc<Shared>,
    key: StreamKey,
    reason: Option<Reason>,
}

impl Unfinished {
    fn end(&mut self, pumped: &Pumped) {
        self.reason = match pumped {
            Pumped::Finished | Pumped::StreamClosed => None,
            Pumped::Failed(error) => Some(error.reason(Reason::ClientDisconnected)),
        };
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.shared.act(|state| state.session.cancel(self.key, reason, ""));
        }
    }
}

impl Future for Exchange {
    type Output = Result<http::Response<Body>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, State::Gathering { .. }) {
            match this.poll_open(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    this.close();
                    return Poll::Ready(Err(error));
                }
                // Nothing but the response is left to wait for, and `open` waits for it already.
                Poll::Ready(Ok(())) if matches!(this.state, State::Open { pump: None, .. }) => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
            }
        }
        this.poll_response(cx)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Gathering { .. } => "gathering",
            State::Open { .. } => "open",
            State::Done => "done",
        };
        f.debug_struct("Exchange").field("state", &state).finish_non_exhaustive()
    }
}
