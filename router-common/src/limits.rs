//! Every bound of the protocol, by name, with its default and its reason.
//!
//! A bound that a peer may state for itself (HELLO, WELCOME) is a default here; the others are part of the protocol.

use std::time::Duration;

/// Longest name (a DNS label), in bytes.
pub const NAME_BYTES: usize = 63;
/// Longest instance id or key id, in bytes: room for a UUID, a pod name, or a host name with a suffix.
pub const INSTANCE_ID_BYTES: usize = 128;
/// Longest version, in bytes.
pub const VERSION_BYTES: usize = 256;
/// Longest path template, in bytes.
pub const TEMPLATE_BYTES: usize = 1024;
/// Most parameters of one path template.
pub const TEMPLATE_PARAMETERS: usize = 32;

/// Length of every frame header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 12;
/// Default and smallest legal limit of a frame's payload, in bytes: large enough for any head, small enough that a
/// frame never keeps a link to itself for long.
pub const FRAME_PAYLOAD_BYTES: u32 = 64 * 1024;
/// Largest payload limit a peer may state, in bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 1024 * 1024;
/// Smallest payload limit of a carrier on which a message is one frame, in bytes: room for every control frame, and for one
/// endpoint's descriptor.
pub const DATAGRAM_FRAME_BYTES: u32 = 1024;
/// Highest stream id: ids are 48 bits wide.
pub const STREAM_ID_MAX: u64 = (1 << 48) - 1;

/// Largest HELLO payload, in bytes: it comes from a stranger.
pub const HELLO_BYTES: usize = 16 * 1024;
/// Largest CHALLENGE, PROOF and WELCOME payload, in bytes.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Largest HEARTBEAT, LEASE, DRAIN, WINDOW, CANCEL and CLOSE payload, in bytes.
pub const SMALL_CONTROL_BYTES: usize = 2 * 1024;
/// Longest free text in CANCEL and CLOSE, in bytes; longer text is cut.
pub const TEXT_BYTES: usize = 512;
/// Deepest nesting of a control payload.
pub const CONTROL_DEPTH: usize = 16;

/// Largest request or response head, in bytes.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Largest trailers, in bytes.
pub const TRAILERS_BYTES: usize = 8 * 1024;
/// Most header fields of one head: a bound on work, far above what [`HEAD_BYTES`] usually lets through.
pub const HEAD_FIELDS: usize = 4096;

/// Most endpoints of one instance.
pub const ENDPOINTS: usize = 10_000;
/// Largest endpoint set, in encoded bytes over all its parts.
pub const ENDPOINTS_BYTES: usize = 4 * 1024 * 1024;

/// Most claims that one endpoint may require: all of them are looked up for each request.
pub const CLAIM_REQUIREMENTS: usize = 64;
/// Most values of which one required claim may have any.
pub const CLAIM_VALUES: usize = 256;
/// Most tags of one endpoint.
pub const TAGS: usize = 64;

/// First byte credit of a stream, each way.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// Byte credit to which a stream grows while its reader keeps pace.
pub const STREAM_WINDOW_MAX: u32 = 1024 * 1024;
/// Byte credit of a link, each way. It returns on arrival, so it bounds only what is in transit.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Largest window a peer may ever hold, in bytes: above it lies CLOSE(flow_control).
pub const WINDOW_MAX: u64 = (1 << 31) - 1;
/// Data of one stream in one turn while several streams compete, in bytes.
pub const FAIR_CHUNK_BYTES: usize = 16 * 1024;
/// What an application may put into a stream's send queue beyond its credit, in bytes, so that the link never idles
/// between a WINDOW and the next poll of the application.
pub const SEND_AHEAD_BYTES: usize = 64 * 1024;
/// Most that an application may have in a stream's send queue, in bytes, however much credit the peer gives: a peer that
/// grants everything and takes nothing fills no memory here. Enough for one large write.
pub const SEND_QUEUE_BYTES: usize = 512 * 1024;
/// What the streams of a link have of that together, in bytes, each an equal share,
pub const SEND_QUEUES_BYTES: usize = 4 * 1024 * 1024;
/// but no less than this.
pub const SEND_QUEUE_SHARE_BYTES: usize = 128 * 1024;

/// Requests that may be in flight on an instance.
pub const LEASE: u32 = 1024;
/// Largest lease an instance may grant.
pub const LEASE_MAX: u32 = 1_000_000;
/// Stretches of ids that may be missing below the highest one of a link that reorders: as many as there are packets in a
/// packet layer's replay window, each of which may have taken one with it. Of more, the lowest count as seen.
pub const MISSING_IDS: usize = 4096;
/// Requests a service may have in flight on one link towards the gateway.
pub const SERVICE_OPENED_STREAMS: usize = 1024;
/// Queued control frames beyond the lease at which reading stops.
pub const CONTROL_QUEUE: usize = 1024;

/// Hops after which a request is taken to run in a circle.
pub const HOPS: u8 = 16;
/// Links one instance may have to one gateway.
pub const LINKS: u16 = 64;
/// Links that a service opens because WELCOME says that so many are wanted; more must be asked for where it is configured.
pub const LINKS_WANTED: u16 = 16;
/// Protocol versions that HELLO may offer.
pub const VERSIONS: usize = 64;
/// Keys of protocol extensions in HELLO and WELCOME.
pub const EXTENSIONS: usize = 64;
/// Longest bearer token, in bytes: a signed one with a few claims.
pub const TOKEN_BYTES: usize = 4096;
/// Shortest shared secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Accept to WELCOME.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First byte of a frame to its last.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// DRAIN(request) to its acknowledgement; after it comes DRAIN(final).
pub const DRAIN_ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be lost, lost: after a request's deadline, until its opener forgets that it was sent; and on such links, after
/// DRAIN(ack), until no request that it covers is waited for any more. Longer than a carrier tries to deliver a frame.
pub const LOSS_GRACE: Duration = Duration::from_secs(10);
/// An endpoint set that was not answered on a link that loses, until it is offered again.
pub const OFFER_AGAIN: Duration = Duration::from_secs(10);
/// Reading stopped because control frames could not be sent, until CLOSE(overload).
pub const OVERLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// CLOSE queued until the link is cut whether it was written or not.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Links accepted and not yet welcomed, in a listener; past it the oldest goes.
pub const UNWELCOMED: usize = 256;
/// Links accepted and not yet welcomed, from one source address.
pub const UNWELCOMED_PER_ADDRESS: usize = 16;

/// The bound of what is buffered in a node over all its streams, in bytes.
pub const NODE_BUFFER_BYTES: usize = 256 * 1024 * 1024;
/// A stream whose bytes nobody has read for so long is given up when the node's buffers are three quarters full.
pub const STALLED_AFTER: Duration = Duration::from_secs(1);
