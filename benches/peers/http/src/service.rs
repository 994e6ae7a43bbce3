//! A service on plain hyper, with the endpoints of `bench-service` that the comparisons use.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::runtime;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// 1 is a single-threaded runtime.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    runtime::block_on(options.threads, runtime::serve(options.listen, answer))
}

/// As large as the pieces of `bench-service`.
const CHUNK: usize = 251 * 261;
static OCTETS: [u8; CHUNK] = [b'x'; CHUNK];

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if request.method() == Method::GET && path == "/hello" {
        return text("Hello, World!");
    }
    if let Some(left) = path.strip_prefix("/bytes/").and_then(|n| n.parse().ok()) {
        return Response::new(Body::Octets { left });
    }
    if let Some(ms) = path.strip_prefix("/sleep/").and_then(|ms| ms.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        return text("slept");
    }
    match path {
        "/echo" => Response::new(Body::Incoming(request.into_body())),
        "/sink" => sink(request.into_body()).await,
        _ => status(StatusCode::NOT_FOUND),
    }
}

async fn sink(mut body: Incoming) -> Response<Body> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return status(StatusCode::BAD_REQUEST),
        }
    }
    text(length.to_string())
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Full(Full::new(text.into())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = text("");
    *response.status_mut() = status;
    response
}

/// Every body the service answers with.
enum Body {
    Full(Full<Bytes>),
    Octets { left: u64 },
    Incoming(Incoming),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Incoming(body) => Pin::new(body).poll_frame(cx),
            Self::Octets { left: 0 } => Poll::Ready(None),
            Self::Octets { left } => {
                let piece = usize::try_from(*left).map_or(CHUNK, |left| left.min(CHUNK));
                *left -= piece as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&OCTETS[..piece])))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Incoming(body) => body.is_end_stream(),
            Self::Octets { left } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Incoming(body) => body.size_hint(),
            Self::Octets { left } => SizeHint::with_exact(*left),
        }
    }
}
