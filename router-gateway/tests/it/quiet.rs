//! Client connections that say nothing for a while: what is kept for them is less, and nobody can tell.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use router_gateway::edge::{BoxHttpListener, BoxIo, EdgeSettings, HttpListener};
use router_link::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, advance, timeout};

use crate::common::{read_response, start, start_at, start_in_memory, status};
use crate::memory;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

/// So long nothing is said. The silence itself is what is tested, on a clock that stands still otherwise.
async fn silence(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn path(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from(request.uri().path().to_owned())))
}

#[tokio::test(start_paused = true)]
async fn a_request_after_a_long_silence_is_answered_as_the_first_one() {
    let (_edge, clients) = start_in_memory(EdgeSettings::default(), tower::service_fn(path));
    let mut client = clients.connect().await;
    for seconds in [0, 3, 40, 70, 1] {
        silence(seconds).await;
        client.write_all(GET).await.unwrap();
        let (head, body) = read_response(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, b"/a");
    }
    // A head whose first byte came long before the rest of it, after a silence.
    silence(5).await;
    client.write_all(&GET[..1]).await.unwrap();
    silence(5).await;
    client.write_all(&GET[1..]).await.unwrap();
    assert_eq!(read_response(&mut client).await.1, b"/a");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_behind_another_request_survives_a_silence() {
    let (_edge, clients) = start_in_memory(EdgeSettings::default(), tower::service_fn(path));
    let mut client = clients.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nX-Long: 0123456789").await.unwrap();
    assert_eq!(read_response(&mut client).await.1, b"/a");
    silence(5).await;
    client.write_all(b"\r\nHost: a\r\n\r\n").await.unwrap();
    let (head, body) = read_response(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, b"/b");
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_has_no_buffer_of_the_http_library() {
    let (listener, clients) = memory::network();
    let room = Arc::new(AtomicUsize::new(0));
    let watched = Watched { listener, room: Arc::clone(&room) };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let _edge = start_at(watched, address, EdgeSettings::default(), tower::service_fn(path));
    let mut client = clients.connect().await;
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        read_response(&mut client).await;
        assert!(room.load(Ordering::Relaxed) >= 4096, "the HTTP library reads");
        silence(4).await;
        let room = room.load(Ordering::Relaxed);
        assert!(room <= 64, "it is still there, with room for {room} bytes");
    }
}

/// Makes its connections tell how much room the last read had.
struct Watched {
    listener: BoxHttpListener,
    room: Arc<AtomicUsize>,
}

struct WatchedIo(BoxIo, Arc<AtomicUsize>);

impl HttpListener for Watched {
    type Io = WatchedIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(WatchedIo, SocketAddr)>> {
        let (io, peer) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Ok((WatchedIo(io, Arc::clone(&self.room)), peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.1.store(buf.remaining(), Ordering::Relaxed);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_silence_within_a_head_stays_a_408() {
    let (_edge, clients) = start_in_memory(EdgeSettings::default(), tower::service_fn(path));
    let mut client = clients.connect().await;
    client.write_all(GET).await.unwrap();
    read_response(&mut client).await;
    silence(4).await;
    client.write_all(b"GET /b HTT").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_is_too_long_ends_the_connection_and_no_sooner() {
    let limit = Duration::from_secs(20);
    let settings = EdgeSettings { keep_alive_timeout: limit, ..EdgeSettings::default() };
    let (_edge, clients) = start_in_memory(settings, tower::service_fn(path));
    let mut client = clients.connect().await;
    for _ in 0..2 {
        client.write_all(GET).await.unwrap();
        read_response(&mut client).await;
        let silent_since = Instant::now();
        if timeout(limit / 2, client.read_u8()).await.is_err() {
            continue;
        }
        panic!("it was closed after {:?}", silent_since.elapsed());
    }
    client.write_all(GET).await.unwrap();
    read_response(&mut client).await;
    let silent_since = Instant::now();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let silent = silent_since.elapsed();
    assert!(silent >= limit && silent <= limit + Duration::from_secs(2), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_no_silence() {
    let settings = EdgeSettings { keep_alive_timeout: Duration::from_secs(5), ..EdgeSettings::default() };
    let slow = tower::service_fn(|request: Request<Body>| async move {
        silence(30).await;
        path(request).await
    });
    let (_edge, clients) = start_in_memory(settings, slow);
    let mut client = clients.connect().await;
    // The second one comes while the first one is answered, in two pieces: read ahead, and asked for later.
    client.write_all(GET).await.unwrap();
    silence(10).await;
    client.write_all(b"GET /the/second/one HT").await.unwrap();
    silence(10).await;
    client.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut client).await.1, b"/a");
    assert_eq!(read_response(&mut client).await.1, b"/the/second/one");
}

#[tokio::test]
async fn a_stop_ends_connections_that_rest_when_they_have_lingered() {
    let (edge, clients) = start_in_memory(EdgeSettings::default(), tower::service_fn(path));
    let mut client = clients.connect().await;
    client.write_all(GET).await.unwrap();
    read_response(&mut client).await;
    tokio::time::pause();
    advance(Duration::from_secs(10)).await;
    edge.stop();
    assert!(timeout(Duration::from_secs(5), client.read(&mut [0])).await.is_err(), "it may just be about to ask");
    edge.linger_over.request();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    edge.tasks.close();
    edge.tasks.wait().await;
}

/// Whether it has never spoken, has just spoken, or has been silent for long.
#[tokio::test(start_paused = true)]
async fn after_a_stop_each_connection_is_answered_once_more_and_told_so() {
    for seconds in [None, Some(0), Some(20)] {
        let (edge, clients) = start_in_memory(EdgeSettings::default(), tower::service_fn(path));
        let mut client = clients.connect().await;
        if let Some(seconds) = seconds {
            client.write_all(GET).await.unwrap();
            let (head, _) = read_response(&mut client).await;
            assert!(!head.contains("connection: close"), "{head}");
            silence(seconds).await;
        }
        edge.stop();
        silence(4).await;
        client.write_all(GET).await.unwrap();
        let (head, body) = read_response(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{seconds:?}: {head}");
        assert_eq!(body, b"/a");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        edge.tasks.close();
    }
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_request_with_or_without_a_body() {
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
        let (came, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notice, departure) = (Arc::clone(&came), Arc::clone(&gone));
        let never = tower::service_fn(move |request: Request<Body>| {
            let (came, gone) = (Arc::clone(&notice), Arc::clone(&departure));
            async move {
                struct OnDrop(Arc<Notify>);
                impl Drop for OnDrop {
                    fn drop(&mut self) {
                        self.0.notify_one();
                    }
                }
                let _gone = OnDrop(gone);
                let _body = http_body_util::BodyExt::collect(request.into_body()).await;
                came.notify_one();
                std::future::pending::<()>().await;
                Ok(Response::new(Body::empty()))
            }
        });
        let edge = start(EdgeSettings::default(), never);
        let mut client = tokio::net::TcpStream::connect(edge.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        came.notified().await;
        drop(client);
        timeout(Duration::from_secs(10), gone.notified()).await.expect("the request outlived its client");
    }
}
