//! More than the node can bear: what is shed, what is cut, and that the node stays within its bounds (SPEC 4, 6, 12).

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use integration_tests::carriers::Transport;
use integration_tests::services::{Witness, one};
use integration_tests::stage::Stage;
use integration_tests::{eventually, on_every_transport, within};
use microservice_sdk::{Body, Cancellation, Chunks, Microservice, Reason, Route};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

/// A metric as `/metrics` shows it, by the beginning of its line.
async fn metric(stage: &Stage, name: &str) -> u64 {
    let answer = stage.admin().get("/metrics").await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse().unwrap()
}

async fn shed(stage: &Stage, reason: &str) -> u64 {
    metric(stage, &format!("stella_requests_shed_total{{reason=\"{reason}\"}}")).await
}

/// A service that answers more than anybody reads, and tells why its bodies were dropped.
fn flood() -> (Microservice, mpsc::Receiver<Option<Reason>>) {
    struct Ended(mpsc::Sender<Option<Reason>>, Cancellation);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.try_send(self.1.reason());
        }
    }
    let (tell, told) = mpsc::channel(1024);
    let service = Microservice::new("flood", "1.0.0")
        .route(Route::new(Method::GET, "/flood").streaming_response(), move |cancellation: Cancellation| async move {
            let piece = Bytes::from(vec![7; 32 * 1024]);
            let ended = Ended(tell, cancellation);
            Chunks(stream::repeat_with(move || {
                let _ended = &ended;
                Ok::<_, std::io::Error>(piece.clone())
            }))
        })
        .raw(Method::GET, "/quick", || async { "quick" })
        .raw(Method::POST, "/in", |body: Bytes| async move { body.len().to_string() });
    (service, told)
}

/// Asks for a flood and reads nothing of it.
async fn stalled(stage: &Stage) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut stream = socket.connect(stage.http()).await.unwrap();
    stream.write_all(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream
}

async fn readers_that_stall_cost_what_the_node_may_hold_and_no_more(transport: Transport) {
    const BOUND: usize = 1024 * 1024;
    let stage = Stage::with(transport, "limits: { max_buffered_bytes: 1MiB }").await;
    let (service, mut told) = flood();
    let _service = stage.join(service).await;
    let mut readers = Vec::new();
    for _ in 0..24 {
        readers.push(stalled(&stage).await);
        assert!(stage.gateway.buffered_bytes() <= BOUND + 64 * 1024, "{}", stage.gateway.buffered_bytes());
    }
    // Those who have stalled longest are given up, one after another; whoever else comes finds room.
    assert_eq!(within("a body is dropped", told.recv()).await.unwrap(), Some(Reason::Stalled));
    eventually("the others are served", async || {
        assert!(stage.gateway.buffered_bytes() <= BOUND + 64 * 1024, "{}", stage.gateway.buffered_bytes());
        stage.client().get("/quick").await.status == StatusCode::OK
    })
    .await;
    assert!(shed(&stage, "stalled").await > 0);
    assert!(metric(&stage, "stella_buffered_bytes").await <= BOUND as u64);
    // Who was given up sees that the answer is not whole.
    let mut rest = Vec::new();
    let mut cut = 0;
    for mut reader in readers {
        rest.clear();
        // Those who were not given up would go on for ever.
        let read = async {
            while reader.read_buf(&mut rest).await.is_ok_and(|read| read > 0) {
                rest.clear()
            }
        };
        cut += usize::from(tokio::time::timeout(Duration::from_millis(50), read).await.is_ok());
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"));
    }
    assert!(cut > 0);
    eventually("nothing is held", async || stage.gateway.buffered_bytes() == 0 && stage.gateway.in_flight() == 0).await;
}

async fn a_node_whose_buffers_are_full_refuses_what_is_new(transport: Transport) {
    let stage = Stage::with(transport, "limits: { max_buffered_bytes: 1MiB }").await;
    let (service, _told) = flood();
    let _service = stage.join(service).await;
    let mut readers = Vec::new();
    let client = stage.client();
    let mut refused = None;
    eventually("a request is refused", async || {
        // They fill the node, and have not stalled for so long that they are given up.
        readers.push(stalled(&stage).await);
        let mut request = client.request(Method::POST, "/in").map(|_| Body::from("some"));
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let answer = client.ask(request).await;
        if answer.status == StatusCode::OK {
            return false;
        }
        refused = Some(answer);
        true
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "node_overloaded"));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(shed(&stage, "buffered_bytes").await > 0);
    // It passes: those who do not read are given up.
    eventually("requests are served again", async || client.get("/quick").await.status == StatusCode::OK).await;
}

async fn full_lines_are_told_apart(transport: Transport) {
    let stage = Stage::with(transport, "limits: { max_waiting: 1 }").await;
    let (witness, go) = (Witness::default(), watch::Sender::new(false));
    let _watched = stage.join(witness.service(&go).lease(1)).await;
    let ask = || {
        let client = stage.client();
        tokio::spawn(async move { client.get("/until-let-go").await })
    };
    let served = ask();
    witness.begun(1).await;
    let waits = ask();
    eventually("it waits", async || stage.gateway.waiting() == 1).await;
    let answer = stage.client().get("/until-let-go").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_capacity"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(shed(&stage, "waiting").await, 1);
    go.send_replace(true);
    for asked in [served, waits] {
        assert_eq!(asked.await.unwrap().body, "let go");
    }
}

async fn connections_beyond_the_bound_wait_and_are_served(transport: Transport) {
    let stage = Stage::with(transport, "limits: { max_connections: 3 }").await;
    let _service = stage.join(one("small", "1.0.0", "/small", "served")).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(stage.http()).await.unwrap();
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut stream, b"served").await;
        open.push(stream);
    }
    let mut late = TcpStream::connect(stage.http()).await.unwrap();
    late.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("the operator sees that clients wait", async || metric(&stage, "stella_accept_waits_total").await > 0)
        .await;
    assert_eq!(metric(&stage, "stella_connections_limit").await, 3);
    let answered = tokio::time::timeout(Duration::from_millis(200), late.read_u8()).await;
    assert!(answered.is_err(), "it waits: {answered:?}");
    drop(open.pop());
    read_until(&mut late, b"served").await;
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut read = Vec::new();
    within("an answer", async {
        while !read.ends_with(end) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
        }
    })
    .await;
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET` of a path, and the end of it.
fn get(stream: u32, path: &str) -> Vec<u8> {
    // Of HPACK's static table: `:method GET`, `:scheme http`, then `:path` and `:authority` with values of their own.
    let mut head = vec![0x82, 0x86, 0x04, path.len() as u8];
    head.extend(path.as_bytes());
    head.extend([0x01, 1, b'a']);
    frame(1, 0x5, stream, &head)
}

async fn http2(stage: &Stage) -> TcpStream {
    let mut stream = TcpStream::connect(stage.http()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    stream
}

/// Streams opened and reset at once, as fast as can be: each costs its handler nothing but its slot for a moment.
async fn a_flood_of_resets_exceeds_no_lease_and_leaves_nothing_behind(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _watched = stage.join(witness.service(&watch::Sender::default()).lease(8)).await;
    let mut ended = 0;
    for _ in 0..4 {
        let mut client = http2(&stage).await;
        let mut flood = Vec::new();
        for number in 0..2_000_u32 {
            flood.extend(get(2 * number + 1, "/for-ever"));
            flood.extend(frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
        }
        let (mut reads, mut writes) = client.split();
        let writing = async {
            // The gateway may have had enough before all is written.
            let _ = writes.write_all(&flood).await;
            let _ = writes.shutdown().await;
        };
        let mut answered = Vec::new();
        let reading = async {
            let _ = within("the gateway closes", reads.read_to_end(&mut answered)).await;
        };
        tokio::join!(writing, reading);
        ended += usize::from(!answered.is_empty());
        assert_eq!(stage.client().get("/nowhere").await.status, StatusCode::NOT_FOUND, "others are served");
    }
    assert_eq!(ended, 4);
    eventually("all is quiet", async || {
        let instances = stage.admin().get("/instances").await.json();
        instances[0]["in_flight"] == 0 && stage.gateway.in_flight() == 0 && stage.gateway.waiting() == 0
    })
    .await;
}

async fn an_http2_connection_has_so_many_streams_and_no_more(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _watched = stage.join(witness.service(&watch::Sender::default())).await;
    let mut client = http2(&stage).await;
    for number in 0..300_u32 {
        client.write_all(&get(2 * number + 1, "/for-ever")).await.unwrap();
    }
    let mut refused = 0;
    within("the streams beyond are refused", async {
        while refused < 300 - 256 {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            client.read_exact(&mut payload).await.unwrap();
            // RST_STREAM with REFUSED_STREAM.
            refused += usize::from(head[3] == 3 && payload == 7_u32.to_be_bytes());
        }
    })
    .await;
    witness.begun(256).await;
    assert_eq!(stage.gateway.in_flight(), 256);
    drop(client);
    witness.ended(256).await;
}

on_every_transport! {
    readers_that_stall_cost_what_the_node_may_hold_and_no_more,
    a_node_whose_buffers_are_full_refuses_what_is_new,
    full_lines_are_told_apart,
    connections_beyond_the_bound_wait_and_are_served,
    a_flood_of_resets_exceeds_no_lease_and_leaves_nothing_behind,
    an_http2_connection_has_so_many_streams_and_no_more,
}
