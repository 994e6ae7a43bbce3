//! Tunnels: WebSocket and any other protocol, by HTTP/1.1's Upgrade and by HTTP/2's extended CONNECT; how they are
//! refused, and how they end.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, StatusCode};
use microservice_sdk::websocket::{CloseCode, CloseFrame, Message};
use microservice_sdk::{Microservice, Tunnel, TunnelStream, WebSocketUpgrade};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::carrier::Transport;
use crate::scenario::list;
use crate::services::Witness;
use crate::sockets::{BOTH, By, Http2, head, websocket};
use crate::stage::Stage;
use crate::{eventually, within};

const MIB: usize = 1024 * 1024;

/// Sends back what comes.
async fn echo(mut stream: TunnelStream) -> std::io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            length => stream.write_all(&piece[..length]).await?,
        }
    }
}

/// `/chat`: a WebSocket that sends back every message. `/echo`: the same for bytes, of the protocol `echo/1`. `/pour`:
/// bytes without end. `/hold`: does nothing, for ever. `/fail` and `/panic`: five bytes, then an end that is none. `/hello`:
/// no tunnel. All of it is watched.
fn service(witness: &Witness) -> Microservice {
    let (chats, echoes, pours, holds) = (witness.clone(), witness.clone(), witness.clone(), witness.clone());
    Microservice::new("tunnels", "1.0.0")
        .raw(Method::GET, "/chat", move |upgrade: WebSocketUpgrade| async move {
            let upgrade =
                upgrade.protocols(["chat.v2", "chat.v1"]).max_message_bytes(16 * MIB).max_frame_bytes(16 * MIB);
            upgrade.on_upgrade(move |mut socket| async move {
                let _presence = chats.enter();
                while let Some(Ok(message)) = socket.recv().await {
                    let is_said = message.is_text() || message.is_binary();
                    if is_said && socket.send(message).await.is_err() {
                        break;
                    }
                }
            })
        })
        .raw(Method::GET, "/echo", move |tunnel: Tunnel| async move {
            match tunnel.protocol() {
                "echo/1" => tunnel.accept(move |stream| async move {
                    let _presence = echoes.enter();
                    echo(stream).await
                }),
                _ => Tunnel::required("echo/1"),
            }
        })
        .raw(Method::GET, "/pour", move |tunnel: Tunnel| async move {
            tunnel.accept(move |mut stream| async move {
                let _presence = pours.enter();
                let piece = vec![7; 64 * 1024];
                loop {
                    stream.write_all(&piece).await?;
                }
            })
        })
        .raw(Method::GET, "/hold", move |tunnel: Tunnel| async move {
            tunnel.accept(move |stream| async move {
                let _held = (stream, holds.enter());
                std::future::pending().await
            })
        })
        .raw(Method::GET, "/fail", |tunnel: Tunnel| async move {
            tunnel.accept(|mut stream| async move {
                stream.write_all(b"12345").await?;
                let _ = stream.read_u8().await;
                Err(std::io::Error::other("on purpose"))
            })
        })
        .raw(Method::GET, "/panic", |tunnel: Tunnel| async move {
            tunnel.accept(|mut stream| async move {
                stream.write_all(b"12345").await?;
                let _ = stream.read_u8().await;
                panic!("on purpose")
            })
        })
        .raw(Method::GET, "/hello", || async { "hello" })
}

/// Waits until nothing is held for anybody.
async fn quiet(stage: &Stage) {
    eventually("everything is let go of", async || {
        let metrics = stage.admin().get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let is_zero = |name: &str| text.lines().filter(|line| line.starts_with(name)).all(|line| line.ends_with(" 0"));
        is_zero("stella_requests_in_flight") && is_zero("stella_inflight_bytes") && is_zero("stella_lease_used{")
    })
    .await;
}

async fn websocket_messages_come_back(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    for by in BOTH {
        let mut socket = by.websocket(stage.http(), "/chat", "chat.v1, chat.v2").await;
        for message in [Message::text("text"), Message::binary(vec![0, 255]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(within("a message", socket.next()).await.unwrap().unwrap(), message, "{by:?}");
        }
        socket.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        let pong = within("a pong", socket.next()).await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"?")), "{by:?}");
        let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
        socket.close(Some(frame.clone())).await.unwrap();
        let closed = within("a closing handshake", socket.next()).await.unwrap().unwrap();
        assert_eq!(closed, Message::Close(Some(frame)), "{by:?}");
        assert!(within("the end", socket.next()).await.is_none(), "{by:?}");
    }
    quiet(&stage).await;
    let metrics = stage.admin().get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body);
    for status in ["101", "200"] {
        let line = format!("route=\"/chat\",method=\"GET\",status=\"{status}\"}} 1");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

async fn a_subprotocol_is_chosen_and_told(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    for by in BOTH {
        for (offers, chosen) in [("chat.v1, chat.v2", Some("chat.v2")), ("other", None), ("", None)] {
            let (_, headers, _) = by.ask(stage.http(), "/chat", "websocket", &websocket(by, offers)).await;
            let told = headers.get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
            assert_eq!(told, chosen, "{by:?} {offers}");
        }
    }
    quiet(&stage).await;
}

async fn any_protocol_passes_and_half_a_close_is_half_a_close(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    for by in BOTH {
        let mut stream = by.open(stage.http(), "/echo", "echo/1").await;
        for piece in ["a", "piece", "at a time"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            let mut back = vec![0; piece.len()];
            within("it comes back at once", stream.read_exact(&mut back)).await.unwrap();
            assert_eq!(back, piece.as_bytes());
        }
        stream.write_all(b"the last").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within("the end", stream.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"the last", "{by:?}");
    }
    quiet(&stage).await;
}

async fn what_follows_the_request_at_once_is_the_tunnels(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    for early in ["early", "so early, and so much, that it does not fit where the gateway looks ahead"] {
        let mut stream = TcpStream::connect(stage.http()).await.unwrap();
        let request =
            format!("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, echo/1\r\n\r\n{early}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (status, headers) = within("an answer", head(&mut stream)).await;
        assert_eq!((status.as_u16(), &headers["upgrade"]), (101, &"echo/1".parse().unwrap()));
        let mut back = vec![0; early.len()];
        within("it comes back", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, early.as_bytes());
    }
    // A connection that has served requests, and rested, turns into a tunnel like a new one.
    let mut stream = TcpStream::connect(stage.http()).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(within("an answer", head(&mut stream)).await.0, 200);
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
    }
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo/1\r\n\r\n").await.unwrap();
    assert_eq!(within("an answer", head(&mut stream)).await.0, 101);
    stream.write_all(b"!").await.unwrap();
    assert_eq!(within("it comes back", stream.read_u8()).await.unwrap(), b'!');
    drop(stream);
    quiet(&stage).await;
}

async fn what_is_no_tunnel_is_answered_as_what_it_is(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    // No upgrade at all.
    let answer = stage.client().get("/chat").await;
    assert_eq!((answer.status.as_u16(), answer.header("upgrade")), (426, "websocket"), "{answer:?}");
    assert_eq!((answer.problem().as_str(), answer.header("connection")), ("upgrade_required", "upgrade"));
    let answer = stage.http2().get("/chat").await;
    assert_eq!((answer.status.as_u16(), answer.header("upgrade")), (426, ""), "{answer:?}");
    assert_eq!(stage.client().get("/echo").await.problem(), "tunnel_required");
    for by in BOTH {
        let ask = async |path, protocol, fields: &[(&'static str, &'static str)]| {
            let (status, headers, _) = by.ask(stage.http(), path, protocol, fields).await;
            (status.as_u16(), headers)
        };
        // Another protocol than the service's.
        let (status, headers) = ask("/echo", "echo/2", &[]).await;
        assert_eq!(status, 426, "{by:?}");
        let told = headers.get("upgrade").map(|value| value.to_str().unwrap());
        assert_eq!(told, (by == By::Upgrade).then_some("echo/1"));
        assert!(!headers.contains_key("x-stella-upgrade"), "{headers:?}");
        assert_eq!(ask("/chat", "echo/1", &[]).await.0, 426, "{by:?}");
        // A path that opens no tunnels: with HTTP/2, success would be one.
        assert_eq!(ask("/hello", "echo/1", &[]).await.0, if by == By::Upgrade { 200 } else { 501 });
        assert_eq!(ask("/nobody", "echo/1", &[]).await.0, 404, "{by:?}");
        // Handshakes of WebSocket that are none.
        let version = |version| [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", version)];
        let (status, headers) = ask("/chat", "websocket", &version("8")).await;
        assert_eq!(status, if by == By::Upgrade { 426 } else { 400 });
        assert_eq!(headers["sec-websocket-version"], "13");
        assert_eq!(ask("/chat", "websocket", &version("13")[..1]).await.0, if by == By::Upgrade { 426 } else { 400 });
        for bad in [("sec-websocket-key", "short"), ("x-no-key", "at all")] {
            let (status, _) = ask("/chat", "websocket", &[bad, ("sec-websocket-version", "13")]).await;
            assert_eq!(status, if by == By::Upgrade { 400 } else { 200 }, "{bad:?}");
        }
    }
    // What concerns this connection alone is not passed on.
    let (status, _, _) = By::Upgrade.ask(stage.http(), "/hello", "h2c", &[("http2-settings", "")]).await;
    assert_eq!(status, 200);
    quiet(&stage).await;
}

async fn more_than_all_windows_comes_back_exact(transport: Transport) {
    let stage = Stage::new(transport).await;
    let _service = stage.join(service(&Witness::default())).await;
    for by in BOTH {
        let mut socket = by.websocket(stage.http(), "/chat", "").await;
        let large: Vec<u8> = (0..8 * MIB).map(|index| (index % 251) as u8).collect();
        socket.send(Message::binary(large.clone())).await.unwrap();
        let back = within("a large message", socket.next()).await.unwrap().unwrap().into_data();
        assert!(back == large, "{by:?}: {} bytes", back.len());
    }
    quiet(&stage).await;
}

async fn a_reader_that_stops_stops_nobody_else(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _service = stage.join(service(&witness)).await;
    // On one client connection, and on others; all of them on the same links.
    let client = Http2::connect(stage.http()).await;
    let stalled = (client.open("/pour", "any").await, By::Upgrade.open(stage.http(), "/pour", "any").await);
    witness.begun(2).await;
    let (mut beside, mut elsewhere) =
        (client.open("/echo", "echo/1").await, By::Upgrade.open(stage.http(), "/echo", "echo/1").await);
    let sent = vec![3; MIB];
    for stream in [&mut beside as &mut dyn crate::sockets::Bidirectional, &mut *elsewhere] {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let writes = async {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let (read, ()) =
            within("the others go on", async { tokio::join!(reading.read_to_end(&mut back), writes) }).await;
        assert_eq!(read.unwrap(), MIB);
    }
    assert_eq!(stage.client().get("/hello").await.body, "hello");
    drop(stalled);
    witness.ended(4).await;
    quiet(&stage).await;
}

async fn a_client_that_vanishes_ends_the_handler(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let _service = stage.join(service(&witness)).await;
    Http2::connect(stage.http()).await.open("/hold", "any").await.reset();
    witness.ended(1).await;
    let mut stream = TcpStream::connect(stage.http()).await.unwrap();
    stream.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n").await.unwrap();
    assert_eq!(within("an answer", head(&mut stream)).await.0, 101);
    stream.set_zero_linger().unwrap();
    drop(stream);
    witness.ended(2).await;
    // A socket that is dropped without a closing handshake is an end to who reads it.
    drop(By::Upgrade.websocket(stage.http(), "/chat", "").await);
    drop(By::Connect.websocket(stage.http(), "/chat", "").await);
    witness.ended(4).await;
    quiet(&stage).await;
}

async fn a_tunnel_that_is_cut_looks_cut(transport: Transport) {
    let stage = Stage::new(transport).await;
    let witness = Witness::default();
    let running = stage.join(service(&witness).shutdown_grace(Duration::from_millis(200))).await;
    for by in BOTH {
        for path in ["/fail", "/panic"] {
            let mut stream = by.open(stage.http(), path, "any").await;
            let mut begun = [0; 5];
            stream.read_exact(&mut begun).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            within("the cut", stream.read_u8()).await.map(drop).expect_err("it has not ended in good order");
        }
    }
    quiet(&stage).await;
    // The whole service leaves, and has no patience.
    let mut streams = Vec::new();
    for by in BOTH {
        streams.push(by.open(stage.http(), "/hold", "any").await);
    }
    witness.begun(2).await;
    drop(running);
    for mut stream in streams {
        let mut rest = Vec::new();
        within("the cut", stream.read_to_end(&mut rest)).await.expect_err("it has not ended in good order");
    }
    witness.ended(2).await;
    quiet(&stage).await;
}

async fn a_tunnel_on_which_nothing_moves_is_ended(transport: Transport) {
    let stage = Stage::with(transport, "limits: { tunnel_idle_timeout: 300ms }").await;
    let witness = Witness::default();
    let _service = stage.join(service(&witness)).await;
    for (number, by) in BOTH.into_iter().enumerate() {
        let mut idle = by.open(stage.http(), "/hold", "any").await;
        let mut busy = by.open(stage.http(), "/echo", "echo/1").await;
        // One that speaks outlives one that does not.
        let speaks = async {
            let mut turns = tokio::time::interval(Duration::from_millis(50));
            loop {
                turns.tick().await;
                busy.write_all(b"!").await.unwrap();
                assert_eq!(busy.read_u8().await.unwrap(), b'!');
            }
        };
        let mut rest = Vec::new();
        let ends = within("silence ends it", idle.read_to_end(&mut rest));
        tokio::select! {
            () = speaks => {}
            ended = ends => drop(ended.expect_err("nobody has said that it is over")),
        }
        drop(busy);
        witness.ended(2 * number + 2).await;
    }
    quiet(&stage).await;
}

async fn a_gateway_that_stops_lets_tunnels_have_its_grace(transport: Transport) {
    let stage = Stage::with(transport, "shutdown: { grace: 500ms }").await;
    let witness = Witness::default();
    let _service = stage.join(service(&witness)).await;
    let mut streams = Vec::new();
    for by in BOTH {
        streams.push(by.open(stage.http(), "/echo", "echo/1").await);
    }
    let admin = stage.admin();
    let stopping = tokio::spawn(stage.gateway.shutdown());
    eventually("it is not ready any more", async || {
        admin.get("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    for stream in &mut streams {
        stream.write_all(b"!").await.unwrap();
        assert_eq!(within("it still comes back", stream.read_u8()).await.unwrap(), b'!');
    }
    for mut stream in streams {
        within("the cut", stream.read_u8()).await.map(drop).expect_err("the grace is over");
    }
    within("the gateway ends", stopping).await.unwrap();
    witness.ended(2).await;
}

async fn handlers_that_hold_tunnels_hold_their_slots(transport: Transport) {
    let stage = Stage::with(transport, "limits: { default_timeout: 150ms }").await;
    let witness = Witness::default();
    let _service = stage.join(service(&witness).lease(2)).await;
    let (one, two) =
        (By::Upgrade.open(stage.http(), "/hold", "any").await, By::Connect.open(stage.http(), "/hold", "any").await);
    witness.begun(2).await;
    // Longer than any deadline: a tunnel has none, and the slots stay taken.
    let answer = stage.client().get("/hello").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "no_capacity"));
    drop(two);
    witness.ended(1).await;
    eventually("its slot is free", async || stage.client().get("/hello").await.status == StatusCode::OK).await;
    drop(one);
}

list! {
    websocket_messages_come_back => Streaming,
    a_subprotocol_is_chosen_and_told => Streaming,
    any_protocol_passes_and_half_a_close_is_half_a_close => Streaming,
    what_follows_the_request_at_once_is_the_tunnels => Streaming,
    what_is_no_tunnel_is_answered_as_what_it_is => Streaming,
    more_than_all_windows_comes_back_exact => Streaming,
    a_reader_that_stops_stops_nobody_else => Streaming,
    a_client_that_vanishes_ends_the_handler => Streaming,
    a_tunnel_that_is_cut_looks_cut => Streaming,
    a_tunnel_on_which_nothing_moves_is_ended => Streaming,
    a_gateway_that_stops_lets_tunnels_have_its_grace => Streaming,
    handlers_that_hold_tunnels_hold_their_slots => Streaming,
}
