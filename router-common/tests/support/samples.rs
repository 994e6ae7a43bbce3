//! The frames that the golden vectors show, built from values: all types, all flags, heads with everything.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method};
use router_common::codec::{self, FrameHeader, flags, kind};
use router_common::endpoint::{Claim, ClaimRequirement, EndpointDescriptor, EndpointId};
use router_common::frame::{
    Cancel, Challenge, Close, CloseCode, Data, DataPayload, Drain, DrainPhase, EndpointsResult, EndpointsUpdate, Frame,
    HealthStatus, Heartbeat, HeartbeatAck, Hello, LeaseUpdate, Proof, Reason, ReceiveLimits, RefusedEndpoint, Request,
    Response, StreamId, Welcome, Window,
};
use router_common::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use router_common::identity::{Incarnation, Instance};
use router_common::token::Token;
use router_common::wire::Wire;

use crate::describe::headers;

/// A frame that is worth showing.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) frame: Frame,
}

/// Bytes that are worth showing: not what this implementation writes.
pub(crate) struct Raw {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    let body = codec::encode(frame, &mut out);
    out.put_slice(&body);
    out.to_vec()
}

pub(crate) fn stream(id: u64) -> StreamId {
    StreamId::new(id).expect("48 bits")
}

pub(crate) fn hello() -> Hello {
    Hello {
        versions: vec![1],
        extensions: Vec::new(),
        instance: Instance {
            service: "orders".parse().expect("a name"),
            version: "1.2.0".parse().expect("a version"),
            region: "eu-west".parse().expect("a region"),
            id: "orders-7f9c".parse().expect("an id"),
        },
        incarnation: Incarnation([0x11; 16]),
        link: 0,
        links: 1,
        preference: 0,
        key_id: None,
        token: None,
        nonce: [0xa1; 32],
        limits: ReceiveLimits::default(),
        lease: 1024,
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        extensions: Vec::new(),
        node: "gw-1".parse().expect("a name"),
        limits: ReceiveLimits::default(),
        heartbeat_ms: 10_000,
        links: 2,
        revision: 0,
        incarnation: None,
        proof: None,
    }
}

pub(crate) fn parts<'a>(headers: &'a HeaderMap, claims: &'a [Claim]) -> RequestParts<'a> {
    RequestParts {
        endpoint: EndpointId::new(1),
        deadline: None,
        hops: 1,
        method: "GET",
        scheme: Scheme::Http,
        authority: "localhost:8080",
        target: "/hello",
        parameters: &[],
        client: None,
        headers,
        claims,
        tunnel_protocol: None,
    }
}

fn full_descriptor() -> EndpointDescriptor {
    let id = EndpointId::new(2).expect("not 0");
    let mut endpoint = EndpointDescriptor::new(id, Method::POST, "/orders/{id}/files/{*rest}".parse().expect("a path"));
    endpoint.timeout = Some(Duration::from_millis(2500));
    endpoint.streaming_request = true;
    endpoint.streaming_response = true;
    endpoint.requiring_claims = vec![
        ClaimRequirement { kind: "scope".into(), any_of: vec!["orders:write".into(), "admin".into()] },
        ClaimRequirement { kind: "tenant".into(), any_of: Vec::new() },
    ];
    endpoint.idempotent = true;
    endpoint.max_request_bytes = Some(1_048_576);
    endpoint.one_way = true;
    endpoint.deprecated = true;
    endpoint.summary = Some("Stores files of an order.".into());
    endpoint.tags = vec!["orders".into(), "files".into()];
    endpoint.request_schema = Some(r#"{"type":"object"}"#.into());
    endpoint.response_schema = Some("true".into());
    endpoint
}

fn boxed<T: serde::Serialize>(value: T) -> Box<Wire<T>> {
    Box::new(Wire::new(value))
}

/// Every frame type and flag combination that this implementation writes.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: &str, description: &str, frame: Frame| {
        samples.push(Sample { name: name.to_owned(), description: description.to_owned(), frame });
    };
    add("hello", "The smallest useful HELLO.", Frame::Hello(boxed(hello())));
    let full = Hello {
        versions: vec![1, 2, 300],
        extensions: vec!["zstd".into()],
        link: 1,
        links: 4,
        key_id: Some("team-a".parse().expect("a key id")),
        limits: ReceiveLimits { max_frame: 1_048_576, stream_window: 131_072, connection_window: 8_388_608 },
        lease: 64,
        ..hello()
    };
    add("hello-full", "HELLO with every field.", Frame::Hello(boxed(full)));
    let second = Hello { preference: 1, ..hello() };
    add("hello-preference", "HELLO of a link on the second way to a gateway.", Frame::Hello(boxed(second)));
    let token = Some(Token::new("a token of at least thirty-two bytes".replace(' ', "-")).expect("a token"));
    add(
        "hello-token",
        "HELLO with a bearer token; only ever over TLS.",
        Frame::Hello(boxed(Hello { token, ..hello() })),
    );
    let challenge = Challenge { algorithm: "hmac-sha256".into(), nonce: [0xb2; 32] };
    add("challenge", "CHALLENGE.", Frame::Challenge(boxed(challenge)));
    add("proof", "PROOF.", Frame::Proof(boxed(Proof { proof: [0xc3; 32] })));
    add("welcome", "WELCOME where no shared secret rules.", Frame::Welcome(boxed(welcome())));
    let full =
        Welcome { extensions: vec!["zstd".into()], revision: 3, proof: Some(Proof { proof: [0xd4; 32] }), ..welcome() };
    add("welcome-full", "WELCOME with every field; the gateway already holds revision 3.", Frame::Welcome(boxed(full)));
    let run = Welcome { incarnation: Some(Incarnation([0x22; 16])), ..welcome() };
    add("welcome-incarnation", "WELCOME that names the run of the gateway's process.", Frame::Welcome(boxed(run)));
    let first =
        EndpointDescriptor::new(EndpointId::new(1).expect("not 0"), Method::GET, "/hello".parse().expect("a path"));
    let update =
        |part, last, endpoints| Frame::EndpointsUpdate(boxed(EndpointsUpdate { revision: 1, part, last, endpoints }));
    add("endpoints-update", "The first of two parts, with a descriptor of defaults.", update(0, false, vec![first]));
    add(
        "endpoints-update-last",
        "The last part, with a descriptor of every field.",
        update(1, true, vec![full_descriptor()]),
    );
    add("endpoints-update-empty", "A set of no endpoints.", update(0, true, Vec::new()));
    let result = |refused| {
        Frame::EndpointsResult(boxed(EndpointsResult { revision: 1, generation: 0, part: 0, last: true, refused }))
    };
    add("endpoints-result", "All of revision 1 accepted: what is not named is.", result(Vec::new()));
    let refusal =
        RefusedEndpoint { id: EndpointId::new(2).expect("not 0"), reason: "the path is owned by `billing`".into() };
    add("endpoints-result-refused", "One endpoint of revision 1 refused.", result(vec![refusal]));
    for (name, status) in [
        ("healthy", HealthStatus::Healthy),
        ("degraded", HealthStatus::Degraded),
        ("unhealthy", HealthStatus::Unhealthy),
    ] {
        let frame = Frame::Heartbeat(Heartbeat { sequence: 7, status, in_flight: 3, load: 250 });
        add(&format!("heartbeat-{name}"), "HEARTBEAT.", frame);
    }
    add("heartbeat-ack", "HEARTBEAT_ACK.", Frame::HeartbeatAck(HeartbeatAck { sequence: 7 }));
    stream_samples(&mut add);
    for reason in Reason::ALL {
        let frame = Frame::Cancel(stream(4), Box::new(Cancel { reason: *reason, text: String::new() }));
        add(&format!("cancel-{reason}"), "CANCEL, one of the reasons, without text.", frame);
    }
    let cancel = Cancel { reason: Reason::Refused, text: "the lease is used up".into() };
    add("cancel-text", "CANCEL with text.", Frame::Cancel(stream(281_474_976_710_654), Box::new(cancel)));
    add("window-stream", "WINDOW of a stream.", Frame::Window(stream(2), Window { bytes: 32_768 }));
    add("window-link", "WINDOW of the link.", Frame::Window(StreamId::CONNECTION, Window { bytes: 2_097_152 }));
    add("lease", "LEASE.", Frame::Lease(LeaseUpdate { generation: 2, limit: 100 }));
    for (name, phase, last) in
        [("request", DrainPhase::Request, 0), ("ack", DrainPhase::Ack, 8), ("final", DrainPhase::Final, 6)]
    {
        add(&format!("drain-{name}"), "DRAIN, one of its phases.", Frame::Drain(Drain { phase, last: stream(last) }));
    }
    for code in CloseCode::ALL {
        let frame = Frame::Close(Box::new(Close { code: *code, last: stream(0), text: String::new() }));
        add(&format!("close-{code}"), "CLOSE, one of the codes, without text.", frame);
    }
    let close = Close { code: CloseCode::Shutdown, last: stream(41), text: "the node is going away".into() };
    add("close-text", "CLOSE with the last accepted id and text.", Frame::Close(Box::new(close)));
    add("ignorable", "A type of a later version, flagged IGNORABLE.", Frame::Ignorable { kind: 0x60, length: 4 });
    samples
}

/// REQUEST, RESPONSE and their data, with every legal combination of flags.
fn stream_samples(add: &mut impl FnMut(&str, &str, Frame)) {
    let none = HeaderMap::new();
    let simple = RequestHead::encode(&parts(&none, &[])).expect("a head");
    let tunnel_head = RequestHead::encode(&RequestParts { tunnel_protocol: Some("websocket"), ..parts(&none, &[]) });
    let tunnel_head = tunnel_head.expect("a head");
    let ok = ResponseHead::encode(200, &none).expect("a head");
    let first = Bytes::from_static(b"first");
    for (name, end, tunnel) in
        [("", false, false), ("-end", true, false), ("-tunnel", false, true), ("-tunnel-end", true, true)]
    {
        let head = if tunnel { tunnel_head.clone() } else { simple.clone() };
        let body = if end { Bytes::new() } else { first.clone() };
        let frame = Frame::Request(Request { stream: stream(2), head, body: body.clone(), end, tunnel });
        add(&format!("request{name}"), "REQUEST, one of its flag combinations.", frame);
        let frame = Frame::Response(Response { stream: stream(2), head: ok.clone(), body, end, tunnel });
        add(&format!("response{name}"), "RESPONSE, one of its flag combinations.", frame);
    }
    let fields = headers(&[
        ("accept", b"*/*"),
        ("content-length", b"5"),
        ("x-twice", b"1"),
        ("x-twice", b"2"),
        ("x-latin", b"caf\xe9"),
        ("x-empty", b""),
    ]);
    let claims = [
        Claim { kind: "scope".into(), value: "orders:write".into() },
        Claim { kind: "name".into(), value: "Zo\u{eb}".into() },
    ];
    let full = RequestParts {
        endpoint: EndpointId::new(2),
        deadline: Some(Duration::from_micros(1_500_200)),
        hops: 2,
        method: "POST",
        scheme: Scheme::Https,
        authority: "shop.example:8443",
        target: "/orders/42/files/a/b%20c?full=1",
        parameters: &[(8, 2), (17, 7)],
        client: Some("[2001:db8::1]:4711".parse().expect("an address")),
        ..parts(&fields, &claims)
    };
    let head = RequestHead::encode(&full).expect("a head");
    let request = Request { stream: stream(4), head, body: Bytes::from_static(b"hello"), end: true, tunnel: false };
    add("request-full", "A whole POST in one frame: its head has everything but a tunnel.", Frame::Request(request));
    let service_opened = RequestParts {
        endpoint: None,
        client: Some("192.0.2.7:50000".parse().expect("an address")),
        deadline: Some(Duration::from_secs(3)),
        ..parts(&none, &[])
    };
    let head = RequestHead::encode(&service_opened).expect("a head");
    let request = Request { stream: stream(3), head, body: Bytes::new(), end: true, tunnel: false };
    add("request-service-opened", "A request that a service opens: odd id, endpoint 0.", Frame::Request(request));
    let head = ResponseHead::encode(404, &headers(&[("content-type", b"application/problem+json")])).expect("a head");
    let response = Response { stream: stream(3), head, body: Bytes::from_static(b"{}"), end: true, tunnel: false };
    add("response-full", "A whole response in one frame.", Frame::Response(response));
    let trailers = Trailers::encode(&headers(&[("checksum", b"abc"), ("grpc-status", b"0")])).expect("trailers");
    for (name, payload) in [
        ("data", DataPayload::Bytes { bytes: Bytes::from_static(b"more"), end: false }),
        ("data-end", DataPayload::Bytes { bytes: Bytes::from_static(b"last"), end: true }),
        ("end", DataPayload::Bytes { bytes: Bytes::new(), end: true }),
        ("trailers", DataPayload::Trailers(trailers)),
    ] {
        let data = Data { stream: stream(2), payload };
        add(&format!("request-{name}"), "REQUEST_STREAM_DATA, one of its forms.", Frame::RequestData(data.clone()));
        add(&format!("response-{name}"), "RESPONSE_STREAM_DATA, one of its forms.", Frame::ResponseData(data));
    }
}

/// A frame from its parts, legal or not.
pub(crate) fn raw_frame(kind: u8, flags: u8, stream: u64, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { kind, flags, stream, length: payload.len() as u32 };
    [&header.encode()[..], payload].concat()
}

fn msgpack(value: serde_json::Value) -> Vec<u8> {
    rmp_serde::to_vec_named(&value).expect("MessagePack")
}

fn with_head(kind: u8, flags: u8, stream: u64, head: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (head.len() as u16).to_be_bytes();
    raw_frame(kind, flags, stream, &[&length[..], head, body].concat())
}

fn response_head(status: u16, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u16(status);
    put_fields(fields, &mut out);
    out.to_vec()
}

fn put_fields(fields: &[(&[u8], &[u8])], out: &mut BytesMut) {
    out.put_u16(fields.len() as u16);
    for (name, value) in fields {
        out.put_u16(name.len() as u16);
        out.put_slice(name);
        out.put_u16(value.len() as u16);
        out.put_slice(value);
    }
}

/// The simple request head with the bytes from `at` replaced, as many as there are in `with`.
fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    spliced(at..at + with.len(), with)
}

fn spliced(at: std::ops::Range<usize>, with: &[u8]) -> Vec<u8> {
    let mut head = RequestHead::encode(&parts(&HeaderMap::new(), &[])).expect("a head").as_bytes().to_vec();
    head.splice(at, with.iter().copied());
    with_head(kind::REQUEST, flags::END_STREAM, 2, &head, b"")
}

/// Accepted, though this implementation writes them otherwise.
pub(crate) fn tolerated() -> Vec<Raw> {
    let raw = |name, description, bytes| Raw { name, description, bytes };
    let even = [&response_head(200, &[])[..], &[0x10, 0x00, 0, 3, b'a', b'b', b'c']].concat();
    let odd = [&response_head(200, &[])[..], &[0x10, 0x01, 0, 0]].concat();
    vec![
        raw(
            "unknown-field",
            "A field of a later version in a control payload is skipped.",
            raw_frame(kind::WINDOW, 0, 2, &msgpack(serde_json::json!({"bytes": 7, "later": {"a": [1, null]}}))),
        ),
        raw(
            "absent-optional-fields",
            "A heartbeat that says only its sequence: healthy, nothing in flight, load not said.",
            raw_frame(kind::HEARTBEAT, 0, 0, &msgpack(serde_json::json!({"sequence": 1}))),
        ),
        raw(
            "later-health-status",
            "A health status of a later version is unknown, which serves nothing.",
            raw_frame(kind::HEARTBEAT, 0, 0, &msgpack(serde_json::json!({"sequence": 1, "status": "dreaming"}))),
        ),
        raw(
            "later-reason",
            "A CANCEL reason of a later version.",
            raw_frame(kind::CANCEL, 0, 2, &msgpack(serde_json::json!({"reason": 200}))),
        ),
        raw(
            "fields-in-another-order",
            "The order of fields in a map means nothing.",
            raw_frame(kind::LEASE, 0, 0, b"\x82\xa5limit\x05\xaageneration\x01"),
        ),
        raw(
            "numbers-in-wider-forms",
            "Numbers may be written in a wider form than they need.",
            raw_frame(kind::WINDOW, 0, 2, b"\xde\x00\x01\xd9\x05bytes\xcf\x00\x00\x00\x00\x00\x00\x00\x07"),
        ),
        raw(
            "even-extension",
            "An unknown even extension of a head is skipped.",
            with_head(kind::RESPONSE, flags::END_STREAM, 2, &even, b""),
        ),
        raw(
            "odd-extension",
            "An unknown odd extension is no decoding error: the stream is cancelled with protocol_error.",
            with_head(kind::RESPONSE, flags::END_STREAM, 2, &odd, b""),
        ),
        raw(
            "ignorable-with-everything",
            "An unknown type flagged IGNORABLE may have any flags, stream and payload.",
            raw_frame(0xee, 0xff, 77, b"whatever"),
        ),
        raw(
            "empty-data",
            "Data of no bytes and no end says nothing, and is legal.",
            raw_frame(kind::REQUEST_STREAM_DATA, 0, 2, b""),
        ),
        raw("empty-trailers", "Trailers without fields.", raw_frame(kind::RESPONSE_STREAM_DATA, 3, 2, &[0, 0])),
    ]
}

/// Refused, each by a rule of its own.
pub(crate) fn malformed() -> Vec<Raw> {
    let raw = |name, description, bytes| Raw { name, description, bytes };
    let response =
        |fields: &[(&[u8], &[u8])]| with_head(kind::RESPONSE, flags::END_STREAM, 2, &response_head(200, fields), b"");
    let header = |kind, stream, length: u32| FrameHeader { kind, flags: 0, stream, length }.encode().to_vec();
    let window = || msgpack(serde_json::json!({"bytes": 7}));
    let mut list = vec![
        raw("type-unknown", "A type that is not in the table.", raw_frame(0x60, 0, 0, b"")),
        raw("type-zero", "Type 0.", vec![0; 12]),
        raw("flag-unknown", "A flag that does not exist.", raw_frame(kind::HEARTBEAT_ACK, 0x08, 0, b"")),
        raw("flag-on-control", "END_STREAM on a control frame.", raw_frame(kind::WINDOW, 0x01, 2, &window())),
        raw("flag-ignorable-on-known", "IGNORABLE on a known type.", raw_frame(kind::WINDOW, 0x80, 2, &window())),
        raw(
            "flag-trailers-without-end",
            "TRAILERS without END_STREAM.",
            raw_frame(kind::REQUEST_STREAM_DATA, 0x02, 2, &[0, 0]),
        ),
        raw("flag-tunnel-on-data", "TUNNEL on data.", raw_frame(kind::REQUEST_STREAM_DATA, 0x04, 2, b"")),
        raw("flag-trailers-on-request", "TRAILERS on REQUEST.", raw_frame(kind::REQUEST, 0x03, 2, b"")),
        raw(
            "stream-on-hello",
            "A stream id on a frame of the link.",
            raw_frame(kind::HELLO, 0, 2, &msgpack(serde_json::json!({}))),
        ),
        raw("stream-zero-on-request", "REQUEST on stream 0.", raw_frame(kind::REQUEST, 1, 0, b"")),
        raw(
            "stream-zero-on-cancel",
            "CANCEL of the link itself.",
            raw_frame(kind::CANCEL, 0, 0, &msgpack(serde_json::json!({"reason": 1}))),
        ),
        raw(
            "length-over-limit",
            "A payload over the limit is refused from its header alone.",
            header(kind::REQUEST, 2, 65_537),
        ),
        raw("length-huge", "A length of 2^32 - 1.", header(kind::REQUEST_STREAM_DATA, 2, u32::MAX)),
        raw(
            "length-ignorable",
            "An ignorable frame over the limit.",
            FrameHeader { kind: 0x60, flags: 0x80, stream: 0, length: 65_537 }.encode().to_vec(),
        ),
        raw("length-hello", "HELLO is at most 16 KiB.", header(kind::HELLO, 0, 16_385)),
        raw("length-window", "Small control payloads are at most 2 KiB.", header(kind::WINDOW, 2, 2049)),
        raw("control-empty", "A control payload of no bytes.", raw_frame(kind::WINDOW, 0, 2, b"")),
        raw("control-array", "An array in the map's place.", raw_frame(kind::WINDOW, 0, 2, &[0x91, 7])),
        raw("control-cut", "A map cut short.", raw_frame(kind::WINDOW, 0, 2, b"\x81\xa5byt")),
        raw(
            "control-trailing",
            "Bytes behind the map.",
            raw_frame(kind::WINDOW, 0, 2, &[&window()[..], &[0]].concat()),
        ),
        raw("control-missing-field", "A required field is missing.", raw_frame(kind::WINDOW, 0, 2, &[0x80])),
        raw(
            "control-wrong-type",
            "Text in a number's place.",
            raw_frame(kind::WINDOW, 0, 2, &msgpack(serde_json::json!({"bytes": "7"}))),
        ),
        raw(
            "control-negative",
            "A negative number.",
            raw_frame(kind::WINDOW, 0, 2, &msgpack(serde_json::json!({"bytes": -1}))),
        ),
        raw(
            "control-too-wide",
            "A number that needs more bits than its field has.",
            raw_frame(kind::WINDOW, 0, 2, &msgpack(serde_json::json!({"bytes": 4_294_967_296_u64}))),
        ),
        raw(
            "control-field-twice",
            "A field that stands twice.",
            raw_frame(kind::WINDOW, 0, 2, b"\x82\xa5bytes\x01\xa5bytes\x02"),
        ),
        raw(
            "control-deep",
            "Nesting of more than 16 levels.",
            raw_frame(kind::WINDOW, 0, 2, &[&b"\x82\xa5bytes\x01\xa1x"[..], &[0x91; 40], &[0xc0]].concat()),
        ),
        raw(
            "drain-phase-unknown",
            "A drain phase that does not exist.",
            raw_frame(kind::DRAIN, 0, 0, &msgpack(serde_json::json!({"phase": "maybe", "last": 0}))),
        ),
        raw(
            "drain-id-too-wide",
            "A stream id of more than 48 bits.",
            raw_frame(kind::DRAIN, 0, 0, &msgpack(serde_json::json!({"phase": "ack", "last": 1_u64 << 48}))),
        ),
        raw(
            "endpoint-id-zero",
            "Endpoint id 0.",
            raw_frame(
                kind::ENDPOINTS_RESULT,
                0,
                0,
                &msgpack(
                    serde_json::json!({"revision": 1, "part": 0, "last": true, "refused": [{"id": 0, "reason": ""}]}),
                ),
            ),
        ),
        raw(
            "endpoint-bad-path",
            "A template that can never be matched.",
            raw_frame(
                kind::ENDPOINTS_UPDATE,
                0,
                0,
                &msgpack(
                    serde_json::json!({"revision": 1, "part": 0, "last": true, "endpoints": [{"id": 1, "method": "GET", "path": "/a//b"}]}),
                ),
            ),
        ),
        raw(
            "list-claims-billions",
            "A list that claims 2^32 - 1 items reserves nothing.",
            raw_frame(
                kind::ENDPOINTS_RESULT,
                0,
                0,
                b"\x84\xa8revision\x01\xa4part\x00\xa4last\xc3\xa7refused\xdd\xff\xff\xff\xff",
            ),
        ),
        raw(
            "proof-too-short",
            "A proof of 31 bytes.",
            raw_frame(kind::PROOF, 0, 0, &[&b"\x81\xa5proof\xc4\x1f"[..], &[0; 31]].concat()),
        ),
        raw("head-no-length", "REQUEST without even its head's length.", raw_frame(kind::REQUEST, 1, 2, &[0])),
        raw("head-length-beyond-frame", "A head longer than its frame.", raw_frame(kind::REQUEST, 1, 2, &[0, 9, 1, 2])),
        raw("head-cut", "A head that ends in its fixed part.", with_head(kind::REQUEST, 1, 2, &[0; 9], b"")),
        raw("head-scheme", "A scheme that is neither 0 nor 1.", patched(9, &[2])),
        raw("head-method-empty", "An empty method.", spliced(10..15, &[0, 0])),
        raw("head-method-characters", "A method with a space.", patched(12, b"G T")),
        raw("head-target-relative", "A target that begins with neither `/` nor `*`.", patched(33, b"h")),
        raw("head-target-space", "A target with a space.", patched(34, b" ")),
        raw("head-status-informational", "Status 101.", with_head(kind::RESPONSE, 1, 2, &response_head(101, &[]), b"")),
        raw("head-status-600", "Status 600.", with_head(kind::RESPONSE, 1, 2, &response_head(600, &[]), b"")),
        raw("field-name-upper-case", "An upper-case letter in a field name.", response(&[(b"Accept", b"*/*")])),
        raw("field-name-empty", "An empty field name.", response(&[(b"", b"x")])),
        raw("field-name-space", "A space in a field name.", response(&[(b"a b", b"x")])),
        raw("field-value-line-feed", "LF in a field value.", response(&[(b"a", b"x\ny: z")])),
        raw("field-value-carriage-return", "CR in a field value.", response(&[(b"a", b"x\r")])),
        raw("field-value-nul", "NUL in a field value.", response(&[(b"a", b"\0")])),
        raw(
            "content-length-twice",
            "Two content-length fields, even equal ones.",
            response(&[(b"content-length", b"1"), (b"content-length", b"1")]),
        ),
        raw("content-length-list", "A list of lengths.", response(&[(b"content-length", b"1, 1")])),
        raw("content-length-sign", "A length with a sign.", response(&[(b"content-length", b"+1")])),
        raw("content-length-empty", "An empty length.", response(&[(b"content-length", b"")])),
        raw(
            "content-length-too-wide",
            "A length of more than 64 bits.",
            response(&[(b"content-length", b"18446744073709551616")]),
        ),
        raw(
            "fields-too-many",
            "More than 4,096 fields are refused before they are read.",
            with_head(kind::RESPONSE, 1, 2, &[0, 200, 0x10, 0x01], b""),
        ),
        raw(
            "extension-cut",
            "An extension cut short.",
            with_head(kind::RESPONSE, 1, 2, &[&response_head(200, &[])[..], &[0x10, 0x00, 0, 9]].concat(), b""),
        ),
        raw("trailers-trailing", "Bytes behind trailers.", raw_frame(kind::RESPONSE_STREAM_DATA, 3, 2, &[0, 0, 0])),
        raw("trailers-too-large", "Trailers over 8 KiB.", raw_frame(kind::RESPONSE_STREAM_DATA, 3, 2, &vec![0; 8193])),
    ];
    for (name, field) in [
        ("hop-by-hop-connection", &b"connection"[..]),
        ("hop-by-hop-keep-alive", b"keep-alive"),
        ("hop-by-hop-proxy-connection", b"proxy-connection"),
        ("hop-by-hop-te", b"te"),
        ("hop-by-hop-transfer-encoding", b"transfer-encoding"),
        ("hop-by-hop-upgrade", b"upgrade"),
    ] {
        list.push(raw(name, "A field that belongs to one HTTP connection.", response(&[(field, b"x")])));
    }
    list
}
