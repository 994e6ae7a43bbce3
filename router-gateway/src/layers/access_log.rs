//! AccessLog: one line a request, at `info` of the target `access`, which is off unless asked for (SPEC 13).
//!
//! The line is written when the response's head is ready; how its body ends is the metrics' affair.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, Response};
use router_link::{Body, Environment};
use tracing::Level;

use super::Policy;
use crate::edge::Arrival;
use crate::respond;

pub struct AccessLog(Arc<dyn Environment>);

impl AccessLog {
    #[must_use]
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        Self(environment)
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessLog")
    }
}

/// What the line needs of the request.
#[derive(Debug)]
pub struct Line {
    began: Instant,
    method: Method,
    path: String,
    client: Option<std::net::SocketAddr>,
    request_id: Option<http::HeaderValue>,
}

impl Policy for AccessLog {
    type Kept = Option<Box<Line>>;

    fn before(&self, request: &mut Request<Body>) -> Result<Self::Kept, Response<Body>> {
        Ok(tracing::enabled!(target: "access", Level::INFO).then(|| {
            Box::new(Line {
                began: self.0.now(),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                client: request.extensions().get::<Arrival>().map(|arrival| arrival.client),
                request_id: request.headers().get(respond::X_REQUEST_ID).cloned(),
            })
        }))
    }

    fn after(&self, kept: Self::Kept, response: &mut Response<Body>) {
        let Some(line) = kept else { return };
        let took = self.0.now().saturating_duration_since(line.began);
        tracing::info!(
            target: "access",
            method = %line.method,
            path = line.path,
            status = response.status().as_u16(),
            outcome = respond::code_of(response).map_or("answered", router_common::problem::ProblemCode::as_str),
            microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            client = line.client.map(tracing::field::display),
            request_id = line.request_id.as_ref().and_then(|id| id.to_str().ok()),
        );
    }
}
