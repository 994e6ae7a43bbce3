//! Clients that read slowly, or leave in the middle: little is fetched for them ahead of their reading, they get all of
//! it, and nothing is left of who has gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use router_gateway::edge::{Arrival, ClientConnection, EdgeSettings};
use router_link::{Body, BodyError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::start_in_memory;

const PIECE: usize = 16 * 1024;
const PIECES: usize = 200;

/// A body whose pieces come one after the other, each in a turn of its own, as they do from a link.
struct Pieces {
    fetched: Arc<AtomicUsize>,
    due: bool,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.due = !self.due;
        if self.due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = self.fetched.fetch_add(1, Ordering::Relaxed);
        Poll::Ready((before < PIECES).then(|| Ok(Frame::data(Bytes::from(vec![before as u8; PIECE])))))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_does_not_read_is_not_fetched_and_it_gets_all_in_the_end() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetched);
    let (_edge, clients) = start_in_memory(
        EdgeSettings::default(),
        tower::service_fn(move |_: Request<Body>| {
            let body = Body::stream(Pieces { fetched: Arc::clone(&counter), due: false });
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        }),
    );
    let mut client = clients.connect().await;
    client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    // On a clock that stands still, this passes when nothing more can happen.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ahead = fetched.load(Ordering::Relaxed) * PIECE;
    assert!(ahead <= 64 * 1024 + 3 * PIECE, "{ahead} bytes were fetched for a pipe of 64 KiB");

    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    for piece in 0..PIECES {
        let count = answer.iter().filter(|octet| usize::from(**octet) == piece).count();
        assert!(count >= PIECE, "piece {piece}: {count} bytes");
    }
    assert!(answer.ends_with(b"0\r\n\r\n"), "it ends as a whole");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_client_that_leaves_in_the_middle_of_its_body() {
    let seen = Arc::new(Mutex::new(Weak::<ClientConnection>::new()));
    let held = Arc::new(Mutex::new(None));
    let (connection, request) = (Arc::clone(&seen), Arc::clone(&held));
    let (_edge, clients) = start_in_memory(
        EdgeSettings::default(),
        tower::service_fn(move |mut arrived: Request<Body>| {
            let arrival = arrived.extensions_mut().remove::<Arrival>().expect("what the edge knows");
            *connection.lock().unwrap() = Arc::downgrade(&arrival.connection);
            *request.lock().unwrap() = Some(arrived.into_body());
            let body = Body::stream(Pieces { fetched: Arc::default(), due: false });
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        }),
    );
    // Whoever reads the request's body may let go of it before the connection ends, or afterwards.
    for body_goes_first in [true, false] {
        let mut client = clients.connect().await;
        client.write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nbegun").await.unwrap();
        let mut begun = [0; 12];
        client.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
        let body = held.lock().unwrap().take().expect("a request");
        if body_goes_first {
            drop(body);
            drop(client);
        } else {
            drop(client);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(body);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(seen.lock().unwrap().upgrade().is_none(), "body_goes_first: {body_goes_first}");
    }
}
