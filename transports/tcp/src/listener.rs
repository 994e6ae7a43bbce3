//! Accepting services. How many may wait for their welcome is the gateway's to bound.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use router_common::limits;
use router_link::{BoxLink, FramedLink, LinkError, Listener, PeerInfo};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connector::TRANSPORT;
use crate::socket;

/// Connections that wait in the kernel.
const BACKLOG: i32 = 1024;

/// Accepts TCP connections (SPEC 7).
#[derive(Debug)]
pub struct TcpListener {
    listener: tokio::net::TcpListener,
    local: String,
    address: SocketAddr,
    max_frame: u32,
}

impl TcpListener {
    /// Listens on `address`; port 0 takes a free one. A gateway that restarts can take its port over at once
    /// (`SO_REUSEADDR`). To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address.
    pub fn bind(address: SocketAddr) -> Result<Self, LinkError> {
        let listening = |error| LinkError::io(format!("listening on tcp://{address}"), error);
        Self::from_std(open(address).map_err(listening)?).map_err(listening)
    }

    /// The socket alone, for whoever wants to keep a copy of it; needs no runtime.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address.
    pub fn bind_std(address: SocketAddr) -> Result<std::net::TcpListener, LinkError> {
        open(address).map_err(|error| LinkError::io(format!("listening on tcp://{address}"), error))
    }

    /// Goes on with a socket that listens already: one that another process handed over.
    ///
    /// # Errors
    /// The operating system's.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let local = format!("tcp://{address}");
        Ok(Self { listener, local, address, max_frame: limits::FRAME_PAYLOAD_BYTES })
    }

    /// Accepts frames with payloads up to `bytes`: the same as in the gateway's receive limits. Default 64 KiB.
    #[must_use]
    pub const fn max_frame(mut self, bytes: u32) -> Self {
        self.max_frame = bytes;
        self
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// A listening socket, for whatever runs over TCP; port 0 takes a free one. It needs no runtime.
///
/// # Errors
/// The operating system's.
pub fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` then means all addresses, on every system.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        let accepted = ready!(self.listener.poll_accept(cx));
        let prepared = accepted.and_then(|(stream, peer)| socket::prepare(&stream).map(|()| (stream, peer)));
        Poll::Ready(match prepared {
            Ok((stream, peer)) => Ok(Box::new(FramedLink::new(stream, PeerInfo::at(TRANSPORT, peer), self.max_frame))),
            Err(error) => Err(LinkError::io(format!("accepting on {}", self.local), error)),
        })
    }

    fn local(&self) -> &str {
        &self.local
    }
}
