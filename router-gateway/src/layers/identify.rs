//! Identify: gives each request its id, and each refusal its document (SPEC 12).
//!
//! The outermost layer, so that every answer has the id, whoever refused; and the date, where it is not the system's clock,
//! which the HTTP library reads, that tells it.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use router_link::{Body, Environment};

use super::Policy;
use crate::http_semantics;
use crate::request_id::RequestIds;
use crate::respond::{self, X_REQUEST_ID};

/// `x-request-id`, `via`, `forwarded` and the three of `x-forwarded-*`.
const ADDED_FIELDS: usize = 6;

/// Keeps a well-formed `x-request-id`, else makes one; sets it on request and response.
pub struct Identify {
    ids: Arc<RequestIds>,
    environment: Arc<dyn Environment>,
    /// The environment has a wall clock of its own.
    dates: bool,
}

impl Identify {
    #[must_use]
    pub fn new(ids: Arc<RequestIds>, environment: Arc<dyn Environment>) -> Self {
        let dates = environment.wall_clock().is_some();
        Self { ids, environment, dates }
    }
}

impl Identify {
    /// Only where the answer has none yet: an intermediary keeps the origin's (RFC 9110 6.6.1).
    fn date(&self, response: &mut Response<Body>) {
        let date = self.environment.wall_clock().map(httpdate::fmt_http_date);
        if let Some(Ok(date)) = date.as_deref().map(HeaderValue::from_str) {
            response.headers_mut().entry(header::DATE).or_insert(date);
        }
    }
}

impl std::fmt::Debug for Identify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identify")
    }
}

impl Policy for Identify {
    type Kept = HeaderValue;

    fn before(&self, request: &mut Request<Body>) -> Result<HeaderValue, Response<Body>> {
        // At once, what this and the layers within will add: a map that grows is built anew.
        request.headers_mut().reserve(ADDED_FIELDS);
        // A second line would make two ids of one: then neither is kept.
        let mut given = request.headers().get_all(X_REQUEST_ID).iter();
        let kept = match (given.next(), given.next()) {
            (Some(id), None) if http_semantics::is_request_id(id) => Some(id.clone()),
            _ => None,
        };
        Ok(kept.unwrap_or_else(|| {
            let id = self.ids.next(self.environment.now());
            request.headers_mut().insert(X_REQUEST_ID, id.clone());
            id
        }))
    }

    fn after(&self, id: HeaderValue, response: &mut Response<Body>) {
        respond::render(response, Some(&id));
        response.headers_mut().insert(X_REQUEST_ID, id);
        if self.dates {
            self.date(response);
        }
    }
}
