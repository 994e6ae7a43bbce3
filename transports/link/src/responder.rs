//! Responder: the exactly-once answer to a stream that the peer opened (SPEC 4).

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use router_common::frame::Reason;
use router_common::head::HeadError;
use router_common::session::StreamKey;

use crate::body::Body;
use crate::body_error::BodyError;
use crate::context::{Cancellation, Cancelled};
use crate::convert;
use crate::pump::{self, Gathered, Pump, Pumped, Remains};
use crate::shared::Shared;
use crate::tunnel::{Accept, Work};
use crate::whole::{self, Gathering};

/// Answers one request. Dropped without an answer, it cancels the stream with `handler_failed`.
///
/// The slot of the lease that the request takes is free when the answer's body has been handed over, or this is gone:
/// keep it until the handler has ended.
#[must_use = "a request is to be answered"]
pub struct Responder(Hold);

/// The stream, held until it is let go exactly once.
struct Hold {
    shared: Arc<Shared>,
    key: StreamKey,
    held: bool,
    /// What the peer is told if it is let go unfinished.
    reason: Reason,
}

impl Hold {
    fn release(&mut self, unfinished: Option<Reason>) {
        if std::mem::take(&mut self.held) {
            self.shared.release(self.key, unfinished);
        }
    }

    /// Whether the peer, or the link, has ended the stream.
    fn is_closed(&self) -> bool {
        self.shared.look(|state| state.session.send_capacity(self.key).is_err())
    }

    /// Waits for that.
    fn poll_closed(&self, cx: &Context<'_>) -> Poll<Pumped> {
        self.shared.look(|state| {
            if state.session.send_capacity(self.key).is_err() {
                return Poll::Ready(Pumped::StreamClosed);
            }
            state.watch(self.key, cx);
            Poll::Pending
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let reason = self.reason;
        self.release(Some(reason));
    }
}

impl Responder {
    pub(crate) const fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self(Hold { shared, key, held: true, reason: Reason::HandlerFailed })
    }

    /// Answers. Nothing is sent until the returned future is polled; it ends when the whole body has been handed over,
    /// and is to be kept until then. An answer whose body is at hand ends at the first poll, and one that opens a tunnel
    /// ([`Accept`]) with the work on it.
    pub fn respond(self, response: http::Response<Body>) -> Respond {
        Respond { hold: self.0, response: Some(response), rest: Rest::Nothing, head_first: false }
    }

    /// Cancels the stream: [`Reason::Refused`] says that no handler has seen the request, so that it may go elsewhere.
    pub fn reject(mut self, reason: Reason) {
        self.0.release(Some(reason));
    }

    /// Resolves when nobody waits for the answer any more.
    pub fn cancelled(&self) -> Cancelled {
        self.cancellation().cancelled()
    }

    /// Waits until nobody wants the answer any more, or its deadline has passed: what [`Responder::cancelled`] and a timer
    /// would tell, without anything of its own for each request. The link's driver keeps the time.
    pub fn poll_unwanted(&self, deadline: Option<Instant>, cx: &Context<'_>) -> Poll<Unwanted> {
        let Hold { shared, key, .. } = &self.0;
        if deadline.is_some_and(|deadline| deadline <= shared.now()) {
            // So that whoever is given up can be told why.
            shared.look(|state| state.session.expire(*key));
            return Poll::Ready(Unwanted::Late);
        }
        // The driver sleeps, and is to wake when this deadline is the next.
        let (poll, driver) = shared.look(|state| {
            if state.session.send_capacity(*key).is_err() {
                return (Poll::Ready(Unwanted::Cancelled), None);
            }
            state.watch(*key, cx);
            let sooner = deadline.is_some_and(|deadline| state.watch_until(*key, deadline));
            (Poll::Pending, if sooner { state.take_driver() } else { None })
        });
        if let Some(driver) = driver {
            driver.wake();
        }
        poll
    }

    /// The handle that the request carries in its context.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        Cancellation::of(Arc::clone(&self.0.shared), self.0.key)
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder({:?})", self.0.key)
    }
}

/// Why nobody waits for an answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// The opener cancelled, or the link was lost.
    Cancelled,
    /// Its deadline has passed. The opener is yet to be told.
    Late,
}

/// Why an answer did not get through. The stream is over in each case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// The peer cancelled, or the link was lost.
    #[error("nobody waits for the answer any more")]
    Closed,
    /// The head cannot be sent; the peer was told `handler_failed`.
    #[error("the response's head: {0}")]
    Head(#[from] HeadError),
    /// The body failed; the peer sees it cut short.
    #[error("the response's body: {0}")]
    Body(BodyError),
    /// It does not fit into a frame, or has trailers, and the link carries no such thing; the peer was told
    /// `payload_limit`.
    #[error("the response does not fit into one frame of the link")]
    TooLarge,
}

/// An answer on its way. Dropped before its end, it cancels the stream with `handler_failed`.
#[must_use = "an answer is only sent when it is polled"]
pub struct Respond {
    hold: Hold,
    /// Until the first poll. In place: most answers end there.
    response: Option<http::Response<Body>>,
    rest: Rest,
    head_first: bool,
}

/// What there is to be done behind the head.
enum Rest {
    Nothing,
    /// Few answers need it, and all have its place.
    Body(Box<Pump>),
    Tunnel(Work),
    /// All of the answer: it is to be one frame.
    Whole(Box<Answer>),
}

/// An answer whose body is being gathered.
struct Answer {
    parts: http::response::Parts,
    body: Body,
    gathering: Gathering,
}

impl Respond {
    /// The head leaves at once, and the body has only an end, which may come later: the answer of a one-way endpoint. It
    /// makes a difference on links that carry a message in one frame or not at all.
    pub const fn head_first(mut self) -> Self {
        self.head_first = true;
        self
    }

    /// Sends the head and what there is of the body. Gives the rest.
    fn start(&mut self, response: http::Response<Body>, cx: &mut Context<'_>) -> Result<Rest, RespondError> {
        let (mut parts, mut body) = response.into_parts();
        if !parts.extensions.is_empty()
            && let Some(accept) = Accept::of(&mut parts.extensions)
            && self.accepts(&parts)?
        {
            return Ok(Rest::Tunnel(accept.begin(Arc::clone(&self.hold.shared), self.hold.key)));
        }
        if let Some(most) = self.hold.shared.whole {
            return self.start_whole(parts, body, most);
        }
        let mut gathered = Gathered::default();
        let whole = match body.whole() {
            Some(bytes) => Some(bytes),
            None => {
                gathered.poll(&mut body, cx).map_err(RespondError::Body)?;
                gathered.is_whole().then(|| gathered.take_bytes())
            }
        };
        let end = whole.is_some();
        let bytes = whole.unwrap_or_else(|| gathered.take_bytes());
        let key = self.hold.key;
        self.hold.shared.act(|state| {
            let head = convert::response_head(&parts, &mut state.heads)?;
            state.session.respond(key, head, bytes, end, false).map_err(|_| RespondError::Closed)?;
            if end {
                state.release(key);
            }
            Ok::<_, RespondError>(())
        })?;
        if end {
            self.hold.held = false;
            return Ok(Rest::Nothing);
        }
        let pump = Pump::new(Arc::clone(&self.hold.shared), key, gathered.take_remains(&mut body));
        Ok(Rest::Body(Box::new(pump)))
    }

    /// The same where a message is one frame.
    #[cold]
    fn start_whole(&mut self, parts: http::response::Parts, body: Body, most: usize) -> Result<Rest, RespondError> {
        if let Some(bytes) = body.whole() {
            return self.send_whole(&parts, bytes, true).map(|()| Rest::Nothing);
        }
        if !self.head_first {
            return Ok(Rest::Whole(Box::new(Answer { parts, body, gathering: Gathering::new(most) })));
        }
        self.send_whole(&parts, Bytes::new(), false)?;
        let remains = Remains::new(VecDeque::new(), None, Some(body));
        Ok(Rest::Body(Box::new(Pump::new(Arc::clone(&self.hold.shared), self.hold.key, remains))))
    }

    fn send_whole(&mut self, parts: &http::response::Parts, bytes: Bytes, end: bool) -> Result<(), RespondError> {
        let key = self.hold.key;
        self.hold.shared.act(|state| {
            let head = convert::response_head(parts, &mut state.heads)?;
            if !state.session.fits(head.as_bytes().len(), bytes.len()) {
                return Err(RespondError::TooLarge);
            }
            state.session.respond(key, head, bytes, end, false).map_err(|_| RespondError::Closed)?;
            if end {
                state.release(key);
            }
            Ok(())
        })?;
        self.hold.held = !end;
        Ok(())
    }

    /// Goes on gathering an answer, and sends it.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RespondError>> {
        let Rest::Whole(answer) = &mut self.rest else { return Poll::Ready(Ok(())) };
        let Answer { body, gathering, .. } = &mut **answer;
        let bytes = match gathering.poll(body, cx) {
            Poll::Ready(Ok(whole::Gathered::Whole(bytes))) => bytes,
            Poll::Ready(Ok(_)) => return Poll::Ready(Err(RespondError::TooLarge)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(RespondError::Body(error))),
            Poll::Pending => {
                ready!(self.hold.poll_closed(cx));
                return Poll::Ready(Err(RespondError::Closed));
            }
        };
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Whole(answer) => Poll::Ready(self.send_whole(&answer.parts, bytes, true)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Opens the tunnel that was asked for. Says no where none was, or where this is no acceptance.
    fn accepts(&self, parts: &http::response::Parts) -> Result<bool, RespondError> {
        let key = self.hold.key;
        self.hold.shared.act(|state| {
            if parts.status != http::StatusCode::OK || !state.session.is_tunnel(key) {
                return Ok(false);
            }
            let head = convert::response_head(parts, &mut state.heads)?;
            state.session.respond(key, head, Bytes::new(), false, true).map_err(|_| RespondError::Closed)?;
            Ok(true)
        })
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RespondError>> {
        let pumped = match &mut self.rest {
            Rest::Nothing => return Poll::Ready(Ok(())),
            Rest::Whole(_) => return self.poll_whole(cx),
            Rest::Body(pump) => ready!(pump.poll(cx)),
            Rest::Tunnel(work) => match work.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => pump::finish(&self.hold.shared, self.hold.key, None),
                // It is told of a stream that is over by errors of its own.
                Poll::Ready(Err(_)) if self.hold.is_closed() => Pumped::StreamClosed,
                Poll::Ready(Err(error)) => Pumped::Failed(error),
                // Work that waits for something else is to end with its stream as well.
                Poll::Pending => ready!(self.hold.poll_closed(cx)),
            },
        };
        Poll::Ready(match pumped {
            Pumped::Finished => Ok(()),
            Pumped::StreamClosed => Err(RespondError::Closed),
            Pumped::Failed(error) => Err(RespondError::Body(error)),
        })
    }

    /// The outcome is known: lets go of the stream.
    fn end(&mut self, result: Result<(), RespondError>) -> Poll<Result<(), RespondError>> {
        self.rest = Rest::Nothing;
        let unfinished = match &result {
            Ok(()) => None,
            Err(RespondError::Body(error)) => Some(error.reason(Reason::HandlerFailed)),
            Err(RespondError::TooLarge) => Some(Reason::PayloadLimit),
            Err(_) => Some(Reason::HandlerFailed),
        };
        self.hold.release(unfinished);
        Poll::Ready(result)
    }
}

impl Future for Respond {
    type Output = Result<(), RespondError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(response) = this.response.take() {
            match this.start(response, cx) {
                Ok(rest) => this.rest = rest,
                Err(error) => return this.end(Err(error)),
            }
        }
        let outcome = ready!(this.poll_body(cx));
        this.end(outcome)
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Respond({:?})", self.hold.key)
    }
}
