//! Whole messages: what is done with bodies on a link on which a message is one frame (SPEC 7).
//!
//! A body is gathered until it ends, or is too large for a frame whatever its head; what was taken of it can be given back.
//! Ordinary links never come here.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::time::Sleep;

use crate::body::Body;
use crate::body_error::BodyError;
use crate::environment::Environment;
use crate::pump::Remains;

/// Pieces that wait as they came. More of them are made one, so that a body that comes byte by byte is not held in a list.
const PIECES: usize = 64;

/// A body on its way into one frame.
pub(crate) struct Gathering {
    /// Bytes that a frame has room for.
    most: usize,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// When nobody waits for it any more.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What became of a body.
pub(crate) enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// It does not fit. The body as it was.
    TooLarge(Body),
    /// It has trailers, for which there is no frame. The body as it was.
    Trailers(Body),
    /// It has not ended by the deadline.
    Late,
}

impl Gathering {
    /// For frames of `most` bytes.
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, pieces: VecDeque::new(), bytes: 0, alarm: None }
    }

    /// For frames of `most` bytes, until `deadline`.
    pub(crate) fn until(most: usize, deadline: Option<Instant>, environment: &Arc<dyn Environment>) -> Self {
        // By way of a duration, because the environment's clock need not be tokio's.
        let left = |at: Instant| at.saturating_duration_since(environment.now());
        let alarm = deadline.map(|at| Box::pin(tokio::time::sleep(left(at))));
        Self { alarm, ..Self::new(most) }
    }

    /// Takes what there is of the body; ready when that is enough to know.
    pub(crate) fn poll(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<Gathered, BodyError>> {
        if body.size_hint().lower() > self.most as u64 {
            return Poll::Ready(Ok(Gathered::TooLarge(self.give_back(body, None))));
        }
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(Gathered::Whole(self.join()))),
                Poll::Pending => {
                    let late = self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready());
                    return if late { Poll::Ready(Ok(Gathered::Late)) } else { Poll::Pending };
                }
            };
            match frame.into_data() {
                Ok(bytes) => {
                    self.push(bytes);
                    if self.bytes > self.most {
                        return Poll::Ready(Ok(Gathered::TooLarge(self.give_back(body, None))));
                    }
                }
                Err(other) => match other.into_trailers() {
                    // Nothing is no trailers.
                    Ok(trailers) if !trailers.is_empty() => {
                        return Poll::Ready(Ok(Gathered::Trailers(self.give_back(body, Some(trailers)))));
                    }
                    _ => {}
                },
            }
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        self.pieces.push_back(bytes);
        if self.pieces.len() > PIECES {
            let joined = self.join();
            self.pieces.push_back(joined);
        }
    }

    fn join(&mut self) -> Bytes {
        if self.pieces.len() <= 1 {
            return self.pieces.pop_front().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        self.pieces.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
        joined.freeze()
    }

    fn give_back(&mut self, body: &mut Body, trailers: Option<http::HeaderMap>) -> Body {
        let rest = if trailers.is_some() { None } else { Some(std::mem::take(body)) };
        Remains::new(std::mem::take(&mut self.pieces), trailers, rest).with(Bytes::new())
    }
}
