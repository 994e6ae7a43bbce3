//! A TLS connection as a carrier of frames, and how it changes its runtime: the socket leaves, the keys stay with it.
//!
//! It does not know how the connection came about.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use router_link::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::explain;

/// The socket below TLS. While a link is between two runtimes it is elsewhere.
#[derive(Debug)]
pub(crate) enum Socket {
    Here(TcpStream),
    Away,
}

impl Socket {
    fn poll_with<T>(
        self: Pin<&mut Self>,
        work: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.get_mut() {
            Self::Here(stream) => work(Pin::new(stream)),
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(|stream| stream.poll_shutdown(cx))
    }
}

/// An established TLS connection as a carrier of frames.
#[derive(Debug)]
pub(crate) struct Carrier(pub(crate) TlsStream<Socket>);

/// The same outside of any runtime.
#[derive(Debug)]
pub(crate) struct DetachedCarrier {
    tls: TlsStream<Socket>,
    socket: std::net::TcpStream,
}

impl ByteStream for Carrier {
    type Detached = DetachedCarrier;

    fn detach(mut self) -> io::Result<DetachedCarrier> {
        match mem::replace(self.0.get_mut().0, Socket::Away) {
            Socket::Here(socket) => Ok(DetachedCarrier { tls: self.0, socket: socket.into_std()? }),
            Socket::Away => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn attach(detached: DetachedCarrier) -> io::Result<Self> {
        let DetachedCarrier { mut tls, socket } = detached;
        *tls.get_mut().0 = Socket::Here(TcpStream::from_std(socket)?);
        Ok(Self(tls))
    }
}

impl Carrier {
    /// What a failed write may have missed: a peer that refuses says why in an alert, and closes at once.
    fn alert(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        let mut scratch = [0; 64];
        match Pin::new(&mut self.0).poll_read(cx, &mut ReadBuf::new(&mut scratch)) {
            Poll::Ready(Err(error)) if explain::is_alert(&error) => Some(explain::ended(error)),
            _ => None,
        }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
        Poll::Ready(result.map_err(|error| self.alert(cx).unwrap_or(error)))
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            // An end without TLS' farewell. Whoever can cut a connection could do it behind any frame; frames say their own
            // length, streams and links their own end, so nothing is taken for whole that is not.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(explain::ended(error))),
            Ok(()) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.0).poll_write(cx, bytes));
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.0).poll_write_vectored(cx, slices));
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.0).poll_flush(cx));
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
