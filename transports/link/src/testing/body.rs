//! Bodies for scenarios: fed from outside, patterned, read whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::body::Body;
use crate::body_error::BodyError;

type Piece = Result<Frame<Bytes>, BodyError>;

/// Feeds a body from outside. Dropping it ends the body.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Piece>);

/// A body that brings what is fed.
#[must_use]
pub fn feed() -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (Feed(sender), Body::stream(Fed(receiver)))
}

impl Feed {
    /// Feeds bytes; waits while the piece before them was not taken. Whether anybody reads.
    pub async fn bytes(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(bytes.into()))).await.is_ok()
    }

    /// Ends the body with trailers.
    pub async fn trailers(self, trailers: HeaderMap) {
        let _ = self.0.send(Ok(Frame::trailers(trailers))).await;
    }

    /// Lets the body fail.
    pub async fn fail(self, error: BodyError) {
        let _ = self.0.send(Err(error)).await;
    }

    /// Waits until nobody reads any more.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }
}

struct Fed(mpsc::Receiver<Piece>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        Poll::Ready(ready!(self.0.poll_recv(cx)))
    }
}

/// [`pattern`]`(0, length)` in pieces that are all there at once, and trailers.
pub(super) fn pieces(length: usize, trailers: HeaderMap) -> Body {
    const PIECE: usize = 3000;
    let data = (0..length).step_by(PIECE).map(|from| Frame::data(pattern(from, PIECE.min(length - from))));
    Body::stream(Pieces(data.chain([Frame::trailers(trailers)]).collect()))
}

struct Pieces(VecDeque<Frame<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Piece>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// `length` bytes in which every stretch is told from every other, beginning at `from`.
#[must_use]
pub fn pattern(from: usize, length: usize) -> Bytes {
    (from..from + length).map(|i| (i ^ (i >> 8) ^ (i >> 16).wrapping_mul(7)) as u8).collect()
}

/// Reads a whole body, with its trailers.
///
/// # Errors
/// The body's.
pub async fn read(body: Body) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}
