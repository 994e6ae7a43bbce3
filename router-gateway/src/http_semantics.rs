//! What HTTP asks of an intermediary, as pure functions over `http` types (SPEC 12; RFC 9110, 9112, 7239).
//!
//! `target` is what a request is for, `hops` what ends at this hop and what this hop adds to every message, `forwarding`
//! who the client is. Each function cites the rule it keeps. Nothing here knows of connections, routes, services or
//! configuration files.

mod forwarding;
mod hops;
mod target;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use router_common::problem::{Problem, ProblemCode};

pub use self::forwarding::{
    Introduction, TrustedProxies, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, forwarded,
};
pub use self::hops::{
    MaxForwards, OWN_PREFIX, Via, X_STELLA_EXPLAIN, ends_here, is_hop_by_hop, max_forwards, strip_hop_by_hop,
    strip_trailers,
};
pub use self::target::{authority, target};

/// The comma-separated members of all lines of a field, trimmed, without empty ones (RFC 9110 5.6.1).
pub fn list_members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> + '_ {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(members)
}

fn members(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(str::trim).filter(|member| !member.is_empty())
}

/// Whether every expectation is one that this router meets (RFC 9110 10.1.1); otherwise the answer is 417.
#[must_use]
pub fn expectations_met(headers: &HeaderMap) -> bool {
    headers.get_all(header::EXPECT).iter().all(|line| {
        line.to_str().is_ok_and(|line| line.split(',').all(|one| one.trim().eq_ignore_ascii_case("100-continue")))
    })
}

/// Whether the client waits for `100 Continue` before its body (RFC 9110 10.1.1: not in HTTP/1.0).
#[must_use]
pub fn expects_continue(version: Version, headers: &HeaderMap) -> bool {
    version > Version::HTTP_10 && headers.contains_key(header::EXPECT)
}

/// Whether a response to this request may have a body (RFC 9110 6.4.1).
#[must_use]
pub fn response_has_body(method: &Method, status: http::StatusCode) -> bool {
    method != Method::HEAD
        && !status.is_informational()
        && status != http::StatusCode::NO_CONTENT
        && status != http::StatusCode::NOT_MODIFIED
}

/// A request id that may be kept: 1 to 128 of `A-Z a-z 0-9 . _ -` (SPEC 12).
#[must_use]
pub fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    matches!(bytes.len(), 1..=128) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn bad(detail: &'static str) -> Problem {
    Problem::new(ProblemCode::BadRequest).detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn only_100_continue_may_be_expected_rfc_9110_10_1_1() {
        assert!(expectations_met(&headers(&[])));
        assert!(expectations_met(&headers(&[("expect", "100-Continue")])));
        assert!(!expectations_met(&headers(&[("expect", "200-ok")])));
        assert!(!expectations_met(&headers(&[("expect", "100-continue, more")])));
        assert!(!expects_continue(Version::HTTP_10, &headers(&[("expect", "100-continue")])));
    }

    #[test]
    fn request_ids_are_kept_only_if_well_formed() {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        assert!(is_request_id(&value("abc-1.2_X")));
        assert!(!is_request_id(&value("")));
        assert!(!is_request_id(&value("a b")));
        assert!(!is_request_id(&value(&"a".repeat(129))));
    }

    #[test]
    fn some_responses_have_no_body_rfc_9110_6_4_1() {
        use http::StatusCode;
        assert!(!response_has_body(&Method::HEAD, StatusCode::OK));
        assert!(!response_has_body(&Method::GET, StatusCode::NO_CONTENT));
        assert!(!response_has_body(&Method::GET, StatusCode::NOT_MODIFIED));
        assert!(response_has_body(&Method::GET, StatusCode::OK));
    }
}
