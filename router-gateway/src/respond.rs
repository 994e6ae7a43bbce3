//! Problem -> HTTP: the only place where an error becomes a response (SPEC 12, RFC 9457).
//!
//! A refusal travels through the stack as an empty response that carries its [`Problem`]; the outermost layer, which
//! knows the request id, renders it. Nothing here knows why something was refused.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use router_common::problem::{Document, MEDIA_TYPE, Problem, ProblemCode, retry_after_seconds};
use router_link::Body;
use serde::Serialize;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(MEDIA_TYPE);

/// What a refusal carries until it is rendered.
#[derive(Debug, Clone)]
struct Unrendered {
    problem: Problem,
    status: StatusCode,
    challenge: Option<HeaderValue>,
}

/// What the router's documents have beside the standard members.
#[derive(Serialize)]
struct Members {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    versions: Vec<String>,
}

/// A response that refuses; [`render`] gives it its body.
#[must_use]
pub fn refusal(problem: Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // A 401 must say how to do better (RFC 9110 11.6.1, SPEC 9).
    let challenge = (problem.code == ProblemCode::Unauthenticated).then(|| HeaderValue::from_static("Bearer"));
    unrendered(problem, status, challenge)
}

/// 417: an `Expect` that is not met (RFC 9110 10.1.1). The closed set of codes has none for it: it is a bad request.
#[must_use]
pub fn expectation_failed() -> Response<Body> {
    let problem =
        Problem::new(ProblemCode::BadRequest).detail("The only expectation that this router meets is 100-continue.");
    unrendered(problem, StatusCode::EXPECTATION_FAILED, None)
}

/// A WebSocket handshake of a version that is not spoken here, with the one that is (RFC 6455 4.4): 426 where the client
/// can upgrade, 400 over HTTP/2.
#[must_use]
pub fn websocket_version(upgrades: bool) -> Response<Body> {
    let problem = Problem::new(ProblemCode::BadRequest).detail("This router speaks version 13 of WebSocket.");
    let status = if upgrades { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
    let mut response = unrendered(problem, status, None);
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}

/// 401 with a challenge of its own.
#[must_use]
pub fn unauthenticated(problem: Problem, challenge: HeaderValue) -> Response<Body> {
    unrendered(problem, StatusCode::UNAUTHORIZED, Some(challenge))
}

/// 204 with `Allow`: what the router itself answers to OPTIONS (SPEC 2).
#[must_use]
pub fn allowed(methods: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The code of a refusal that has not been rendered yet, for logs and metrics.
#[must_use]
pub fn code_of(response: &Response<Body>) -> Option<ProblemCode> {
    response.extensions().get::<Unrendered>().map(|unrendered| unrendered.problem.code)
}

/// Turns a refusal into its document and fields; every other response passes untouched.
pub fn render(response: &mut Response<Body>, request_id: Option<&HeaderValue>) {
    if response.extensions().is_empty() {
        return;
    }
    let Some(Unrendered { problem, status, challenge }) = response.extensions_mut().remove::<Unrendered>() else {
        return;
    };
    let request_id = request_id.and_then(|id| id.to_str().ok());
    let document = document(&problem, status, request_id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(document.len()));
    if let Some(allow) = problem.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    if let Some(after) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds(after)));
    }
    if let Some(challenge) = challenge {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    *response.body_mut() = Body::from(document);
}

/// A whole HTTP/1.1 message that refuses and closes, for where no HTTP library is at hand any more.
#[must_use]
pub fn raw(problem: &Problem, request_id: Option<&str>, date: std::time::SystemTime) -> Bytes {
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = document(problem, status, request_id);
    let mut message = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\ndate: {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        document.len(),
        httpdate::fmt_http_date(date),
    )
    .into_bytes();
    if let Some(id) = request_id {
        message.extend_from_slice(format!("x-request-id: {id}\r\n").as_bytes());
    }
    if let Some(after) = problem.retry_after {
        message.extend_from_slice(format!("retry-after: {}\r\n", retry_after_seconds(after)).as_bytes());
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(&document);
    Bytes::from(message)
}

fn unrendered(problem: Problem, status: StatusCode, challenge: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.extensions_mut().insert(Unrendered { problem, status, challenge });
    response
}

fn document(problem: &Problem, status: StatusCode, request_id: Option<&str>) -> Bytes {
    let members = Members { versions: problem.versions.iter().map(ToString::to_string).collect() };
    let document = Document::new(problem.code.as_str(), problem.code.title(), status.as_u16(), members)
        .detail(problem.detail.as_deref())
        .request_id(request_id);
    // Strings, numbers and lists of strings: serialization has nothing to fail on.
    serde_json::to_vec(&document).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn body(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&document(problem, StatusCode::from_u16(problem.code.status()).unwrap(), Some("id-1")))
            .unwrap()
    }

    #[test]
    fn a_document_names_code_status_and_request_id() {
        let problem = Problem::new(ProblemCode::RouteNotFound).detail("Nothing here.");
        assert_eq!(
            body(&problem),
            serde_json::json!({
                "type": "urn:stella:problem:route_not_found",
                "title": "No service has this path",
                "status": 404,
                "detail": "Nothing here.",
                "code": "route_not_found",
                "request_id": "id-1",
            })
        );
    }

    #[test]
    fn live_versions_are_listed_where_one_was_not_found() {
        let problem = Problem::new(ProblemCode::VersionNotFound).versions(vec!["1.2.0".parse().unwrap()]);
        assert_eq!(body(&problem)["versions"], serde_json::json!(["1.2.0"]));
    }

    #[test]
    fn rendering_sets_allow_and_retry_after_rounded_up() {
        let problem = Problem::new(ProblemCode::NoCapacity)
            .retry_after(Duration::from_millis(1200))
            .allow("GET, HEAD".to_owned());
        let mut response = refusal(problem);
        assert_eq!(code_of(&response), Some(ProblemCode::NoCapacity));
        render(&mut response, Some(&HeaderValue::from_static("id-1")));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(code_of(&response), None);
    }

    #[test]
    fn a_raw_refusal_is_one_whole_message_that_closes() {
        let raw = raw(&Problem::new(ProblemCode::RequestTimeout), None, std::time::UNIX_EPOCH);
        let text = std::str::from_utf8(&raw).unwrap();
        let (head, document) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close\r\n"));
        assert!(head.contains(&format!("content-length: {}", document.len())));
    }
}
