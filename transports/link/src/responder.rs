//! Responder: the exactly-once answer to a stream that the peer opened (SPEC 4).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use router_common::frame::Reason;
use router_common::head::HeadError;
use router_common::session::StreamKey;

use crate::body::Body;
use crate::body_error::BodyError;
use crate::context::{Cancellation, Cancelled};
use crate::convert;
use crate::pump::{self, Gathered, Pump, Pumped};
use crate::shared::Shared;

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
    /// and is to be kept until then. An answer whose body is at hand ends at the first poll.
    pub fn respond(self, response: http::Response<Body>) -> Respond {
        Respond { hold: self.0, response: Some(response), pump: None }
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
}

/// An answer on its way. Dropped before its end, it cancels the stream with `handler_failed`.
#[must_use = "an answer is only sent when it is polled"]
pub struct Respond {
    hold: Hold,
    /// Until the first poll. In place: most answers end there.
    response: Option<http::Response<Body>>,
    /// What there is to be sent behind the head.
    pump: Option<Pump>,
}

impl Respond {
    /// Sends the head and what there is of the body. Gives the rest.
    fn start(&mut self, response: http::Response<Body>, cx: &mut Context<'_>) -> Result<Option<Pump>, RespondError> {
        let (parts, mut body) = response.into_parts();
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
            return Ok(None);
        }
        if gathered.ended {
            return match pump::finish(&self.hold.shared, key, gathered.trailers.as_ref()) {
                Pumped::Finished => Ok(None),
                Pumped::StreamClosed => Err(RespondError::Closed),
                Pumped::Failed(error) => Err(RespondError::Body(error)),
            };
        }
        Ok(Some(Pump::new(Arc::clone(&self.hold.shared), key, body, gathered.carry)))
    }

    /// The outcome is known: lets go of the stream.
    fn end(&mut self, result: Result<(), RespondError>) -> Poll<Result<(), RespondError>> {
        self.pump = None;
        let unfinished = match &result {
            Ok(()) => None,
            Err(RespondError::Body(error)) => Some(error.reason(Reason::HandlerFailed)),
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
                Ok(rest) => this.pump = rest,
                Err(error) => return this.end(Err(error)),
            }
        }
        let Some(pump) = &mut this.pump else { return this.end(Ok(())) };
        match pump.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Pumped::Finished) => this.end(Ok(())),
            Poll::Ready(Pumped::StreamClosed) => this.end(Err(RespondError::Closed)),
            Poll::Ready(Pumped::Failed(error)) => this.end(Err(RespondError::Body(error))),
        }
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Respond({:?})", self.hold.key)
    }
}
