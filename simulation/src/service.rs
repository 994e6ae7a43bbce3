//! The simulated services: what their endpoints do, and the life of one process of them.
//!
//! Every handler notes its run in the ledger and holds what it was sent against the pattern of the request that it
//! believes to serve. It knows the SDK as any user does, and no network.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use microservice_sdk::{Body, BodyError, HealthStatus, Microservice, Request, Response, Route, StartError};
use router_link::{Connector, Environment};

use crate::ledger::{Ledger, Presence};
use crate::plan::{Instance, REGIONS, SERVICES, VERSIONS, What, is_pattern, pattern};
use crate::post::Post;

/// The request's name, in requests and in all responses of handlers.
pub(crate) const X_TAG: &str = "x-tag";
/// Bytes that the response is to have.
pub(crate) const X_WANTS: &str = "x-wants";
/// Milliseconds that the handler is to work.
pub(crate) const X_WORK: &str = "x-work";

/// Time for what is in flight when a service is told to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(8);
/// The timeout of the endpoint that never answers.
pub(crate) const NEVER_TIMEOUT: Duration = Duration::from_secs(2);
/// What services prove to know. The proof answers the gateway's challenge, so that what a process said on a slow way before
/// it died is not taken for a newcomer.
pub(crate) const SECRET: &str = "a secret of the simulation, long enough";
/// Bytes of one piece of an answer.
const PIECE: usize = 10_000;

/// What a process of a service is told.
#[derive(Debug)]
pub(crate) enum Order {
    Report,
    Health(HealthStatus),
    Stop,
}

/// How a process of a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Tasks of its runtime.
    Runs { tasks: usize },
    /// It was told to, and ended in good order.
    Stopped { tasks: usize },
    /// Another process took its place.
    Superseded { tasks: usize },
    /// It ended by itself.
    Failed(String),
}

/// The mailbox of a process of a service.
pub(crate) type ServicePost = Post<Order, Standing>;

/// One instance as a program.
pub(crate) fn program(
    number: usize,
    instance: &Instance,
    environment: Arc<dyn Environment>,
    connectors: Vec<Arc<dyn Connector>>,
    ledger: &Arc<Ledger>,
) -> Microservice {
    let name = SERVICES[instance.service];
    let who: Arc<str> = format!("instance-{number}").into();
    let mut service = Microservice::new(name, VERSIONS[instance.version])
        .region(REGIONS[instance.region])
        .instance_id(format!("i{}", instance.double_of.unwrap_or(number)))
        .lease(instance.lease)
        .shutdown_grace(GRACE)
        .environment(environment);
    for connector in connectors {
        service = service.connector(connector).shared_secret(SECRET).links(instance.links);
    }
    for (method, what) in [
        (Method::POST, What::Once),
        (Method::PUT, What::Again),
        (Method::GET, What::Bytes),
        (Method::POST, What::Echo),
        (Method::POST, What::OneWay),
        (Method::POST, What::Never),
        (Method::POST, What::Detached),
        (Method::POST, What::Panic),
        (Method::GET, What::Cut),
    ] {
        let route = Route::new(method, format!("/{name}/{}/{{tag}}", what.word()));
        let route = match what {
            What::Again => route.idempotent(),
            What::Bytes | What::Cut => route.streaming_response(),
            What::Echo => route.streaming_request().streaming_response(),
            What::OneWay => route.one_way(),
            What::Detached => route.detached(),
            What::Never => route.timeout(NEVER_TIMEOUT),
            _ => route,
        };
        let (ledger, who) = (Arc::clone(ledger), Arc::clone(&who));
        service = service.route(route, move |request: Request| {
            let (ledger, who) = (Arc::clone(&ledger), Arc::clone(&who));
            async move { serve(what, request, &ledger, &who).await }
        });
    }
    service
}

/// One process, until its simulated host ends it.
pub(crate) async fn process(service: Microservice, post: &ServicePost, ledger: &Ledger, who: &str) {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut running = match service.start() {
        Ok(running) => running,
        Err(error) => return ledger.violation(format!("{who} does not start: {error}")),
    };
    ledger.log(format!("{who} starts"));
    let ended = loop {
        let order = tokio::select! {
            biased;
            ended = running.ended() => break ended,
            order = post.next() => order,
        };
        match order {
            Order::Report => post.report(Standing::Runs { tasks: tasks() }),
            Order::Health(status) => running.set_health(status),
            Order::Stop => break running.shutdown().await,
        }
    };
    // What it ends with is told before its tasks have been let go of.
    tokio::task::yield_now().await;
    let standing = || match &ended {
        Ok(()) => Standing::Stopped { tasks: tasks() },
        Err(StartError::Superseded { .. }) => Standing::Superseded { tasks: tasks() },
        Err(error) => Standing::Failed(error.to_string()),
    };
    ledger.log(format!("{who} ends: {:?}", standing()));
    loop {
        if let Order::Report = post.next().await {
            post.report(standing());
        }
    }
}

async fn serve(what: What, request: Request, ledger: &Arc<Ledger>, who: &str) -> Response {
    let in_path = request.uri().path().rsplit('/').next().and_then(|tag| tag.parse().ok());
    let (Some(tag), Some(in_head)) = (in_path, number(&request, X_TAG)) else {
        ledger.violation(format!("a handler was given a request without a name: {}", request.uri()));
        return answer(0, StatusCode::BAD_REQUEST, Body::empty());
    };
    if tag != in_head {
        ledger.violation(format!("the path is of request {tag}, the head of {in_head}"));
    }
    let presence = ledger.enter(tag, who);
    let work = Duration::from_millis(number(&request, X_WORK).unwrap_or(0));
    let wants = number(&request, X_WANTS).and_then(|wants| usize::try_from(wants).ok()).unwrap_or(0);
    match what {
        What::Echo => {
            let body = Mirror { body: request.into_body(), tag, seen: 0, presence, ledger: Arc::clone(ledger) };
            return answer(tag, StatusCode::OK, Body::stream(body));
        }
        What::Bytes => {
            pause(work).await;
            let mut response =
                answer(tag, StatusCode::OK, Body::stream(Pieces { tag, at: 0, left: wants, cut: false, presence }));
            if tag.is_multiple_of(2) {
                response.headers_mut().insert(http::header::CONTENT_LENGTH, (wants as u64).into());
            }
            return response;
        }
        What::Cut => {
            return answer(tag, StatusCode::OK, Body::stream(Pieces { tag, at: 0, left: wants, cut: true, presence }));
        }
        What::Panic => panic!("on purpose"),
        What::Never => std::future::pending().await,
        _ => {}
    }
    let read = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            ledger.log(format!("cut {tag}: {error}"));
            return answer(tag, StatusCode::BAD_REQUEST, Body::from("the body was cut"));
        }
    };
    ledger.check(is_pattern(tag, 0, &read), || format!("a handler was given bytes that are not of request {tag}"));
    pause(work).await;
    presence.finish();
    answer(tag, StatusCode::OK, Body::from(format!("{tag} {}", read.len())))
}

fn number(request: &Request, name: &str) -> Option<u64> {
    request.headers().get(name)?.to_str().ok()?.parse().ok()
}

async fn pause(work: Duration) {
    if !work.is_zero() {
        tokio::time::sleep(work).await;
    }
}

fn answer(tag: u64, status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(X_TAG, tag.into());
    response
}

/// A body of so many bytes of a request's pattern, which at last is cut or ends.
struct Pieces {
    tag: u64,
    at: usize,
    left: usize,
    cut: bool,
    presence: Presence,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            if this.cut {
                return Poll::Ready(Some(Err(io::Error::other("on purpose"))));
            }
            this.presence.finish();
            return Poll::Ready(None);
        }
        let piece = this.left.min(PIECE);
        let bytes = pattern(this.tag, this.at, piece);
        this.at += piece;
        this.left -= piece;
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}

/// What comes goes back, and is looked at on the way.
struct Mirror {
    body: Body,
    tag: u64,
    seen: usize,
    presence: Presence,
    ledger: Arc<Ledger>,
}

impl http_body::Body for Mirror {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    this.ledger.check(is_pattern(this.tag, this.seen, bytes), || {
                        format!("a mirror was given bytes that are not of request {}", this.tag)
                    });
                    this.seen += bytes.len();
                }
            }
            Some(Err(error)) => this.ledger.log(format!("cut {}: {error}", this.tag)),
            None => this.presence.finish(),
        }
        Poll::Ready(frame)
    }
}
