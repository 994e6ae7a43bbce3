//! What ends at this hop, and what this hop adds to every message (RFC 9110 6.5.1, 7.6; SPEC 9).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::list_members;

/// Prefix of the fields that are the router's own; a peer that sends one only pretends (SPEC 9).
pub const OWN_PREFIX: &str = "x-stella-";
/// By which the holder of the admin token asks why a request went where it did, and is told.
pub const X_STELLA_EXPLAIN: HeaderName = HeaderName::from_static("x-stella-explain");

/// Removes what ends at this hop: `Connection` and the fields it names, the fields that are hop-by-hop by their
/// nature, and [`OWN_PREFIX`] (RFC 9110 7.6.1; SPEC 9). Returns what [`X_STELLA_EXPLAIN`] said, if it stood there.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // Most messages carry none of these: one pass over the names decides, and only then is anything removed.
    if !ends_here(headers) {
        return None;
    }
    let named: Vec<HeaderName> = connection_options(headers).filter(|name| !is_end_to_end_only(name)).collect();
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .chain(named)
        .collect();
    let mut explain = None;
    for name in doomed {
        let removed = headers.remove(&name);
        if name == X_STELLA_EXPLAIN {
            explain = removed;
        }
    }
    explain
}

/// Whether there is anything for [`strip_hop_by_hop`] to remove.
#[must_use]
pub fn ends_here(headers: &HeaderMap) -> bool {
    for name in headers.keys() {
        if is_hop_by_hop(name) || name.as_str().starts_with(OWN_PREFIX) {
            return true;
        }
    }
    false
}

/// Removes from a trailer section what may not stand there: what ends at this hop, and fields by which a message is
/// framed, routed, authorized or read, which a recipient that merges trailers into the head would be deceived by
/// (RFC 9110 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in NO_TRAILERS {
        trailers.remove(name);
    }
}

const NO_TRAILERS: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TRAILER,
];

/// Fields that never travel beyond one hop, whatever `Connection` says.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TE
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Fields that a `Connection` option cannot take away: "a sender MUST NOT send a connection option corresponding to a
/// field that is intended for all recipients" (RFC 9110 7.6.1). A client that names `host` is not let to unmake it.
fn is_end_to_end_only(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CACHE_CONTROL
            | header::AUTHORIZATION
            | header::VIA
            | header::DATE
    )
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    list_members(headers, header::CONNECTION).filter_map(|member| HeaderName::from_bytes(member.as_bytes()).ok())
}

/// What `Max-Forwards` says about OPTIONS and TRACE (RFC 9110 7.6.2); elsewhere it is passed on untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxForwards {
    /// Go on; the field, if any, has been decreased.
    Forward,
    /// This hop is the last: answer here.
    AnswerHere,
}

/// Reads and decreases `Max-Forwards`. What is not a number is ignored, as for every other method.
pub fn max_forwards(method: &Method, headers: &mut HeaderMap) -> MaxForwards {
    if method != Method::OPTIONS && method != Method::TRACE {
        return MaxForwards::Forward;
    }
    let Some(left) =
        headers.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok())
    else {
        return MaxForwards::Forward;
    };
    match left.checked_sub(1) {
        None => MaxForwards::AnswerHere,
        Some(left) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            MaxForwards::Forward
        }
    }
}

/// The `Via` entries of one node: made once, appended to every message (RFC 9110 7.6.3).
#[derive(Debug, Clone)]
pub struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// `pseudonym` is the node's id: letters, digits and `-`, so a token.
    #[must_use]
    pub fn new(pseudonym: &str) -> Self {
        let value = |version: &str| {
            HeaderValue::from_str(&format!("{version} {pseudonym}")).unwrap_or(HeaderValue::from_static("1.1 stella"))
        };
        Self { http10: value("1.0"), http11: value("1.1"), http2: value("2.0") }
    }

    /// Appends this hop, after what earlier hops wrote.
    pub fn append(&self, version: Version, headers: &mut HeaderMap) {
        let value = match version {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http10,
            _ => &self.http11,
        };
        headers.append(header::VIA, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers;
    use super::*;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_and_connection_named_fields_end_here_rfc_9110_7_6_1() {
        type Lines = [(&'static str, &'static str)];
        let table: &[(&Lines, &[&str])] = &[
            (&[("accept", "*/*")], &["accept"]),
            (&[("connection", "keep-alive"), ("keep-alive", "5"), ("accept", "*/*")], &["accept"]),
            (&[("connection", "x-one, X-Two"), ("x-one", "1"), ("x-two", "2"), ("x-three", "3")], &["x-three"]),
            (&[("connection", "x-one"), ("connection", "x-two"), ("x-one", "1"), ("x-two", "2")], &[]),
            (
                &[("te", "trailers"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("trailer", "x")],
                &["trailer"],
            ),
            (&[("proxy-authorization", "Basic x"), ("proxy-connection", "close"), ("http2-settings", "AA")], &[]),
            (
                &[("connection", "host, content-length"), ("host", "a"), ("content-length", "1")],
                &["content-length", "host"],
            ),
            (&[("x-stella-claims", "root"), ("x-stellar", "kept")], &["x-stellar"]),
            (&[("connection", "bad name, x-one"), ("x-one", "1")], &[]),
        ];
        for (given, left) in table {
            let mut given_headers = headers(given);
            strip_hop_by_hop(&mut given_headers);
            assert_eq!(names(&given_headers), *left, "{given:?}");
        }
    }

    #[test]
    fn trailers_neither_frame_nor_route_nor_authorize_rfc_9110_6_5_1() {
        let mut trailers = headers(&[
            ("content-length", "99"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("authorization", "Bearer x"),
            ("x-stella-claims", "root"),
            ("x-sum", "1"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "x-sum"]);
    }

    #[test]
    fn max_forwards_counts_down_for_options_and_trace_rfc_9110_7_6_2() {
        let table = [
            (Method::OPTIONS, "0", MaxForwards::AnswerHere, "0"),
            (Method::OPTIONS, "3", MaxForwards::Forward, "2"),
            (Method::TRACE, "1", MaxForwards::Forward, "0"),
            (Method::GET, "0", MaxForwards::Forward, "0"),
            (Method::OPTIONS, "x", MaxForwards::Forward, "x"),
        ];
        for (method, given, answer, left) in table {
            let mut map = headers(&[("max-forwards", given)]);
            assert_eq!(max_forwards(&method, &mut map), answer, "{method} {given}");
            assert_eq!(map["max-forwards"], left);
        }
    }

    #[test]
    fn via_is_appended_after_earlier_hops_rfc_9110_7_6_3() {
        let via = Via::new("gw-1");
        let mut map = headers(&[("via", "1.0 fred")]);
        via.append(Version::HTTP_11, &mut map);
        via.append(Version::HTTP_2, &mut map);
        let values: Vec<_> = map.get_all("via").iter().collect();
        assert_eq!(values, ["1.0 fred", "1.1 gw-1", "2.0 gw-1"]);
    }
}
