//! Exchange: one request on its way, until its response's head is here (SPEC 4, 5).

use std::borrow::BorrowMut;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use router_common::frame::Reason;
use router_common::head::HeadError;
use router_common::session::{OpenError, Opening, ReadHead, StreamFailure, StreamKey};

use crate::body::Body;
use crate::body_error::BodyError;
use crate::call::Call;
use crate::convert;
use crate::pump::{Gathered, Progress, Pump, Pumped};
use crate::shared::{Begun, Interest, Shared};
use crate::tunnel::{End, Tunnel};
use crate::whole::{self, Gathering};

/// Why there is no response. `whole` says that nothing of the request's body is gone, so that it could be sent again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request provably never reached a handler: it may be sent elsewhere.
    #[error("the request was not seen by the other side")]
    Unseen { whole: bool },
    /// The link was lost after the request was sent: nobody knows the outcome.
    #[error("the link was lost; the outcome is unknown")]
    Lost { whole: bool },
    /// The peer cancelled.
    #[error("cancelled by the other side: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Cancelled { reason: Reason, text: String, whole: bool },
    /// The deadline has passed. The peer was told, if the request had been sent.
    #[error("the deadline passed before there was a response")]
    Expired,
    /// The request's head cannot be sent.
    #[error("the request's head: {0}")]
    Head(HeadError),
    /// The head does not fit into the peer's frames.
    #[error("the request's head does not fit into a frame")]
    HeadTooLarge,
    /// The request does not fit into a frame, and the link carries no others ([`Handle::is_streaming`](crate::Handle)). It
    /// was not sent, and is as it was: another link may carry it.
    #[error("the request does not fit into one frame of the link")]
    TooLarge,
    /// The request asks for a tunnel, or has trailers, which this link does not carry. It was not sent either.
    #[error("the link carries neither tunnels nor trailers")]
    Streams,
    /// The response does not fit into a frame of such a link. A handler has seen the request.
    #[error("the response does not fit into one frame of the link")]
    ResponseTooLarge,
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
    /// Whether the request is as it was, body and all.
    #[must_use]
    pub const fn leaves_whole(&self) -> bool {
        match self {
            Self::Unseen { whole } | Self::Lost { whole } | Self::Cancelled { whole, .. } => *whole,
            Self::TooLarge | Self::Streams => true,
            _ => false,
        }
    }
}

/// One request on its way: a future of its response.
///
/// Dropping it before the response is here cancels the stream, with [`Exchange::set_cancel_reason`]'s reason. Afterwards
/// the response's body holds the stream.
///
/// A response that opens a tunnel hands it over ([`Tunnel::of`]), and has no body.
///
/// `R` is the request, or a mutable reference to it for who may want to send it again: see [`CallError::leaves_whole`].
#[must_use = "a request is only sent when its exchange is polled"]
pub struct Exchange<R = http::Request<Body>> {
    shared: Arc<Shared>,
    /// Its body stays in it as long as it is whole.
    request: R,
    call: Call,
    state: State,
    reason: Reason,
}

enum State {
    /// The first bytes of the body are being gathered.
    Gathering { gathered: Gathered, yielded: bool },
    /// All of the body is being gathered: it is to be one frame.
    Whole(Box<Gathering>),
    /// The stream is open.
    Open { key: StreamKey, pump: Option<Pump>, whole: bool },
    /// The outcome was given.
    Done,
}

impl<R> Exchange<R> {
    pub(crate) fn new(shared: Arc<Shared>, request: R, call: Call) -> Self {
        Self {
            shared,
            request,
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
}

impl<R: BorrowMut<http::Request<Body>>> Exchange<R> {
    /// Gathers the first bytes, and opens.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        if let Some(most) = self.shared.whole {
            return self.poll_open_whole(most, cx);
        }
        let State::Gathering { gathered, yielded } = &mut self.state else { return Poll::Ready(Ok(())) };
        let body = self.request.borrow_mut().body_mut();
        let whole = match body.whole() {
            Some(bytes) => Some(bytes),
            None if self.call.open_first => None,
            None => match gathered.poll(body, cx) {
                Err(error) => return Poll::Ready(Err(CallError::Body(error))),
                Ok(Progress::Waits) if !*yielded => {
                    // Whoever feeds the body may be about to run: one turn, no timer.
                    *yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Progress::Enough) if gathered.is_whole() => {
                    let bytes = gathered.take_bytes();
                    *body = bytes.clone().into();
                    Some(bytes)
                }
                Ok(Progress::Enough | Progress::Waits) => None,
            },
        };
        let (bytes, end) = match whole {
            Some(bytes) => (bytes, true),
            None => (gathered.take_bytes(), false),
        };
        let kept = bytes.clone();
        let remains = (!end).then(|| gathered.take_remains(body));
        let key = match self.open(bytes, end, cx) {
            Ok(key) => key,
            Err(CallError::Unseen { .. }) => {
                if let Some(remains) = remains {
                    *self.request.borrow_mut().body_mut() = remains.with(kept);
                }
                return Poll::Ready(Err(CallError::Unseen { whole: true }));
            }
            Err(error) => return Poll::Ready(Err(error)),
        };
        // What is sent on a tunnel is sent by whoever holds it.
        let remains = remains.filter(|_| self.call.tunnel.is_none());
        let pump = remains.map(|remains| Pump::new(Arc::clone(&self.shared), key, remains));
        self.state = State::Open { key, pump, whole: end };
        Poll::Ready(Ok(()))
    }

    /// Gathers the body, and opens, where a message is one frame. A client that waits for 100 (Continue) gets it by being
    /// read from.
    #[cold]
    fn poll_open_whole(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        if self.call.tunnel.is_some() {
            return Poll::Ready(Err(CallError::Streams));
        }
        let body = self.request.borrow_mut().body_mut();
        let bytes = if let Some(bytes) = body.whole() {
            bytes
        } else {
            if matches!(self.state, State::Gathering { .. }) {
                let gathering = Gathering::until(most, self.call.deadline, self.shared.environment());
                self.state = State::Whole(Box::new(gathering));
            }
            let State::Whole(gathering) = &mut self.state else { return Poll::Ready(Err(CallError::Closed)) };
            let (rest, error) = match ready!(gathering.poll(body, cx)) {
                Err(error) => return Poll::Ready(Err(CallError::Body(error))),
                Ok(whole::Gathered::Late) => return Poll::Ready(Err(CallError::Expired)),
                Ok(whole::Gathered::Whole(bytes)) => (bytes.into(), None),
                Ok(whole::Gathered::TooLarge(rest)) => (rest, Some(CallError::TooLarge)),
                Ok(whole::Gathered::Trailers(rest)) => (rest, Some(CallError::Streams)),
            };
            *body = rest;
            if let Some(error) = error {
                return Poll::Ready(Err(error));
            }
            body.whole().unwrap_or_default()
        };
        let key = self.open(bytes, true, cx)?;
        self.state = State::Open { key, pump: None, whole: true };
        Poll::Ready(Ok(()))
    }

    fn open(&mut self, body: bytes::Bytes, end: bool, cx: &Context<'_>) -> Result<StreamKey, CallError> {
        let now = self.shared.now();
        if self.call.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(CallError::Expired);
        }
        let (request, call) = (self.request.borrow(), &mut self.call);
        let opened = self.shared.act(|state| {
            let head = convert::request_head(request, call, now, &mut state.heads).map_err(CallError::Head)?;
            let tunnel = call.tunnel.is_some();
            // What is sent on a tunnel is sent when it is open.
            let opening = Opening { head, body, end: end && !tunnel, tunnel, permit: call.permit.take() };
            let opened = state.session.open(opening);
            if let Ok(key) = opened {
                state.wait(key, Interest::Read, cx);
                if let Some(deadline) = call.deadline {
                    // The driver, which is woken anyway, keeps the time.
                    state.watch_until(key, deadline);
                }
            }
            Ok(opened)
        })?;
        opened.map_err(|error| match error {
            OpenError::HeadTooLarge => CallError::HeadTooLarge,
            OpenError::TooLarge => CallError::TooLarge,
            OpenError::Streams => CallError::Streams,
            _ => CallError::Unseen { whole: end },
        })
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, CallError>> {
        let State::Open { key, pump, whole } = &mut self.state else { return Poll::Ready(Err(CallError::Closed)) };
        let (key, whole) = (*key, *whole);
        let tunnel = self.call.tunnel.is_some();
        let (read, driver) = self.shared.look(|state| match state.session.read_head(key) {
            ReadHead::Ready(head) => {
                let opened = tunnel && state.session.is_tunnel(key);
                if tunnel && !opened {
                    // An ordinary exchange after all, whose request has no body.
                    let _ = state.session.finish(key, None);
                }
                let begun = state.begin_body(key);
                let driver = match begun {
                    Begun::Whole(_) => {
                        state.release(key);
                        None
                    }
                    // The credit of what was read is to be sent back.
                    Begun::Partial(..) => state.take_driver(),
                };
                (Ok(Some((head, begun, opened))), driver)
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
            Ok(Some((head, begun, opened))) => {
                let rest = pump.take();
                self.state = State::Done;
                let length = if opened { None } else { head.content_length() };
                let mut body = Body::incoming(&self.shared, key, begun, length, Some(self.reason));
                let mut tunnel = None;
                if opened {
                    let incoming = std::mem::take(&mut body);
                    tunnel = Some(Tunnel::new(incoming, Arc::clone(&self.shared), key, End::Opener));
                }
                if let Some(rest) = rest {
                    upload(rest, key, &self.shared);
                }
                Poll::Ready(match convert::response_parts(&head) {
                    Some(parts) => {
                        let mut response = http::Response::from_parts(parts, body);
                        if let Some(tunnel) = tunnel {
                            tunnel.put_into(&mut response);
                        }
                        Ok(response)
                    }
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
                    Some(Poll::Ready(Pumped::Finished)) => *pump = None,
                    // How it ended is read below, and what is left of the body may be wanted elsewhere.
                    Some(Poll::Ready(Pumped::StreamClosed) | Poll::Pending) | None => {}
                }
                if self.call.deadline.is_some_and(|deadline| deadline <= self.shared.now()) {
                    self.cancel(Reason::DeadlineExceeded);
                    return Poll::Ready(Err(CallError::Expired));
                }
                Poll::Pending
            }
            Err(failure) => {
                // What was whole when it was sent is in the request still.
                let back = self.shared.look(|state| state.session.take_back(key)).filter(|_| !whole);
                let whole = whole || back.is_some();
                if let Some(back) = back {
                    *self.request.borrow_mut().body_mut() = Pump::into_whole(pump.take(), back);
                }
                self.state = State::Done;
                self.shared.release(key, None);
                Poll::Ready(Err(match failure {
                    StreamFailure::Unseen => CallError::Unseen { whole },
                    StreamFailure::Lost => CallError::Lost { whole },
                    StreamFailure::Cancelled { reason: Reason::PayloadLimit, .. } if self.shared.whole.is_some() => {
                        CallError::ResponseTooLarge
                    }
                    StreamFailure::Cancelled { reason, text } => CallError::Cancelled { reason, text, whole },
                    StreamFailure::Length => CallError::Response,
                    _ => CallError::Closed,
                }))
            }
        }
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

impl<R: BorrowMut<http::Request<Body>> + Unpin> Future for Exchange<R> {
    type Output = Result<http::Response<Body>, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, State::Gathering { .. } | State::Whole(_)) {
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

impl<R> Drop for Exchange<R> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<R> fmt::Debug for Exchange<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Gathering { .. } | State::Whole(_) => "gathering",
            State::Open { .. } => "open",
            State::Done => "done",
        };
        f.debug_struct("Exchange").field("state", &state).finish_non_exhaustive()
    }
}
