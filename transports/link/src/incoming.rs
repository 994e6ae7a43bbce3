//! A body that arrives on a stream. It reads the session under its lock; credit returns by reading.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use router_common::frame::Reason;
use router_common::session::{Read, StreamKey};

use crate::body_error::BodyError;
use crate::convert;
use crate::shared::{Interest, Shared};

pub(crate) struct Incoming {
    shared: Arc<Shared>,
    key: StreamKey,
    /// Read already, while the lock was held for the head.
    first: Option<Bytes>,
    then: Option<Read>,
    /// Bytes that are to come, where the head said so.
    left: Option<u64>,
    ended: bool,
    /// The reason for the peer if this is the stream's owner and dropped early; the request's body, of which the
    /// responder is the owner, has none.
    owner: Option<Reason>,
}

impl Incoming {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: StreamKey,
        first: Option<Bytes>,
        then: Option<Read>,
        left: Option<u64>,
        owner: Option<Reason>,
    ) -> Self {
        Self { shared, key, first, then, left, ended: false, owner }
    }

    pub(crate) fn set_cancel_reason(&mut self, reason: Reason) {
        if let Some(owner) = &mut self.owner {
            *owner = reason;
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let read = match (self.first.take(), self.then.take()) {
            (Some(first), then) => {
                self.then = then;
                Read::Data(first)
            }
            (None, Some(then)) => then,
            (None, None) => self.read(cx),
        };
        Poll::Ready(match read {
            Read::Pending => return Poll::Pending,
            Read::Data(bytes) => {
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Some(Ok(Frame::data(bytes)))
            }
            Read::Trailers(trailers) => {
                self.end();
                // What HTTP's types cannot say is not passed on, rather than spoiling a body that is complete.
                convert::trailer_map(&trailers).map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Read::End => {
                self.end();
                None
            }
            Read::Failed(failure) => {
                self.end();
                Some(Err(failure.into()))
            }
        })
    }

    fn read(&self, cx: &Context<'_>) -> Read {
        let (read, driver) = self.shared.look(|state| {
            let read = state.session.read(self.key);
            let driver = match read {
                Read::Pending => {
                    state.wait(self.key, Interest::Read, cx);
                    None
                }
                // The bytes' credit is to be sent back.
                Read::Data(_) => state.take_driver(),
                _ => None,
            };
            (read, driver)
        });
        if let Some(driver) = driver {
            driver.wake();
        }
        read
    }

    /// Nothing more comes.
    fn end(&mut self) {
        self.ended = true;
        if self.owner.take().is_some() {
            self.shared.release(self.key, None);
        }
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (self.ended, self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => {
                let mut hint = SizeHint::default();
                hint.set_lower(self.first.as_ref().map_or(0, |first| first.len() as u64));
                hint
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(reason) = self.owner.take() {
            self.shared.release(self.key, Some(reason));
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("left", &self.left).field("ended", &self.ended).finish_non_exhaustive()
    }
}
