//! A response body on its way through the gateway: held to the idle timeout, counted until it ends (SPEC 6).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use router_common::frame::Reason;
use router_link::{Body, BodyError};
use tokio::time::{Instant, Sleep, sleep};

/// Wraps a body that did not come whole with its head. `counted` is dropped when it ends, however it does.
pub(super) struct Streaming<C> {
    body: Body,
    idle: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    counted: Option<C>,
}

impl<C> Streaming<C> {
    pub(super) const fn new(body: Body, idle: Duration, counted: C) -> Self {
        Self { body, idle, alarm: None, counted: Some(counted) }
    }
}

impl<C: Unpin> http_body::Body for Streaming<C> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(outcome) => {
                // The next silence begins when this body is asked again: a slow reader is not the service's fault.
                this.alarm = None;
                if !matches!(outcome, Some(Ok(_))) {
                    this.counted = None;
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                let idle = this.idle;
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep(idle)));
                if alarm.as_mut().poll(cx).is_pending() || alarm.deadline() > Instant::now() {
                    return Poll::Pending;
                }
                // Dropping what is left tells the service why.
                this.body.set_cancel_reason(Reason::DeadlineExceeded);
                this.body = Body::empty();
                this.counted = None;
                let text = "nothing came for too long".to_owned();
                Poll::Ready(Some(Err(BodyError::Cancelled { reason: Reason::DeadlineExceeded, text })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
