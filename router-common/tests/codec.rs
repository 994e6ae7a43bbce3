//! Properties of the codec: whatever is encoded comes back, however it was cut into reads; whatever bytes come in, there
//! is no panic, and no more memory is taken than the frame that they announce.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use router_common::codec::{self, FrameDecoder};
use router_common::endpoint::{Claim, ClaimRequirement, EndpointDescriptor, EndpointId};
use router_common::frame::{
    Cancel, Challenge, Close, CloseCode, Data, DataPayload, Drain, DrainPhase, EndpointsResult, EndpointsUpdate, Frame,
    HealthStatus, Heartbeat, HeartbeatAck, Hello, LeaseUpdate, Proof, Reason, ReceiveLimits, RefusedEndpoint, Request,
    Response, StreamId, Welcome, Window,
};
use router_common::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use router_common::identity::{Incarnation, Instance};
use router_common::limits::{FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES};
use router_common::token::Token;
use router_common::wire::Wire;

#[path = "support/vectors.rs"]
mod vectors;

/// What one frame may take while it is decoded, beside the buffer it lies in: its values are copies of its bytes.
const FRAME_BOUND: usize = FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES as usize;

/// The system's allocator, counting what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

#[expect(unsafe_code, reason = "a global allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator unchanged; the counters are plain thread-local numbers, which
// neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that this thread held at once during `work`, beyond what it held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    let peak = PEAK.get();
    drop(result);
    usize::try_from(peak - before).unwrap_or(0)
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    let body = codec::encode(frame, &mut out);
    out.put_slice(&body);
    assert_eq!(out.len(), codec::encoded_len(frame));
    out.to_vec()
}

/// Decodes all frames of `stream`, which arrives in pieces; `None` if something is not a frame.
fn decoded(stream: &[u8], pieces: &[usize]) -> Option<Vec<Frame>> {
    let decoder = FrameDecoder::new(FRAME_PAYLOAD_BYTES);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut pieces = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(pieces.next().unwrap_or(1).clamp(1, rest.len()));
        buffer.put_slice(piece);
        rest = after;
        while let Some(frame) = decoder.decode(&mut buffer).ok()? {
            frames.push(frame);
        }
    }
    buffer.is_empty().then_some(frames)
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    prop_oneof![1..100_u64, 1..=router_common::limits::STREAM_ID_MAX].prop_map(|id| StreamId::new(id).expect("48 bits"))
}

fn any_id() -> impl Strategy<Value = StreamId> {
    prop_oneof![Just(StreamId::CONNECTION), stream_id()]
}

fn nonce() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn token() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,20}"
}

fn receive_limits() -> impl Strategy<Value = ReceiveLimits> {
    any::<(u32, u32, u32)>().prop_map(|(max_frame, stream_window, connection_window)| ReceiveLimits {
        max_frame,
        stream_window,
        connection_window,
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let instance = (token(), "[0-9]\\.(0|[1-9][0-9]{0,2})\\.[0-9](-rc\\.[1-9])?", token(), "[A-Za-z0-9._-]{1,60}");
    let link = any::<([u8; 16], u16, u16, u8, [u8; 32], u32)>();
    let shown = proptest::option::of("[!-~]{1,200}");
    let offers = (vec(any::<u16>(), 0..8), vec(token(), 0..8), proptest::option::of(token()), shown, receive_limits());
    (instance, link, offers).prop_map(|((service, version, region, id), link, offers)| {
        let (incarnation, number, links, preference, nonce, lease) = link;
        let (versions, extensions, key_id, shown, limits) = offers;
        Hello {
            versions,
            extensions,
            instance: Instance {
                service: service.parse().expect("a name"),
                version: version.parse().expect("a version"),
                region: region.parse().expect("a name"),
                id: id.parse().expect("an id"),
            },
            incarnation: Incarnation(incarnation),
            link: number,
            links,
            preference,
            key_id: key_id.map(|id| id.parse().expect("an id")),
            token: shown.map(|token| Token::new(token).expect("a token")),
            nonce,
            limits,
            lease,
        }
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let numbers = any::<(u16, u32, u16, u64, Option<[u8; 16]>)>();
    (numbers, vec(token(), 0..4), token(), receive_limits(), proptest::option::of(nonce())).prop_map(
        |((version, heartbeat_ms, links, revision, incarnation), extensions, node, limits, proof)| Welcome {
            version,
            extensions,
            node: node.parse().expect("a name"),
            limits,
            heartbeat_ms,
            links,
            revision,
            incarnation: incarnation.map(Incarnation),
            proof: proof.map(|proof| Proof { proof }),
        },
    )
}

fn endpoint_id() -> impl Strategy<Value = EndpointId> {
    (1..=u32::MAX).prop_map(|id| EndpointId::new(id).expect("not 0"))
}

fn descriptor() -> impl Strategy<Value = EndpointDescriptor> {
    let path = "(/[a-z]{1,8}){0,4}/\\{p[a-z]{0,4}\\}(/|/\\{\\*rest\\})?";
    let method = prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::DELETE)];
    let texts = proptest::option::of("\\PC{0,40}");
    let claim = (token(), vec(token(), 0..3)).prop_map(|(kind, any_of)| ClaimRequirement { kind, any_of });
    let flags = any::<[bool; 5]>();
    (
        (endpoint_id(), method, path, flags),
        (proptest::option::of(0..=u64::MAX / 2_000_000), proptest::option::of(any::<u64>())),
        (vec(claim, 0..3), vec(token(), 0..3), texts.clone(), texts.clone(), texts),
    )
        .prop_map(|((id, method, path, flags), (timeout, max_request_bytes), lists)| {
            let [streaming_request, streaming_response, idempotent, one_way, deprecated] = flags;
            let (requiring_claims, tags, summary, request_schema, response_schema) = lists;
            EndpointDescriptor {
                timeout: timeout.map(Duration::from_millis),
                streaming_request,
                streaming_response,
                requiring_claims,
                idempotent,
                max_request_bytes,
                one_way,
                deprecated,
                summary,
                tags,
                request_schema,
                response_schema,
                ..EndpointDescriptor::new(id, method, path.parse().expect("a template"))
            }
        })
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = "x-[a-z0-9!#$%&'*+.^_`|~-]{0,20}";
    let value = vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xff_u8], 0..40);
    vec((name, value), 0..6).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, HeaderValue::from_bytes(&value).expect("a value"));
        }
        map
    })
}

fn request_head() -> impl Strategy<Value = RequestHead> {
    let numbers = (proptest::option::of(endpoint_id()), proptest::option::of(0..=u64::from(u32::MAX)), any::<u8>());
    let line = ("[A-Z]{1,8}", any::<bool>(), "[a-z0-9.:-]{0,20}", "/[!-~]{0,60}");
    let parameters = vec((0..1000_u16, 0..1000_u16), 0..5);
    let claims = vec((token(), "\\PC{0,10}"), 0..4);
    let client = proptest::option::of(prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]);
    let tunnel = proptest::option::of("[a-z]{1,10}");
    (numbers, line, parameters, client, fields(), claims, tunnel).prop_map(
        |((endpoint, deadline, hops), (method, https, authority, target), places, client, headers, claims, tunnel)| {
            let length = target.len() as u16;
            let place = |(start, size): (u16, u16)| (start % (length + 1), size % (length - start % (length + 1) + 1));
            let parameters: Vec<(u16, u16)> = places.into_iter().map(place).collect();
            let claims: Vec<Claim> = claims.into_iter().map(|(kind, value)| Claim { kind, value }).collect();
            let parts = RequestParts {
                endpoint,
                deadline: deadline.map(Duration::from_millis),
                hops,
                method: &method,
                scheme: if https { Scheme::Https } else { Scheme::Http },
                authority: &authority,
                target: &target,
                parameters: &parameters,
                client,
                headers: &headers,
                claims: &claims,
                tunnel_protocol: tunnel.as_deref(),
            };
            let head = RequestHead::encode(&parts).expect("a valid head");
            // What was put in is what is read; a deadline of 0 is the least there is.
            assert_eq!(head.endpoint(), endpoint);
            assert_eq!(head.deadline(), parts.deadline.map(|deadline| deadline.max(Duration::from_millis(1))));
            assert_eq!((head.hops(), head.scheme()), (hops, parts.scheme));
            assert_eq!((head.method(), head.authority(), head.target()), (&*method, &*authority, &*target));
            assert!(head.parameters().eq(parameters.iter().copied()));
            assert_eq!((head.client(), head.tunnel_protocol()), (client, tunnel.as_deref()));
            assert!(head.claims().eq(claims.iter().map(|claim| (&*claim.kind, &*claim.value))));
            let expected = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            assert!(
                head.headers()
                    .map(|(n, v)| (n.to_vec(), v.to_vec()))
                    .eq(expected.map(|(n, v)| (n.to_vec(), v.to_vec())))
            );
            head
        },
    )
}

fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 0..20_000)].prop_map(Bytes::from)
}

fn request() -> impl Strategy<Value = Request> {
    let flags = any::<(bool, bool)>();
    (stream_id(), request_head(), body(), flags).prop_map(|(stream, head, body, (end, tunnel))| Request {
        stream,
        head,
        body,
        end,
        tunnel,
    })
}

fn response() -> impl Strategy<Value = Response> {
    let head = (200..600_u16, fields())
        .prop_map(|(status, fields)| ResponseHead::encode(status, &fields).expect("a valid head"));
    (stream_id(), head, body(), any::<(bool, bool)>()).prop_map(|(stream, head, body, (end, tunnel))| Response {
        stream,
        head,
        body,
        end,
        tunnel,
    })
}

fn data() -> impl Strategy<Value = Data> {
    let payload = prop_oneof![
        (body(), any::<bool>()).prop_map(|(bytes, end)| DataPayload::Bytes { bytes, end }),
        fields().prop_map(|fields| DataPayload::Trailers(Trailers::encode(&fields).expect("valid trailers"))),
    ];
    (stream_id(), payload).prop_map(|(stream, payload)| Data { stream, payload })
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn control() -> impl Strategy<Value = Frame> {
    let statuses = vec![HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy, HealthStatus::Unknown];
    let status = proptest::sample::select(statuses);
    let phase = proptest::sample::select(vec![DrainPhase::Request, DrainPhase::Ack, DrainPhase::Final]);
    prop_oneof![
        (any::<(u64, u32, u32)>(), status).prop_map(|((sequence, in_flight, load), status)| {
            Frame::Heartbeat(Heartbeat { sequence, status, in_flight, load })
        }),
        any::<u64>().prop_map(|sequence| Frame::HeartbeatAck(HeartbeatAck { sequence })),
        (stream_id(), any::<u8>(), text()).prop_map(|(stream, reason, text)| {
            Frame::Cancel(stream, Box::new(Cancel { reason: Reason::from(reason), text }))
        }),
        (any_id(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Window(stream, Window { bytes })),
        any::<(u64, u32)>().prop_map(|(generation, limit)| Frame::Lease(LeaseUpdate { generation, limit })),
        (phase, any_id()).prop_map(|(phase, last)| Frame::Drain(Drain { phase, last })),
        (any::<u8>(), any_id(), text()).prop_map(|(code, last, text)| {
            Frame::Close(Box::new(Close { code: CloseCode::from(code), last, text }))
        }),
        (0x20..=0xff_u8, 0..100_u32).prop_map(|(kind, length)| Frame::Ignorable { kind, length }),
    ]
}

fn handshake() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hello().prop_map(|hello| Frame::Hello(Box::new(Wire::new(hello)))),
        (token(), nonce())
            .prop_map(|(algorithm, nonce)| Frame::Challenge(Box::new(Wire::new(Challenge { algorithm, nonce })))),
        nonce().prop_map(|proof| Frame::Proof(Box::new(Wire::new(Proof { proof })))),
        welcome().prop_map(|welcome| Frame::Welcome(Box::new(Wire::new(welcome)))),
    ]
}

fn registration() -> impl Strategy<Value = Frame> {
    let part = || any::<(u64, u32, bool)>();
    let refusal = (endpoint_id(), text()).prop_map(|(id, reason)| RefusedEndpoint { id, reason });
    prop_oneof![
        (part(), vec(descriptor(), 0..6)).prop_map(|((revision, part, last), endpoints)| {
            Frame::EndpointsUpdate(Box::new(Wire::new(EndpointsUpdate { revision, part, last, endpoints })))
        }),
        (part(), any::<u64>(), vec(refusal, 0..6)).prop_map(|((revision, part, last), generation, refused)| {
            Frame::EndpointsResult(Box::new(Wire::new(EndpointsResult { revision, generation, part, last, refused })))
        }),
    ]
}

/// Any frame of any type.
fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        2 => control(),
        1 => handshake(),
        1 => registration(),
        2 => request().prop_map(Frame::Request),
        1 => response().prop_map(Frame::Response),
        1 => data().prop_map(Frame::RequestData),
        1 => data().prop_map(Frame::ResponseData),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_however_the_stream_is_cut(frames in vec(frame(), 1..5), pieces in vec(1..3000_usize, 1..6)) {
        let stream: Vec<u8> = frames.iter().flat_map(encoded).collect();
        prop_assert_eq!(decoded(&stream, &pieces), Some(frames));
    }

    #[test]
    fn arbitrary_bytes_take_no_more_memory_than_the_frame_they_announce(
        bytes in vec(any::<u8>(), 0..2000),
        kind in 0..=0x19_u8,
        length in 0..=u32::MAX,
    ) {
        // A plausible header, because bytes that are none at all come to an end with their first one.
        let stream = if kind <= 0x10 || length % 2 == 0 { 0 } else { 2 };
        let header = codec::FrameHeader { kind, flags: 0, stream, length: length % (bytes.len() as u32 + 200) };
        let all = [&header.encode()[..], &bytes].concat();
        for stream in [&bytes, &all] {
            let mut buffer = BytesMut::from(&stream[..]);
            let decoder = FrameDecoder::new(FRAME_PAYLOAD_BYTES);
            let peak = peak_of(|| while let Ok(Some(_)) = decoder.decode(&mut buffer) {});
            prop_assert!(peak <= bound_of(kind, stream.len()), "{} bytes held for {}", peak, stream.len());
        }
    }

    #[test]
    fn changed_frames_take_no_more_memory_either(
        frame in frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encoded(&frame);
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        let kind = bytes[0];
        let length = bytes.len();
        let mut buffer = BytesMut::from(&bytes[..]);
        let decoder = FrameDecoder::new(FRAME_PAYLOAD_BYTES);
        let peak = peak_of(|| while let Ok(Some(_)) = decoder.decode(&mut buffer) {});
        prop_assert!(peak <= bound_of(kind, length), "{} bytes held for {}", peak, vectors::to_hex(&bytes));
    }
}

/// What decoding may hold at once: a few copies of the bytes that are there, and a little. An endpoint set becomes
/// values that are larger than their encoding, by a factor that is small and known.
fn bound_of(kind: u8, length: usize) -> usize {
    let is_set = matches!(kind, codec::kind::ENDPOINTS_UPDATE | codec::kind::ENDPOINTS_RESULT);
    let copies = if is_set { ENDPOINT_SET_FACTOR } else { 4 };
    copies * length.min(FRAME_BOUND) + 4096
}

/// The worst of it: a least descriptor of some 30 bytes becomes a value of some 400, in a list that doubles as it grows.
const ENDPOINT_SET_FACTOR: usize = 32;

/// The densest payloads there are, each as large as its frame may be.
#[test]
fn the_worst_payloads_take_no_more_memory_than_their_frames_allow() {
    let frame = |kind, stream, payload: &[u8]| {
        let header = codec::FrameHeader { kind, flags: 0, stream, length: payload.len() as u32 };
        [&header.encode()[..], payload].concat()
    };
    let filled = |start: &[u8], item: &[u8], size: usize| {
        let mut payload = start.to_vec();
        while payload.len() + item.len() <= size {
            payload.extend_from_slice(item);
        }
        payload
    };
    let update = b"\x84\xa8revision\x01\xa4part\x00\xa4last\xc3\xa9endpoints\xdd\xff\xff\xff\xff";
    let result = b"\x84\xa8revision\x01\xa4part\x00\xa4last\xc3\xa7refused\xdd\xff\xff\xff\xff";
    let tags = b"\x81\xa4tags\xdd\xff\xff\xff\xff";
    let worst = [
        frame(codec::kind::HELLO, 0, &filled(b"\x81\xaaextensions\xdd\xff\xff\xff\xff", &[0xa0], 16 * 1024)),
        frame(codec::kind::HELLO, 0, &filled(b"\x81\xa8versions\xdd\xff\xff\xff\xff", &[0x01], 16 * 1024)),
        frame(codec::kind::WELCOME, 0, &filled(b"\x81\xaaextensions\xdd\xff\xff\xff\xff", &[0xa0], 16 * 1024)),
        frame(codec::kind::HELLO, 0, &filled(b"\x81\xa9algorithm\xdb\xff\xff\xff\xff", b"a", 16 * 1024)),
        frame(codec::kind::CHALLENGE, 0, &filled(b"\x81\xa5nonce\xdd\xff\xff\xff\xff", &[0x01], 16 * 1024)),
        frame(codec::kind::CANCEL, 2, &filled(b"\x81\xa4text\xdb\xff\xff\xff\xff", b"a", 2048)),
        frame(codec::kind::ENDPOINTS_UPDATE, 0, &filled(update, b"\x83\xa2id\x01\xa6method\xa1A\xa4path\xa1/", 65_536)),
        frame(codec::kind::ENDPOINTS_UPDATE, 0, &filled(&[&update[..], tags].concat(), &[0xa0], 65_536)),
        frame(codec::kind::ENDPOINTS_RESULT, 0, &filled(result, b"\x82\xa2id\x01\xa6reason\xa0", 65_536)),
        frame(codec::kind::REQUEST, 2, &filled(&[0x7f, 0xff], &[0], 65_536)),
        frame(codec::kind::RESPONSE, 2, &filled(&[0x7f, 0xff, 0, 200, 0x10, 0], &[0, 1, b'a', 0, 0], 65_536)),
    ];
    for bytes in worst {
        let (kind, length) = (bytes[0], bytes.len());
        let mut buffer = BytesMut::from(&bytes[..]);
        let peak = peak_of(|| FrameDecoder::new(FRAME_PAYLOAD_BYTES).decode(&mut buffer));
        let bound = bound_of(kind, length);
        assert!(peak <= bound, "type {kind:#04x}: {peak} bytes held for a frame of {length}, allowed {bound}");
    }
}

#[test]
fn golden_vectors_take_no_more_memory_than_their_frames_allow() {
    let golden = vectors::read();
    for list in ["frames", "tolerated", "malformed"] {
        for vector in golden[list].as_array().expect("a list of vectors") {
            let bytes = vectors::from_hex(vector["hex"].as_str().expect("hex"));
            let mut buffer = BytesMut::from(&bytes[..]);
            let peak = peak_of(|| FrameDecoder::new(FRAME_PAYLOAD_BYTES).decode(&mut buffer));
            assert!(peak <= bound_of(bytes[0], bytes.len()), "{}: {peak} bytes", vector["name"]);
        }
    }
}
