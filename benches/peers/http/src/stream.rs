//! A client that moves large bodies over one HTTP/1.1 connection, one request after the other.
//!
//! After a first request that is not measured it prints `begin`, and after the last one `end` with a line of JSON. A
//! request that takes longer than its limit is a stall: it is reported as such, and nothing more is tried.

use std::convert::Infallible;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http::{Method, Request, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use crate::mark;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    to: SocketAddr,
    #[command(flatten)]
    exchange: Exchange,
    /// For how long requests are begun.
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// Seconds after which a request counts as stalled.
    #[arg(long, default_value = "15")]
    limit: f64,
}

/// What is asked, again and again.
#[derive(Debug, clap::Args)]
pub(crate) struct Exchange {
    #[arg(long)]
    pub(crate) way: Way,
    /// Bytes of each body.
    #[arg(long, default_value = "10485760")]
    pub(crate) bytes: u64,
    /// Bytes a second at most; the reading, or the writing, waits.
    #[arg(long)]
    pub(crate) pace: Option<u64>,
    /// The service's version, where it is not the default.
    #[arg(long)]
    pub(crate) version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// POST /sink
    Up,
    /// GET /bytes/{n}
    Down,
    /// POST /echo
    Both,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let limit = Duration::from_secs_f64(options.limit);
    let mut connection = Connection::to(options.to);
    let warmed = timeout(limit, connection.exchange(&options.exchange)).await;
    if let Ok(outcome) = &warmed
        && let Err(error) = outcome
    {
        return Err(anyhow!("the first request failed: {error:#}"));
    }
    mark("begin");
    let started = Instant::now();
    let (mut requests, mut stalled) = (0, warmed.is_err());
    while !stalled && started.elapsed().as_secs_f64() < options.seconds {
        match timeout(limit, connection.exchange(&options.exchange)).await {
            Ok(outcome) => outcome?,
            Err(_) => stalled = true,
        }
        requests += u64::from(!stalled);
    }
    let seconds = started.elapsed().as_secs_f64();
    let connections = connection.opened;
    let result = json!({ "requests": requests, "seconds": seconds, "stalled": stalled, "connections": connections });
    mark(&format!("end {result}"));
    Ok(())
}

/// The one connection; opened again if the other side does not keep it, and that is counted.
pub(crate) struct Connection {
    to: SocketAddr,
    sender: Option<SendRequest<Octets>>,
    opened: u64,
}

impl Connection {
    pub(crate) const fn to(to: SocketAddr) -> Self {
        Self { to, sender: None, opened: 0 }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Octets>> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_err()
        {
            self.sender = None;
        }
        if self.sender.is_none() {
            let stream = TcpStream::connect(self.to).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            // Its end shows when the sender is used next.
            tokio::spawn(async {
                let _ = connection.await;
            });
            self.opened += 1;
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| anyhow!("no connection"))
    }

    pub(crate) async fn exchange(&mut self, exchange: &Exchange) -> Result<()> {
        let Exchange { way, bytes, pace, version } = exchange;
        let host = self.to.to_string();
        let sender = self.sender().await?;
        let mut request = Request::builder().header(header::HOST, host);
        if let Some(version) = version {
            request = request.header("x-service-version", version);
        }
        let pace = || pace.map(Pace::new);
        let request = match way {
            Way::Up => request.method(Method::POST).uri("/sink").body(Octets { left: *bytes, pace: pace() }),
            Way::Down => request.uri(format!("/bytes/{bytes}")).body(Octets { left: 0, pace: None }),
            Way::Both => request.method(Method::POST).uri("/echo").body(Octets { left: *bytes, pace: pace() }),
        }?;
        let mut reading = pace().filter(|_| *way == Way::Down);
        let response = sender.send_request(request).await?;
        let status = response.status();
        ensure!(status.is_success(), "{status}");
        let mut body = response.into_body();
        let (mut length, mut said) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                length += data.len() as u64;
                if *way == Way::Up {
                    said.extend_from_slice(&data);
                }
                if let Some(pace) = &mut reading {
                    pace.moved(data.len() as u64);
                    pace.sleep.as_mut().await;
                }
            }
        }
        if *way == Way::Up {
            length = std::str::from_utf8(&said)?.parse()?;
        }
        ensure!(length == *bytes, "{length} of {bytes} bytes came");
        Ok(())
    }
}

/// Says when the next bytes may move.
struct Pace {
    rate: u64,
    moved: u64,
    started: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self { rate, moved: 0, started: Instant::now(), sleep: Box::pin(sleep(Duration::ZERO)) }
    }

    fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        let due = self.started + Duration::from_secs_f64(self.moved as f64 / self.rate as f64);
        self.sleep.as_mut().reset(due.into());
    }
}

/// The pieces are large, so that the client is not what is measured.
const CHUNK: usize = 256 * 1024;
static OCTETS: [u8; CHUNK] = [b'x'; CHUNK];

struct Octets {
    left: u64,
    pace: Option<Pace>,
}

impl http_body::Body for Octets {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK));
        if let Some(pace) = self.pace.as_mut().filter(|_| piece > 0) {
            ready!(pace.sleep.as_mut().poll(cx));
            pace.moved(piece as u64);
        }
        self.left -= piece as u64;
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(Bytes::from_static(&OCTETS[..piece])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
