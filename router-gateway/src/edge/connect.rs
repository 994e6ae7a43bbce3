//! HTTP/2's extended CONNECT (RFC 8441): the stream under a tunnel, and the library's sending half of it.
//!
//! The library hands over a byte stream, and sends what is written to it in a task of its own, which ends the HTTP/2
//! stream in good order when the byte stream is dropped, and takes a stream that the client has reset for one that has
//! ended. A tunnel that was cut must be reset, and one that the client has reset must not look ended (SPEC 1); so the task
//! is taken over when the library starts it, and driven by who has the byte stream.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use router_common::frame::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::OpenGuard;
use super::opened::Opened;
use super::tunnel::{Splice, TunnelIo};
use super::worker::Edge;

/// The most that is written at once, in bytes: the library keeps up to three of these.
const WRITE_BYTES: usize = 16 * 1024;

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a sending half is put when it is taken over.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Sending>>>);

thread_local! {
    /// The library starts the sending half on the thread, and within the very poll, in which it is given the response
    /// that opens the tunnel. Elsewhere it starts tasks for new requests, before which this is forgotten.
    static EXPECTED: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// The library is about to be given a response that opens a tunnel.
pub(super) fn expect() -> Slot {
    let slot = Slot::default();
    EXPECTED.set(Some(slot.clone()));
    slot
}

/// The library is about to start tasks for requests.
pub(super) fn forget() {
    EXPECTED.take();
}

/// Takes over a task that the library starts, if it is the one that is expected; otherwise gives it back.
pub(super) fn take_over<F>(task: F) -> Option<F>
where
    F: Future + Send + 'static,
{
    let Some(Slot(slot)) = EXPECTED.take() else { return Some(task) };
    let sending = Box::pin(async move {
        task.await;
    });
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sending);
    None
}

/// Splices a tunnel onto the stream of the request that opened it, until it is over or the grace of a shutdown is.
pub(super) async fn run(upgrade: OnUpgrade, Slot(slot): Slot, opened: Opened, open: OpenGuard, edge: Arc<Edge>) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        // The client left before it was told; so the tunnel is dropped.
        Err(error) => return tracing::debug!(%error, "a tunnel was opened for nobody"),
    };
    let sending = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let io = ConnectIo { upgraded: TokioIo::new(upgraded), sending, shut: false };
    let mut splice = Splice::new(io, opened, open, Arc::clone(&edge.context));
    let done = edge.cut.unless_requested(std::future::poll_fn(|cx| splice.poll(cx))).await;
    if done.is_none() {
        splice.cut(Reason::Shutdown);
    }
}

/// A tunnel's HTTP/2 stream. Dropped before it is shut down, the stream is reset.
struct ConnectIo {
    upgraded: TokioIo<Upgraded>,
    /// `None` once it has ended: the client has reset the stream, or all was sent.
    sending: Option<Sending>,
    shut: bool,
}

impl ConnectIo {
    /// Sends what was written.
    ///
    /// # Errors
    /// The client has reset the stream, or is gone.
    fn drive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(sending) = &mut self.sending
            && sending.as_mut().poll(cx).is_ready()
        {
            self.sending = None;
        }
        if self.sending.is_some() || self.shut { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }
}

impl AsyncRead for ConnectIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.upgraded).poll_read(cx, buf);
        if buf.filled().len() == before {
            // The library tells the end from a reset only to its sending half.
            self.drive(cx)?;
        }
        read
    }
}

impl AsyncWrite for ConnectIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.drive(cx)?;
        let piece = buf.get(..buf.len().min(WRITE_BYTES)).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.upgraded).poll_write(cx, piece))?;
        self.drive(cx)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is flushed by being driven, which the library does when it is read from as well.
        self.drive(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(cx)?;
        if !std::mem::replace(&mut self.shut, true) {
            // Says that nothing more comes; what it answers is the sending half's end, which is waited for below.
            let _ = Pin::new(&mut self.upgraded).poll_shutdown(cx);
        }
        self.drive(cx)?;
        if self.sending.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl TunnelIo for ConnectIo {
    fn cut(&mut self) {
        // Without its end being sent, the stream is reset when the last of it is dropped.
        self.sending = None;
    }

    /// HTTP/2 says by a reset without an error that the rest is not wanted.
    fn leave_unread(&self) {}
}
