//! Message: refuses requests that are no correct HTTP, as far as the HTTP library lets them through (SPEC 12).

use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use router_common::problem::{Problem, ProblemCode};
use router_link::Body;

use super::{Policy, upgrade};
use crate::edge::{Arrival, EdgeContext};
use crate::{http_semantics, respond};

/// Checks framing, target, host, expectations and sizes; what it lets pass has an origin-form target and a known host.
#[derive(Debug)]
pub struct Message {
    edge: Arc<EdgeContext>,
}

impl Message {
    #[must_use]
    pub const fn new(edge: Arc<EdgeContext>) -> Self {
        Self { edge }
    }

    fn check(&self, request: &mut Request<Body>) -> Result<(), Problem> {
        let settings = &self.edge.settings;
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > settings.max_uri_bytes {
            return Err(Problem::new(ProblemCode::UriTooLong));
        }
        if request.headers().len() > settings.max_headers {
            return Err(Problem::new(ProblemCode::HeadersTooLarge));
        }
        let two_lengths = request.extensions().get::<Arrival>().is_some_and(|arrival| arrival.two_lengths);
        if two_lengths {
            // RFC 9112 6.1: such a message "ought to be handled as an error".
            return Err(Problem::new(ProblemCode::BadRequest)
                .detail("The request has both Content-Length and Transfer-Encoding."));
        }
        if *request.method() == Method::CONNECT {
            upgrade::extended_connect(request)?;
        }
        http_semantics::target(request.method(), request.uri(), request.headers())?;
        let sender = match request.extensions().get::<Arrival>() {
            Some(arrival) => Some(arrival.connection.introduction(request)?),
            None => None,
        };
        if request.uri().authority().is_some() {
            // What goes on is the origin form; the authority travels by itself.
            let origin = request.uri().path_and_query().cloned();
            *request.uri_mut() = origin.map_or_else(Uri::default, Uri::from);
        }
        if let Some(arrival) = request.extensions_mut().get_mut::<Arrival>() {
            arrival.sender = sender;
        }
        Ok(())
    }
}

impl Policy for Message {
    type Kept = ();

    fn before(&self, request: &mut Request<Body>) -> Result<(), Response<Body>> {
        let version = request.version();
        if let Err(problem) = self.check(request) {
            return Err(closing(respond::refusal(problem), version));
        }
        if !http_semantics::expectations_met(request.headers()) {
            return Err(respond::expectation_failed());
        }
        Ok(())
    }

    fn after(&self, (): (), _: &mut Response<Body>) {}
}

/// After a message whose framing cannot be trusted, neither can what follows it on the connection (RFC 9112 9.6).
fn closing(mut response: Response<Body>, version: Version) -> Response<Body> {
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
