//! The simulated TCP network as transport, HTTP listener, and what clients dial: turmoil's sockets in the product's
//! traits. It knows addresses and bytes, and no fault: those are the network's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use router_common::limits;
use router_gateway::edge::{BoxIo, HttpListener};
use router_link::{BoxFuture, BoxLink, Connector, FramedLink, LinkError, Listener, PeerInfo};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

use crate::client::Dial;
use crate::wire::{Card, Socket, Wire};

/// Where services come in.
pub(crate) const SERVICE_PORT: u16 = 5100;
/// Where clients come in.
pub(crate) const HTTP_PORT: u16 = 8080;

const TRANSPORT: &str = "tcp";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The network counts pieces, not bytes: a write is cut to this, so that a full one is about what a socket holds.
const PIECE: usize = 16 * 1024;

async fn connect(
    host: &str,
    port: u16,
    card: &Arc<Card>,
    wire: &Arc<Wire>,
) -> io::Result<(Socket<TcpStream>, SocketAddr)> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await??;
    let peer = stream.peer_addr()?;
    let made = wire.connect().ok_or(io::ErrorKind::ConnectionRefused)?;
    Ok((Socket::new(stream, card, Arc::clone(wire), made, PIECE), peer))
}

/// Dials a gateway, as a service does.
pub(crate) struct NetConnector {
    target: String,
    host: String,
    card: Arc<Card>,
    wire: Arc<Wire>,
}

impl NetConnector {
    /// To be used on the host whose card it is.
    pub(crate) fn new(host: String, card: Arc<Card>, wire: Arc<Wire>) -> Self {
        Self { target: format!("tcp://{host}:{SERVICE_PORT}"), host, card, wire }
    }
}

impl Connector for NetConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(async {
            let connected = connect(&self.host, SERVICE_PORT, &self.card, &self.wire).await;
            let (socket, peer) =
                connected.map_err(|error| LinkError::io(format!("connecting to {}", self.target), error))?;
            let peer = PeerInfo::at(TRANSPORT, peer);
            Ok(Box::new(FramedLink::new(socket, peer, limits::FRAME_PAYLOAD_BYTES)) as BoxLink)
        })
    }

    fn target(&self) -> &str {
        &self.target
    }
}

/// Dials gateways, as HTTP clients do.
pub(crate) struct NetDial {
    pub(crate) card: Arc<Card>,
    /// For each gateway.
    pub(crate) gateways: Vec<(String, Arc<Wire>)>,
}

impl Dial for NetDial {
    fn dial(&self, gateway: usize) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let (host, wire) = &self.gateways[gateway];
            let (socket, _) = connect(host, HTTP_PORT, &self.card, wire).await?;
            Ok(BoxIo::new(socket))
        })
    }
}

type Accepting = BoxFuture<'static, io::Result<(TcpStream, SocketAddr)>>;

/// A listening socket, polled.
pub(crate) struct NetListener {
    card: Arc<Card>,
    listener: Arc<TcpListener>,
    accepting: Option<Accepting>,
    local: String,
}

impl NetListener {
    pub(crate) async fn bind(port: u16, card: &Arc<Card>) -> io::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        let local = format!("tcp://0.0.0.0:{port}");
        Ok(Self { card: Arc::clone(card), listener: Arc::new(listener), accepting: None, local })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket<TcpStream>, SocketAddr)>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        let listener = &self.listener;
        let accepting = self.accepting.get_or_insert_with(|| {
            let listener = Arc::clone(listener);
            Box::pin(async move { listener.accept().await })
        });
        let accepted = ready!(accepting.as_mut().poll(cx));
        self.accepting = None;
        let (stream, peer) = accepted?;
        // Connections are reset where they were dialled; here that arrives.
        let wire = Arc::new(Wire::default());
        let made = wire.connect().ok_or(io::ErrorKind::ConnectionRefused)?;
        Poll::Ready(Ok((Socket::new(stream, &self.card, wire, made, PIECE), peer)))
    }
}

impl Listener for NetListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        let accepted = ready!(self.poll(cx));
        Poll::Ready(match accepted {
            Ok((socket, peer)) => {
                let peer = PeerInfo::at(TRANSPORT, peer);
                Ok(Box::new(FramedLink::new(socket, peer, limits::FRAME_PAYLOAD_BYTES)))
            }
            Err(error) => Err(LinkError::io("accepting", error)),
        })
    }

    fn local(&self) -> &str {
        &self.local
    }
}

impl HttpListener for NetListener {
    type Io = BoxIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(BoxIo, SocketAddr)>> {
        let (socket, peer) = ready!(self.poll(cx))?;
        Poll::Ready(Ok((BoxIo::new(socket), peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl fmt::Debug for NetListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)
    }
}
