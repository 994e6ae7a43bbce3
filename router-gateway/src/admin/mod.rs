//! The admin listener: what operators and their machines look at (SPEC 13).
//!
//! But for `/drain` it only reads; nothing a client sends can reach it, as it listens elsewhere.

mod explain;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use router_common::problem::{Problem, ProblemCode};
use router_common::session::Budget;
use router_link::{Body, Environment, Handle};
use serde::Serialize;
use tower::{Service, service_fn};

use crate::dispatch::WaitingLine;
use crate::edge::{Floor, HeldBytes, Stop};
use crate::registry::Registry;
use crate::respond;
use crate::telemetry::{Metrics, Present};
use crate::token::AdminToken;

const PAGES: &str = "/livez /readyz /metrics /routes /instances /connections /workers /explain /drain";

/// Who may use the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    /// Everything is 404.
    Off,
    /// 401 without this bearer token, 403 with another.
    Token(AdminToken),
}

/// What one worker has to do.
#[derive(Serialize)]
struct WorkerView {
    worker: usize,
    /// Of clients.
    connections: usize,
    /// Of services.
    links: usize,
}

/// What the pages are made of.
pub(crate) struct Admin {
    pub(crate) access: Access,
    pub(crate) ready: Arc<AtomicBool>,
    /// Requested by whoever wants this node to drain and end.
    pub(crate) drain_wanted: Stop,
    pub(crate) registry: Arc<Registry<Handle>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) node_bytes: Arc<HeldBytes>,
    pub(crate) buffers: Arc<Budget>,
    pub(crate) connections_limit: usize,
    pub(crate) floor: Arc<Floor>,
    pub(crate) line: Arc<WaitingLine>,
    pub(crate) environment: Arc<dyn Environment>,
}

impl Admin {
    /// The pages as a service.
    pub(crate) fn service(
        self,
    ) -> impl Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static {
        let admin = Arc::new(self);
        service_fn(move |request: Request<Body>| std::future::ready(Ok(admin.answer(&request))))
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        if let Err(refusal) = self.admits(request) {
            return *refusal;
        }
        let path = request.uri().path();
        if !PAGES.split(' ').any(|page| page == path) {
            return respond::refusal(Problem::new(ProblemCode::RouteNotFound).detail(format!("There are {PAGES}.")));
        }
        if path == "/drain" {
            return self.drain(request);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return respond::refusal(Problem::new(ProblemCode::MethodNotAllowed).allow("GET, HEAD".to_owned()));
        }
        let now = self.environment.now();
        match path {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/metrics" => self.metrics(),
            "/routes" => json(&self.registry.routes()),
            "/instances" => json(&self.registry.instances(now)),
            "/connections" => json(&self.registry.connections(now)),
            "/explain" => {
                let random = self.environment.random_u64();
                match explain::page(&self.registry, request.uri().query(), random, now) {
                    Ok(explanation) => json(&explanation),
                    Err(problem) => respond::refusal(problem),
                }
            }
            _ => json(&self.workers()),
        }
    }

    /// The same as SIGTERM.
    fn drain(&self, request: &Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            return respond::refusal(Problem::new(ProblemCode::MethodNotAllowed).allow("POST".to_owned()));
        }
        self.drain_wanted.request();
        text(StatusCode::ACCEPTED, "draining\n")
    }

    fn admits(&self, request: &Request<Body>) -> Result<(), Box<Response<Body>>> {
        match &self.access {
            Access::Open => Ok(()),
            Access::Off => Err(Box::new(respond::refusal(Problem::new(ProblemCode::RouteNotFound)))),
            Access::Token(token) => match bearer(request) {
                Some(given) if token.is(given) => Ok(()),
                Some(_) => Err(Box::new(respond::refusal(Problem::new(ProblemCode::Forbidden)))),
                None => {
                    let challenge = HeaderValue::from_static("Bearer realm=\"stella admin\"");
                    Err(Box::new(respond::unauthenticated(Problem::new(ProblemCode::Unauthenticated), challenge)))
                }
            },
        }
    }

    fn workers(&self) -> Vec<WorkerView> {
        let counts = self.floor.connections().into_iter().zip(self.registry.links_of_workers());
        let view = |(worker, (connections, links))| WorkerView { worker, connections, links };
        counts.enumerate().map(view).collect()
    }

    fn metrics(&self) -> Response<Body> {
        let now = self.environment.now();
        let (instances, links) = self.registry.len();
        let live = self.registry.instances(now);
        let ejected = live.iter().filter(|instance| instance.circuit.ejected_for_seconds.is_some()).count();
        let leases = live.into_iter();
        let present = Present {
            inflight_bytes: self.node_bytes.held(),
            buffered_bytes: self.buffers.used(),
            stalled: self.buffers.given_up(),
            connections_limit: self.connections_limit,
            accept_waits: self.floor.waits(),
            instances,
            links,
            waiting: self.line.len(),
            ejected,
            leases: leases
                .map(|instance| (instance.service, instance.version, instance.id, instance.in_flight, instance.lease))
                .collect(),
            worker_connections: self.floor.connections(),
            worker_links: self.registry.links_of_workers(),
        };
        let mut response = Response::new(Body::from(self.metrics.text(&present)));
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn bearer(request: &Request<Body>) -> Option<&[u8]> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = Response::new(Body::from(body));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an admin page could not be written");
            respond::refusal(Problem::new(ProblemCode::InternalError))
        }
    }
}
