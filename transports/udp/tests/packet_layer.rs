//! Two channels over a network that loses, doubles, delays and reorders, under virtual time: every frame arrives exactly
//! once, or the connection says that it does not.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use proptest::prelude::*;
use router_common::frame::{Data, DataPayload, Frame, HeartbeatAck, Request, StreamId};
use router_common::head::{RequestHead, RequestParts, Scheme};
use router_common::testing::Random;
use transport_udp::channel::{Arrival, Breach, Channel, Keys, Room};
use transport_udp::outgoing::{EXPIRES_AFTER, max_frame};
use transport_udp::packet::{self, Acked, Dropped, HEADER_BYTES, Header, MacKey};

const CONNECTION: u64 = 77;
const SERVICE: [u8; 32] = [1; 32];
const GATEWAY: [u8; 32] = [2; 32];

fn channels(datagram: usize) -> [Channel; 2] {
    let key = |bytes| MacKey::new(&bytes);
    let keys = Keys { own: key(SERVICE), peer: key(GATEWAY) };
    let other = Keys { own: key(GATEWAY), peer: key(SERVICE) };
    [keys, other].map(|keys| Channel::new(CONNECTION, keys, datagram, 65_536))
}

fn numbered(number: u64, body: usize) -> Frame {
    let bytes = Bytes::from([&number.to_be_bytes()[..], &vec![0; body]].concat());
    Frame::RequestData(Data { stream: StreamId::new(2).unwrap(), payload: DataPayload::Bytes { bytes, end: false } })
}

fn number_of(frame: &Frame) -> u64 {
    match frame {
        Frame::RequestData(Data { payload: DataPayload::Bytes { bytes, .. }, .. }) => {
            u64::from_be_bytes(*bytes.first_chunk().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn request(deadline: Option<Duration>) -> Frame {
    let head = RequestHead::encode(&RequestParts {
        endpoint: None,
        deadline,
        hops: 1,
        method: "GET",
        scheme: Scheme::Http,
        authority: "a",
        target: "/",
        parameters: &[],
        client: None,
        headers: &HeaderMap::new(),
        claims: &[],
        tunnel_protocol: None,
    });
    let stream = StreamId::new(2).unwrap();
    Frame::Request(Request { stream, head: head.unwrap(), body: Bytes::new(), end: true, tunnel: false })
}

fn sent(channel: &mut Channel, now: Instant) -> Vec<BytesMut> {
    std::iter::from_fn(|| channel.poll_transmit(now).map(BytesMut::from)).collect()
}

fn push(channel: &mut Channel, frames: impl IntoIterator<Item = Frame>, now: Instant) -> usize {
    let mut batch: VecDeque<_> = frames.into_iter().collect();
    channel.push(&mut batch, now).unwrap();
    batch.len()
}

/// How bad a network is, in percent.
#[derive(Debug, Clone, Copy)]
struct Weather {
    lost: usize,
    doubled: usize,
    late: usize,
}

/// Moves all frames through, both ways at once; says how long that took and how many datagrams it took.
fn exchange(seed: u64, weather: Weather, counts: [u64; 2], datagram: usize) -> (Duration, usize) {
    let mut random = Random::new(seed);
    let start = Instant::now();
    let mut now = start;
    let mut channels = channels(datagram);
    let mut waiting: [VecDeque<Frame>; 2] = counts.map(|count| {
        let most = max_frame(datagram) as usize - 8;
        (0..count).map(|number| numbered(number, random.below(most.min(400)))).collect()
    });
    let mut come: [Vec<u64>; 2] = Default::default();
    let mut network: BTreeMap<(Instant, u64), (usize, BytesMut)> = BTreeMap::new();
    let (mut order, mut datagrams) = (0, 0);
    loop {
        for (side, channel) in channels.iter_mut().enumerate() {
            channel.handle_timeout(now);
            assert!(!channel.has_given_up(), "seed {seed}");
            channel.push(&mut waiting[side], now).unwrap();
            for bytes in sent(channel, now) {
                assert!(bytes.len() <= datagram);
                datagrams += 1;
                let copies =
                    if random.chance(weather.lost) { 0 } else { 1 + usize::from(random.chance(weather.doubled)) };
                for _ in 0..copies {
                    let late = if random.chance(weather.late) { random.below(40_000) } else { 0 };
                    let at = now + Duration::from_micros(500 + late as u64);
                    order += 1;
                    network.insert((at, order), (1 - side, bytes.clone()));
                }
            }
        }
        let all = come.iter().zip([counts[1], counts[0]]).all(|(come, count)| come.len() as u64 >= count);
        if all && network.is_empty() && channels.iter().all(Channel::is_idle) {
            break;
        }
        let next = network.first_key_value().map(|((at, _), _)| *at);
        let wake = channels.iter().filter_map(Channel::wake_at).chain(next).min();
        now = wake.expect("something is still to happen").max(now);
        while let Some(entry) = network.first_entry()
            && entry.key().0 <= now
        {
            let (side, bytes) = entry.remove();
            let mut frames = Vec::new();
            match channels[side].receive(bytes, Room::Frames, &mut frames, now) {
                Ok(Arrival::Frames(_) | Arrival::Acknowledgement) | Err(Dropped::Replayed) => {}
                other => panic!("{other:?}, seed {seed}"),
            }
            come[side].extend(frames.iter().map(number_of));
        }
    }
    for (come, count) in come.iter_mut().zip([counts[1], counts[0]]) {
        come.sort_unstable();
        assert!(come.iter().copied().eq(0..count), "each once, seed {seed}: {come:?}");
    }
    (now - start, datagrams)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_frame_arrives_exactly_once_whatever_the_weather(
        seed: u64, lost in 0_usize..45, doubled in 0_usize..45, late in 0_usize..45,
        one in 0_u64..300, other in 0_u64..300, datagram in prop::sample::select(vec![1200_usize, 2000, 65_507]),
    ) {
        exchange(seed, Weather { lost, doubled, late }, [one, other], datagram);
    }

    #[test]
    fn any_authentic_packet_is_borne(
        number: u64, floor: u64, base: u64, map: u64, frames in prop::collection::vec(any::<u8>(), 0..200), near in any::<bool>(),
    ) {
        let now = Instant::now();
        let [mut service, _] = channels(1200);
        push(&mut service, (0..20).map(|number| numbered(number, 1100)), now);
        assert_eq!(sent(&mut service, now).len(), 20);
        let small = |number: u64| if near { number % 40 } else { number };
        let mut datagram = BytesMut::zeroed(HEADER_BYTES);
        datagram.extend_from_slice(&frames);
        let acked = Acked { base: small(base), map };
        let header = Header { connection: CONNECTION, number: small(number), floor: small(floor), acked };
        packet::seal(&mut datagram, &header, &MacKey::new(&GATEWAY));
        let _ = service.receive(datagram, Room::Frames, &mut Vec::new(), now);
        service.handle_timeout(now + Duration::from_secs(1));
        let _ = sent(&mut service, now + Duration::from_secs(1));
    }
}

#[test]
fn frames_that_are_ready_together_share_a_datagram() {
    let now = Instant::now();
    let [mut service, mut gateway] = channels(1200);
    assert_eq!(push(&mut service, (0..20).map(|number| numbered(number, 50)), now), 0);
    let datagrams = sent(&mut service, now);
    assert_eq!(datagrams.len(), 2);
    let mut frames = Vec::new();
    for datagram in datagrams {
        gateway.receive(datagram, Room::Frames, &mut frames, now).unwrap();
    }
    assert!(frames.iter().map(number_of).eq(0..20));
}

#[test]
fn in_fair_weather_nothing_is_sent_twice() {
    let (took, datagrams) = exchange(1, Weather { lost: 0, doubled: 0, late: 0 }, [1000, 0], 1200);
    assert!(took < Duration::from_millis(100), "{took:?}");
    let [mut service, _] = channels(1200);
    let packets = {
        let mut batch: VecDeque<_> = (0..64).map(|number| numbered(number, 1000)).collect();
        service.push(&mut batch, Instant::now()).unwrap();
        assert!(batch.is_empty(), "64 may be in flight");
        batch.push_back(numbered(64, 1000));
        service.push(&mut batch, Instant::now()).unwrap();
        assert_eq!(batch.len(), 1, "and no more");
        64
    };
    assert_eq!(sent(&mut service, Instant::now()).len(), packets);
    assert!(datagrams < 400, "{datagrams}");
}

#[test]
fn a_frame_that_fits_no_datagram_is_an_error_and_stays() {
    let [mut service, _] = channels(1200);
    let most = max_frame(1200) as usize - 8;
    let mut batch = VecDeque::from([numbered(1, most), numbered(2, most + 1)]);
    let error = service.push(&mut batch, Instant::now()).unwrap_err().to_string();
    assert!(error.contains(&format!("over the limit of {}", max_frame(1200))), "{error}");
    assert_eq!(number_of(&batch[0]), 2);
}

#[test]
fn a_lost_acknowledgement_is_said_again_and_the_frames_are_not_given_out_twice() {
    let now = Instant::now();
    let [mut service, mut gateway] = channels(1200);
    push(&mut service, [numbered(1, 0)], now);
    let first = sent(&mut service, now).remove(0);
    let mut frames = Vec::new();
    assert_eq!(gateway.receive(first, Room::Frames, &mut frames, now), Ok(Arrival::Frames(1)));
    assert!(gateway.poll_transmit(now).is_none(), "it waits for a packet that can carry it");
    let later = gateway.wake_at().unwrap();
    assert_eq!(sent(&mut gateway, later).len(), 1);
    let again = service.wake_at().unwrap();
    service.handle_timeout(again);
    let second = sent(&mut service, again).remove(0);
    assert_eq!(gateway.receive(second, Room::Frames, &mut frames, again), Err(Dropped::Replayed));
    assert_eq!(frames.len(), 1);
    let ack = sent(&mut gateway, again).remove(0);
    assert_eq!(service.receive(ack, Room::Frames, &mut frames, again), Ok(Arrival::Acknowledgement));
    assert!(service.is_idle() && service.wake_at().is_none());
}

#[test]
fn a_packet_that_finds_no_room_comes_again() {
    let now = Instant::now();
    let [mut service, mut gateway] = channels(1200);
    push(&mut service, [numbered(1, 0)], now);
    let first = sent(&mut service, now).remove(0);
    let mut frames = Vec::new();
    assert_eq!(gateway.receive(first, Room::None, &mut frames, now), Ok(Arrival::Put));
    let again = service.wake_at().unwrap();
    service.handle_timeout(again);
    let second = sent(&mut service, again).remove(0);
    assert_eq!(gateway.receive(second, Room::Frames, &mut frames, again), Ok(Arrival::Frames(1)));
}

#[test]
fn a_request_is_given_up_at_its_deadline_and_the_floor_passes_it() {
    let mut now = Instant::now();
    let [mut service, mut gateway] = channels(1200);
    push(&mut gateway, [request(Some(Duration::from_millis(200)))], now);
    assert_eq!(sent(&mut gateway, now).len(), 1);
    while !gateway.is_idle() {
        now = gateway.wake_at().unwrap();
        gateway.handle_timeout(now);
        let _ = sent(&mut gateway, now);
    }
    assert!(!gateway.has_given_up(), "nobody waits for it any more");
    push(&mut gateway, [Frame::HeartbeatAck(HeartbeatAck { sequence: 1 })], now);
    let mut frames = Vec::new();
    let second = sent(&mut gateway, now).remove(0);
    assert_eq!(service.receive(second, Room::Frames, &mut frames, now), Ok(Arrival::Frames(2)));
    assert!(service.has_all_up_to(2));
}

#[test]
fn what_the_peer_had_to_learn_is_not_given_up_in_silence() {
    for frame in [numbered(1, 0), request(None)] {
        let start = Instant::now();
        let mut now = start;
        let [mut service, _] = channels(1200);
        push(&mut service, [frame], now);
        let mut times = 0;
        while !service.is_idle() {
            times += sent(&mut service, now).len();
            now = service.wake_at().unwrap();
            service.handle_timeout(now);
        }
        assert!(service.has_given_up());
        assert_eq!(now - start, EXPIRES_AFTER);
        assert!((20..100).contains(&times), "{times}");
    }
}

#[test]
fn an_authentic_packet_with_bytes_that_are_no_frames_is_the_peers_fault() {
    let now = Instant::now();
    let packet = |number, frames: &[u8]| {
        let mut datagram = BytesMut::zeroed(HEADER_BYTES);
        datagram.extend_from_slice(frames);
        let header = Header { connection: CONNECTION, number, floor: 1, acked: Acked { base: 1, map: 0 } };
        packet::seal(&mut datagram, &header, &MacKey::new(&GATEWAY));
        datagram
    };
    let [mut service, _] = channels(1200);
    let unknown = service.receive(packet(1, &[0x7f; 12]), Room::Frames, &mut Vec::new(), now);
    assert!(matches!(unknown, Ok(Arrival::Broken(Breach::Frame(_)))), "{unknown:?}");
    let cut = service.receive(packet(2, &[0x11, 0, 0, 0]), Room::Frames, &mut Vec::new(), now);
    assert_eq!(cut, Ok(Arrival::Broken(Breach::Cut(4))));
    let never_sent = Header { connection: CONNECTION, number: 3, floor: 1, acked: Acked { base: 2, map: 0 } };
    let mut datagram = BytesMut::zeroed(HEADER_BYTES);
    packet::seal(&mut datagram, &never_sent, &MacKey::new(&GATEWAY));
    assert_eq!(service.receive(datagram, Room::Frames, &mut Vec::new(), now), Err(Dropped::Malformed));
}

#[test]
fn the_end_is_told() {
    let now = Instant::now();
    let [mut service, mut gateway] = channels(1200);
    let end = BytesMut::from(service.end());
    assert_eq!(gateway.receive(end, Room::Frames, &mut Vec::new(), now), Ok(Arrival::End));
}
