//! Accepting services. How many may wait for their welcome is the gateway's to bound.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use router_common::session::Secrets;
use router_link::{BoxLink, Discarded, LinkError, Listener};
use tokio::net::UdpSocket;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::demux::Demux;
use crate::link::{SCHEME, UdpLink};
use crate::packet::{DATAGRAM_BYTES, DATAGRAM_BYTES_MAX};
use crate::seat::{Keeper, Shared};
use crate::socket::{self, Address};

/// How often a port is asked for that another process holds.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Accepts services over UDP (SPEC 7).
pub struct UdpListener {
    address: SocketAddr,
    local: String,
    secrets: Secrets,
    datagram: usize,
    counters: Arc<Counters>,
    /// How its address is to be had.
    how: Address,
    socket: State,
}

enum State {
    Bound {
        socket: Arc<UdpSocket>,
        shared: Arc<Shared>,
        _keeper: Keeper,
    },
    /// Another process has the port, and is to leave it.
    Waiting(Pin<Box<Sleep>>),
}

impl UdpListener {
    /// Listens on `address`; port 0 takes a free one. `secrets` are the session's: each datagram is protected with a key
    /// from one of them, or, where there are none, with one that everybody knows. `datagram` is the largest datagram to
    /// send, in bytes, held to 1200 and 65507. To be called within the tokio runtime that reads the socket.
    ///
    /// # Errors
    /// [`LinkError::Io`] that names the address.
    pub fn bind(address: SocketAddr, secrets: Secrets, datagram: usize) -> Result<Self, LinkError> {
        let mut listener = Self::unbound(address, secrets, datagram, Address::Sole);
        listener.open().map_err(|error| LinkError::io(format!("listening on {SCHEME}{address}"), error))?;
        Ok(listener)
    }

    /// The same, but when another process still has the port, it waits for that process to leave it: accepting does. Links of
    /// that process may stay ([`Listener::release`]).
    ///
    /// # Errors
    /// As [`bind`](Self::bind), but for a port that is taken.
    pub fn bind_or_wait(address: SocketAddr, secrets: Secrets, datagram: usize) -> Result<Self, LinkError> {
        let mut listener = Self::unbound(address, secrets, datagram, Address::Shared);
        match listener.open() {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                Err(LinkError::io(format!("listening on {SCHEME}{address}"), error))
            }
            _ => Ok(listener),
        }
    }

    fn unbound(address: SocketAddr, secrets: Secrets, datagram: usize, how: Address) -> Self {
        Self {
            address,
            local: format!("{SCHEME}{address}"),
            secrets,
            datagram: datagram.clamp(DATAGRAM_BYTES, DATAGRAM_BYTES_MAX),
            counters: Arc::default(),
            how,
            // No event tells that another process has left a port.
            socket: State::Waiting(Box::pin(tokio::time::sleep(ASK_AGAIN))),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let socket = Arc::new(UdpSocket::from_std(socket::bind(self.address, self.how)?.into())?);
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        self.address = socket.local_addr()?;
        self.local = format!("{SCHEME}{}", self.address);
        let ended = CancellationToken::new();
        let shared = Shared::new(ended.clone(), self.datagram, Arc::clone(&self.counters));
        let (demux, shared, keeper) = Demux::new(Arc::clone(&socket), shared, ended, self.secrets.clone(), key);
        // Owned by the keepers: it ends with the last of them.
        tokio::spawn(demux.run());
        self.socket = State::Bound { socket, shared, _keeper: keeper };
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Links that there are, those included that nobody has accepted yet. They outlive the listener.
    #[must_use]
    pub fn links(&self) -> usize {
        match &self.socket {
            State::Bound { shared, .. } => shared.links(),
            State::Waiting(_) => 0,
        }
    }

    /// What it and its links threw away.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Listener for UdpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        loop {
            match &mut self.socket {
                State::Bound { shared, .. } => {
                    return shared.poll_accept(cx).map(|accepted| match accepted {
                        Some(accepted) => Ok(Box::new(UdpLink::accepted(accepted)) as BoxLink),
                        None => Err(LinkError::Closed),
                    });
                }
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    sleep.as_mut().reset(tokio::time::Instant::now() + ASK_AGAIN);
                }
            }
            match self.open() {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Poll::Ready(Err(LinkError::io(format!("listening on {}", self.local), error)));
                }
                _ => {}
            }
        }
    }

    fn local(&self) -> &str {
        &self.local
    }

    fn release(&mut self) {
        if let State::Bound { socket, shared, .. } = &self.socket
            && shared.part(socket).is_ok()
        {
            self.how = Address::Shared;
            self.socket = State::Waiting(Box::pin(tokio::time::sleep(ASK_AGAIN)));
        }
    }

    fn discarded(&self) -> Option<Arc<dyn Discarded>> {
        Some(self.counters())
    }
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        if let State::Bound { shared, .. } = &self.socket {
            shared.stop_accepting();
        }
    }
}

impl std::fmt::Debug for UdpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UdpListener({})", self.local)
    }
}
