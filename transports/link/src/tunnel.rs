//! Tunnel: opaque bytes both ways on one stream, after a request that asked for it was accepted (SPEC 4).
//!
//! The same type stands at both ends. Whoever opened gets it with the response ([`Tunnel::of`]); whoever answers hands a
//! function that takes it over to the response ([`Accept`]). Writing waits for the stream's credit, reading returns it.
//! What the bytes mean, `websocket` or anything else, is not known here.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderName;
use http_body::Body as _;
use router_common::frame::Reason;
use router_common::session::StreamKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::Body;
use crate::body_error::BodyError;
use crate::link::BoxFuture;
use crate::shared::{Interest, Shared};

/// In an answer of 426 (Upgrade Required), the protocols that the service would have a client ask for, as they would stand
/// in `Upgrade`. That field ends at a hop and so cannot cross; the gateway makes it of this one.
pub const UPGRADE_PROTOCOLS: HeaderName = HeaderName::from_static("x-stella-upgrade");

/// The most that one `poll_write` takes, in bytes: it is copied.
const WRITE_BYTES: usize = 64 * 1024;

/// An open tunnel.
///
/// As `AsyncRead` it ends when the other side has ended its direction, and fails when it was cut: an end is never
/// confused with a loss (SPEC 1). As `AsyncWrite` it is flushed by itself.
///
/// `shutdown` by the side that opened is a half-close: it goes on reading. By the side that accepted it ends both
/// directions: reading gives the end at once, and the other side is told when the work on the tunnel is over.
///
/// Dropped by the side that opened before the other's end, it cancels the stream, `client_disconnected` unless told
/// otherwise.
pub struct Tunnel {
    incoming: Body,
    /// Came with the last piece, and was not taken yet.
    rest: Bytes,
    shared: Arc<Shared>,
    key: StreamKey,
    end: End,
    /// Nothing more is to be sent.
    finished: bool,
}

/// Which end of the stream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Opener,
    Responder,
}

impl Tunnel {
    pub(crate) const fn new(incoming: Body, shared: Arc<Shared>, key: StreamKey, end: End) -> Self {
        Self { incoming, rest: Bytes::new(), shared, key, end, finished: false }
    }

    /// The tunnel that this response opens, once.
    pub fn of<B>(response: &mut http::Response<B>) -> Option<Self> {
        response.extensions_mut().remove::<Handed<Self>>()?.take()
    }

    /// Hands it over with a response.
    pub(crate) fn put_into<B>(self, response: &mut http::Response<B>) {
        response.extensions_mut().insert(Handed::new(self));
    }

    /// What the other side is told if this is dropped before its end. Only the side that opened has anyone to tell.
    pub fn set_cancel_reason(&mut self, reason: Reason) {
        self.incoming.set_cancel_reason(reason);
    }

    /// The next bytes, as they came; `None`: the other side has ended its direction.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        if self.finished && self.end == End::Responder {
            return Poll::Ready(None);
        }
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Trailers are refused by the session; nothing is no news.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes))),
                    _ => {}
                },
            }
        }
    }

    /// Waits until bytes may be given, and says how many.
    ///
    /// # Errors
    /// [`BodyError::Closed`]: nothing can be sent any more. Reading tells why.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, BodyError>> {
        if self.finished {
            return Poll::Ready(Err(BodyError::Closed));
        }
        self.shared.look(|state| match state.session.send_capacity(self.key) {
            Err(_) => Poll::Ready(Err(BodyError::Closed)),
            Ok(0) => {
                state.wait(self.key, Interest::Write, cx);
                Poll::Pending
            }
            Ok(room) => Poll::Ready(Ok(room)),
        })
    }

    /// Gives bytes, which leave at once as far as credit allows. [`Tunnel::poll_room`] says how many are welcome; a piece
    /// beyond it is kept.
    ///
    /// # Errors
    /// [`BodyError::Closed`]: nothing can be sent any more.
    pub fn send(&mut self, bytes: Bytes) -> Result<(), BodyError> {
        if self.finished {
            return Err(BodyError::Closed);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.shared.act(|state| state.session.send_data(self.key, bytes)).map_err(|_| BodyError::Closed)
    }

    /// Ends this side's direction.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) || self.end == End::Responder {
            return;
        }
        // It may be over already, which is an end as well.
        let _ = self.shared.act(|state| state.session.finish(self.key, None));
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_next(cx)) {
            None => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(io_error(error))),
            Some(Ok(mut bytes)) => {
                let length = bytes.len().min(buf.remaining());
                buf.put_slice(bytes.get(..length).unwrap_or_default());
                bytes.advance(length);
                self.rest = bytes;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx)).map_err(io_error)?;
        let piece = buf.get(..buf.len().min(room).min(WRITE_BYTES)).unwrap_or_default();
        self.send(Bytes::copy_from_slice(piece)).map_err(io_error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("end", &self.end).field("finished", &self.finished).finish_non_exhaustive()
    }
}

fn io_error(error: BodyError) -> io::Error {
    let kind = match &error {
        BodyError::Cancelled { .. } => io::ErrorKind::ConnectionReset,
        BodyError::Lost => io::ErrorKind::ConnectionAborted,
        BodyError::Closed => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The work on a tunnel: it ends the tunnel when it ends, in good order or cut short.
pub(crate) type Work = BoxFuture<'static, Result<(), BodyError>>;

/// The acceptance of a tunnel, put into the response to the request that asked for one (SPEC 4).
///
/// The responder sends the response's head, opens the tunnel and does the work, which holds the request's slot of the
/// lease and is dropped when the stream is over. It counts only in a 200 to a request that asked; any other response is
/// sent as if it were not there, and the work is never begun.
pub struct Accept {
    incoming: Body,
    work: Box<dyn FnOnce(Tunnel) -> Work + Send>,
}

impl Accept {
    /// `incoming` is the body of the request. An `Err` of `work` cuts the tunnel, visibly for the other side.
    pub fn new<F, Fut>(incoming: Body, work: F) -> Self
    where
        F: FnOnce(Tunnel) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BodyError>> + Send + 'static,
    {
        Self { incoming, work: Box::new(move |tunnel| Box::pin(work(tunnel))) }
    }

    /// Puts it into the response that is to accept.
    pub fn put_into<B>(self, response: &mut http::Response<B>) {
        response.extensions_mut().insert(Handed::new(self));
    }

    pub(crate) fn of(extensions: &mut http::Extensions) -> Option<Self> {
        extensions.remove::<Handed<Self>>()?.take()
    }

    pub(crate) fn begin(self, shared: Arc<Shared>, key: StreamKey) -> Work {
        (self.work)(Tunnel::new(self.incoming, shared, key, End::Responder))
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accept")
    }
}

/// Something that is handed over once, by way of a message's extensions, which are copied.
pub(crate) struct Handed<T>(Arc<Mutex<Option<T>>>);

impl<T> Handed<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Clone for Handed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
