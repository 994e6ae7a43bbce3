//! A TLS connection as a carrier of frames, and how it changes its runtime: the socket leaves, the keys stay with it.
//!
//! It does not know how the connection came about.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use router_link::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::explain;

/// What TLS asks a socket for at once, bytes: a quarter of a record.
const READ_SMALL: usize = 4 * 1024;
/// What is read ahead for it while there is more: several whole records with one call of the kernel.
const READ_LARGE: usize = 128 * 1024;
/// Reads in a row that would have been small, until they are.
const LAZY_READS: u32 = 16;
/// Plaintext that is sealed at once, in records of 16 KiB, and then written with one call of the kernel.
const SEAL_BYTES: usize = 256 * 1024;

/// The socket below TLS. While a link is between two runtimes it is elsewhere.
///
/// TLS reads in small pieces. Where more is coming than one of them, it is read ahead in large ones; a link that only says
/// small things holds no buffer for that.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Option<TcpStream>,
    /// Read ahead.
    ahead: BytesMut,
    is_busy: bool,
    lazy: u32,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream: Some(stream), ahead: BytesMut::new(), is_busy: false, lazy: 0 }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Decides by what a read has brought how the next one is made.
    fn learn(&mut self, read: usize, room: usize) {
        if !self.is_busy {
            self.is_busy = read == room && room >= READ_SMALL;
        } else if read > READ_SMALL {
            self.lazy = 0;
        } else {
            self.lazy += 1;
            if self.lazy >= LAZY_READS {
                (self.is_busy, self.lazy) = (false, 0);
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if !self.is_busy {
                self.ahead = BytesMut::new();
                let (before, room) = (buf.filled().len(), buf.remaining());
                ready!(self.stream()?.poll_read(cx, buf))?;
                self.learn(buf.filled().len() - before, room);
                return Poll::Ready(Ok(()));
            }
            let Self { stream, ahead, .. } = &mut *self;
            let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            ahead.reserve(READ_LARGE);
            let read = ready!(poll_read_buf(Pin::new(stream), cx, ahead))?;
            self.learn(read, READ_LARGE);
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// An established TLS connection as a carrier of frames.
#[derive(Debug)]
pub(crate) struct Carrier {
    tls: TlsStream<Socket>,
    /// Found behind what was read, and told when that has been taken.
    failed: Option<io::Error>,
}

/// The same outside of any runtime.
#[derive(Debug)]
pub(crate) struct DetachedCarrier {
    carrier: Carrier,
    socket: std::net::TcpStream,
}

impl ByteStream for Carrier {
    type Detached = DetachedCarrier;

    fn detach(mut self) -> io::Result<DetachedCarrier> {
        let stream = self.tls.get_mut().0.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        Ok(DetachedCarrier { socket: stream.into_std()?, carrier: self })
    }

    fn attach(detached: DetachedCarrier) -> io::Result<Self> {
        let DetachedCarrier { mut carrier, socket } = detached;
        carrier.tls.get_mut().0.stream = Some(TcpStream::from_std(socket)?);
        Ok(carrier)
    }
}

impl Carrier {
    /// Over a connection whose handshake is done.
    pub(crate) fn new(mut tls: TlsStream<Socket>) -> Self {
        match &mut tls {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(SEAL_BYTES)),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(SEAL_BYTES)),
        }
        Self { tls, failed: None }
    }

    /// What a failed write may have missed: a peer that refuses says why in an alert, and closes at once.
    fn alert(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        let mut scratch = [0; 64];
        match Pin::new(&mut self.tls).poll_read(cx, &mut ReadBuf::new(&mut scratch)) {
            Poll::Ready(Err(error)) if explain::is_alert(&error) => Some(explain::ended(error)),
            _ => None,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
        Poll::Ready(result.map_err(|error| self.alert(cx).unwrap_or(error)))
    }
}

impl AsyncRead for Carrier {
    /// Fills `buf` from as many records as were read ahead: TLS itself gives out one at a time, and whoever reads sizes its
    /// buffers by what a read brings.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let start = buf.filled().len();
        loop {
            let before = buf.filled().len();
            let result = match Pin::new(&mut self.tls).poll_read(cx, buf) {
                Poll::Pending if before > start => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result,
            };
            match result {
                Ok(()) => {
                    let is_end = buf.filled().len() == before;
                    if is_end || buf.remaining() == 0 || self.tls.get_ref().0.ahead.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
                // An end without TLS' farewell. Whoever can cut a connection could do it behind any frame; frames say their own
                // length, streams and links their own end, so nothing is taken for whole that is not.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) if before > start => {
                    self.failed = Some(explain::ended(error));
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(explain::ended(error))),
            }
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.tls).poll_write(cx, bytes));
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.tls).poll_write_vectored(cx, slices));
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.tls).poll_flush(cx));
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
