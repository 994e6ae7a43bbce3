//! What a request is for: its target, its host, and the coding of its body (RFC 9110 7.2; RFC 9112 3.2, 6.1; RFC 9113 8.3.1).

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Uri, Version};
use router_common::problem::{Problem, ProblemCode};

use super::{bad, list_members};

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

#[cfg(test)]
mod tests {
    use super::super::tests::headers;
    use super::*;

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
}
