//! What strangers and eavesdroppers can do to a listener: nothing but have their datagrams counted.

use std::time::Duration;

use router_common::testing::Random;
use router_link::Discarded as _;
use tokio::net::UdpSocket;
use transport_udp::UdpListener;
use transport_udp::handshake::{self, Handshake};
use transport_udp::packet::{self, DATAGRAM_BYTES_MAX, Dropped, END, MacKey};
use transport_udp::testing::{Forwarder, Way, Weather};

use crate::support::{Driven, accept, hello, joined, listener, number_of, numbered, proof, secret, secrets};

/// Waits until so many were counted.
async fn counted(listener: &UdpListener, reason: Dropped, at_least: u64) {
    let counters = listener.counters();
    let counting = async {
        while counters.dropped(reason) < at_least {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), counting).await;
    assert!(waited.is_ok(), "{reason}: {} of {at_least}", counters.dropped(reason));
}

/// A network without weather, and a link that goes through it.
async fn through_network(listener: &mut UdpListener) -> (Forwarder, Driven, Driven) {
    let network = Forwarder::start(listener.local_addr(), Weather::default(), 1).await.unwrap();
    let (service, gateway) = joined(listener, network.address(), 1).await;
    (network, service, gateway)
}

fn to_gateway(network: &Forwarder) -> Vec<Vec<u8>> {
    network.seen().into_iter().filter(|(way, _)| *way == Way::ToGateway).map(|(_, datagram)| datagram).collect()
}

fn is_packet(datagram: &[u8]) -> bool {
    packet::connection(datagram).is_some_and(|connection| connection != 0)
}

/// Sends a frame and checks that it is the only one to come.
async fn is_unharmed(service: &Driven, gateway: &mut Driven, mark: u64) {
    service.send(numbered(mark, 10));
    assert_eq!(number_of(&gateway.frame().await), mark);
    assert_eq!(gateway.left(), 0);
}

async fn stranger(to: &UdpListener) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to.local_addr()).await.unwrap();
    socket
}

/// A CHALLENGE for a HELLO, as a stranger gets it.
async fn ask(stranger: &UdpSocket, nonce: u8) -> [u8; 32] {
    stranger.send(&handshake::hello(&hello(nonce))).await.unwrap();
    let mut buffer = [0; 2000];
    let length = stranger.recv(&mut buffer).await.unwrap();
    match handshake::parse(buffer[..length].into()) {
        Ok(Handshake::Challenge { frame, .. }) => frame.value().nonce,
        other => panic!("{other:?}"),
    }
}

fn proof_datagram(cookie: [u8; 32], nonce: u8) -> Vec<u8> {
    let keys = secret().carrier_keys([nonce; 32], cookie);
    handshake::proof(&cookie, &hello(nonce), Some(&proof()), &MacKey::new(&keys.service)).to_vec()
}

#[tokio::test]
async fn a_forged_datagram_is_dropped() {
    let mut listener = listener(secrets());
    let (network, service, mut gateway) = through_network(&mut listener).await;
    is_unharmed(&service, &mut gateway, 1).await;
    let genuine = to_gateway(&network).into_iter().rfind(|datagram| is_packet(datagram)).unwrap();
    // Every bit of the MAC counts, and so does every other one but the connection's, which leads elsewhere.
    let mut forged = 0;
    for place in (8..genuine.len()).step_by(3) {
        let mut datagram = genuine.clone();
        datagram[place] ^= 1 << (place % 8);
        network.inject(&datagram).await.unwrap();
        forged += 1;
    }
    let mut end = genuine.clone();
    end[8..16].copy_from_slice(&END.to_be_bytes());
    network.inject(&end).await.unwrap();
    counted(&listener, Dropped::Forged, forged + 1).await;
    is_unharmed(&service, &mut gateway, 2).await;
}

#[tokio::test]
async fn a_replayed_datagram_brings_nothing_twice() {
    let mut listener = listener(secrets());
    let (network, service, mut gateway) = through_network(&mut listener).await;
    for number in 1..50 {
        is_unharmed(&service, &mut gateway, number).await;
    }
    let recorded: Vec<_> = to_gateway(&network).into_iter().filter(|datagram| is_packet(datagram)).collect();
    for datagram in &recorded {
        network.inject(datagram).await.unwrap();
    }
    counted(&listener, Dropped::Replayed, 49).await;
    is_unharmed(&service, &mut gateway, 1000).await;
}

#[tokio::test]
async fn a_recorded_handshake_begins_nothing_again() {
    let mut listener = listener(secrets());
    let (network, service, mut gateway) = through_network(&mut listener).await;
    is_unharmed(&service, &mut gateway, 1).await;
    let recorded = to_gateway(&network);
    // While the link stands, and after it has ended.
    for datagram in &recorded {
        network.inject(datagram).await.unwrap();
    }
    counted(&listener, Dropped::Replayed, 2).await;
    is_unharmed(&service, &mut gateway, 2).await;
    service.kill().await;
    gateway.next().await.unwrap_err();
    gateway.kill().await;
    assert_eq!(listener.links(), 0);
    let before = listener.counters().dropped(Dropped::Replayed);
    for datagram in &recorded {
        network.inject(datagram).await.unwrap();
    }
    counted(&listener, Dropped::Replayed, before + 1).await;
    counted(&listener, Dropped::Foreign, 1).await;
    assert_eq!(listener.links(), 0);
}

#[tokio::test]
async fn a_connection_is_bound_to_its_address() {
    let mut listener = listener(secrets());
    let (network, service, mut gateway) = through_network(&mut listener).await;
    let stranger = stranger(&listener).await;
    is_unharmed(&service, &mut gateway, 1).await;
    let genuine = to_gateway(&network).into_iter().rfind(|datagram| is_packet(datagram)).unwrap();
    stranger.send(&genuine).await.unwrap();
    let mut unknown = genuine.clone();
    unknown[0] ^= 1;
    stranger.send(&unknown).await.unwrap();
    network.inject(&unknown).await.unwrap();
    counted(&listener, Dropped::Foreign, 3).await;
    is_unharmed(&service, &mut gateway, 2).await;
}

#[tokio::test]
async fn a_cookie_is_of_no_use_to_another_address() {
    let listener = listener(secrets());
    let (owner, thief) = (stranger(&listener).await, stranger(&listener).await);
    let cookie = ask(&owner, 1).await;
    thief.send(&proof_datagram(cookie, 1)).await.unwrap();
    // Nor for another HELLO, nor does one that is made up lead anywhere.
    owner.send(&proof_datagram(cookie, 2)).await.unwrap();
    owner.send(&proof_datagram([7; 32], 1)).await.unwrap();
    counted(&listener, Dropped::Forged, 3).await;
    assert_eq!(listener.links(), 0);
    owner.send(&proof_datagram(cookie, 1)).await.unwrap();
    while listener.links() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_old_cookie_is_of_no_use() {
    let listener = listener(secrets());
    let owner = stranger(&listener).await;
    let cookie = ask(&owner, 1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    owner.send(&proof_datagram(cookie, 1)).await.unwrap();
    counted(&listener, Dropped::Forged, 1).await;
    assert_eq!(listener.links(), 0);
}

#[tokio::test]
async fn who_only_says_hello_is_answered_with_less_and_forgotten() {
    let mut listener = listener(secrets());
    let mut buffer = [0; 2000];
    for nonce in 0..200_u8 {
        let stranger = stranger(&listener).await;
        for _ in 0..3 {
            let asked = handshake::hello(&hello(nonce));
            stranger.send(&asked).await.unwrap();
            let length = stranger.recv(&mut buffer).await.unwrap();
            assert!(length * 4 < asked.len(), "{length}");
        }
        // Less than its answer might be is not answered at all.
        stranger.send(&handshake::hello(&hello(nonce))[..1199]).await.unwrap();
    }
    counted(&listener, Dropped::TooShort, 200).await;
    assert_eq!(listener.links(), 0);
    let address = listener.local_addr();
    let (service, mut gateway) = joined(&mut listener, address, 1).await;
    is_unharmed(&service, &mut gateway, 1).await;
}

#[tokio::test]
async fn who_proves_an_address_and_no_secret_takes_no_more_than_a_place_in_the_line() {
    let mut listener = listener(secrets());
    let stranger = stranger(&listener).await;
    let mut cookies = Vec::new();
    for nonce in 0..=255_u8 {
        cookies.push((ask(&stranger, nonce).await, nonce));
    }
    let wrong = MacKey::new(&[1; 32]);
    for (cookie, nonce) in &cookies {
        stranger.send(&handshake::proof(cookie, &hello(*nonce), Some(&proof()), &wrong)).await.unwrap();
    }
    while listener.links() < 256 {
        tokio::task::yield_now().await;
    }
    let more = ask(&stranger, 1).await;
    let mut other = router_common::testing::hello();
    other.lease = 7;
    let other = router_common::frame::Frame::Hello(Box::new(router_common::wire::Wire::new(other)));
    stranger.send(&handshake::hello(&other)).await.unwrap();
    let mut buffer = [0; 2000];
    let length = stranger.recv(&mut buffer).await.unwrap();
    let Ok(Handshake::Challenge { frame, .. }) = handshake::parse(buffer[..length].into()) else { panic!() };
    stranger.send(&handshake::proof(&frame.value().nonce, &other, Some(&proof()), &wrong)).await.unwrap();
    counted(&listener, Dropped::NoRoom, 1).await;
    assert!(cookies.iter().any(|(cookie, _)| *cookie == more));
    // Who is accepted and dropped leaves nothing, and may try again.
    for _ in 0..256 {
        drop(accept(&mut listener).await);
    }
    assert_eq!(listener.links(), 0);
}

#[tokio::test]
async fn garbage_of_any_size_is_dropped() {
    let mut listener = listener(secrets());
    let (network, service, mut gateway) = through_network(&mut listener).await;
    let stranger = stranger(&listener).await;
    is_unharmed(&service, &mut gateway, 1).await;
    let genuine = to_gateway(&network);
    let mut random = Random::new(1);
    let dropped =
        |listener: &UdpListener| listener.counters().counts().into_iter().map(|(_, number)| number).sum::<u64>();
    for round in 0..2000 {
        let mut bytes = match round % 4 {
            0 => vec![0; random.below(100)],
            1 => (0..random.below(2000)).map(|_| random.below(256) as u8).collect(),
            _ => genuine[random.below(genuine.len())].clone(),
        };
        for _ in 0..random.below(4) {
            if !bytes.is_empty() {
                let place = random.below(bytes.len());
                bytes[place] = random.below(256) as u8;
            }
        }
        bytes.truncate(1 + random.below(bytes.len() + 1));
        if round % 2 == 0 {
            network.inject(&bytes).await.unwrap()
        } else {
            drop(stranger.send(&bytes).await)
        }
        if round % 50 == 0 {
            is_unharmed(&service, &mut gateway, 2 + round).await;
        }
    }
    let largest = vec![0xff; DATAGRAM_BYTES_MAX];
    stranger.send(&largest).await.unwrap();
    let mut largest = largest;
    largest[..8].copy_from_slice(&[0; 8]);
    stranger.send(&largest).await.unwrap();
    is_unharmed(&service, &mut gateway, 9000).await;
    assert!(dropped(&listener) > 1000, "{}", dropped(&listener));
    // An accept that has nobody waits.
    let listener: &mut dyn router_link::Listener = &mut listener;
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_pending())).await);
}
