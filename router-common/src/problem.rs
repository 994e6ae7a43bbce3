//! Problem: an error as HTTP clients see it, from a closed set of codes (SPEC 12, RFC 9457).
//!
//! This file knows codes, statuses and titles, and the document that every problem is told by, the router's and the
//! services'. Making it a response is the work of whoever answers.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::identity::Version;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal $title:literal;)+) => {
        /// Every code the router itself answers with. Services may add codes of their own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ProblemCode { $($(#[$doc])* $name,)+ }

        impl ProblemCode {
            /// All codes, for documents and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code, as in `"code": "route_not_found"`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// The RFC 9457 `title`: the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

codes! {
    RouteNotFound = 404 "route_not_found" "No service has this path";
    VersionNotFound = 404 "version_not_found" "This version of the service is not live or has no such endpoint";
    MethodNotAllowed = 405 "method_not_allowed" "The path exists, but not with this method";
    InvalidVersion = 400 "invalid_version" "The requested version is not a semantic version";
    InvalidPath = 400 "invalid_path" "The path is not well-formed";
    BadRequest = 400 "bad_request" "The request is not well-formed";
    UriTooLong = 414 "uri_too_long" "The request target is too long";
    Unauthenticated = 401 "unauthenticated" "Valid credentials are required";
    Forbidden = 403 "forbidden" "The credentials lack a required claim";
    RequestTimeout = 408 "request_timeout" "The client was too slow";
    PayloadTooLarge = 413 "payload_too_large" "The request body is too large";
    HeadersTooLarge = 431 "headers_too_large" "The request header section is too large";
    NotImplemented = 501 "not_implemented" "The router does not implement this";
    RateLimited = 429 "rate_limited" "Too many requests";
    ConnectionBytesExceeded = 429 "connection_bytes_exceeded" "This connection has too many request bytes in flight";
    NoInstance = 503 "no_instance" "No instance of the service can serve this request";
    NoCapacity = 503 "no_capacity" "Every instance of the service is at its capacity";
    NodeOverloaded = 503 "node_overloaded" "The router is overloaded";
    Draining = 503 "draining" "The router is shutting down";
    DeadlineExceeded = 504 "deadline_exceeded" "The service did not answer in time";
    ServiceFailed = 502 "service_failed" "The service failed to answer";
    ResponseTooLarge = 502 "response_too_large" "The response is too large for the transport";
    ConnectionLost = 502 "connection_lost" "The connection to the service was lost; the outcome is unknown";
    InternalError = 500 "internal_error" "The service met an internal error";
    LoopDetected = 508 "loop_detected" "The request runs in a circle";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One occurrence of a problem. Everything in it is written for the client: internals are logged, never put here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: ProblemCode,
    /// What was wrong with this request and what to do, in one sentence.
    pub detail: Option<Cow<'static, str>>,
    /// Sent as `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// Sent as `Allow`, for [`ProblemCode::MethodNotAllowed`].
    pub allow: Option<String>,
    /// The live versions, for [`ProblemCode::VersionNotFound`].
    pub versions: Vec<Version>,
}

impl Problem {
    #[must_use]
    pub const fn new(code: ProblemCode) -> Self {
        Self { code, detail: None, retry_after: None, allow: None, versions: Vec::new() }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    #[must_use]
    pub fn allow(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    #[must_use]
    pub fn versions(mut self, live: Vec<Version>) -> Self {
        self.versions = live;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.code),
            None => write!(f, "{}: {}", self.code, self.code.title()),
        }
    }
}

impl std::error::Error for Problem {}

/// `Content-Type` of a [`Document`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem as its client reads it (RFC 9457): serialized as JSON it is the body of the response.
///
/// `type` is `urn:stella:problem:` and the code. `members` are further members, a map or a struct; none of them may have
/// a name of [`STANDARD_MEMBERS`].
#[derive(Debug, Clone, Serialize)]
pub struct Document<'a, M> {
    #[serde(rename = "type", serialize_with = "type_of")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(flatten)]
    members: M,
}

/// The members that every document means the same by.
pub const STANDARD_MEMBERS: [&str; 7] = ["type", "title", "status", "detail", "instance", "code", "request_id"];

impl<'a, M: Serialize> Document<'a, M> {
    #[must_use]
    pub const fn new(code: &'a str, title: &'a str, status: u16, members: M) -> Self {
        Self { kind: code, title, status, detail: None, code, request_id: None, members }
    }

    #[must_use]
    pub const fn detail(mut self, detail: Option<&'a str>) -> Self {
        self.detail = detail;
        self
    }

    /// The `x-request-id` of the request, if it has one.
    #[must_use]
    pub const fn request_id(mut self, id: Option<&'a str>) -> Self {
        self.request_id = id;
        self
    }
}

/// The value of `Retry-After`, in whole seconds from 1 on: less than asked would be a lie.
#[must_use]
pub fn retry_after_seconds(after: Duration) -> u64 {
    after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn type_of<S: Serializer>(code: &&str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:stella:problem:{code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_are_errors() {
        let mut seen = std::collections::HashSet::new();
        for code in ProblemCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }

    #[test]
    fn a_document_has_its_standard_members_and_others() {
        let document = Document::new("late", "Conflict", 409, serde_json::json!({ "by": 3 }));
        assert_eq!(
            serde_json::to_string(&document.clone()).unwrap(),
            r#"{"type":"urn:stella:problem:late","title":"Conflict","status":409,"code":"late","by":3}"#
        );
        assert_eq!(
            serde_json::to_string(&document.detail(Some("too late")).request_id(Some("id-1"))).unwrap(),
            r#"{"type":"urn:stella:problem:late","title":"Conflict","status":409,"detail":"too late","code":"late","request_id":"id-1","by":3}"#
        );
    }
}
