//! The golden vectors are what this implementation reads and writes, byte for byte.
//!
//! `golden/vectors.json` is part of the protocol's document, `docs/PROTOCOL.md`: a client in another language can test
//! itself with it. `STELLA_BLESS=1` writes it anew; without that, the tests compare, and a difference is a change of the
//! protocol.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method};
use router_common::codec::{FrameDecoder, PREFACE, flags, kind};
use router_common::endpoint::{EndpointDescriptor, EndpointId};
use router_common::frame::{CloseCode, Frame, Hello, Reason};
use router_common::head::{RequestHead, RequestParts, ResponseHead, Trailers};
use router_common::identity::Identity;
use router_common::session::lease::Lease;
use router_common::session::{
    Accepted, Common, Event, GatewaySide, Opening, Output, Secret, Secrets, ServiceSide, Session, StreamKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "support/describe.rs"]
mod describe;
#[path = "support/samples.rs"]
mod samples;
#[path = "support/vectors.rs"]
mod vectors;

use self::samples::{encoded, parts};
use self::vectors::{from_hex, to_hex};

const MAX_PAYLOAD: u32 = 65_536;

fn decode(bytes: &[u8]) -> Result<Option<Frame>, router_common::codec::DecodeError> {
    FrameDecoder::new(MAX_PAYLOAD).decode(&mut BytesMut::from(bytes))
}

fn list<'a>(golden: &'a Value, name: &str) -> &'a Vec<Value> {
    let list = golden[name].as_array().unwrap_or_else(|| panic!("no list `{name}`"));
    assert!(!list.is_empty(), "`{name}` is empty");
    list
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    from_hex(vector["hex"].as_str().expect("a vector has `hex`"))
}

#[test]
fn the_file_holds_what_this_implementation_makes() {
    let made = serde_json::to_string_pretty(&make()).expect("JSON") + "\n";
    if std::env::var_os("STELLA_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(vectors::file(), &made).expect("writing the golden vectors");
    }
    let stored = std::fs::read_to_string(vectors::file()).expect("the golden vectors");
    // Compared by vector, so that a failure names the one that differs.
    let (made, stored): (Value, Value) =
        (serde_json::from_str(&made).expect("JSON"), serde_json::from_str(&stored).expect("JSON"));
    for name in ["frames", "tolerated", "malformed", "proofs", "session"] {
        for (made, stored) in list(&made, name).iter().zip(list(&stored, name)) {
            assert_eq!(made, stored, "in `{name}`: run with STELLA_BLESS=1 if the protocol was meant to change");
        }
    }
    assert_eq!(made, stored);
}

#[test]
fn vectors_decode_to_what_they_describe_and_encode_to_their_bytes() {
    let golden = vectors::read();
    for vector in list(&golden, "frames") {
        let (name, bytes) = (&vector["name"], bytes_of(vector));
        let frame = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).expect("a whole frame");
        assert_eq!(describe::frame(&frame), vector["frame"], "{name}");
        assert_eq!(to_hex(&encoded(&frame)), to_hex(&bytes), "{name}");
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None), "{name} cut at {end}");
        }
    }
}

#[test]
fn tolerated_bytes_decode_to_what_they_describe() {
    let golden = vectors::read();
    for vector in list(&golden, "tolerated") {
        let frame = decode(&bytes_of(vector)).unwrap_or_else(|error| panic!("{}: {error}", vector["name"]));
        assert_eq!(describe::frame(&frame.expect("a whole frame")), vector["frame"], "{}", vector["name"]);
    }
}

#[test]
fn malformed_bytes_are_refused_by_the_rule_they_break() {
    let golden = vectors::read();
    for vector in list(&golden, "malformed") {
        let error = decode(&bytes_of(vector)).expect_err(vector["name"].as_str().expect("a name"));
        assert_eq!(describe::error(&error), vector["error"], "{}: {error}", vector["name"]);
    }
}

#[test]
fn every_combination_of_flags_is_legal_or_refused_as_the_table_says() {
    let golden = vectors::read();
    let table = golden["flags"].as_object().expect("the flag table");
    assert_eq!(table.len(), 17);
    for (number, legal) in table {
        let number = from_hex(number)[0];
        let legal: Vec<u64> = legal.as_array().expect("flags").iter().filter_map(Value::as_u64).collect();
        for flags in 0..=u8::MAX {
            // Whatever else is wrong with an empty payload, its flags are looked at first.
            let of_stream = if (kind::REQUEST..=kind::WINDOW).contains(&number) { 2 } else { 0 };
            let refused = decode(&samples::raw_frame(number, flags, of_stream, b""));
            let by_flags = matches!(&refused, Err(error) if describe::error(error) == "flags");
            assert_eq!(by_flags, !legal.contains(&u64::from(flags)), "type {number:#x}, flags {flags:#x}");
        }
    }
}

#[test]
fn proofs_follow_the_formula_of_the_document() {
    let golden = vectors::read();
    for vector in list(&golden, "proofs") {
        let field = |name: &str| from_hex(vector[name].as_str().expect("hex"));
        let salt = [field("service_nonce"), field("gateway_nonce")].concat();
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(&salt), &field("secret"))
            .expand(b"stella/1 handshake proof", &mut key)
            .expect("32 bytes");
        assert_eq!(to_hex(&key), vector["key"]);
        let prove = |label: &[u8], frames: &[&str]| {
            let mut transcript = Sha256::new();
            frames.iter().for_each(|frame| transcript.update(field(frame)));
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
            mac.update(label);
            mac.update(&transcript.finalize());
            mac.update(&field("channel_binding"));
            to_hex(&mac.finalize().into_bytes())
        };
        let name = &vector["name"];
        assert_eq!(prove(b"stella/1 service", &["hello", "challenge"]), vector["service_proof"], "{name}");
        assert_eq!(prove(b"stella/1 gateway", &["hello", "challenge", "proof"]), vector["gateway_proof"], "{name}");
    }
}

#[test]
fn the_worked_example_of_the_document_is_the_golden_session() {
    let document = document();
    let (_, example) = document.split_once("## Appendix A").expect("the worked example");
    let digits: String = example.chars().filter(|c| !c.is_whitespace()).collect();
    let golden = vectors::read();
    let mut from = 0;
    for step in list(&golden, "session") {
        let hex = step["hex"].as_str().expect("hex");
        let at = digits[from..].find(hex);
        from += at.unwrap_or_else(|| panic!("{} is not shown, or not in its place: {hex}", step["note"])) + hex.len();
    }
}

#[test]
fn the_document_lists_every_reason_and_code_by_its_number() {
    let document = document();
    let reasons = Reason::ALL.iter().map(|reason| (u8::from(*reason), reason.as_str()));
    for (number, name) in reasons.chain(CloseCode::ALL.iter().map(|code| (u8::from(*code), code.as_str()))) {
        assert!(document.contains(&format!("\n| {number} | {name} |")), "{number} {name}");
    }
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    std::fs::read_to_string(path).expect("docs/PROTOCOL.md")
}

/// The whole file, made by this implementation.
fn make() -> Value {
    let frames: Vec<Value> = samples::samples()
        .iter()
        .map(|sample| {
            json!({
                "name": sample.name,
                "description": sample.description,
                "hex": to_hex(&encoded(&sample.frame)),
                "frame": describe::frame(&sample.frame),
            })
        })
        .collect();
    let tolerated: Vec<Value> = samples::tolerated()
        .iter()
        .map(|raw| {
            let frame = decode(&raw.bytes).unwrap_or_else(|error| panic!("{}: {error}", raw.name)).expect("whole");
            let (description, hex) = (raw.description, to_hex(&raw.bytes));
            json!({ "name": raw.name, "description": description, "hex": hex, "frame": describe::frame(&frame) })
        })
        .collect();
    let malformed: Vec<Value> = samples::malformed()
        .iter()
        .map(|raw| {
            let error = decode(&raw.bytes).expect_err(raw.name);
            let (description, hex) = (raw.description, to_hex(&raw.bytes));
            json!({ "name": raw.name, "description": description, "hex": hex, "error": describe::error(&error) })
        })
        .collect();
    json!({
        "about": "Golden byte vectors of the Stella Router protocol, version 1; docs/PROTOCOL.md tells how to use them.",
        "preface": to_hex(&PREFACE),
        "max_payload": MAX_PAYLOAD,
        "flags": flag_table(),
        "frames": frames,
        "tolerated": tolerated,
        "malformed": malformed,
        "proofs": proofs(),
        "session": session(),
    })
}

/// The legal values of the flags byte, by the frame type's number in hexadecimal.
fn flag_table() -> BTreeMap<String, Vec<u8>> {
    let head = vec![0, flags::END_STREAM, flags::TUNNEL, flags::END_STREAM | flags::TUNNEL];
    let data = vec![0, flags::END_STREAM, flags::END_STREAM | flags::TRAILERS];
    let legal = |number| match number {
        kind::REQUEST | kind::RESPONSE => head.clone(),
        kind::REQUEST_STREAM_DATA | kind::RESPONSE_STREAM_DATA => data.clone(),
        _ => vec![0],
    };
    let numbers = (kind::HELLO..=kind::HEARTBEAT_ACK).chain(kind::REQUEST..=kind::CLOSE);
    numbers.map(|number| (format!("{number:02x}"), legal(number))).collect()
}

/// Two sessions, stepped by hand, and every frame that passes between them.
struct Pair {
    service: Session,
    gateway: Session,
    lease: std::sync::Arc<Lease>,
    now: Instant,
    /// `(from, frame)`.
    passed: Vec<(&'static str, Frame)>,
    requests: Vec<StreamKey>,
}

impl Pair {
    fn new(hello: Hello, secrets: Option<(Secret, Secrets)>, channel_binding: &[u8]) -> Self {
        let now = Instant::now();
        let channel_binding = Bytes::copy_from_slice(channel_binding);
        let common = || Common { channel_binding: channel_binding.clone(), ..Common::default() };
        let (secret, secrets) = secrets.map_or((None, Secrets::none()), |(secret, all)| (Some(secret), all));
        let lease = Lease::new(hello.lease);
        let service = ServiceSide { common: common(), hello, secret, lease: lease.clone() };
        let gateway = GatewaySide {
            common: common(),
            node: "gw-1".parse().expect("a name"),
            secrets,
            nonce: [0xb2; 32],
            identity: Identity::Anonymous,
        };
        Self {
            service: Session::service(service, now),
            gateway: Session::gateway(gateway, now),
            lease: Lease::new(0),
            now,
            passed: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Passes frames, one side after the other, until both are idle.
    fn run(&mut self) {
        loop {
            let before = self.passed.len();
            while let Some(frame) = self.next(false) {
                self.gateway.handle_frame(frame, self.now).expect("the service is honest");
            }
            while let Some(frame) = self.next(true) {
                self.service.handle_frame(frame, self.now).expect("the gateway is honest");
            }
            if self.passed.len() == before {
                return;
            }
        }
    }

    fn next(&mut self, from_gateway: bool) -> Option<Frame> {
        let (from, session) =
            if from_gateway { ("gateway", &mut self.gateway) } else { ("service", &mut self.service) };
        loop {
            match session.poll() {
                Output::Transmit(frame) => {
                    self.passed.push((from, frame.clone()));
                    return Some(frame);
                }
                Output::Event(Event::Joining(_)) => {
                    session.welcome(Accepted { lease: self.lease.clone(), revision: 0, links: 1 }, self.now);
                }
                Output::Event(Event::Request(key, _)) => self.requests.push(key),
                Output::Event(_) => {}
                Output::Idle { .. } | Output::Closed(_) => return None,
            }
        }
    }

    fn frames_of(&self, name: &str) -> Vec<u8> {
        let frame = self.passed.iter().find(|(_, frame)| frame.name() == name);
        encoded(&frame.unwrap_or_else(|| panic!("no {name}")).1)
    }
}

/// Handshakes under a shared secret, with all that goes into their proofs.
fn proofs() -> Vec<Value> {
    let key_id = || "team-a".parse().expect("a key id");
    let secret = |byte| Secret::new([byte; 32]).expect("32 bytes");
    let rotation = || Secrets::from_iter([(key_id(), secret(0x4e)), (key_id(), secret(0x5e))]);
    let cases = [
        ("sole-secret", "One secret without a key id, no TLS.", None, 0x5e, Secrets::sole(secret(0x5e)), vec![]),
        ("key-id", "A key id with two secrets, of which the older proves.", Some(key_id()), 0x5e, rotation(), vec![]),
        ("tls", "With the 32 bytes of the TLS exporter.", None, 0x5e, Secrets::sole(secret(0x5e)), vec![0x7e; 32]),
    ];
    let cases = cases.into_iter().map(|(name, description, key_id, byte, secrets, binding)| {
        let hello = Hello { key_id, ..samples::hello() };
        let mut pair = Pair::new(hello, Some((secret(byte), secrets)), &binding);
        pair.run();
        let proof = pair.frames_of("PROOF");
        let welcome = pair.frames_of("WELCOME");
        let decoded = |bytes: &[u8]| describe::frame(&decode(bytes).expect("our own bytes").expect("whole"));
        json!({
            "name": name,
            "description": description,
            "secret": to_hex(&[byte; 32]),
            "service_nonce": to_hex(&samples::hello().nonce),
            "gateway_nonce": to_hex(&[0xb2; 32]),
            "channel_binding": to_hex(&binding),
            "hello": to_hex(&pair.frames_of("HELLO")),
            "challenge": to_hex(&pair.frames_of("CHALLENGE")),
            "proof": to_hex(&proof),
            "welcome": to_hex(&welcome),
            "key": to_hex(&derived_key(&[byte; 32])),
            "service_proof": decoded(&proof)["payload"]["proof"],
            "gateway_proof": decoded(&welcome)["payload"]["proof"]["proof"],
        })
    });
    cases.collect()
}

fn derived_key(secret: &[u8]) -> [u8; 32] {
    let salt = [samples::hello().nonce, [0xb2; 32]].concat();
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(&salt), secret).expand(b"stella/1 handshake proof", &mut key).expect("32 bytes");
    key
}

/// A small session from HELLO to CLOSE.
fn session() -> Vec<Value> {
    let secret = || Secret::new([0x5e; 32]).expect("32 bytes");
    let mut pair = Pair::new(samples::hello(), Some((secret(), Secrets::sole(secret()))), b"");
    pair.run();
    let endpoint = |id, method, path: &str| {
        EndpointDescriptor::new(EndpointId::new(id).expect("not 0"), method, path.parse().expect("a path"))
    };
    let set = vec![endpoint(1, Method::GET, "/hello"), endpoint(2, Method::POST, "/echo/{name}")];
    pair.service.register(1, set).expect("two endpoints");
    pair.run();
    pair.gateway.endpoints_result(1, Vec::new());
    pair.run();
    let plain = describe::headers(&[("content-type", b"text/plain"), ("content-length", b"13")]);

    // GET /hello: one frame each way.
    let none = HeaderMap::new();
    let deadline = Some(std::time::Duration::from_secs(30));
    let call =
        RequestParts { deadline, client: Some("192.0.2.7:50000".parse().expect("an address")), ..parts(&none, &[]) };
    let hello = open(&mut pair, &call, b"", true);
    pair.run();
    let served = pair.requests.remove(0);
    let head = ResponseHead::encode(200, &plain).expect("a head");
    pair.service.respond(served, head, Bytes::from_static(b"Hello, World!"), true, false).expect("still open");
    pair.service.release(served);
    pair.run();
    pair.gateway.release(hello);

    // POST /echo/ann: bodies in pieces both ways, and trailers.
    let echo = RequestParts {
        endpoint: EndpointId::new(2),
        method: "POST",
        target: "/echo/ann",
        parameters: &[(6, 3)],
        ..parts(&none, &[])
    };
    let caller = open(&mut pair, &echo, b"one", false);
    pair.run();
    let served = pair.requests.remove(0);
    let head = ResponseHead::encode(200, &none).expect("a head");
    pair.service.respond(served, head, Bytes::from_static(b"one"), false, false).expect("still open");
    pair.gateway.send_data(caller, Bytes::from_static(b"two")).expect("still open");
    pair.gateway.finish(caller, None).expect("still open");
    pair.run();
    let trailers = Trailers::encode(&describe::headers(&[("checksum", b"6")])).expect("trailers");
    pair.service.send_data(served, Bytes::from_static(b"two")).expect("still open");
    pair.service.finish(served, Some(trailers)).expect("still open");
    pair.service.release(served);
    pair.run();
    pair.gateway.release(caller);

    // A client that leaves: CANCEL, and the responder's own terminal.
    let cancelled = open(&mut pair, &call, b"", true);
    pair.run();
    let served = pair.requests.remove(0);
    pair.gateway.cancel(cancelled, Reason::ClientDisconnected, "");
    pair.gateway.release(cancelled);
    pair.run();
    pair.service.release(served);
    pair.run();

    // The service leaves: drain, then close.
    pair.service.drain(pair.now);
    pair.run();
    pair.service.close(CloseCode::Normal, String::new());
    pair.run();

    let step = |(from, frame): &(&str, Frame)| json!({ "from": from, "note": frame.name(), "hex": to_hex(&encoded(frame)), "frame": describe::frame(frame) });
    pair.passed.iter().map(step).collect()
}

fn open(pair: &mut Pair, parts: &RequestParts<'_>, body: &'static [u8], end: bool) -> StreamKey {
    let head = RequestHead::encode(parts).expect("a head");
    let permit = pair.lease.try_acquire();
    assert!(permit.is_some(), "the lease has room");
    let opening = Opening { head, body: Bytes::from_static(body), end, tunnel: false, permit };
    pair.gateway.open(opening).expect("the link is up")
}
