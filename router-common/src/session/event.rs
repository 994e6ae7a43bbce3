//! What a session tells its driver, and what a driver tells a session: plain values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::budget::Budget;
use super::lease::{Lease, Permit};
use super::proof::{Secret, Secrets};
use crate::codec::DecodeError;
use crate::endpoint::EndpointDescriptor;
use crate::frame::{CloseCode, Frame, HealthStatus, Hello, Reason, ReceiveLimits, RefusedEndpoint, Welcome};
use crate::head::{RequestHead, ResponseHead, Trailers};
use crate::identity::{Identity, Incarnation, NodeId};
use crate::limits;

/// The local name of a stream. It stays valid until the stream is released, and never names another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl StreamKey {
    /// A small number that no other stream of this session has at the same time: for tables beside the session's.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.index as usize
    }
}

/// How often, how late, how long (SPEC 4, life).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between heartbeats. A service follows the gateway's.
    pub heartbeat: Duration,
    /// Silence after which a peer is degraded.
    pub degraded_after: Duration,
    /// Silence, or an unanswered heartbeat, after which a peer is dead.
    pub dead_after: Duration,
    /// Accept to WELCOME.
    pub handshake: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            degraded_after: Duration::from_secs(15),
            dead_after: Duration::from_secs(30),
            handshake: limits::HANDSHAKE_TIMEOUT,
        }
    }
}

/// What a link can do, as far as the protocol draws consequences from it (SPEC 4, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// Frames arrive in the order in which they were sent, none is missing, and a body may take many of them.
    #[default]
    Stream,
    /// Each frame arrives whole and at most once, in any order, and some not at all. A message is one frame.
    Datagrams {
        /// Largest frame payload that it takes, in bytes; [`limits::DATAGRAM_FRAME_BYTES`] or more.
        max_frame: u32,
    },
}

impl Carrier {
    /// Whether bodies may be larger than a frame: without that there are neither trailers nor tunnels.
    #[must_use]
    pub const fn is_streaming(self) -> bool {
        matches!(self, Self::Stream)
    }
}

/// What both sides of a link need.
#[derive(Debug, Clone)]
pub struct Common {
    /// What the link can do. Default: [`Carrier::Stream`].
    pub carrier: Carrier,
    /// What this side states that it receives.
    pub limits: ReceiveLimits,
    pub timers: Timers,
    /// The node's buffer bound, shared by its sessions.
    pub budget: Arc<Budget>,
    /// TLS exporter bytes (RFC 9266); empty where there is no TLS.
    pub channel_binding: Bytes,
    /// Gateway: names this run of its process, the same on all links; WELCOME says it. Services tell by it which of their
    /// links lead to one gateway.
    pub incarnation: Option<Incarnation>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            carrier: Carrier::Stream,
            limits: ReceiveLimits::default(),
            timers: Timers::default(),
            budget: Budget::new(limits::NODE_BUFFER_BYTES),
            channel_binding: Bytes::new(),
            incarnation: None,
        }
    }
}

/// A service's end of a link.
#[derive(Debug, Clone)]
pub struct ServiceSide {
    pub common: Common,
    /// Its `limits` and `lease` are overwritten with `common`'s and the lease's own.
    pub hello: Hello,
    /// Where it is given, the gateway must prove that it holds it too.
    pub secret: Option<Secret>,
    /// What this instance grants to this gateway, over all its links.
    pub lease: Arc<Lease>,
}

/// A gateway's end of a link.
#[derive(Debug, Clone)]
pub struct GatewaySide {
    pub common: Common,
    pub node: NodeId,
    /// Where there are any, the service must prove that it holds one, or show a token of them, or be known already.
    pub secrets: Secrets,
    /// Fresh random bytes.
    pub nonce: [u8; 32],
    /// What the listener knows of the peer: who it is, when it neither proves a secret nor shows a token.
    pub identity: Identity,
}

/// An authenticated HELLO that waits for the gateway's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    pub hello: Hello,
    pub identity: Identity,
}

/// The gateway's yes to a [`Joining`].
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The instance's lease, shared by all its links.
    pub lease: Arc<Lease>,
    /// The revision of this incarnation's endpoints that the gateway already holds; 0: none.
    pub revision: u64,
    /// How many links of this instance the gateway could make use of.
    pub links: u16,
}

/// A stream to open.
#[derive(Debug)]
pub struct Opening {
    pub head: RequestHead,
    /// The first body bytes.
    pub body: Bytes,
    /// Whether `body` is all of it.
    pub end: bool,
    pub tunnel: bool,
    /// The slot of the instance's lease that this request takes; a service opens without.
    pub permit: Option<Permit>,
}

/// Why a stream cannot be opened on this link. The request was not sent: it may go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the link is not established")]
    NotEstablished,
    #[error("the peer drains this link")]
    Draining,
    #[error("the link is closed")]
    Closed,
    #[error("the link has as many streams as it may")]
    Full,
    #[error("the head and the peer's frame limit do not fit")]
    HeadTooLarge,
    /// [`Carrier::Datagrams`]: head and body do not fit one frame.
    #[error("the request does not fit into one frame of this link")]
    TooLarge,
    /// [`Carrier::Datagrams`]: it would take more than one frame, whatever its size.
    #[error("this link carries neither tunnels nor bodies that stream")]
    Streams,
}

/// An operation on a stream that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct StreamClosed;

/// How a stream failed, as its application sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The request provably never reached a handler.
    #[error("the request was not seen by the service")]
    Unseen,
    /// The peer cancelled, or this side did for a reason of its own (`stalled`).
    #[error("cancelled: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Cancelled { reason: Reason, text: String },
    /// The link ended after the request was sent: nobody knows the outcome.
    #[error("the link was lost")]
    Lost,
    /// The body's length is not its content-length.
    #[error("the body does not have the length that its head says")]
    Length,
    /// This side has cancelled or released the stream.
    #[error("the stream is closed")]
    Closed,
}

/// What was given of a request that never left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// Its body's bytes, in order.
    pub pieces: Vec<Bytes>,
    /// Its trailers, if the body had been finished with any.
    pub trailers: Option<Trailers>,
}

/// A response's head, or why there is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadHead {
    Ready(ResponseHead),
    Pending,
    Failed(StreamFailure),
}

/// The next piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Data(Bytes),
    /// The last piece.
    Trailers(Trailers),
    /// The body is complete.
    End,
    Pending,
    /// The body was cut short.
    Failed(StreamFailure),
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Gateway: decide, with `welcome` or `refuse`.
    Joining(Box<Joining>),
    /// Service: the link stands.
    Welcomed(Box<Welcome>),
    /// Gateway: a whole endpoint set arrived; answer with `endpoints_result`.
    Endpoints { revision: u64, endpoints: Vec<EndpointDescriptor> },
    /// Service: what became of a revision.
    EndpointsResult { revision: u64, refused: Vec<RefusedEndpoint> },
    /// The service's first heartbeat is acknowledged: requests may go both ways.
    Routable,
    /// What the peer says of itself.
    Heartbeat { status: HealthStatus, in_flight: u32, load: u32 },
    /// The moving average of the round trip changed.
    RoundTrip(Duration),
    /// A heartbeat was due and the last one is unanswered.
    HeartbeatMissed,
    /// The peer has been silent for `degraded_after`, or is heard again.
    Silence(Silence),
    /// Gateway: the lease changed.
    Lease { limit: u32 },
    /// The peer asked to open no more streams here.
    PeerDraining,
    /// Our own drain is done: nothing of the peer's is in flight on this link.
    Drained,
    /// The peer opened a stream: a request that waits to be answered.
    Request(StreamKey, RequestHead),
    /// A stream can be read, written or has failed: wake who waits for it.
    Stream(StreamKey),
}

/// Whether the peer is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    Heard,
    Degraded,
}

/// What to do next.
#[derive(Debug)]
pub enum Output {
    /// Give this to the link.
    Transmit(Frame),
    Event(Event),
    /// Nothing until a frame, an application, or this time.
    Idle {
        wake_at: Option<Instant>,
    },
    /// The session is over: flush, then end the link. Said again and again.
    Closed(Closed),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub by: ClosedBy,
    pub code: CloseCode,
    pub text: String,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    /// This side sent CLOSE.
    Local,
    /// The peer sent CLOSE.
    Peer,
    /// The link ended without one.
    Link,
}

/// The peer broke the protocol: the session closes with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct ProtocolError {
    pub code: CloseCode,
    pub text: String,
}

impl ProtocolError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { code: CloseCode::ProtocolError, text: text.into() }
    }

    pub(super) fn with(code: CloseCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<DecodeError> for ProtocolError {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge { .. } => CloseCode::FrameTooLarge,
            _ => CloseCode::ProtocolError,
        };
        Self { code, text: error.to_string() }
    }
}
