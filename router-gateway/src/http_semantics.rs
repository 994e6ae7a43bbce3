//! What HTTP asks of an intermediary, as pure functions over `http` types (SPEC 12; RFC 9110, 9112, 7239).
//!
//! Each function cites the rule it keeps. Nothing here knows of connections, routes, services or configuration files.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Uri, Version};
use router_common::problem::{Problem, ProblemCode};
use router_config::IpRange;

/// Prefix of the fields that are the router's own; a peer that sends one only pretends (SPEC 9).
pub const OWN_PREFIX: &str = "x-stella-";
/// By which the holder of the admin token asks why a request went where it did, and is told.
pub const X_STELLA_EXPLAIN: HeaderName = HeaderName::from_static("x-stella-explain");

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

/// The comma-separated members of all lines of a field, trimmed, without empty ones (RFC 9110 5.6.1).
pub fn list_members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> + '_ {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(members)
}

fn members(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(str::trim).filter(|member| !member.is_empty())
}

/// What the host of a request is: the request target's authority rules over `Host`, which must be there once and be
/// well-formed all the same (RFC 9112 3.2, 3.2.2; RFC 9113 8.3.1).
///
/// # Errors
/// `bad_request` for an absent (HTTP/1.1), repeated, malformed or contradicting host.
pub fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Problem> {
    let mut lines = headers.get_all(header::HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err(bad("The request has more than one Host field."));
    }
    let host = match host {
        None => None,
        Some(value) if value.is_empty() => Some(None),
        Some(value) => Some(Some(host_value(value)?)),
    };
    if let Some(target) = uri.authority() {
        if target.as_str().contains('@') {
            return Err(bad("The request target must not carry user information."));
        }
        match host {
            // RFC 9112 3.2: Host is required even where the target already says it.
            None if version == Version::HTTP_11 => return Err(bad("The request has no Host field.")),
            // RFC 9113 8.3.1: a Host that differs from :authority makes the request malformed.
            Some(Some(host)) if version == Version::HTTP_2 && !host.as_str().eq_ignore_ascii_case(target.as_str()) => {
                return Err(bad("Host differs from :authority."));
            }
            _ => return Ok(Some(target.clone())),
        }
    }
    match host {
        None if version == Version::HTTP_11 => Err(bad("The request has no Host field.")),
        None if version == Version::HTTP_2 => Err(bad("The request has neither :authority nor Host.")),
        None => Ok(None),
        Some(host) => Ok(host),
    }
}

fn host_value(value: &HeaderValue) -> Result<Authority, Problem> {
    let malformed = || bad("The Host field is not well-formed.");
    let text = value.to_str().map_err(|_| malformed())?;
    // RFC 9110 7.2: uri-host [ ":" port ], so no user information.
    if text.contains('@') {
        return Err(malformed());
    }
    let authority: Authority = text.parse().map_err(|_| malformed())?;
    if let Some(at) = port_start(text)
        && !text.get(at..).is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5)
    {
        return Err(malformed());
    }
    Ok(authority)
}

/// Where the digits of a port begin, if there is a `:` after the host (an IPv6 host has some within brackets).
fn port_start(host: &str) -> Option<usize> {
    let after_host = host.rfind(']').map_or(0, |at| at + 1);
    host.get(after_host..)?.find(':').map(|at| after_host + at + 1)
}

/// The form of the request target that this method may have (RFC 9112 3.2), and the coding of the body.
///
/// # Errors
/// `not_implemented` for CONNECT and for transfer codings other than chunked; `bad_request` for a target that does not
/// fit its method or scheme.
pub fn target(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    if method == Method::CONNECT {
        return Err(Problem::new(ProblemCode::NotImplemented).detail("This router is no forward proxy: CONNECT."));
    }
    if uri.scheme().is_some_and(|scheme| *scheme != http::uri::Scheme::HTTP && *scheme != http::uri::Scheme::HTTPS) {
        return Err(bad("The request target's scheme is neither http nor https."));
    }
    let path = uri.path();
    if path == "*" {
        if method != Method::OPTIONS {
            return Err(bad("The target `*` goes with OPTIONS alone."));
        }
    } else if !path.starts_with('/') {
        return Err(bad("The request target is not an absolute path."));
    }
    transfer_coding(headers)
}

/// RFC 9112 6.1: "a server that receives a request message with a transfer coding it does not understand SHOULD
/// respond with 501". The HTTP library has already refused what does not end in `chunked`.
fn transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = 0_u32;
    for coding in list_members(headers, header::TRANSFER_ENCODING) {
        if !coding.eq_ignore_ascii_case("chunked") {
            return Err(Problem::new(ProblemCode::NotImplemented)
                .detail("The only transfer coding that this router understands is chunked."));
        }
        codings += 1;
    }
    if codings == 1 {
        Ok(())
    } else {
        // RFC 9112 7: "a sender MUST NOT apply the chunked transfer coding more than once".
        Err(bad("The transfer coding chunked must stand once."))
    }
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

/// The proxies before this hop whose word about the client is taken.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpRange>);

impl TrustedProxies {
    #[must_use]
    pub const fn new(ranges: Vec<IpRange>) -> Self {
        Self(ranges)
    }

    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

/// How a request's sender presents itself: who it is, and which host it asks for. Requests of one connection hardly
/// differ in this, so that it is made once and then only compared.
#[derive(Debug)]
pub struct Introduction {
    source: (Version, Option<Authority>, Option<HeaderValue>),
    peer: SocketAddr,
    /// The host that the request is for (see [`authority`]).
    pub authority: Option<Authority>,
    /// The same as a field value.
    host: Option<HeaderValue>,
    /// This hop's element of `Forwarded`, and of `X-Forwarded-For`.
    element: HeaderValue,
    address: HeaderValue,
    scheme: HeaderValue,
}

impl Introduction {
    /// Of the request with this version, target and fields, which came from `peer`.
    ///
    /// # Errors
    /// As [`authority`].
    pub fn new(
        peer: SocketAddr,
        scheme: &'static str,
        (version, uri, headers): (Version, &Uri, &HeaderMap),
    ) -> Result<Self, Problem> {
        // Copies, because it lives as long as the connection: shared bytes would keep what the request was read into.
        let copied = |authority: &Authority| authority.as_str().parse::<Authority>().ok();
        let line = headers.get(header::HOST).and_then(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
        let authority = authority(version, uri, headers)?.as_ref().and_then(copied);
        let address = peer.ip().to_canonical();
        let mut element = String::with_capacity(64);
        element.push_str("for=");
        push_node(&mut element, address);
        if let Some(host) = &authority {
            element.push_str(";host=");
            push_quoted(&mut element, host.as_str());
        }
        element.push_str(";proto=");
        element.push_str(scheme);
        // Addresses, hosts that were parsed and quoted text are field values.
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| bad("The Host field is not well-formed."));
        Ok(Self {
            source: (version, uri.authority().and_then(copied), line),
            peer,
            host: authority.as_ref().map(|host| value(host.as_str())).transpose()?,
            authority,
            element: value(&element)?,
            address: value(&address.to_string())?,
            scheme: HeaderValue::from_static(scheme),
        })
    }

    /// Whether it is that of this request too.
    #[must_use]
    pub fn fits(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
        let (its_version, target, host) = &self.source;
        let mut lines = headers.get_all(header::HOST).iter();
        *its_version == version
            && uri.authority() == target.as_ref()
            && lines.next() == host.as_ref()
            && lines.next().is_none()
    }

    /// Makes `Host` say what the target said (RFC 9112 3.2.2).
    pub fn set_host(&self, headers: &mut HeaderMap) {
        if let Some(host) = &self.host
            && self.source.2.as_ref() != Some(host)
        {
            headers.insert(header::HOST, host.clone());
        }
    }
}

/// Writes `Forwarded` and `X-Forwarded-*` for the next hop and says who the client is (RFC 7239). What came in is kept
/// and added to if the peer is a trusted proxy; otherwise it is a claim by nobody and is replaced.
pub fn forwarded(headers: &mut HeaderMap, sender: &Introduction, trusted: &TrustedProxies) -> SocketAddr {
    // Most requests bring none of these.
    let mut client = sender.peer;
    if headers.keys().any(tells_of_forwarding) {
        if !trusted.trusts(sender.peer.ip().to_canonical()) {
            for name in [header::FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
                headers.remove(name);
            }
        }
        client = original_client(headers, sender.peer, trusted);
    }
    append_list(headers, header::FORWARDED, &sender.element);
    append_list(headers, X_FORWARDED_FOR, &sender.address);
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| sender.scheme.clone());
    if let Some(host) = &sender.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    client
}

fn tells_of_forwarding(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// The last address in `X-Forwarded-For` that no trusted proxy has: everything left of it is hearsay.
fn original_client(headers: &HeaderMap, peer: SocketAddr, trusted: &TrustedProxies) -> SocketAddr {
    let mut client = peer;
    let hops: Vec<&str> = list_members(headers, X_FORWARDED_FOR).collect();
    for hop in hops.into_iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else { break };
        client = SocketAddr::new(address, 0);
        if !trusted.trusts(address) {
            break;
        }
    }
    client
}

/// RFC 7239 6: an IPv6 address stands in brackets and is quoted.
fn push_node(element: &mut String, address: IpAddr) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = match address {
        IpAddr::V4(address) => write!(element, "{address}"),
        IpAddr::V6(address) => write!(element, "\"[{address}]\""),
    };
}

fn push_quoted(element: &mut String, text: &str) {
    let is_token = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if is_token {
        element.push_str(text);
    } else {
        element.push('"');
        for letter in text.chars().filter(|letter| !letter.is_control()) {
            if matches!(letter, '"' | '\\') {
                element.push('\\');
            }
            element.push(letter);
        }
        element.push('"');
    }
}

/// Puts a member at the end of a list, in one line.
fn append_list(headers: &mut HeaderMap, name: HeaderName, member: &HeaderValue) {
    let mut there = match headers.entry(name) {
        header::Entry::Vacant(place) => {
            place.insert(member.clone());
            return;
        }
        header::Entry::Occupied(there) => there,
    };
    let Ok(member) = member.to_str() else { return };
    let mut whole: Vec<&str> = there.iter().filter_map(|line| line.to_str().ok()).flat_map(members).collect();
    whole.push(member);
    if let Ok(value) = HeaderValue::from_str(&whole.join(", ")) {
        there.insert(value);
    }
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

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
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
    fn host_is_present_once_and_well_formed_rfc_9112_3_2() {
        let ask = |version, uri: &str, lines: &[(&'static str, &str)]| {
            authority(version, &uri.parse().unwrap(), &headers(lines))
                .map(|host| host.map(|host| host.to_string()))
                .map_err(|problem| problem.code)
        };
        let bad = Err(ProblemCode::BadRequest);
        let is = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a.example:80")]), is("a.example:80"));
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "[::1]:80")]), is("[::1]:80"));
        assert_eq!(ask(Version::HTTP_11, "/", &[]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a"), ("host", "a")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a b")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a/b")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "me@a")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a:port")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "a, b")]), bad);
        assert_eq!(ask(Version::HTTP_11, "/", &[("host", "")]), Ok(None));
        assert_eq!(ask(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(ask(Version::HTTP_2, "http://a/", &[]), is("a"));
        assert_eq!(ask(Version::HTTP_2, "http://a/", &[("host", "b")]), bad);
        assert_eq!(ask(Version::HTTP_2, "/", &[]), bad);
    }

    #[test]
    fn an_absolute_form_target_overrides_host_rfc_9112_3_2_2() {
        let uri: Uri = "http://right.example/path".parse().unwrap();
        let host = authority(Version::HTTP_11, &uri, &headers(&[("host", "wrong.example")])).unwrap();
        assert_eq!(host.unwrap().as_str(), "right.example");
        assert!(authority(Version::HTTP_11, &uri, &headers(&[])).is_err());
        assert!(authority(Version::HTTP_11, &"http://me@a/".parse().unwrap(), &headers(&[("host", "a")])).is_err());
    }

    #[test]
    fn targets_fit_their_methods_rfc_9112_3_2() {
        let ask =
            |method: Method, uri: &str| target(&method, &uri.parse().unwrap(), &HeaderMap::new()).map_err(|p| p.code);
        assert_eq!(ask(Method::GET, "/a?b"), Ok(()));
        assert_eq!(ask(Method::GET, "http://a/b"), Ok(()));
        assert_eq!(ask(Method::GET, "ftp://a/b"), Err(ProblemCode::BadRequest));
        assert_eq!(ask(Method::OPTIONS, "*"), Ok(()));
        assert_eq!(ask(Method::GET, "*"), Err(ProblemCode::BadRequest));
        assert_eq!(ask(Method::CONNECT, "a:80"), Err(ProblemCode::NotImplemented));
    }

    #[test]
    fn unknown_transfer_codings_are_not_implemented_rfc_9112_6_1() {
        let ask = |lines: &[(&'static str, &str)]| {
            target(&Method::POST, &Uri::from_static("/"), &headers(lines)).map_err(|problem| problem.code)
        };
        assert_eq!(ask(&[("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(ask(&[("transfer-encoding", "gzip, chunked")]), Err(ProblemCode::NotImplemented));
        assert_eq!(
            ask(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]),
            Err(ProblemCode::NotImplemented)
        );
        assert_eq!(ask(&[("transfer-encoding", "chunked, chunked")]), Err(ProblemCode::BadRequest));
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

    fn introduced(peer: &str, scheme: &'static str, headers: &HeaderMap) -> Introduction {
        Introduction::new(peer.parse().unwrap(), scheme, (Version::HTTP_11, &Uri::from_static("/"), headers)).unwrap()
    }

    #[test]
    fn an_introduction_fits_requests_that_say_the_same_host_alone() {
        let (given, path) = (headers(&[("host", "a")]), Uri::from_static("/x"));
        let known = introduced("10.1.2.3:4567", "http", &given);
        assert!(known.fits(Version::HTTP_11, &path, &given));
        assert!(!known.fits(Version::HTTP_10, &path, &given));
        assert!(!known.fits(Version::HTTP_11, &Uri::from_static("http://a/x"), &given));
        for other in [headers(&[]), headers(&[("host", "b")]), headers(&[("host", "a"), ("host", "a")])] {
            assert!(!known.fits(Version::HTTP_11, &path, &other), "{other:?}");
        }
    }

    #[test]
    fn forwarded_is_replaced_unless_a_trusted_proxy_wrote_it_rfc_7239() {
        let sender = introduced("10.1.2.3:4567", "http", &headers(&[("host", "a.example:8080")]));
        let given = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https"), ("forwarded", "for=9.9.9.9")];

        let mut map = headers(&given);
        let client = forwarded(&mut map, &sender, &TrustedProxies::default());
        assert_eq!(client, "10.1.2.3:4567".parse().unwrap());
        assert_eq!(map["x-forwarded-for"], "10.1.2.3");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "a.example:8080");
        assert_eq!(map["forwarded"], "for=10.1.2.3;host=\"a.example:8080\";proto=http");

        let mut map = headers(&given);
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let client = forwarded(&mut map, &sender, &trusted);
        assert_eq!(client.ip(), "9.9.9.9".parse::<IpAddr>().unwrap());
        assert_eq!(map["x-forwarded-for"], "9.9.9.9, 10.1.2.3");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["forwarded"], "for=9.9.9.9, for=10.1.2.3;host=\"a.example:8080\";proto=http");
    }

    #[test]
    fn an_ipv6_client_is_bracketed_and_quoted_rfc_7239_6() {
        let mut map = HeaderMap::new();
        let sender = introduced("[2001:db8::1]:9", "https", &headers(&[("host", "")]));
        forwarded(&mut map, &sender, &TrustedProxies::default());
        assert_eq!(map["forwarded"], "for=\"[2001:db8::1]\";proto=https");
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
