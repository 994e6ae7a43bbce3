//! Request bodies, counted and limited as they are read; response bodies on their way out.
//!
//! Nothing here knows what a body is for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Version, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use router_common::frame::Reason;
use router_link::{Body, BodyError};
use tokio::time::{Sleep, sleep};

use super::EdgeContext;
use super::client::OpenGuard;
use super::held::{Counted, HeldBytes};
use crate::http_semantics;

/// Why a request body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum UploadFailure {
    /// More than the endpoint takes: 413.
    TooLarge = 1,
    /// More than one connection may have in flight: 429.
    ConnectionBytes = 2,
    /// More than the node may have in flight: 503.
    NodeBytes = 3,
    /// The client was too slow: 408.
    Stalled = 4,
    /// The client's framing is broken, or it left: 400, if anybody is there to read it.
    Malformed = 5,
}

/// The progress of one request body, shared by the body and by whoever answers the request.
#[derive(Debug)]
pub struct Upload {
    declared: Option<u64>,
    limit: AtomicU64,
    failure: AtomicU8,
}

impl Upload {
    pub(super) const fn new(declared: Option<u64>) -> Self {
        Self { declared, limit: AtomicU64::new(u64::MAX), failure: AtomicU8::new(0) }
    }

    /// The length that the client has announced, in bytes.
    #[must_use]
    pub const fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// Sets how many bytes may come; known only when the endpoint is.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Why the body failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<UploadFailure> {
        match self.failure.load(Ordering::Relaxed) {
            1 => Some(UploadFailure::TooLarge),
            2 => Some(UploadFailure::ConnectionBytes),
            3 => Some(UploadFailure::NodeBytes),
            4 => Some(UploadFailure::Stalled),
            5 => Some(UploadFailure::Malformed),
            _ => None,
        }
    }

    fn fail(&self, failure: UploadFailure) -> BodyError {
        self.failure.store(failure as u8, Ordering::Relaxed);
        let reason = match failure {
            UploadFailure::TooLarge | UploadFailure::ConnectionBytes | UploadFailure::NodeBytes => Reason::PayloadLimit,
            UploadFailure::Stalled | UploadFailure::Malformed => Reason::ClientDisconnected,
        };
        BodyError::Cancelled { reason, text: String::new() }
    }
}

/// A request body as it comes from a client.
pub(super) struct RequestBody {
    /// `None` once it has come to its end, or failed.
    incoming: Option<Incoming>,
    /// `None` once it was given away with what is left of the body.
    open: Option<OpenGuard>,
    upload: Arc<Upload>,
    node: Arc<HeldBytes>,
    received: u64,
    connection_limit: u64,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Reading would make the HTTP library say `100 Continue`, so that an unread rest is not read for its own sake.
    silent: bool,
    discardable: bool,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        head: &request::Parts,
        upload: Arc<Upload>,
        open: OpenGuard,
        context: &EdgeContext,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            open: Some(open),
            upload,
            node: Arc::clone(&context.node_bytes),
            received: 0,
            connection_limit: context.settings.max_connection_bytes,
            patience: context.settings.body_idle_timeout,
            stalled: None,
            silent: http_semantics::expects_continue(head.version, &head.headers),
            discardable: head.version <= Version::HTTP_11,
        }
    }

    fn count(&mut self, data: Bytes) -> Result<Bytes, UploadFailure> {
        let length = data.len() as u64;
        self.received = self.received.saturating_add(length);
        if self.received > self.upload.limit.load(Ordering::Relaxed) {
            return Err(UploadFailure::TooLarge);
        }
        let Some(open) = &self.open else { return Ok(data) };
        let connection = Arc::clone(&open.connection().held);
        let within_connection = connection.add(length, self.connection_limit);
        let within_node = self.node.add(length, self.node.limit());
        // From here on both counters go back when the bytes do.
        let counted = Bytes::from_owner(Counted::new(data, connection, Arc::clone(&self.node)));
        if !within_connection {
            Err(UploadFailure::ConnectionBytes)
        } else if !within_node {
            Err(UploadFailure::NodeBytes)
        } else {
            Ok(counted)
        }
    }

    fn fail(&mut self, failure: UploadFailure) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(open) = &self.open {
            match self.discardable {
                true => open.connection().give_up(),
                false => open.connection().leave_unread(),
            }
        }
        self.incoming = None;
        self.stalled = None;
        Poll::Ready(Some(Err(self.upload.fail(failure))))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        this.silent = false;
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.stalled = None;
                match frame.into_data() {
                    Ok(data) => match this.count(data) {
                        Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(failure) => this.fail(failure),
                    },
                    Err(trailers) => {
                        // What cannot cross a hop is no reason to fail the message: it is left out.
                        let mut trailers = trailers.into_trailers().unwrap_or_default();
                        http_semantics::strip_trailers(&mut trailers);
                        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                    }
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "request body cut short");
                this.fail(UploadFailure::Malformed)
            }
            Poll::Ready(None) => {
                this.incoming = None;
                this.open = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = this.patience;
                ready!(this.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
                this.fail(UploadFailure::Stalled)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let (Some(incoming), Some(open)) = (self.incoming.take(), self.open.take()) else { return };
        if incoming.is_end_stream() {
            return;
        }
        if self.discardable && !self.silent {
            let connection = Arc::clone(open.connection());
            connection.leave(incoming, open);
        } else if self.discardable {
            open.connection().give_up();
        }
    }
}

/// A response body on its way to a client. Its request is over when it is dropped.
///
/// It holds back while a client of HTTP/1.1 does not take what was written: the HTTP library would buffer it, and what
/// is buffered there counts as consumed where the service's credit is kept.
///
/// A failure waits for one turn more: the HTTP library ends the connection, or the stream, at once, and what it was given
/// before, the head among it, would not be sent.
pub(super) struct ResponseBody {
    body: Body,
    open: Option<OpenGuard>,
    failed: Option<BodyError>,
}

impl ResponseBody {
    pub(super) const fn new(body: Body, open: Option<OpenGuard>) -> Self {
        Self { body, open, failed: None }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.open.as_ref().is_some_and(|open| open.connection().is_blocked()) {
            // The connection's task is woken when the client takes more.
            return Poll::Pending;
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    http_semantics::strip_trailers(trailers);
                }
            }
            Some(Err(_)) => {
                self.failed = frame.take().and_then(Result::err);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// The HTTP library flushes whenever there is nothing more to write.
    #[tokio::test]
    async fn a_failure_waits_until_what_came_before_it_can_be_flushed() {
        let pieces = [Ok(Frame::data(Bytes::from_static(b"half"))), Err("broken")];
        let broken = Body::stream(StreamBody::new(futures_util::stream::iter(pieces)));
        let mut body = ResponseBody::new(broken, None);
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        let mut turns = 0;
        let failed = poll_fn(|cx| {
            turns += 1;
            Pin::new(&mut body).poll_frame(cx)
        });
        assert!(failed.await.is_some_and(|frame| frame.is_err()));
        assert_eq!(turns, 2);
    }
}
