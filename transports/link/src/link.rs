//! Links, connectors, discoveries and listeners: what a transport is. Nothing here knows sessions, streams or HTTP.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use router_common::codec::DecodeError;
use router_common::frame::Frame;
use router_common::identity::Identity;
use router_common::session::{Budget, Carrier};

/// A boxed future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Any link.
pub type BoxLink = Box<dyn Link>;
/// Any listener.
pub type BoxListener = Box<dyn Listener>;

/// Frames in, frames out: one carrier between an instance and a gateway (SPEC 7).
///
/// A link carries frames in order (unless its [`Capabilities`] say otherwise), whole, and at most once; but a large frame
/// of body bytes may be given out as several, which say the same. It does not know what frames mean.
///
/// One that is not [ordered](Capabilities::ordered) promises less (docs/PROTOCOL.md, "Carriers that reorder or carry small
/// messages"): each frame arrives whole and at most once, in any order; and it arrives, unless it has expired or the
/// link has ended; more than [`LOSS_GRACE`](router_common::limits::LOSS_GRACE) late it may come too late. Until WELCOME it keeps the
/// order: what overtakes WELCOME it holds back. [`poll_close`](Self::poll_close) goes on until what was flushed has arrived
/// or expired, since CLOSE overtakes answers too; and reading goes on meanwhile.
///
/// After [`LinkError::Protocol`] it can still send, so that the peer is told, and receiving throws away
/// what comes until the end; after any other error it is only dropped.
pub trait Link: Send + 'static {
    /// Waits for frames and pushes what has arrived, at least one, to `into`. One call pushes a bounded batch, so that
    /// a busy peer cannot keep the caller here.
    ///
    /// # Errors
    /// [`LinkError::Closed`] at a clean end: the peer closed between two frames.
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>>;

    /// Takes frames from the front of `batch` and sends them. Ready means that all were taken **and** flushed; a frame
    /// that was taken may have reached the peer. Called with an empty batch it goes on flushing.
    ///
    /// # Errors
    /// When nothing can be sent any more.
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>>;

    /// Ends the sending direction in good order, after what was flushed. Best effort: the caller bounds the wait.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What this link can do.
    fn capabilities(&self) -> Capabilities;

    /// Who is at the other end, as far as the carrier knows.
    fn peer(&self) -> &PeerInfo;

    /// Since when a frame has begun and is not complete; the driver holds it to `FRAME_TIMEOUT` (SPEC 4). By tokio's
    /// clock.
    fn receiving_since(&self) -> Option<Instant> {
        None
    }

    /// To be told once, before the first frame is received: where a link counts what has arrived and waits in it to be
    /// received ([`Holding`](router_common::session::Holding)), if that can be more than a message or two (SPEC 4, credit).
    fn count_in(&mut self, budget: &Arc<Budget>) {
        let _ = budget;
    }

    /// Takes the link out of its runtime's reactor, so that another runtime can attach it. Only between frames' bytes
    /// that are already read and those that are not: nothing is lost.
    fn detach(self: Box<Self>) -> Box<dyn DetachedLink>;
}

/// A link between two runtimes.
pub trait DetachedLink: Send + 'static {
    /// Joins the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    fn attach(self: Box<Self>) -> io::Result<BoxLink>;
}

/// Makes links by dialling (SPEC 7). Reconnecting is its user's work, with [`Backoff`](crate::Backoff).
pub trait Connector: Send + Sync + 'static {
    /// Dials once. Bounded in time by itself.
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>>;

    /// What it dials, for people: `tcp://127.0.0.1:5100`.
    fn target(&self) -> &str;

    /// Where this address leads to gateways that come and go: a new search for them, to be called and polled within a tokio
    /// runtime. Whoever uses the connector then dials those that are found, and not it. `None`, as here: it dials one
    /// gateway.
    fn discover(&self) -> Option<Box<dyn Discovery>> {
        None
    }
}

/// Finds the gateways behind one address, for as long as it is polled and not dropped.
///
/// It goes on for ever: where what it searches through is lost (a broker, say), it reaches for it again by itself, with
/// waits that grow to two seconds at most, and finds again. Links end by themselves when what carries them is lost, so a
/// loss need not be told as [`Discovered::Gone`].
pub trait Discovery: Send + 'static {
    /// Waits for the next change. Nothing is asked of the order in which gateways are found, and each change is given out
    /// once; what is found and gone between two polls need not be given out at all.
    ///
    /// # Errors
    /// Something to be told to people, after which it goes on: the broker cannot be reached, for example.
    /// [`LinkError::Closed`] is the last word: it is not polled again, and whoever wants more asks the connector for another
    /// one. Whoever polls it waits up to a second after an error.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>>;
}

/// What has changed about the gateways behind an address.
pub enum Discovered {
    /// A gateway is there; or one that was there already is to be dialled by another connector from now on, and at once if
    /// nothing of it is connected.
    Found {
        /// The gateway's name for itself, by which it is told from the others behind this address. What WELCOME says is
        /// what counts: this need not be proved.
        node: Arc<str>,
        /// Dials this one gateway; it does not discover.
        connector: Arc<dyn Connector>,
    },
    /// A gateway has left for good: it is not dialled any more, and links to it are closed as soon as nothing is in flight on
    /// them, or half a minute later. Of one that was never found,
    /// it says nothing.
    Gone { node: Arc<str> },
}

impl fmt::Debug for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { node, connector } => {
                f.debug_struct("Found").field("node", node).field("target", &connector.target()).finish()
            }
            Self::Gone { node } => f.debug_struct("Gone").field("node", node).finish(),
        }
    }
}

impl dyn Discovery {
    /// [`Discovery::poll_change`] as a future. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Result<Discovered, LinkError> {
        std::future::poll_fn(|cx| self.poll_change(cx)).await
    }
}

/// Makes links by accepting.
pub trait Listener: Send + 'static {
    /// Waits for the next link.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when no more will come; others concern this one attempt, and the listener goes on.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>>;

    /// Where it listens, for people: `tcp://127.0.0.1:5100`.
    fn local(&self) -> &str;

    /// Leaves the place to another process, if both cannot listen there at once: the links that there are go on, those to come
    /// are the other's. Accepting takes the place back. Default: both can listen at once.
    fn release(&mut self) {}

    /// What comes to it and is thrown away, without anybody being told. Default: nothing is.
    fn discarded(&self) -> Option<Arc<dyn Discarded>> {
        None
    }
}

/// What a listener and its links have thrown away, to be looked at while they are at work.
pub trait Discarded: fmt::Debug + Send + Sync + 'static {
    /// How many messages so far, by reason.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}

impl dyn Listener {
    /// [`Listener::poll_accept`] as a future.
    ///
    /// # Errors
    /// As there.
    pub async fn accept(&mut self) -> Result<BoxLink, LinkError> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }
}

/// What a link can do; the session draws the consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Frames arrive in the order in which they were sent, and none is missing.
    pub ordered: bool,
    /// Bodies may be larger than one frame, and there are trailers and tunnels.
    pub streaming: bool,
    /// Largest frame payload it can carry, in bytes.
    pub max_frame: u32,
}

impl Capabilities {
    /// A byte stream, or what is as good: ordered, streaming, frames up to the protocol's bound.
    pub const STREAM: Self =
        Self { ordered: true, streaming: true, max_frame: router_common::limits::FRAME_PAYLOAD_BYTES_MAX };

    /// What a session on such a link is to be told ([`Common::carrier`](router_common::session::Common)). Where frames are
    /// reordered, or bodies do not stream, a message is one frame.
    #[must_use]
    pub const fn carrier(self) -> Carrier {
        if self.ordered && self.streaming { Carrier::Stream } else { Carrier::Datagrams { max_frame: self.max_frame } }
    }
}

/// Who is at the other end of a link, as far as its carrier knows.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The transport's name: `tcp`, `in-memory`.
    pub transport: &'static str,
    /// The peer's address, for people and logs.
    pub address: Arc<str>,
    /// The peer's socket address, if it has one; bounds by source address use it.
    pub socket: Option<SocketAddr>,
    /// Who the carrier itself proved the peer to be, if it proves anything.
    pub identity: Option<Identity>,
    /// What binds a handshake to this very channel (RFC 9266), where there is TLS.
    pub channel_binding: Option<Bytes>,
    /// When its carrier was accepted, if that took time of its own: accept to WELCOME is bounded from there (SPEC 4). By
    /// tokio's clock.
    pub accepted: Option<Instant>,
    /// The gateway's nonce of the handshake, where the carrier has sent it already to prove the peer's address: the
    /// session's CHALLENGE is to have this one.
    pub handshake_nonce: Option<[u8; 32]>,
}

impl PeerInfo {
    /// A peer that the carrier knows only by address.
    #[must_use]
    pub fn new(transport: &'static str, address: impl Into<Arc<str>>) -> Self {
        Self {
            transport,
            address: address.into(),
            socket: None,
            identity: None,
            channel_binding: None,
            accepted: None,
            handshake_nonce: None,
        }
    }

    /// A peer at a socket address.
    #[must_use]
    pub fn at(transport: &'static str, socket: SocketAddr) -> Self {
        Self { socket: Some(socket), ..Self::new(transport, socket.to_string()) }
    }
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerInfo")
            .field("transport", &self.transport)
            .field("address", &self.address)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.address)
    }
}

/// Why a link could not be made, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed between two frames: a clean end.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer ended in the middle of a frame or of the preface.
    #[error("the connection ended in the middle of {what}, after {received} bytes of it")]
    Truncated { what: &'static str, received: usize },
    /// The first bytes were not the protocol's.
    #[error("the peer does not speak STELLA/1: it began with {seen}")]
    Preface {
        /// What was seen, quoted, and what it looks like.
        seen: String,
    },
    /// The peer sent what cannot be decoded.
    #[error(transparent)]
    Protocol(#[from] DecodeError),
    /// The address or URL cannot be used.
    #[error("`{target}`: {problem}")]
    Target { target: String, problem: String },
    /// Nobody answered in time.
    #[error("`{target}` did not answer within {after:?}")]
    ConnectTimeout { target: String, after: std::time::Duration },
    /// This peer alone: the two could not agree on a secure carrier, or on who they are.
    #[error("{peer}: {problem}")]
    Handshake {
        /// The peer's address, or what was dialled.
        peer: String,
        problem: String,
    },
    /// The operating system said no.
    #[error("{context}: {source}")]
    Io {
        /// What was attempted: `connecting to 127.0.0.1:5100`.
        context: String,
        source: io::Error,
    },
}

impl LinkError {
    /// An operating system's error with what was attempted.
    #[must_use]
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }
}
