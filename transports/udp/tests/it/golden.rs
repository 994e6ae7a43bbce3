//! The golden vectors are what this implementation reads and writes, byte for byte.
//!
//! `golden/vectors.json` is part of the protocol's document, `docs/PROTOCOL.md`. `STELLA_BLESS=1` writes it anew; without
//! that, the test compares, and a difference is a change of the protocol.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::frame::{Close, CloseCode, Frame, HeartbeatAck, Proof, StreamId};
use router_common::wire::Wire;
use serde_json::{Value, json};
use transport_udp::channel::{Arrival, Channel, Keys, Room};
use transport_udp::cookie::connection_of;
use transport_udp::handshake::{self, Handshake};
use transport_udp::packet::MacKey;

use crate::support::{hello, secret, welcome};

const COOKIE: [u8; 32] = [0xc0; 32];
const NONCE: u8 = 0xa1;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(value: &Value) -> BytesMut {
    let text = value.as_str().expect("hexadecimal");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn keys() -> (MacKey, MacKey) {
    let keys = secret().carrier_keys([NONCE; 32], COOKIE);
    (MacKey::new(&keys.service), MacKey::new(&keys.gateway))
}

fn channels() -> (Channel, Channel) {
    let (service, gateway) = keys();
    let connection = connection_of(&COOKIE);
    let of_service = Keys { own: service.clone(), peer: gateway.clone() };
    let of_gateway = Keys { own: gateway, peer: service };
    (Channel::new(connection, of_service, 1200, 65_536), Channel::new(connection, of_gateway, 1200, 65_536))
}

fn close() -> Frame {
    let close =
        Close { code: CloseCode::Unauthenticated, last: StreamId::CONNECTION, text: "not this secret".to_owned() };
    Frame::Close(Box::new(close))
}

fn ack(sequence: u64) -> Frame {
    Frame::HeartbeatAck(HeartbeatAck { sequence })
}

fn send(channel: &mut Channel, frames: impl IntoIterator<Item = Frame>, now: Instant) -> BytesMut {
    channel.push(&mut VecDeque::from_iter(frames), now).unwrap();
    BytesMut::from(channel.poll_transmit(now).expect("a packet"))
}

fn make() -> Value {
    let (hello, now) = (hello(NONCE), Instant::now());
    let hash = handshake::hash(&hello);
    let proof = Frame::Proof(Box::new(Wire::new(Proof { proof: [9; 32] })));
    let carrier_keys = secret().carrier_keys([NONCE; 32], COOKIE);
    let (mut service, mut gateway) = channels();
    let first = send(&mut gateway, [welcome(), ack(1)], now);
    service.receive(first.clone(), Room::Frames, &mut Vec::new(), now).unwrap();
    let later = now + Duration::from_millis(5);
    let acknowledgement = BytesMut::from(service.poll_transmit(later).expect("an acknowledgement"));
    let second = send(&mut service, [ack(2)], later);
    // The second packet is lost, and the third one arrives.
    let third = send(&mut service, [ack(3)], later);
    gateway.receive(acknowledgement.clone(), Room::Frames, &mut Vec::new(), later).unwrap();
    gateway.receive(third.clone(), Room::Frames, &mut Vec::new(), later).unwrap();
    let with_gap = BytesMut::from(gateway.poll_transmit(later).expect("an acknowledgement"));
    let end = BytesMut::from(gateway.end());
    json!({
        "secret": hex(&[0x5e; 32]),
        "hello_frame_sha256": hex(&hash),
        "cookie": hex(&COOKIE),
        "connection": hex(&connection_of(&COOKIE).to_be_bytes()),
        "keys": { "service": hex(&carrier_keys.service), "gateway": hex(&carrier_keys.gateway) },
        "handshake": {
            "hello": hex(&handshake::hello(&hello)),
            "challenge": hex(&handshake::challenge(&hash, COOKIE, true)),
            "challenge_without_secret": hex(&handshake::challenge(&hash, COOKIE, false)),
            "proof": hex(&handshake::proof(&COOKIE, &hello, Some(&proof), &keys().0)),
            "proof_without_secret": hex(&handshake::proof(&COOKIE, &hello, None, &MacKey::new(&[0; 32]))),
            "refused": hex(&handshake::refused(&hash, &close())),
        },
        "packets": {
            "gateway_1": hex(&first),
            "service_acknowledges_1": hex(&acknowledgement),
            "service_1": hex(&second),
            "service_2": hex(&third),
            "gateway_acknowledges_2_without_1": hex(&with_gap),
            "gateway_ends": hex(&end),
        },
    })
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/vectors.json")
}

fn stored() -> Value {
    serde_json::from_str(&std::fs::read_to_string(file()).expect("the golden vectors")).expect("JSON")
}

#[test]
fn the_file_holds_what_this_implementation_makes() {
    let made = make();
    if std::env::var_os("STELLA_BLESS").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
        std::fs::write(file(), text).expect("writing the golden vectors");
    }
    let stored = stored();
    for (group, vectors) in made.as_object().expect("a map") {
        assert_eq!(&stored[group], vectors, "{group}");
    }
}

#[test]
fn the_handshake_of_the_file_is_read() {
    let stored = stored();
    let handshake = &stored["handshake"];
    let hash = &bytes(&stored["hello_frame_sha256"])[..];
    let Ok(Handshake::Hello { hash: of }) = handshake::parse(bytes(&handshake["hello"])) else { panic!() };
    assert_eq!(of, hash);
    for (name, rules) in [("challenge", true), ("challenge_without_secret", false)] {
        let Ok(Handshake::Challenge { hash: of, secret, frame }) = handshake::parse(bytes(&handshake[name])) else {
            panic!("{name}")
        };
        assert_eq!((&of[..], secret, frame.value().nonce), (hash, rules, COOKIE));
    }
    for (name, key) in [("proof", keys().0), ("proof_without_secret", MacKey::new(&[0; 32]))] {
        let Ok(Handshake::Proof(presented)) = handshake::parse(bytes(&handshake[name])) else { panic!("{name}") };
        assert!(presented.verifies(&key) && presented.cookie == COOKIE && presented.hash == hash);
        assert_eq!(presented.open().unwrap().proof.is_some(), name == "proof");
    }
    let Ok(Handshake::Refused { hash: of, frame }) = handshake::parse(bytes(&handshake["refused"])) else { panic!() };
    assert_eq!((&of[..], Frame::Close(frame)), (hash, close()));
}

#[test]
fn the_packets_of_the_file_are_read() {
    let stored = stored();
    let packets = &stored["packets"];
    let now = Instant::now();
    let (mut service, mut gateway) = channels();
    let mut frames = Vec::new();
    let mut read = |channel: &mut Channel, name: &str| {
        channel
            .receive(bytes(&packets[name]), Room::Frames, &mut frames, now)
            .unwrap_or_else(|why| panic!("{name}: {why}"))
    };
    send(&mut gateway, [welcome(), ack(1)], now);
    assert_eq!(read(&mut service, "gateway_1"), Arrival::Frames(1));
    assert_eq!(read(&mut gateway, "service_acknowledges_1"), Arrival::Acknowledgement);
    assert!(gateway.is_idle());
    assert_eq!(read(&mut gateway, "service_2"), Arrival::Frames(2));
    assert!(!gateway.has_all_up_to(2));
    send(&mut service, [ack(2)], now);
    send(&mut service, [ack(3)], now);
    assert_eq!(read(&mut service, "gateway_acknowledges_2_without_1"), Arrival::Acknowledgement);
    assert!(!service.is_idle());
    assert_eq!(read(&mut gateway, "service_1"), Arrival::Frames(1));
    assert_eq!(read(&mut service, "gateway_ends"), Arrival::End);
    assert_eq!(frames, [welcome(), ack(1), ack(3), ack(2)]);
}
