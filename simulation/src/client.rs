//! HTTP clients: ask what the plan says, and note exactly how each request ended.
//!
//! They speak HTTP/1.1 and HTTP/2 by hyper over whatever bytes [`Dial`] gives. What is seen wrong in a response, such as
//! another request's bytes, is a violation on the spot; whether an outcome was allowed is judged later.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use microservice_sdk::Body;
use router_gateway::edge::BoxIo;
use router_link::BoxFuture;
use tokio::task::{AbortHandle, JoinSet};

use crate::ledger::{Ledger, Outcome};
use crate::plan::{Ask, Client, Protocol, SERVICES, VERSIONS, What, is_pattern, pattern};
use crate::service::{X_TAG, X_WANTS, X_WORK};

/// How long a client waits for the end of an answer, whatever happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);
/// How long a client waits until a connection may be used again; then it makes another.
const REUSE: Duration = Duration::from_millis(500);
/// The largest body that a gateway surely takes off a client's hands when it answers early.
pub(crate) const DISCARDED: usize = 64 * 1024;
/// Bytes of a piece that a slow client sends.
const PIECE: usize = 12_000;
/// Pauses that a slow client makes in one body: it is slow, not endless.
const PAUSES: usize = 12;
/// Requests at once on one HTTP/2 connection.
const AT_ONCE: usize = 8;

/// Makes connections to gateways' HTTP listeners.
pub(crate) trait Dial: Send + Sync + 'static {
    fn dial(&self, gateway: usize) -> BoxFuture<'_, io::Result<BoxIo>>;
}

/// Asks everything that a client asks, and returns when all of it has ended.
pub(crate) async fn run(client: Client, dial: Arc<dyn Dial>, ledger: Arc<Ledger>) {
    let Client { host, gateway, protocol, asks } = client;
    let mut connection = None;
    let mut asked: JoinSet<()> = JoinSet::new();
    for ask in asks {
        tokio::time::sleep(ask.pause).await;
        while asked.len() >= AT_ONCE {
            asked.join_next().await;
        }
        ledger.asked(&ask, host, gateway);
        let usable = connection.take_if(|connection: &mut Connection| connection.is_closed()).is_none();
        if !usable {
            ledger.log(format!("{} finds its connection closed", ask.tag));
        }
        let open = match connection.take() {
            Some(connection) => connection,
            None => match open(protocol, gateway, &*dial).await {
                Ok(open) => open,
                Err(error) => {
                    ledger.ended(ask.tag, Outcome::Failed { error: format!("no connection: {error}") });
                    continue;
                }
            },
        };
        match open {
            Connection::Http1(mut sender, driver) => {
                let outcome = exchange(&ask, &ledger, |request| sender.send_request(request)).await;
                let is_over = matches!(outcome, Outcome::Left | Outcome::GaveUp { .. });
                let is_answered = outcome == Outcome::Answered { status: 200 };
                ledger.ended(ask.tag, outcome);
                // Where an upload is stuck behind its answer, it does not get ready at all.
                // Nor is one good whose upload was not wanted: the gateway closes it when it has thrown enough of that away.
                let is_unwanted = ask.sends > DISCARDED && !is_answered;
                if !is_over && !is_unwanted && matches!(tokio::time::timeout(REUSE, sender.ready()).await, Ok(Ok(()))) {
                    connection = Some(Connection::Http1(sender, driver));
                }
            }
            Connection::Http2(sender, driver) => {
                let (mut own, ledger) = (sender.clone(), Arc::clone(&ledger));
                asked.spawn(async move {
                    let outcome = exchange(&ask, &ledger, |request| own.send_request(request)).await;
                    ledger.ended(ask.tag, outcome);
                });
                connection = Some(Connection::Http2(sender, driver));
            }
        }
    }
    while asked.join_next().await.is_some() {}
    drop(connection);
    ledger.books().clients -= 1;
    ledger.log("a client is through");
}

/// One request on a connection of its own, for a look at whether all is well.
pub(crate) async fn probe(ask: &Ask, gateway: usize, dial: &dyn Dial, ledger: &Ledger) -> Outcome {
    match open(Protocol::Http1, gateway, dial).await {
        Ok(Connection::Http1(mut sender, _driver)) => {
            exchange(ask, ledger, |request| sender.send_request(request)).await
        }
        Ok(Connection::Http2(..)) => unreachable!("it was opened for HTTP/1.1"),
        Err(error) => Outcome::Failed { error: format!("no connection: {error}") },
    }
}

enum Connection {
    Http1(http1::SendRequest<Body>, Driven),
    Http2(http2::SendRequest<Body>, Driven),
}

impl Connection {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_closed(),
            Self::Http2(sender, _) => sender.is_closed(),
        }
    }
}

/// The task of a connection, which ends with it.
struct Driven(AbortHandle);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open(protocol: Protocol, gateway: usize, dial: &dyn Dial) -> io::Result<Connection> {
    let io = TokioIo::new(dial.dial(gateway).await?);
    Ok(match protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            // What goes wrong is told to whoever waits for a response.
            let driver = tokio::spawn(async move { drop(connection.await) });
            Connection::Http1(sender, Driven(driver.abort_handle()))
        }
        Protocol::Http2 => {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Connection::Http2(sender, Driven(driver.abort_handle()))
        }
    })
}

/// One request and its answer, or whatever comes instead.
async fn exchange<F>(ask: &Ask, ledger: &Ledger, send: impl FnOnce(Request<Body>) -> F) -> Outcome
where
    F: Future<Output = hyper::Result<Response<Incoming>>>,
{
    let patience = ask.leaves.unwrap_or(PATIENCE);
    let mut head_seen = false;
    let answered = async {
        match send(request(ask)).await {
            Ok(response) => {
                head_seen = true;
                read(ask, response, ledger).await
            }
            Err(error) => Outcome::Failed { error: error.to_string() },
        }
    };
    match tokio::time::timeout(patience, answered).await {
        Ok(outcome) => outcome,
        Err(_) if ask.leaves.is_some() => Outcome::Left,
        Err(_) => Outcome::GaveUp { head_seen },
    }
}

fn request(ask: &Ask) -> Request<Body> {
    let method = match ask.what {
        What::Again => Method::PUT,
        What::Bytes | What::Cut => Method::GET,
        What::Head => Method::HEAD,
        _ => Method::POST,
    };
    let has_body = !matches!(ask.what, What::Bytes | What::Cut | What::Head);
    let (service, word, tag) = (SERVICES[ask.service], ask.what.word(), ask.tag);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://gateway.test/{service}/{word}/{tag}"))
        .header(header::HOST, "gateway.test")
        .header(X_TAG, tag)
        .header(X_WANTS, ask.wants)
        .header(X_WORK, ask.work.as_millis().to_string())
        .header("x-request-id", format!("t{tag}"));
    if ask.what == What::NoVersion {
        request = request.header("x-service-version", "9.9.9");
    } else if let Some(version) = ask.version {
        request = request.header("x-service-version", VERSIONS[version]);
    }
    if let Some(deadline) = ask.deadline {
        request = request.header("x-request-timeout-ms", deadline.as_millis().to_string());
    }
    let body = match ask.slow {
        _ if !has_body => Body::empty(),
        None => Body::from(pattern(tag, 0, ask.sends)),
        Some(pause) => {
            // Half of the slow ones say how much will come.
            if tag.is_multiple_of(2) {
                request = request.header(header::CONTENT_LENGTH, ask.sends);
            }
            slow_body(tag, ask.sends, pause)
        }
    };
    request.body(body).expect("a well-formed request")
}

/// A body that comes in pieces, with pauses between the first of them.
fn slow_body(tag: u64, length: usize, pause: Duration) -> Body {
    let pieces = stream::unfold((0, 0), move |(at, count)| async move {
        if at >= length {
            return None;
        }
        if count < PAUSES {
            tokio::time::sleep(pause).await;
        }
        let piece = PIECE.min(length - at);
        let frame = Frame::data(Bytes::from(pattern(tag, at, piece)));
        Some((Ok::<_, Infallible>(frame), (at + piece, count + 1)))
    });
    Body::stream(StreamBody::new(Box::pin(pieces)))
}

async fn read(ask: &Ask, response: Response<Incoming>, ledger: &Ledger) -> Outcome {
    let tag = ask.tag;
    let (head, mut body) = response.into_parts();
    let status = head.status.as_u16();
    let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ledger.check(field("x-request-id") == format!("t{tag}"), || {
        format!("the response to {tag} is of request {:?}", field("x-request-id"))
    });
    let is_problem = field("content-type") == "application/problem+json";
    // Admission is answered before there is a handler.
    if !is_problem && ask.what != What::OneWay {
        ledger.check(field(X_TAG) == tag.to_string(), || {
            format!("the response to {tag} is of the handler of {:?} ({status})", field(X_TAG))
        });
    }
    let is_patterned = !is_problem && matches!(ask.what, What::Bytes | What::Echo | What::Cut);
    let mut text = Vec::new();
    let mut seen = 0;
    let mut pauses = 0;
    loop {
        if let Some(pause) = ask.slow
            && pauses < PAUSES
        {
            pauses += 1;
            tokio::time::sleep(pause).await;
        }
        let frame = match body.frame().await {
            None => break,
            Some(Err(_)) => return Outcome::Cut { status },
            Some(Ok(frame)) => frame,
        };
        let Ok(bytes) = frame.into_data() else { continue };
        if is_patterned {
            ledger.check(is_pattern(tag, seen, &bytes), || {
                format!("the response to {tag} has wrong bytes somewhere from {seen} on")
            });
        } else {
            text.extend_from_slice(&bytes);
        }
        seen += bytes.len();
    }
    if is_problem {
        return problem(ask, status, &text, ledger);
    }
    if status == 200 {
        let expected = match ask.what {
            What::Echo => Some(ask.sends),
            What::Bytes => Some(ask.wants),
            What::Head => Some(0),
            _ => None,
        };
        ledger.check(expected.is_none_or(|expected| expected == seen), || {
            format!("the response to {tag} ended as if it were whole after {seen} bytes, but it has {expected:?}")
        });
        if matches!(ask.what, What::Once | What::Again | What::Detached) {
            let expected = format!("{tag} {}", ask.sends);
            ledger.check(text == expected.as_bytes(), || {
                format!("the response to {tag} says {:?} and not {expected:?}", String::from_utf8_lossy(&text))
            });
        }
    }
    Outcome::Answered { status }
}

fn problem(ask: &Ask, status: u16, text: &[u8], ledger: &Ledger) -> Outcome {
    let tag = ask.tag;
    // To HEAD, a problem is told by its status alone.
    let document = serde_json::from_slice::<serde_json::Value>(text).ok();
    let code = document.as_ref().and_then(|document| document["code"].as_str()).unwrap_or_default().to_owned();
    if ask.what != What::Head {
        ledger
            .check(document.as_ref().is_some_and(|document| document["status"] == status) && !code.is_empty(), || {
                format!("the problem of {tag} ({status}) is ill-formed: {}", String::from_utf8_lossy(text))
            });
    }
    Outcome::Problem { status, code }
}
