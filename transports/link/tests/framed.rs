//! What only byte streams can get wrong: prefaces, cut frames, slow frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use router_common::codec::{PREFACE, encode};
use router_common::frame::{CloseCode, Data, DataPayload, Frame, HeartbeatAck, StreamId};
use router_common::identity::Identity;
use router_common::limits::FRAME_PAYLOAD_BYTES;
use router_common::session::{ClosedBy, Common, GatewaySide, Secrets, Session};
use router_link::{
    Application, BoxLink, ConnectionEvent, Driver, Environment, FramedLink, Handle, LinkError, PeerInfo, Responder,
    SystemEnvironment,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn link(io: DuplexStream) -> BoxLink {
    Box::new(FramedLink::new(io, PeerInfo::new("duplex", "peer"), FRAME_PAYLOAD_BYTES))
}

async fn recv(link: &mut BoxLink) -> Result<Vec<Frame>, LinkError> {
    let mut frames = Vec::new();
    poll_fn(|cx| link.poll_recv(cx, &mut frames)).await.map(|()| frames)
}

/// What a link says of these bytes, and then of the end.
async fn outcome(bytes: &[u8]) -> LinkError {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let mut link = link(ours);
    theirs.write_all(bytes).await.unwrap();
    drop(theirs);
    loop {
        if let Err(error) = recv(&mut link).await {
            return error;
        }
    }
}

fn ack(sequence: u64) -> Frame {
    Frame::HeartbeatAck(HeartbeatAck { sequence })
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    let body = encode(frame, &mut bytes);
    bytes.extend_from_slice(&body);
    bytes.to_vec()
}

/// Adds a frame, or to the one before it if that is a part of a large one.
fn join(got: &mut Vec<Frame>, frame: Frame) {
    if let Some(Frame::RequestData(Data { payload: DataPayload::Bytes { bytes, end: end @ false }, .. })) =
        got.last_mut()
        && let Frame::RequestData(Data { payload: DataPayload::Bytes { bytes: more, end: last }, .. }) = &frame
    {
        *bytes = [&bytes[..], more].concat().into();
        *end = *last;
    } else {
        got.push(frame);
    }
}

struct Silent;

impl Application for Silent {
    fn event(&mut self, _: ConnectionEvent, _: &Handle) {}

    fn request(&mut self, _: http::Request<router_link::Body>, _: Responder) {}
}

fn gateway(io: DuplexStream) -> Driver {
    let side = GatewaySide {
        common: Common::default(),
        node: "gateway".parse().unwrap(),
        secrets: Secrets::none(),
        nonce: [7; 32],
        identity: Identity::Anonymous,
    };
    let session = Session::gateway(side, SystemEnvironment.now());
    Driver::new(link(io), session, Silent, Arc::new(SystemEnvironment)).0
}

#[tokio::test]
async fn strangers_are_named_by_how_they_begin() {
    for (bytes, seen) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], r"`GET / HTTP/1.1\r\nhost: x\r\n\r\n` (an HTTP request)"),
        (b"\x16\x03\x01\x02\x00", r"`\x16\x03\x01\x02\x00` (a TLS handshake)"),
        (b"STELLA/2........", "`STELLA/2........` (another version of the protocol)"),
        (b"\x00", r"`\x00`"),
    ] {
        let error = outcome(bytes).await.to_string();
        assert_eq!(error, format!("the peer does not speak STELLA/1: it began with {seen}"));
    }
}

#[tokio::test]
async fn a_gateway_says_nothing_to_a_stranger_and_closes() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let closed = gateway(ours).await;
    assert_eq!(closed.by, ClosedBy::Link);
    assert!(closed.text.contains("an HTTP request"), "{}", closed.text);
    let mut said = Vec::new();
    theirs.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"");
}

#[tokio::test]
async fn an_end_between_frames_is_clean_and_one_within_is_not() {
    let whole = [PREFACE.to_vec(), encoded(&ack(1))].concat();
    assert!(matches!(outcome(b"").await, LinkError::Closed));
    assert!(matches!(outcome(&whole).await, LinkError::Closed));
    assert!(matches!(outcome(&whole[..5]).await, LinkError::Truncated { what: "the preface", received: 5 }));
    let cut = [&whole[..], &encoded(&ack(2))[..7]].concat();
    assert!(matches!(outcome(&cut).await, LinkError::Truncated { what: "a frame", received: 7 }));
    let payload = DataPayload::Bytes { bytes: Bytes::from(vec![9; 60_000]), end: true };
    let data = encoded(&Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload }));
    let cut = [&whole[..], &data[..50_000]].concat();
    assert!(matches!(outcome(&cut).await, LinkError::Truncated { what: "a frame", received: 50_000 }));
}

#[tokio::test]
async fn a_large_data_frame_is_given_out_as_it_comes_and_still_has_to_end_in_time() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let mut link = link(ours);
    let payload = DataPayload::Bytes { bytes: Bytes::from(vec![9; 60_000]), end: true };
    let whole = [PREFACE.to_vec(), encoded(&Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload }))];
    let whole = whole.concat();
    let (first, second) = whole.split_at(30_000);
    theirs.write_all(first).await.unwrap();
    let mut got = recv(&mut link).await.unwrap();
    let ends = |frame: &Frame| match frame {
        Frame::RequestData(Data { payload: DataPayload::Bytes { end, .. }, .. }) => *end,
        other => panic!("{other:?}"),
    };
    assert!(!got.iter().any(ends));
    let began = link.receiving_since().expect("a frame has begun");
    let mut link = link.detach().attach().unwrap();
    theirs.write_all(second).await.unwrap();
    assert_eq!(link.receiving_since(), Some(began));
    while !got.last().is_some_and(ends) {
        got.extend(recv(&mut link).await.unwrap());
    }
    assert!(link.receiving_since().is_none());
}

#[tokio::test]
async fn frames_arrive_whole_however_their_bytes_are_cut() {
    let payload = DataPayload::Bytes { bytes: Bytes::from(vec![9; 60_000]), end: true };
    let large = Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload });
    for (piece, times) in [(1, 1), (7, 2), (4_096, 20), (100_000, 20), (3_000_000, 20)] {
        let sent: Vec<_> = (0..times).flat_map(|i| [ack(i), large.clone(), ack(i + 100)]).collect();
        let (ours, theirs) = tokio::io::duplex(piece);
        let (mut sender, mut receiver) = (link(ours), link(theirs));
        let mut batch = VecDeque::from(sent.clone());
        let sending = tokio::spawn(async move {
            poll_fn(|cx| sender.poll_send(cx, &mut batch)).await.unwrap();
            poll_fn(|cx| sender.poll_close(cx)).await;
        });
        let mut got = Vec::new();
        while got.len() < sent.len() || !got.last().is_some_and(|last| Some(last) == sent.last()) {
            for frame in recv(&mut receiver).await.unwrap() {
                join(&mut got, frame);
            }
        }
        assert!(got == sent, "in pieces of {piece}");
        assert!(matches!(recv(&mut receiver).await, Err(LinkError::Closed)));
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_read_before_a_link_moved_is_not_lost() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let bytes = [PREFACE.to_vec(), encoded(&ack(1)), encoded(&ack(2))].concat();
    let (first, second) = bytes.split_at(bytes.len() - 5);
    theirs.write_all(first).await.unwrap();
    let mut link = link(ours);
    assert_eq!(recv(&mut link).await.unwrap(), [ack(1)]);
    assert!(link.receiving_since().is_some(), "a frame has begun");
    let mut link = link.detach().attach().unwrap();
    theirs.write_all(second).await.unwrap();
    assert_eq!(recv(&mut link).await.unwrap(), [ack(2)]);
    assert!(link.receiving_since().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_end_in_time_closes_the_link() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    // A HELLO may take long to be answered, but not to arrive.
    let mut hello = PREFACE.to_vec();
    hello.extend([0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
    theirs.write_all(&hello).await.unwrap();
    let began = tokio::time::Instant::now();
    let closed = gateway(ours).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::FrameTimeout));
    assert!((10..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed_when_the_handshake_is_due() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let closed = gateway(ours).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, CloseCode::HandshakeTimeout));
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_cannot_hold_a_closed_link() {
    let (ours, mut theirs) = tokio::io::duplex(1);
    theirs.write_all(b"S").await.unwrap();
    // The CLOSE does not fit, and nobody takes it: the link is cut a second after it was due.
    let began = tokio::time::Instant::now();
    let closed = gateway(ours).await;
    assert_eq!(closed.by, ClosedBy::Local);
    assert!((10..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
