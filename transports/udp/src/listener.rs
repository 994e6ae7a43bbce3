//! Accepting services. How many may wait for their welcome is the gateway's to bound.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use router_common::session::Secrets;
use router_link::{BoxLink, LinkError, Listener};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::counters::Counters;
use crate::demux::Demux;
use crate::link::{SCHEME, UdpLink};
use crate::packet::{DATAGRAM_BYTES, DATAGRAM_BYTES_MAX};
use crate::seat::{Keeper, Shared};

/// Accepts services over UDP (SPEC 7).
pub struct UdpListener {
    shared: Arc<Shared>,
    local: String,
    address: SocketAddr,
    _keeper: Keeper,
}

impl UdpListener {
    /// Listens on `address`; port 0 takes a free one. `secrets` are the session's: each datagram is protected with a key
    /// from one of them, or, where there are none, with one that everybody knows. `datagram` is the largest datagram to
    /// send, in bytes, held to 1200 and 65507. To be called within the tokio runtime that reads the socket.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address.
    pub fn bind(address: SocketAddr, secrets: Secrets, datagram: usize) -> Result<Self, LinkError> {
        let listening = |error| LinkError::io(format!("listening on {SCHEME}{address}"), error);
        let socket = open(address).map_err(listening)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| listening(io::Error::other(error)))?;
        let datagram = datagram.clamp(DATAGRAM_BYTES, DATAGRAM_BYTES_MAX);
        let (demux, shared, keeper) = Demux::new(socket, secrets, key, datagram);
        let address = shared.socket.local_addr().map_err(listening)?;
        // Owned by the keepers: it ends with the last of them.
        tokio::spawn(demux.run());
        Ok(Self { shared, local: format!("{SCHEME}{address}"), address, _keeper: keeper })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Links that there are, those included that nobody has accepted yet. They outlive the listener.
    #[must_use]
    pub fn links(&self) -> usize {
        self.shared.links()
    }

    /// What it and its links threw away.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }
}

impl Listener for UdpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        self.shared.poll_accept(cx).map(|link| match link {
            Some(accepted) => Ok(Box::new(UdpLink::accepted(accepted)) as BoxLink),
            None => Err(LinkError::Closed),
        })
    }

    fn local(&self) -> &str {
        &self.local
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.shared.stop_accepting();
    }
}

impl std::fmt::Debug for UdpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UdpListener({})", self.local)
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` then means all addresses, on every system.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
