//! Frame: the whole vocabulary of the wire (SPEC 4).
//!
//! A frame is a value: links move frames, sessions act on them, `codec` turns them into bytes and back. Nothing here
//! knows when a frame is legal; that is the session's work.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::head::{RequestHead, ResponseHead, Trailers};
use crate::identity::{Incarnation, Instance, KeyId, NodeId};
use crate::limits;
use crate::token::Token;
use crate::wire::{self, Wire};

/// The protocol version this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The number of one request/response exchange on a link: even if the gateway opened it, odd if the service did.
/// 0 names the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct StreamId(u64);

/// A number of more than 48 bits in a stream id's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a stream id: those are 48 bits wide")]
pub struct StreamIdError(u64);

impl TryFrom<u64> for StreamId {
    type Error = StreamIdError;

    fn try_from(id: u64) -> Result<Self, StreamIdError> {
        Self::new(id).ok_or(StreamIdError(id))
    }
}

impl From<StreamId> for u64 {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

impl StreamId {
    /// The link itself.
    pub const CONNECTION: Self = Self(0);

    /// `None` above 48 bits.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        if id <= limits::STREAM_ID_MAX { Some(Self(id)) } else { None }
    }

    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether a gateway opens streams with such an id.
    #[must_use]
    pub const fn is_gateway_opened(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that can be said on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// 0x01, service: who it is and what it can receive.
    Hello(Box<Wire<Hello>>),
    /// 0x02, gateway: prove the shared secret.
    Challenge(Box<Wire<Challenge>>),
    /// 0x03, service: the proof.
    Proof(Box<Wire<Proof>>),
    /// 0x04, gateway: the link stands.
    Welcome(Box<Wire<Welcome>>),
    /// 0x05, service: one part of its whole endpoint set.
    EndpointsUpdate(Box<Wire<EndpointsUpdate>>),
    /// 0x06, gateway: what became of that revision.
    EndpointsResult(Box<Wire<EndpointsResult>>),
    /// 0x07, both.
    Heartbeat(Heartbeat),
    /// 0x08, both.
    HeartbeatAck(HeartbeatAck),
    /// 0x10, opener: head and first body bytes.
    Request(Request),
    /// 0x11, opener.
    RequestData(Data),
    /// 0x12, responder: head and first body bytes.
    Response(Response),
    /// 0x13, responder.
    ResponseData(Data),
    /// 0x14, both.
    Cancel(StreamId, Box<Cancel>),
    /// 0x15, both: byte credit for a stream, or for the link (stream 0).
    Window(StreamId, Window),
    /// 0x16, service: request credit of the instance.
    Lease(LeaseUpdate),
    /// 0x17, both.
    Drain(Drain),
    /// 0x18, both: the link ends after this frame.
    Close(Box<Close>),
    /// An unknown type that its sender flagged IGNORABLE: read and skipped.
    Ignorable { kind: u8, length: u32 },
}

/// REQUEST: opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub stream: StreamId,
    pub head: RequestHead,
    /// The first body bytes; they count against stream and link credit.
    pub body: Bytes,
    /// END_STREAM: this is the whole request.
    pub end: bool,
    /// TUNNEL: opaque bytes both ways.
    pub tunnel: bool,
}

/// RESPONSE: answers a stream, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub stream: StreamId,
    pub head: ResponseHead,
    pub body: Bytes,
    pub end: bool,
    pub tunnel: bool,
}

/// REQUEST_STREAM_DATA and RESPONSE_STREAM_DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub stream: StreamId,
    pub payload: DataPayload,
}

/// What a data frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataPayload {
    Bytes {
        bytes: Bytes,
        end: bool,
    },
    /// Trailers; they always end their direction.
    Trailers(Trailers),
}

/// What one side is ready to receive. Stated once, in HELLO and WELCOME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiveLimits {
    /// Largest payload of one frame, in bytes: 64 KiB to 1 MiB.
    pub max_frame: u32,
    /// First credit of each stream, in bytes.
    pub stream_window: u32,
    /// Credit of the link, in bytes.
    pub connection_window: u32,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self {
            max_frame: limits::FRAME_PAYLOAD_BYTES,
            stream_window: limits::STREAM_WINDOW,
            connection_window: limits::CONNECTION_WINDOW,
        }
    }
}

/// HELLO: the first frame of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions it speaks.
    #[serde(deserialize_with = "wire::list::<_, _, { limits::VERSIONS }>")]
    pub versions: Vec<u16>,
    /// Names of optional extensions it can use.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::list::<_, _, { limits::EXTENSIONS }>"
    )]
    pub extensions: Vec<String>,
    pub instance: Instance,
    pub incarnation: Incarnation,
    /// This link's number, from 0, of `links`.
    pub link: u16,
    pub links: u16,
    /// Of several ways to one gateway, which one this link is on: the lower, the sooner it is used. A link is known by this
    /// and its number.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub preference: u8,
    /// Which shared secret it will prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// Shown in place of a secret or a certificate; only ever over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    pub limits: ReceiveLimits,
    /// Requests that may be in flight on the instance, until a LEASE says otherwise.
    pub lease: u32,
}

/// CHALLENGE: the gateway's nonce, where a shared secret rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Always `hmac-sha256` in version 1.
    pub algorithm: String,
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
}

/// PROOF: that the service holds the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    #[serde(with = "serde_bytes")]
    pub proof: [u8; 32],
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// WELCOME: the link stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The highest version both sides speak.
    pub version: u16,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::list::<_, _, { limits::EXTENSIONS }>"
    )]
    pub extensions: Vec<String>,
    pub node: NodeId,
    pub limits: ReceiveLimits,
    pub heartbeat_ms: u32,
    /// How many links of this instance the gateway could make use of.
    pub links: u16,
    /// The revision of this incarnation's endpoint set that the gateway already holds; 0: none.
    pub revision: u64,
    /// Names this run of the gateway's process, and so tells it from others of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The gateway's own proof, where a shared secret rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

impl Welcome {
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(u64::from(self.heartbeat_ms))
    }
}

/// ENDPOINTS_UPDATE: part `part` of revision `revision` of the whole endpoint set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointsUpdate {
    /// From 1, increasing by any amount.
    pub revision: u64,
    /// From 0, without gaps.
    pub part: u32,
    pub last: bool,
    #[serde(deserialize_with = "wire::list::<_, _, { limits::ENDPOINTS }>")]
    pub endpoints: Vec<EndpointDescriptor>,
}

/// ENDPOINTS_RESULT: what became of a revision. An endpoint that is not named was accepted. Sent again, whole, when a
/// refused endpoint is accepted later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointsResult {
    pub revision: u64,
    /// Counts the answers on a link that reorders, from 1: of those to one revision the highest is the newest. 0 where frames
    /// keep their order.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub generation: u64,
    pub part: u32,
    pub last: bool,
    #[serde(default, deserialize_with = "wire::list::<_, _, { limits::ENDPOINTS }>")]
    pub refused: Vec<RefusedEndpoint>,
}

/// One endpoint that a gateway refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEndpoint {
    pub id: EndpointId,
    /// Why, for the people who run the service: names the owner or the policy.
    pub reason: String,
}

/// What a service says of its own health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Ready for requests.
    #[default]
    Healthy,
    /// Serves, but others are preferred.
    Degraded,
    /// Serves nothing.
    Unhealthy,
    /// A status of a later version: serves nothing.
    #[serde(other)]
    Unknown,
}

/// HEARTBEAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub sequence: u64,
    #[serde(default)]
    pub status: HealthStatus,
    #[serde(default)]
    pub in_flight: u32,
    /// Load in thousandths of what the sender can bear; 0 if it does not say.
    #[serde(default)]
    pub load: u32,
}

/// HEARTBEAT_ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    pub sequence: u64,
}

/// CANCEL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// WINDOW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub bytes: u32,
}

/// LEASE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseUpdate {
    /// A later generation replaces an earlier one, on whatever link it arrives.
    pub generation: u64,
    pub limit: u32,
}

/// DRAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub phase: DrainPhase,
    /// `Ack`: the highest id its sender has opened. `Final`: the highest id its sender has seen. `Request`: 0.
    pub last: StreamId,
}

/// The steps of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPhase {
    /// Stop opening streams on this link.
    Request,
    /// I have stopped.
    Ack,
    /// You did not answer: what is above this id was never seen.
    Final,
}

/// CLOSE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    pub code: CloseCode,
    /// The highest id of the receiver's streams that the sender has accepted; higher ones were never seen.
    pub last: StreamId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u8", into = "u8")]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)+
            /// A number of a later version.
            Other(u8),
        }

        impl $name {
            /// All that version 1 names.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name used in logs, metrics and documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ Self::Other(_) => "other" }
            }
        }

        impl From<u8> for $name {
            fn from(number: u8) -> Self {
                match number { $($number => Self::$variant,)+ other => Self::Other(other) }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => $number,)+ $name::Other(other) => other }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

numbered! {
    /// Why a stream was cancelled.
    Reason {
        /// The HTTP client left.
        ClientDisconnected = 1 "client_disconnected",
        /// The time to answer is over.
        DeadlineExceeded = 2 "deadline_exceeded",
        /// A body went over its limit.
        PayloadLimit = 3 "payload_limit",
        /// The sender is going away.
        Shutdown = 4 "shutdown",
        /// The request never reached a handler, and may be sent elsewhere.
        Refused = 5 "refused",
        /// The handler failed, or ended without an answer.
        HandlerFailed = 6 "handler_failed",
        /// This stream broke the protocol; the link is unharmed.
        ProtocolError = 7 "protocol_error",
        /// A newer process took over the instance.
        Superseded = 8 "superseded",
        /// The reader stalled for so long that its buffered bytes were needed elsewhere.
        Stalled = 9 "stalled",
    }
}

numbered! {
    /// Why a link was closed.
    CloseCode {
        /// Its work is done: a drain has ended.
        Normal = 0 "normal",
        /// No common protocol version.
        UnsupportedVersion = 1 "unsupported_version",
        /// A wrong proof, a missing one, or an unknown key id.
        Unauthenticated = 2 "unauthenticated",
        /// The registration policy forbids the service's name.
        Forbidden = 3 "forbidden",
        /// Another identity holds this instance.
        IdentityInUse = 4 "identity_in_use",
        /// Another process of the same instance took over; do not come back under this id.
        Superseded = 5 "superseded",
        /// A frame, payload or sequence that the protocol does not allow.
        ProtocolError = 6 "protocol_error",
        /// A frame larger than the receiver's limit.
        FrameTooLarge = 7 "frame_too_large",
        /// More bytes than credit, or credit beyond its bound.
        FlowControl = 8 "flow_control",
        /// No WELCOME in time.
        HandshakeTimeout = 9 "handshake_timeout",
        /// A frame began and did not end in time.
        FrameTimeout = 10 "frame_timeout",
        /// Silence, or heartbeats unanswered, for too long.
        HeartbeatTimeout = 11 "heartbeat_timeout",
        /// More control frames than the peer takes.
        Overload = 12 "overload",
        /// Too many links, or too many not yet welcomed.
        TooManyLinks = 13 "too_many_links",
        /// The process is going away.
        Shutdown = 14 "shutdown",
    }
}

/// Cuts free text for CANCEL and CLOSE to [`limits::TEXT_BYTES`], at a character.
#[must_use]
pub fn bounded_text(mut text: String) -> String {
    if text.len() > limits::TEXT_BYTES {
        text.truncate(text.floor_char_boundary(limits::TEXT_BYTES));
    }
    text
}

impl Frame {
    /// The stream it speaks of; the link itself for the others.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Request(request) => request.stream,
            Self::Response(response) => response.stream,
            Self::RequestData(data) | Self::ResponseData(data) => data.stream,
            Self::Cancel(stream, _) | Self::Window(stream, _) => *stream,
            _ => StreamId::CONNECTION,
        }
    }

    /// The name of the type in SPEC 4, for errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Challenge(_) => "CHALLENGE",
            Self::Proof(_) => "PROOF",
            Self::Welcome(_) => "WELCOME",
            Self::EndpointsUpdate(_) => "ENDPOINTS_UPDATE",
            Self::EndpointsResult(_) => "ENDPOINTS_RESULT",
            Self::Heartbeat(_) => "HEARTBEAT",
            Self::HeartbeatAck(_) => "HEARTBEAT_ACK",
            Self::Request(_) => "REQUEST",
            Self::RequestData(_) => "REQUEST_STREAM_DATA",
            Self::Response(_) => "RESPONSE",
            Self::ResponseData(_) => "RESPONSE_STREAM_DATA",
            Self::Cancel(..) => "CANCEL",
            Self::Window(..) => "WINDOW",
            Self::Lease(_) => "LEASE",
            Self::Drain(_) => "DRAIN",
            Self::Close(_) => "CLOSE",
            Self::Ignorable { .. } => "an ignorable frame",
        }
    }

    /// Whether it only belongs to the handshake.
    #[must_use]
    pub fn is_handshake(&self) -> bool {
        matches!(self, Self::Hello(_) | Self::Challenge(_) | Self::Proof(_) | Self::Welcome(_))
    }
}
