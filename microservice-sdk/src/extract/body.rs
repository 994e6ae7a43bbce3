//! The body: as it streams, whole, or as text; and the whole request.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use router_common::problem::ProblemCode;
use router_link::Body;

use super::FromRequest;
use crate::error::Problem;
use crate::invocation::Invocation;
use crate::message::Request;

/// The body as it arrives; credit returns to the sender as it is read.
impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(request.into_body())
    }
}

/// The request as it came.
impl<S: Send + Sync> FromRequest<S> for Request {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(request)
    }
}

/// The whole body, up to the endpoint's `max_request_bytes`; beyond it 413.
impl<S: Send + Sync> FromRequest<S> for Bytes {
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limit = limit(&request);
        collect(request.into_body(), limit).await
    }
}

/// The whole body as UTF-8, up to the endpoint's `max_request_bytes`.
impl<S: Send + Sync> FromRequest<S> for String {
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let limit = limit(&request);
        let bytes = collect(request.into_body(), limit).await?;
        Self::from_utf8(bytes.into()).map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_text").detail("the request body is not valid UTF-8")
        })
    }
}

/// The largest body that may be collected for this request, in bytes.
pub(super) fn limit(request: &Request) -> u64 {
    request.extensions().get::<Invocation>().map_or(Invocation::DEFAULT_BODY_LIMIT, Invocation::body_limit)
}

/// Reads a body to its end. A body that was cut short is an error, never a shorter body.
pub(super) async fn collect(mut body: Body, limit: u64) -> Result<Bytes, Problem> {
    let hint = body.size_hint();
    if hint.lower() > limit {
        return Err(too_large(limit));
    }
    if let Some(whole) = body.whole() {
        return Ok(whole);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a request body ended before its end");
            Problem::new(StatusCode::BAD_REQUEST, "incomplete_body").detail("the request body was cut short")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len() as u64);
        if length > limit {
            body.set_cancel_reason(router_common::frame::Reason::PayloadLimit);
            return Err(too_large(limit));
        }
        // One frame is the usual case, and costs no copy.
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(first) => {
                rest.reserve(first.len() + data.len());
                rest.extend_from_slice(&first);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

fn too_large(limit: u64) -> Problem {
    Problem::from(ProblemCode::PayloadTooLarge)
        .detail(format!("the request body is larger than the {limit} bytes this endpoint accepts"))
}
