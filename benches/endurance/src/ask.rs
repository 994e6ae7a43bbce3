//! Callers: clients that ask one request after the other and look hard at each answer.
//!
//! A caller behaves as HTTP clients do: it keeps its connection, and opens another one where the server has ended it. A
//! request that was provably not sent is no outcome; everything else is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// `GET /e/{n}`
    Numbered(u64),
}

impl Ask {
    /// Small and large, up and down, for a client's number and turn.
    pub(crate) fn mixed(number: u64, turn: u64) -> Self {
        match (number + turn) % 8 {
            0 => Self::Bytes(200_000),
            1 => Self::Once(5),
            2 => Self::Echo(300_000),
            3..5 => Self::Echo(700),
            _ => Self::Hello,
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Caller {
    to: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
    connections: JoinSet<()>,
    /// Connections that it has made.
    made: u64,
    random: fastrand::Rng,
}

impl Caller {
    pub(crate) fn new(to: SocketAddr, seed: u64) -> Self {
        Self { to, sender: None, connections: JoinSet::new(), made: 0, random: fastrand::Rng::with_seed(seed) }
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
                Ok(sender) => {
                    self.made += 1;
                    self.sender = Some(sender);
                }
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
            Ask::Numbered(place) => (Method::GET, format!("/e/{place}")),
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
        Ask::Numbered(place) => answer == place.to_string().as_bytes(),
    };
    if right { Outcome::Right } else { Outcome::Wrong(format!("{} bytes that were not asked for", answer.len())) }
}

/// Whether these are the octets of `GET /bytes/{n}` from a place on: octet `i` is `i % 251`.
pub(crate) fn is_pattern(octets: &[u8], from: usize) -> bool {
    octets.iter().enumerate().all(|(at, octet)| usize::from(*octet) == (from + at) % 251)
}

/// How long a client waits before it asks again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// After each answer.
    pub(crate) between: Duration,
    /// After one that was not what it asked for: whoever is refused does not ask again at once.
    pub(crate) after_failure: Duration,
}

/// Clients that ask one request after the other, until they are told to stop.
#[derive(Debug)]
pub(crate) struct Crowd {
    callers: JoinSet<(Tally, u64)>,
    stop: CancellationToken,
    began: Instant,
    since: Arc<Mutex<Since>>,
}

/// What became of the requests that began after a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    moment: Instant,
    first_right: Option<Instant>,
    last_failed: Option<Instant>,
}

impl Since {
    const fn new(moment: Instant) -> Self {
        Self { moment, first_right: None, last_failed: None }
    }

    fn count(&mut self, began: Instant, outcome: &Outcome) {
        if began < self.moment {
            return;
        }
        if *outcome == Outcome::Right {
            self.first_right.get_or_insert_with(Instant::now);
        } else {
            self.last_failed = self.last_failed.max(Some(began));
        }
    }

    /// How long after the moment the first of them was answered rightly.
    pub(crate) fn back(&self) -> Option<Duration> {
        self.first_right.map(|at| at - self.moment)
    }

    /// How long after the moment the last of them began that failed.
    pub(crate) fn trouble(&self) -> Option<Duration> {
        self.last_failed.map(|at| at - self.moment)
    }
}

/// What a crowd came to.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) tally: Tally,
    pub(crate) seconds: f64,
    /// Connections that all clients together have made; one each, if none was ended.
    pub(crate) connections: u64,
}

impl Came {
    pub(crate) fn per_second(&self) -> f64 {
        self.tally.right() as f64 / self.seconds
    }
}

impl Crowd {
    /// `count` clients; each asks what `next` says for its number and turn, as fast as it is answered.
    pub(crate) fn start(to: SocketAddr, count: u64, next: impl Fn(u64, u64) -> Ask + Clone + Send + 'static) -> Self {
        Self::paced(to, count, Pace::default(), next)
    }

    /// The same, with pauses.
    pub(crate) fn paced(
        to: SocketAddr,
        count: u64,
        pace: Pace,
        next: impl Fn(u64, u64) -> Ask + Clone + Send + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let began = Instant::now();
        let since = Arc::new(Mutex::new(Since::new(began)));
        let mut callers = JoinSet::new();
        for number in 0..count {
            let (stop, next, since) = (stop.clone(), next.clone(), Arc::clone(&since));
            callers.spawn(async move {
                let (mut caller, mut tally) = (Caller::new(to, number), Tally::default());
                let mut turn = 0;
                while !stop.is_cancelled() {
                    let began = Instant::now();
                    let outcome = caller.ask(next(number, turn), &mut tally).await;
                    lock(&since).count(began, &outcome);
                    turn += 1;
                    let failed = outcome != Outcome::Right;
                    let pause = if failed { pace.between.max(pace.after_failure) } else { pace.between };
                    if !pause.is_zero() {
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                }
                (tally, caller.made)
            });
        }
        Self { callers, stop, began, since }
    }

    /// From this moment on [`since`](Crowd::since) tells of requests that begin after it.
    pub(crate) fn mark(&self) -> Instant {
        let moment = Instant::now();
        *lock(&self.since) = Since::new(moment);
        moment
    }

    /// What became of those that began after the last mark, or at all.
    pub(crate) fn since(&self) -> Since {
        *lock(&self.since)
    }

    /// Lets each end what it has begun, and adds everything up.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Came> {
        self.stop.cancel();
        let (mut tally, mut connections) = (Tally::default(), 0);
        while let Some(one) = self.callers.join_next().await {
            let (one, made) = one?;
            tally.add(&one);
            connections += made;
        }
        Ok(Came { tally, seconds: self.began.elapsed().as_secs_f64(), connections })
    }
}

fn lock(since: &Mutex<Since>) -> MutexGuard<'_, Since> {
    since.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_after_the_moment_is_told() {
        let moment = Instant::now();
        let after = |milliseconds| moment + Duration::from_millis(milliseconds);
        let failed = Outcome::Problem("no_instance".into());
        let mut since = Since::new(after(10));
        since.count(moment, &Outcome::Right);
        since.count(moment, &failed);
        assert_eq!((since.back(), since.trouble()), (None, None));
        for at in [12, 14, 11] {
            since.count(after(at), &failed);
        }
        since.count(after(15), &Outcome::Right);
        assert_eq!(since.trouble(), Some(Duration::from_millis(4)));
        assert!(since.first_right.is_some());
    }
}
