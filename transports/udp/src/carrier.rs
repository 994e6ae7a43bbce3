//! What a link's datagrams travel on: a socket of its own, or the listener's together with all its other links.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::UdpSocket;

use crate::seat::Seat;
use crate::socket::{self, BATCH, Space};

/// Datagrams to one peer and from it.
pub(crate) enum Carrier {
    /// A connected socket.
    Own(Box<Own>),
    /// A place at a listener.
    Shared(Seat),
}

pub(crate) struct Own {
    socket: Socket,
    space: Space,
}

enum Socket {
    Here(UdpSocket),
    /// Between two runtimes.
    Away(std::net::UdpSocket),
    /// Lost on the way.
    Gone,
}

impl Carrier {
    /// `socket` is connected.
    pub(crate) fn own(socket: UdpSocket) -> Self {
        socket::prepare(&socket);
        Self::Own(Box::new(Own { socket: Socket::Here(socket), space: Space::default() }))
    }

    /// Waits for datagrams, and moves those that are there to `into`, at least one.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut VecDeque<BytesMut>) -> Poll<io::Result<()>> {
        if let Self::Shared(seat) = self {
            match ready!(seat.poll_recv(cx, into))? {
                None => return Poll::Ready(Ok(())),
                Some(socket) => *self = Self::own(UdpSocket::from_std(socket)?),
            }
        }
        let Self::Own(own) = self else { return Poll::Pending };
        let Own { socket: Socket::Here(socket), space } = &mut **own else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let before = into.len();
        loop {
            match space.read(|buffer| socket.poll_recv(cx, buffer)) {
                Poll::Ready(Ok((datagram, ()))) => into.push_back(datagram),
                // An error tells of something sent before: what has come is looked at first.
                Poll::Ready(Err(_)) | Poll::Pending if into.len() > before => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if into.len() - before >= BATCH {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends a datagram, or says why not. It never waits.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Shared(seat) => seat.send(datagram),
            Self::Own(own) => match &own.socket {
                // Not by way of the runtime, which may not know yet that the socket can be written to.
                Socket::Here(socket) => SockRef::from(socket).send(datagram).map(drop),
                Socket::Away(socket) => socket.send(datagram).map(drop),
                Socket::Gone => Err(io::ErrorKind::NotConnected.into()),
            },
        }
    }

    /// Leaves the runtime.
    pub(crate) fn detach(&mut self) -> io::Result<()> {
        if let Self::Own(own) = self
            && let Socket::Here(socket) = std::mem::replace(&mut own.socket, Socket::Gone)
        {
            own.socket = Socket::Away(socket.into_std()?);
        }
        Ok(())
    }

    /// Joins the current runtime.
    pub(crate) fn attach(&mut self) -> io::Result<()> {
        if let Self::Own(own) = self
            && let Socket::Away(socket) = std::mem::replace(&mut own.socket, Socket::Gone)
        {
            own.socket = Socket::Here(UdpSocket::from_std(socket)?);
        }
        Ok(())
    }
}
