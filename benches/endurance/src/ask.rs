//! Callers: clients that ask one request after the other and look hard at each answer.
//!
//! A caller behaves as HTTP clients do: it keeps its connection, and opens another one where the server has ended it. A
//! request that was provably not sent is no outcome; everything else is.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::tally::{Outcome, Tally};

/// Longest wait for an answer: beyond the gateway's own limit, so that a request that got none is seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer had begun, and did not come to its end.
pub(crate) const CUT: &str = "cut short";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// `GET /hello`
    Hello,
    /// `POST /echo` of so many bytes, of which no two are alike.
    Echo(usize),
    /// `GET /bytes/{n}`
    Bytes(usize),
    /// `GET /sleep/{ms}`, which may run once.
    Once(u64),
    /// `GET /again/{ms}`, which may run again.
    Again(u64),
}

/// One client.
#[derive(Debug)]
pub(crate) struct Caller {
    to: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
    connections: JoinSet<()>,
    random: fastrand::Rng,
}

impl Caller {
    pub(crate) fn new(to: SocketAddr, seed: u64) -> Self {
        Self { to, sender: None, connections: JoinSet::new(), random: fastrand::Rng::with_seed(seed) }
    }

    /// Asks, and counts what comes of it.
    pub(crate) async fn ask(&mut self, ask: Ask, tally: &mut Tally) -> Outcome {
        let body = match ask {
            Ask::Echo(length) => self.unlike_any_other(length),
            _ => Bytes::new(),
        };
        let began = Instant::now();
        let outcome = loop {
            match timeout(PATIENCE, self.attempt(ask, body.clone())).await {
                Ok(Some(outcome)) => break outcome,
                // Not sent: the server has ended the connection, as it may between two requests.
                Ok(None) => {}
                Err(_) => break Outcome::Lost(format!("no answer within {PATIENCE:?}")),
            }
        };
        if outcome != Outcome::Right && !matches!(outcome, Outcome::Problem(_)) {
            self.sender = None;
        }
        tally.count(&outcome, began.elapsed());
        outcome
    }

    fn unlike_any_other(&mut self, length: usize) -> Bytes {
        let mut body = vec![0; length];
        self.random.fill(&mut body);
        body.into()
    }

    /// `None`: the request was provably not sent.
    async fn attempt(&mut self, ask: Ask, body: Bytes) -> Option<Outcome> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_err()
        {
            self.sender = None;
        }
        if self.sender.is_none() {
            match connect(self.to, &mut self.connections).await {
                Ok(sender) => self.sender = Some(sender),
                Err(error) => return Some(Outcome::Lost(format!("cannot connect: {error}"))),
            }
        }
        let sender = self.sender.as_mut()?;
        let (method, path) = match ask {
            Ask::Hello => (Method::GET, "/hello".to_owned()),
            Ask::Echo(_) => (Method::POST, "/echo".to_owned()),
            Ask::Bytes(count) => (Method::GET, format!("/bytes/{count}")),
            Ask::Once(milliseconds) => (Method::GET, format!("/sleep/{milliseconds}")),
            Ask::Again(milliseconds) => (Method::GET, format!("/again/{milliseconds}")),
        };
        let request = Request::builder().method(method).uri(path).header(header::HOST, "endurance");
        let Ok(request) = request.body(Full::new(body.clone())) else {
            return Some(Outcome::Lost("no request".into()));
        };
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) if error.is_canceled() => {
                self.sender = None;
                return None;
            }
            Err(error) => return Some(Outcome::Lost(error.to_string())),
        };
        let status = response.status();
        let answer = match response.into_body().collect().await {
            Ok(answer) => answer.to_bytes(),
            Err(_) => return Some(Outcome::Lost(CUT.into())),
        };
        Some(judge(ask, status, &body, &answer))
    }
}

async fn connect(to: SocketAddr, owner: &mut JoinSet<()>) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    while owner.try_join_next().is_some() {}
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    owner.spawn(async {
        // Its end shows when the sender is used next.
        let _ = connection.await;
    });
    Ok(sender)
}

fn judge(ask: Ask, status: StatusCode, asked: &Bytes, answer: &Bytes) -> Outcome {
    if status != StatusCode::OK {
        let problem: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
        return match problem["code"].as_str() {
            Some(code) => Outcome::Problem(code.to_owned()),
            None => Outcome::Wrong(format!("status {status} without a problem document")),
        };
    }
    let right = match ask {
        Ask::Hello => &answer[..] == b"Hello, World!",
        Ask::Echo(_) => answer == asked,
        Ask::Bytes(count) => answer.len() == count && is_pattern(answer, 0),
        Ask::Once(_) | Ask::Again(_) => &answer[..] == b"slept",
    };
    if right { Outcome::Right } else { Outcome::Wrong(format!("{} bytes that were not asked for", answer.len())) }
}

/// Whether these are the octets of `GET /bytes/{n}` from a place on: octet `i` is `i % 251`.
pub(crate) fn is_pattern(octets: &[u8], from: usize) -> bool {
    octets.iter().enumerate().all(|(at, octet)| usize::from(*octet) == (from + at) % 251)
}

/// Clients that ask one request after the other, until they are told to stop.
#[derive(Debug)]
pub(crate) struct Crowd {
    callers: JoinSet<Tally>,
    stop: CancellationToken,
    began: Instant,
}

/// What a crowd came to.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
}

impl Came {
    pub(crate) fn per_second(&self) -> f64 {
        self.tally.right() as f64 / self.seconds
    }
}

impl Crowd {
    /// `count` clients; each asks what `next` says for its number and turn, as fast as it is answered.
    pub(crate) fn start(to: SocketAddr, count: u64, next: impl Fn(u64, u64) -> Ask + Clone + Send + 'static) -> Self {
        Self::paced(to, count, Duration::ZERO, next)
    }

    /// The same, with a pause before each next request.
    pub(crate) fn paced(
        to: SocketAddr,
        count: u64,
        pause: Duration,
        next: impl Fn(u64, u64) -> Ask + Clone + Send + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for number in 0..count {
            let (stop, next) = (stop.clone(), next.clone());
            callers.spawn(async move {
                let (mut caller, mut tally) = (Caller::new(to, number), Tally::default());
                let mut turn = 0;
                while !stop.is_cancelled() {
                    caller.ask(next(number, turn), &mut tally).await;
                    turn += 1;
                    if !pause.is_zero() {
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                }
                tally
            });
        }
        Self { callers, stop, began: Instant::now() }
    }

    /// Lets each end what it has begun, and adds everything up.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Came> {
        self.stop.cancel();
        let mut tally = Tally::default();
        while let Some(one) = self.callers.join_next().await {
            tally.add(&one?);
        }
        Ok(Came { tally, seconds: self.began.elapsed().as_secs_f64() })
    }
}
