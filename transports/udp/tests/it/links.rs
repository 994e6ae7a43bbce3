//! Two links over real sockets, without sessions: over loopback as it is, and over one that loses, doubles, delays and
//! reorders.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{
    Driven, accept, challenge, connector, hello, joined, listener, number_of, numbered, proof, secret, secrets, welcome,
};
use router_common::frame::{Close, CloseCode, Frame, StreamId};
use router_common::session::{Secret, Secrets};
use router_link::{Connector as _, LinkError, Listener as _};
use transport_udp::UdpListener;
use transport_udp::packet::Dropped;
use transport_udp::testing::{Forwarder, Weather};

fn close(text: &str) -> Frame {
    let (code, last) = (CloseCode::Normal, StreamId::CONNECTION);
    Frame::Close(Box::new(Close { code, last, text: text.to_owned() }))
}

/// Sends `count` frames each way and checks that each arrives once.
async fn exchange(service: &mut Driven, gateway: &mut Driven, count: u64) {
    for number in 0..count {
        service.send(numbered(number, (number % 300) as usize));
        gateway.send(numbered(number, (number * 7 % 900) as usize));
    }
    for end in [service, gateway] {
        let mut come = BTreeSet::new();
        while (come.len() as u64) < count {
            assert!(come.insert(number_of(&end.frame().await)), "once");
        }
        assert_eq!(end.left(), 0);
    }
}

#[tokio::test]
async fn frames_arrive_both_ways_once() {
    let mut listener = listener(secrets());
    let address = listener.local_addr();
    let (mut service, mut gateway) = joined(&mut listener, address, 1).await;
    exchange(&mut service, &mut gateway, 2000).await;
    assert_eq!(service.peer.transport, "udp");
    assert_eq!(gateway.peer.socket.map(|peer| peer.ip()), Some(address.ip()));
    for reason in [Dropped::Forged, Dropped::Foreign, Dropped::Malformed, Dropped::TooShort] {
        assert_eq!(listener.counters().dropped(reason), 0, "{reason}");
    }
}

#[tokio::test]
async fn frames_arrive_once_however_bad_the_network_is() {
    for seed in 1..=3 {
        let mut listener = listener(secrets());
        let network = Forwarder::start(listener.local_addr(), Weather::BAD, seed).await.unwrap();
        let (mut service, mut gateway) = joined(&mut listener, network.address(), 1).await;
        exchange(&mut service, &mut gateway, 400).await;
        let counters = listener.counters();
        assert!(counters.dropped(Dropped::Replayed) > 0, "seed {seed}");
        assert_eq!(counters.dropped(Dropped::Forged) + counters.dropped(Dropped::Malformed), 0, "seed {seed}");
    }
}

#[tokio::test]
async fn many_links_share_a_listener() {
    let mut listener = listener(secrets());
    let address = listener.local_addr();
    let mut pairs = Vec::new();
    for nonce in 1..=20 {
        pairs.push(joined(&mut listener, address, nonce).await);
    }
    drop(listener);
    for (service, gateway) in &mut pairs {
        exchange(service, gateway, 100).await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_waited_for_if_that_is_asked_for() {
    let mut first = listener(secrets());
    let address = first.local_addr();
    let taken = UdpListener::bind(address, secrets(), 1200).unwrap_err().to_string();
    assert!(taken.starts_with(&format!("listening on udp://{address}: ")), "{taken}");
    let mut second = UdpListener::bind_or_wait(address, secrets(), 1200).unwrap();
    let (mut service, mut gateway) = joined(&mut first, address, 1).await;
    drop(first);
    exchange(&mut service, &mut gateway, 10).await;
    service.kill().await;
    gateway.kill().await;
    // The port is free now that the last link has gone.
    let (_service, gateway) = tokio::join!(heard(address, 2), accept(&mut second));
    assert_eq!(Driven::new(gateway).frame().await, hello(2));
}

/// Whoever dials before anybody has the port dials again.
async fn heard(address: SocketAddr, nonce: u8) -> Driven {
    loop {
        let mut service = Driven::new(connector(address, Some(secret())).connect().await.unwrap());
        service.send(hello(nonce));
        if service.next().await.is_ok() {
            service.send(proof());
            return service;
        }
    }
}

#[tokio::test]
async fn a_port_that_is_released_is_anothers_at_once_while_links_go_on_and_can_be_taken_back() {
    let mut first = listener(secrets());
    let address = first.local_addr();
    let mut second = UdpListener::bind_or_wait(address, secrets(), 1200).unwrap();
    let (mut service, mut gateway) = joined(&mut first, address, 1).await;
    first.release();
    exchange(&mut service, &mut gateway, 500).await;
    let (mut later, there) = tokio::join!(heard(address, 2), accept(&mut second));
    let mut there = Driven::new(there);
    assert_eq!((there.frame().await, there.frame().await), (hello(2), proof()));
    there.send(welcome());
    assert_eq!(later.frame().await, welcome());
    tokio::join!(exchange(&mut service, &mut gateway, 500), exchange(&mut later, &mut there, 500));
    for end in [later, there] {
        end.kill().await;
    }
    drop(second);
    let (_service, last) = tokio::join!(heard(address, 3), accept(&mut first));
    assert_eq!(Driven::new(last).frame().await, hello(3));
    exchange(&mut service, &mut gateway, 500).await;
}

#[tokio::test]
async fn where_no_secret_rules_the_address_is_proved_all_the_same() {
    let mut listener = listener(Secrets::none());
    let mut service = Driven::new(connector(listener.local_addr(), None).connect().await.unwrap());
    service.send(hello(1));
    let mut gateway = Driven::new(accept(&mut listener).await);
    assert_eq!(gateway.frame().await, hello(1));
    assert!(gateway.peer.handshake_nonce.is_some());
    gateway.send(welcome());
    assert_eq!(service.frame().await, welcome());
    exchange(&mut service, &mut gateway, 100).await;
}

#[tokio::test]
async fn a_service_without_a_secret_hears_that_one_is_asked_for() {
    let listener = listener(secrets());
    let mut service = Driven::new(connector(listener.local_addr(), None).connect().await.unwrap());
    service.send(hello(1));
    let asked = service.frame().await;
    assert!(matches!(asked, Frame::Challenge(_)), "{asked:?}");
    service.close().await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused_by_the_session_and_the_service_hears_why() {
    let mut listener = listener(secrets());
    let wrong = Secret::new([1; 32]).unwrap();
    let mut service = Driven::new(connector(listener.local_addr(), Some(wrong)).connect().await.unwrap());
    service.send(hello(1));
    service.frame().await;
    service.send(proof());
    let mut gateway = Driven::new(accept(&mut listener).await);
    assert_eq!((gateway.frame().await, gateway.frame().await), (hello(1), proof()));
    gateway.send(challenge(gateway.peer.handshake_nonce.unwrap()));
    gateway.send(close("not this secret"));
    assert_eq!(service.frame().await, close("not this secret"));
    assert!(matches!(service.next().await, Err(LinkError::Closed)));
    gateway.close().await;
}

#[tokio::test]
async fn a_gateway_welcomes_nobody_whose_mac_fits_no_secret() {
    let mut listener = listener(secrets());
    let wrong = Secret::new([1; 32]).unwrap();
    let mut service = Driven::new(connector(listener.local_addr(), Some(wrong)).connect().await.unwrap());
    service.send(hello(1));
    service.frame().await;
    service.send(proof());
    let mut link = accept(&mut listener).await;
    let mut batch = [welcome()].into();
    let sent = poll_fn(|cx| link.poll_send(cx, &mut batch)).await;
    assert!(matches!(sent, Err(LinkError::Io { .. })), "{sent:?}");
}

#[tokio::test]
async fn one_of_several_secrets_of_a_key_is_enough() {
    let other = Secret::new([1; 32]).unwrap();
    let id = || router_common::identity::KeyId::sole();
    let mut listener = listener([(id(), other), (id(), secret())].into_iter().collect());
    let address = listener.local_addr();
    let (mut service, mut gateway) = joined(&mut listener, address, 1).await;
    exchange(&mut service, &mut gateway, 10).await;
}

#[tokio::test]
async fn close_arrives_behind_what_was_sent_before_it_and_ends_both_links() {
    let mut listener = listener(secrets());
    let weather = Weather { late: 50, lateness: Duration::from_millis(50), ..Weather::default() };
    let network = Forwarder::start(listener.local_addr(), weather, 7).await.unwrap();
    let (mut service, mut gateway) = joined(&mut listener, network.address(), 1).await;
    for number in 0..10 {
        gateway.send(numbered(number, 1000));
    }
    gateway.send(close("that is all"));
    let mut come = BTreeSet::new();
    loop {
        match service.frame().await {
            frame @ Frame::Close(_) => {
                assert_eq!(frame, close("that is all"));
                break;
            }
            frame => assert!(come.insert(number_of(&frame))),
        }
    }
    assert!(come.into_iter().eq(0..10));
    assert!(matches!(service.next().await, Err(LinkError::Closed)));
    gateway.close().await;
}

#[tokio::test]
async fn a_link_that_is_dropped_ends_the_other_one() {
    let mut listener = listener(secrets());
    let address = listener.local_addr();
    let (mut service, gateway) = joined(&mut listener, address, 1).await;
    gateway.kill().await;
    assert!(matches!(service.next().await, Err(LinkError::Closed)));
    let (service, mut gateway) = joined(&mut listener, address, 2).await;
    service.kill().await;
    assert!(matches!(gateway.next().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn nobody_at_the_address_is_found_out_at_once() {
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut service = Driven::new(connector(unused, None).connect().await.unwrap());
    service.send(hello(1));
    let error = service.next().await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("connecting to udp://{unused}: ")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_answer_is_given_up_in_time() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let start = tokio::time::Instant::now();
    let mut service = Driven::new(connector(silent.local_addr().unwrap(), None).connect().await.unwrap());
    service.send(hello(1));
    let error = service.next().await.unwrap_err();
    assert!(matches!(error, LinkError::ConnectTimeout { .. }), "{error}");
    assert_eq!(start.elapsed().as_secs(), Duration::from_secs(5).as_secs());
}

#[tokio::test]
async fn a_link_moves_between_runtimes() {
    let mut listener = listener(secrets());
    let to = listener.local_addr();
    let link = connector(to, Some(secret())).connect().await.unwrap();
    let detached = link.detach();
    let elsewhere = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut service = Driven::new(detached.attach().unwrap());
            service.send(hello(1));
            service.frame().await;
            service.send(proof());
            assert_eq!(service.frame().await, welcome());
            service.send(numbered(5, 5));
            assert_eq!(number_of(&service.frame().await), 6);
        });
    });
    let link = accept(&mut listener).await.detach().attach().unwrap();
    let mut gateway = Driven::new(link);
    assert_eq!((gateway.frame().await, gateway.frame().await), (hello(1), proof()));
    gateway.send(welcome());
    assert_eq!(number_of(&gateway.frame().await), 5);
    gateway.send(numbered(6, 6));
    tokio::task::spawn_blocking(|| elsewhere.join().unwrap()).await.unwrap();
}
