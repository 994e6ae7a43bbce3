//! How long tunnels last, on a clock that the test moves.

use std::time::Duration;

use http::{Request, Response};
use router_link::{Accept, Body, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::common::read_response;
use crate::memory::Clients;
use crate::stub::{Handler, Plan, gateway_in_memory, handler};

const WEBSOCKET: &str = "Connection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const OTHER: &str = "Connection: upgrade\r\nUpgrade: other/1\r\n";

/// Says so when it is gone.
struct Gone(mpsc::Sender<Instant>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.try_send(Instant::now());
    }
}

/// Accepts every tunnel, sends back what comes, and stays when nothing more does.
fn staying(gone: &mpsc::Sender<Instant>) -> Handler {
    let gone = gone.clone();
    handler(move |request: Request<Body>| {
        let gone = Gone(gone.clone());
        async move {
            assert!(!request.headers().contains_key("sec-websocket-key"), "{request:?}");
            let mut response = Response::new(Body::empty());
            let work = |mut tunnel: Tunnel| async move {
                let _gone = gone;
                let mut piece = [0; 64];
                loop {
                    match tunnel.read(&mut piece).await {
                        Ok(length @ 1..) => tunnel.write_all(&piece[..length]).await.expect("it is open"),
                        _ => std::future::pending().await,
                    }
                }
            };
            Accept::new(request.into_body(), work).put_into(&mut response);
            Some(response)
        }
    })
}

async fn open(clients: &Clients, fields: &str) -> DuplexStream {
    let mut client = clients.connect().await;
    client.write_all(format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).await.unwrap();
    let (head, _) = read_response(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    client
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_a_tunnel_and_a_byte_begins_it_anew() {
    let (gone, mut is_gone) = mpsc::channel(4);
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _stub = Plan::new(&[("GET", "/tunnel")]).join(&gateway, staying(&gone)).await;
    let mut client = open(&clients, OTHER).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    client.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    let spoke = Instant::now();
    let ended = is_gone.recv().await.unwrap();
    assert_eq!((ended - spoke).as_secs(), 300);
    assert!(client.read_u8().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn half_a_websocket_is_none_and_half_of_anything_else_is_one() {
    let (gone, mut is_gone) = mpsc::channel(4);
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let _stub = Plan::new(&[("GET", "/tunnel")]).join(&gateway, staying(&gone)).await;
    for (fields, seconds) in [(WEBSOCKET, 10), (OTHER, 300)] {
        let mut client = open(&clients, fields).await;
        let left = Instant::now();
        client.shutdown().await.unwrap();
        let ended = is_gone.recv().await.unwrap();
        assert_eq!((ended - left).as_secs(), seconds, "{fields}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_seen_goes_to_another_instance() {
    let (gone, _is_gone) = mpsc::channel(4);
    let (gateway, clients) = gateway_in_memory(|_| {}).await;
    let refuses = std::sync::Arc::new(|_: Request<Body>, responder: router_link::Responder| {
        responder.reject(router_common::frame::Reason::Refused);
    });
    let plan = |id| Plan { id, ..Plan::new(&[("GET", "/tunnel")]) };
    let _refusing = plan("a").join_as(&gateway, refuses).await;
    let _staying = plan("b").join(&gateway, staying(&gone)).await;
    for _ in 0..4 {
        let mut client = open(&clients, OTHER).await;
        client.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }
}
