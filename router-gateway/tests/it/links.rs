//! Links that have not said who they are: how many there may be, and which goes for a further one (SPEC 4, abuse).

use std::collections::VecDeque;
use std::future::poll_fn;

use crate::common::exchange;
use crate::stub::gateway;
use router_common::frame::{CloseCode, Frame};
use router_common::limits::{UNWELCOMED, UNWELCOMED_PER_ADDRESS};
use router_gateway::Gateway;
use router_gateway::settings::{Settings, Transports, listen};
use router_link::{BoxLink, Connector as _};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use transport_tcp::TcpListenerSettings;

/// Waits until some links were refused for want of room, and says how many. One that was told so counts when its
/// other end has gone too.
async fn refused_for_overload(gateway: &Gateway) -> String {
    loop {
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let metrics = exchange(gateway.admin_addr().unwrap(), request).await;
        let line = metrics.lines().find(|line| line.starts_with("stella_links_refused_total{reason=\"overload\"}"));
        if let Some(count) = line.and_then(|line| line.rsplit(' ').next()) {
            return count.to_owned();
        }
    }
}

/// Waits for the CLOSE of a link.
async fn close_of(link: &mut BoxLink) -> CloseCode {
    loop {
        let mut frames = Vec::new();
        poll_fn(|cx| link.poll_recv(cx, &mut frames)).await.expect("a CLOSE comes before the end");
        for frame in frames {
            if let Frame::Close(close) = frame {
                return close.code;
            }
        }
    }
}

#[tokio::test]
async fn the_oldest_link_without_a_name_goes_for_one_too_many() {
    let gateway = gateway(|_| {}).await;
    let connector = gateway.in_memory();
    let mut links = VecDeque::new();
    for _ in 0..=UNWELCOMED {
        links.push_back(connector.connect().await.unwrap());
        // The gateway is to accept it: only so many may wait for that.
        yield_now().await;
    }
    let mut oldest = links.pop_front().unwrap();
    assert_eq!(close_of(&mut oldest).await, CloseCode::Overload);
    drop(oldest);
    assert_eq!(refused_for_overload(&gateway).await, "1", "the others stay");
}

#[tokio::test]
async fn an_address_has_a_bound_of_its_own() {
    let transports = Transports {
        tcp: Some(TcpListenerSettings { listen: "127.0.0.1:0".parse().unwrap(), ..TcpListenerSettings::default() }),
        ..Transports::default()
    };
    let mut config = Settings { transports, ..Settings::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    let mut builder = Gateway::builder(&config);
    for listener in listen(&config).unwrap() {
        builder = builder.services(listener);
    }
    let gateway = builder.start().await.unwrap();
    let address = gateway.service_listeners()[0].trim_start_matches("tcp://").to_owned();
    let mut strangers = VecDeque::new();
    for _ in 0..=UNWELCOMED_PER_ADDRESS {
        strangers.push_back(TcpStream::connect(&address).await.unwrap());
    }
    // It ends, and is told why; the others are left alone.
    let mut told = Vec::new();
    let mut oldest = strangers.pop_front().unwrap();
    oldest.read_to_end(&mut told).await.unwrap();
    drop(oldest);
    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("too many links that have not said who they are"), "{text}");
    assert_eq!(refused_for_overload(&gateway).await, "1");
}
