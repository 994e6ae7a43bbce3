//! Body: the one type of message bodies in process, on both sides of every link.
//!
//! A body is opaque bytes and optional trailers. It knows how to come from a link, from memory, or from any
//! `http_body::Body`; it does not know what is in it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use router_common::frame::Reason;
use router_common::session::StreamKey;

use crate::body_error::{BodyError, BoxError};
use crate::incoming::Incoming;
use crate::shared::{Begun, Shared};

type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// A request's or response's body.
///
/// A body that came from a link returns credit as it is read, and cancels its stream when it is dropped before its end
/// (see [`Body::set_cancel_reason`]). A body that was cut short always ends in an error, never as if complete (SPEC 1).
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Boxed(Boxed),
}

impl Body {
    /// No bytes, no trailers.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Any other body. One that is already at its end becomes [`Body::empty`]; a `Body` stays itself. An error that is
    /// (or boxes) a [`BodyError`] keeps its meaning, any other becomes [`BodyError::Source`].
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut slot = Some(body);
        if let Some(own) = (&mut slot as &mut dyn std::any::Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        match slot {
            Some(body) if !body.is_end_stream() => Self(Inner::Boxed(Box::pin(Foreign { body }))),
            _ => Self::empty(),
        }
    }

    /// The bytes, if this body is whole in memory and has no trailers. Such a body can be sent again.
    #[must_use]
    pub fn whole(&self) -> Option<Bytes> {
        match &self.0 {
            Inner::Empty => Some(Bytes::new()),
            Inner::Full(bytes) => Some(bytes.clone()),
            Inner::Incoming(_) | Inner::Boxed(_) => None,
        }
    }

    /// What the peer is told if this body is dropped before its end; `client_disconnected` unless set. Only a body that
    /// came from a link has anyone to tell.
    pub fn set_cancel_reason(&mut self, reason: Reason) {
        if let Inner::Incoming(incoming) = &mut self.0 {
            incoming.set_cancel_reason(reason);
        }
    }

    /// A body that arrives on a stream. With `owner`, a reason, it is the stream's last user on this side: its end or
    /// its drop releases the stream; whoever got it whole has released the stream already.
    pub(crate) fn incoming(
        shared: &Arc<Shared>,
        key: StreamKey,
        begun: Begun,
        length: Option<u64>,
        owner: Option<Reason>,
    ) -> Self {
        match begun {
            Begun::Whole(bytes) => bytes.into(),
            Begun::Partial(first, then) => {
                Self(Inner::Incoming(Incoming::new(Arc::clone(shared), key, first, then, length, owner)))
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Incoming(incoming) => incoming.poll_frame(cx),
            Inner::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::Incoming(incoming) => incoming.is_ended(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Incoming(incoming) => incoming.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) })
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Incoming(_) => f.write_str("Body(from a link)"),
            Inner::Boxed(_) => f.write_str("Body(stream)"),
        }
    }
}

pin_project_lite::pin_project! {
    struct Foreign<B> {
        #[pin]
        body: B,
    }
}

impl<B> http_body::Body for Foreign<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.project().body.poll_frame(cx).map_err(BodyError::from_source)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
