//! Problem: an error as HTTP clients see it, from a closed set of codes (SPEC 12, RFC 9457).
//!
//! This file knows codes, statuses and titles. Turning a problem into a response is the edge's work.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

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
}
