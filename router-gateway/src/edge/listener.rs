//! Where client connections come from: TCP with `SO_REUSEPORT`, or anything that is given from outside.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::Accepted;
use super::floor::Door;

/// Connections the kernel holds that were not accepted yet.
pub(super) const BACKLOG: i32 = 4096;
/// What the kernel takes of an answer beyond what is on its way to the client, in bytes: a client that reads slowly is
/// noticed here, before much of the answer has been fetched for it.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 256 * 1024;

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for T {}

/// A source of client connections. A deterministic network can be put under the gateway by implementing it.
pub trait HttpListener: Send + 'static {
    type Io: ByteStream;

    /// Waits for the next connection and says where it comes from.
    ///
    /// # Errors
    /// What concerns this one attempt; the listener goes on.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted<Self::Io>>;

    /// The next of the connections that wait already, at the end of listening; `None`: there is none left.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted<Self::Io>>> {
        match self.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Any listener.
pub type BoxHttpListener = Box<dyn HttpListener<Io = BoxIo>>;

/// Any byte stream.
pub struct BoxIo(Box<dyn ByteStream>);

impl BoxIo {
    #[must_use]
    pub fn new(io: impl ByteStream) -> Self {
        Self(Box::new(io))
    }
}

impl fmt::Debug for BoxIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxIo")
    }
}

impl AsyncRead for BoxIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoxIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

impl HttpListener for BoxHttpListener {
    type Io = BoxIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted<BoxIo>> {
        (**self).poll_accept(cx)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted<BoxIo>>> {
        (**self).poll_rest(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        (**self).local_addr()
    }
}

/// The listener of production: TCP with nodelay.
#[derive(Debug)]
pub struct TcpHttpListener {
    /// One for the most part; several, or none, where they were given by others who have other workers.
    sockets: Vec<TcpListener>,
    /// Which of them is asked first.
    turn: usize,
    address: SocketAddr,
    /// Where there are several workers, a connection may go to another one.
    door: Option<Door>,
}

impl TcpHttpListener {
    /// Binds. With `shared_by` above 1, several workers may bind the same address and the kernel spreads the
    /// connections over them (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddr, shared_by: usize) -> io::Result<Self> {
        Self::from_std(bind(address, shared_by)?)
    }

    /// Takes a listening socket that exists already.
    ///
    /// # Errors
    /// If the current runtime cannot take it.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Self::from_all([listener], address)
    }

    /// Takes listening sockets that exist already, all of one address. Without any, connections come through a door.
    ///
    /// # Errors
    /// If the current runtime cannot take them.
    pub(crate) fn from_all(
        sockets: impl IntoIterator<Item = std::net::TcpListener>,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let taken = |socket: std::net::TcpListener| {
            socket.set_nonblocking(true)?;
            // What it accepts inherits it. A kernel that does not know it buffers more, which is no reason not to serve.
            #[cfg(target_os = "linux")]
            let _ = SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT);
            TcpListener::from_std(socket)
        };
        let sockets = sockets.into_iter().map(taken).collect::<io::Result<_>>()?;
        Ok(Self { sockets, turn: 0, address, door: None })
    }

    /// Evens out what the kernel spreads unevenly: passes connections on through `door`, and takes those that others pass.
    #[must_use]
    pub(crate) fn with_door(self, door: Door) -> Self {
        Self { door: Some(door), ..self }
    }
}

impl TcpHttpListener {
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> Poll<Accepted<TcpStream>> {
        for _ in 0..self.sockets.len() {
            let Some(socket) = self.sockets.get(self.turn) else { break };
            self.turn = (self.turn + 1) % self.sockets.len();
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

/// Binds outside any runtime, so that a port that is taken is known before threads start.
pub(crate) fn bind(address: SocketAddr, shared_by: usize) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    if shared_by > 1 {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl HttpListener for TcpHttpListener {
    type Io = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Accepted<TcpStream>> {
        if let Some(door) = &mut self.door
            && let Poll::Ready(passed) = door.poll_inbox(cx)
        {
            return Poll::Ready(passed);
        }
        loop {
            let (stream, peer) = ready!(self.poll_sockets(cx))?;
            // A response leaves when it is written. A socket that refuses is about to fail anyway.
            let _ = stream.set_nodelay(true);
            let Some(door) = &self.door else { return Poll::Ready(Ok((stream, peer))) };
            if let Some(stream) = door.pass_on(stream, peer)? {
                return Poll::Ready(Ok((stream, peer)));
            }
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted<TcpStream>>> {
        if let Some(door) = &mut self.door
            && let Some(passed) = ready!(door.poll_rest(cx))
        {
            return Poll::Ready(Some(passed));
        }
        match self.poll_sockets(cx) {
            Poll::Ready(Ok((stream, peer))) => {
                let _ = stream.set_nodelay(true);
                Poll::Ready(Some(Ok((stream, peer))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Ready(None),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
