//! Datagrams from a socket and to it: memory, sizes, and which errors mean little.

use std::io;
use std::net::SocketAddr;
use std::task::{Poll, ready};

use bytes::{BufMut, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::packet::DATAGRAM_BYTES_MAX;

/// Datagrams that one look brings at most.
pub(crate) const BATCH: usize = 64;
/// What the kernel is asked to hold of datagrams that nobody has read yet, in bytes; it gives what it may.
const KERNEL_BYTES: usize = 4 * 1024 * 1024;
/// Memory that datagrams share.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where datagrams are read into.
pub(crate) struct Space {
    scratch: Box<[u8]>,
    chunk: BytesMut,
}

impl Default for Space {
    fn default() -> Self {
        Self { scratch: vec![0; DATAGRAM_BYTES_MAX + 1].into(), chunk: BytesMut::new() }
    }
}

impl Space {
    /// Asks `read` for a datagram.
    pub(crate) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<(BytesMut, T)>> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        let from = ready!(read(&mut buffer))?;
        let datagram = buffer.filled();
        if self.chunk.capacity() < datagram.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(datagram.len()));
        }
        self.chunk.put_slice(datagram);
        Poll::Ready(Ok((self.chunk.split(), from)))
    }
}

/// Sends to an address from a socket that is not connected.
pub(crate) fn send_to(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(datagram, &to.into()).map(drop)
}

/// Lets other sockets have the same address from now on, and says which that is. Of those that are connected each gets what
/// its peer sends.
#[cfg(unix)]
pub(crate) fn share(socket: &UdpSocket) -> io::Result<SocketAddr> {
    SockRef::from(socket).set_reuse_port(true)?;
    socket.local_addr()
}

#[cfg(not(unix))]
pub(crate) fn share(_: &UdpSocket) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether an address is to be had for oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    Sole,
    /// Beside sockets that are to be shared with.
    Shared,
}

/// A socket that is bound to this address.
pub(crate) fn bind(address: SocketAddr, how: Address) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` then means all addresses, on every system.
        socket.set_only_v6(false)?;
    }
    #[cfg(unix)]
    if how == Address::Shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    let _ = how;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket for one peer, at an address that is shared.
pub(crate) fn beside(address: SocketAddr, peer: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = bind(address, Address::Shared)?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// Asks for room in the kernel. What it does not give costs packets that are sent again.
pub(crate) fn prepare(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let _ = socket.set_recv_buffer_size(KERNEL_BYTES);
    let _ = socket.set_send_buffer_size(KERNEL_BYTES);
}

/// Errors that the network reports of one peer.
pub(crate) fn is_about_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | Interrupted)
}
