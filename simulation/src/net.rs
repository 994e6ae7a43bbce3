//! The simulated TCP network as transport, HTTP listener, and what clients dial: turmoil's sockets in the product's
//! traits. It knows addresses and bytes, and no fault: those are the network's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use router_common::limits;
use router_gateway::edge::{BoxIo, HttpListener};
use router_link::{BoxFuture, BoxLink, ByteStream, Connector, FramedLink, LinkError, Listener, PeerInfo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

use crate::client::Dial;

/// Where services come in.
pub(crate) const SERVICE_PORT: u16 = 5100;
/// Where clients come in.
pub(crate) const HTTP_PORT: u16 = 8080;

const TRANSPORT: &str = "tcp";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The network counts pieces, not bytes: a write is cut to this, so that a full one is about what a socket holds.
const PIECE: usize = 16 * 1024;

/// The network card of one host: it knows the host's sockets, so that a crash closes them in a fixed order.
///
/// A runtime that is dropped drops its tasks in the order of their numbers, which it shares with all runtimes of the
/// process; would the tasks close their sockets then, no two runs were alike.
#[derive(Default)]
pub(crate) struct Card {
    dead: AtomicBool,
    dies: Notify,
    sockets: Mutex<Vec<Weak<Mutex<Option<TcpStream>>>>>,
}

impl Card {
    /// The next step closes all sockets; until then, and afterwards, the host can do nothing with them.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.dies.notify_one();
    }

    /// The host has come back.
    pub(crate) fn revive(&self) {
        self.dead.store(false, Ordering::Relaxed);
        self.sockets().clear();
    }

    /// To be run beside the host's software.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            self.dies.notified().await;
            let sockets = std::mem::take(&mut *self.sockets());
            for socket in sockets.iter().filter_map(Weak::upgrade) {
                drop(lock(&socket).take());
            }
        }
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Weak<Mutex<Option<TcpStream>>>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(socket: &Mutex<Option<TcpStream>>) -> MutexGuard<'_, Option<TcpStream>> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that can be reset from outside.
pub(crate) struct Socket {
    /// `None` once its host has crashed.
    stream: Arc<Mutex<Option<TcpStream>>>,
    card: Arc<Card>,
    resets: Arc<Resets>,
    /// How often connections to this peer had been reset when this one was made.
    made_at: u64,
}

/// How often the connections of one host to another were reset, and who is to be woken for it.
#[derive(Default)]
pub(crate) struct Resets(Mutex<(u64, Vec<Waker>)>);

impl Resets {
    /// Resets all connections.
    pub(crate) fn reset(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        for waker in state.1.drain(..) {
            waker.wake();
        }
    }

    fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.1.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.1.push(cx.waker().clone());
        }
    }
}

impl Socket {
    fn new(stream: TcpStream, card: &Arc<Card>, resets: Arc<Resets>) -> Self {
        let made_at = resets.count();
        let stream = Arc::new(Mutex::new(Some(stream)));
        let mut sockets = card.sockets();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(&stream));
        drop(sockets);
        Self { stream, card: Arc::clone(card), resets, made_at }
    }

    /// Does something with the stream. Of a host that has crashed nothing is heard any more.
    fn with<T>(
        &self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        if self.resets.count() != self.made_at {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.resets.remember(cx);
        match &mut *lock(&self.stream) {
            Some(stream) => act(Pin::new(stream), cx),
            None => Poll::Pending,
        }
    }
}

/// A simulated host is one runtime for its whole life.
impl ByteStream for Socket {
    type Detached = Self;

    fn detach(self) -> io::Result<Self> {
        Ok(self)
    }

    fn attach(detached: Self) -> io::Result<Self> {
        Ok(detached)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        self.with(cx, |stream, cx| stream.poll_write(cx, piece))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

async fn connect(host: &str, port: u16, card: &Arc<Card>, resets: &Arc<Resets>) -> io::Result<(Socket, SocketAddr)> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await??;
    let peer = stream.peer_addr()?;
    Ok((Socket::new(stream, card, Arc::clone(resets)), peer))
}

/// Dials a gateway, as a service does.
pub(crate) struct NetConnector {
    target: String,
    host: String,
    card: Arc<Card>,
    resets: Arc<Resets>,
}

impl NetConnector {
    /// To be used on the host whose card it is.
    pub(crate) fn new(host: String, card: Arc<Card>, resets: Arc<Resets>) -> Self {
        Self { target: format!("tcp://{host}:{SERVICE_PORT}"), host, card, resets }
    }
}

impl Connector for NetConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(async {
            let connected = connect(&self.host, SERVICE_PORT, &self.card, &self.resets).await;
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
    pub(crate) gateways: Vec<(String, Arc<Resets>)>,
}

impl Dial for NetDial {
    fn dial(&self, gateway: usize) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let (host, resets) = &self.gateways[gateway];
            let (socket, _) = connect(host, HTTP_PORT, &self.card, resets).await?;
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
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
        // Connections are reset where they were dialled; here that arrives.
        Poll::Ready(accepted.map(|(stream, peer)| (Socket::new(stream, &self.card, Arc::default()), peer)))
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
