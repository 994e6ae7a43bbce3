//! Upgrade: how a client asks for a tunnel, and what it is told when it has one (SPEC 4; RFC 9110 7.8, 6455, 8441).
//!
//! Parts of the layers that check a message and stand for this hop: they call it only for requests that ask. What the
//! tunnel carries is not looked at; only the handshake of WebSocket is this hop's to check and to answer, because the key
//! of a client is about its own connection.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use router_common::problem::{Problem, ProblemCode};
use router_link::{Body, UPGRADE_PROTOCOLS};
use sha1::{Digest as _, Sha1};

use crate::edge::{Arrival, OpenTunnel};
use crate::{http_semantics, respond};

const WEBSOCKET: &str = "websocket";
/// The one version of the protocol that there is (RFC 6455 4.1).
const WEBSOCKET_VERSION: HeaderValue = HeaderValue::from_static("13");
/// RFC 6455 1.3: what a server adds to the key, to prove that it has read it as one.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Length of a decoded key, in bytes (RFC 6455 4.1).
const WEBSOCKET_KEY: usize = 16;
/// Longest name of a protocol, in bytes.
const NAME_BYTES: usize = 64;

const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// A request for a tunnel.
#[derive(Debug)]
pub(super) struct Asked {
    protocol: Arc<str>,
    by: By,
    /// The answer to a WebSocket client's key.
    accept: Option<HeaderValue>,
}

/// How it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// HTTP/1.1.
    Upgrade,
    /// HTTP/2.
    Connect,
}

/// Reads an extended CONNECT as the request that it stands for: GET, so that one endpoint serves HTTP/1.1 and HTTP/2. A
/// CONNECT without a protocol stays what it is.
///
/// # Errors
/// `bad_request` for a protocol whose name is none.
pub(super) fn extended_connect(request: &mut Request<Body>) -> Result<(), Problem> {
    let Some(protocol) = request.extensions_mut().remove::<hyper::ext::Protocol>() else { return Ok(()) };
    if !is_protocol(protocol.as_str()) {
        return Err(Problem::new(ProblemCode::BadRequest).detail(":protocol is not the name of a protocol."));
    }
    let protocol = canonical(protocol.as_str());
    if let Some(arrival) = request.extensions_mut().get_mut::<Arrival>() {
        arrival.tunnel = Some(protocol);
        *request.method_mut() = Method::GET;
    }
    Ok(())
}

/// The tunnel that a request asks for, which its [`Arrival`] then names.
///
/// # Errors
/// What the client is told whose WebSocket handshake is wrong.
#[allow(clippy::result_large_err, reason = "a refusal is as large as the response that it stands for")]
pub(super) fn asked(request: &mut Request<Body>) -> Result<Option<Box<Asked>>, Response<Body>> {
    let Some(arrival) = request.extensions().get::<Arrival>() else { return Ok(None) };
    let (protocol, by) = match &arrival.tunnel {
        Some(protocol) => (Arc::clone(protocol), By::Connect),
        None => match upgrade(request) {
            Some(protocol) => (protocol, By::Upgrade),
            None => return Ok(None),
        },
    };
    let accept = if *protocol == *WEBSOCKET { websocket(request, by)? } else { None };
    if let Some(arrival) = request.extensions_mut().get_mut::<Arrival>() {
        arrival.tunnel = Some(Arc::clone(&protocol));
    }
    Ok(Some(Box::new(Asked { protocol, by, accept })))
}

/// The first protocol of `Upgrade` that concerns more than this hop's own connection. The field may always be ignored
/// (RFC 9110 7.8), and is where a body would have to be read first.
fn upgrade(request: &Request<Body>) -> Option<Arc<str>> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || !http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let is_named =
        http_semantics::list_members(headers, header::CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade"));
    if !is_named {
        return None;
    }
    http_semantics::list_members(headers, header::UPGRADE)
        .find(|protocol| is_protocol(protocol) && !is_of_the_connection(protocol))
        .map(canonical)
}

/// Checks the handshake of WebSocket, and answers its key (RFC 6455 4.2.1; RFC 8441 5: without key over HTTP/2).
#[allow(clippy::result_large_err, reason = "a refusal is as large as the response that it stands for")]
fn websocket(request: &mut Request<Body>, by: By) -> Result<Option<HeaderValue>, Response<Body>> {
    let bad = |detail: &'static str| respond::refusal(Problem::new(ProblemCode::BadRequest).detail(detail));
    if *request.method() != Method::GET {
        return Err(bad("A WebSocket is opened with GET."));
    }
    let headers = request.headers_mut();
    if sole(headers, header::SEC_WEBSOCKET_VERSION) != Some(&WEBSOCKET_VERSION) {
        return Err(respond::websocket_version(by == By::Upgrade));
    }
    if by == By::Connect {
        return Ok(None);
    }
    let accept = sole(headers, header::SEC_WEBSOCKET_KEY).and_then(accept_of);
    // It is about this connection, and was answered.
    headers.remove(header::SEC_WEBSOCKET_KEY);
    match accept {
        Some(accept) => Ok(Some(accept)),
        None => Err(bad("Sec-WebSocket-Key is not the base64 of 16 bytes.")),
    }
}

/// RFC 6455 4.2.2: what proves that a key was read.
fn accept_of(key: &HeaderValue) -> Option<HeaderValue> {
    let decoded = BASE64_STANDARD.decode(key.as_bytes()).ok().filter(|key| key.len() == WEBSOCKET_KEY);
    decoded?;
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(WEBSOCKET_GUID).finalize();
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash)).ok()
}

/// Makes a service's answer to a request for a tunnel the client's: of its acceptance what this version of HTTP says
/// instead, of anything else what it is.
pub(super) fn answer(asked: &Asked, response: &mut Response<Body>) {
    if !OpenTunnel::is_in(response) {
        if asked.by == By::Connect && response.status().is_success() {
            // RFC 9110 9.3.6: it would open a tunnel.
            *response = respond::refusal(
                Problem::new(ProblemCode::NotImplemented).detail("The service does not open a tunnel here."),
            );
        }
        return;
    }
    let is_websocket = *asked.protocol == *WEBSOCKET;
    if is_websocket {
        // RFC 6455 7.1: whoever leaves without a closing handshake has left.
        OpenTunnel::end_with_client(response);
    }
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    if asked.by == By::Connect {
        return;
    }
    headers.insert(header::CONNECTION, UPGRADE);
    if let Ok(protocol) = HeaderValue::from_str(&asked.protocol) {
        headers.insert(header::UPGRADE, protocol);
    }
    if let Some(accept) = &asked.accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
}

/// The protocols that a service says it would rather speak, in an answer of 426. The field that tells a client of them
/// ends at a hop (RFC 9110 15.5.22), so that they come under another name.
pub(super) fn wanted(response: &Response<Body>) -> Option<HeaderValue> {
    if response.status() != StatusCode::UPGRADE_REQUIRED {
        return None;
    }
    response.headers().get(UPGRADE_PROTOCOLS).cloned()
}

/// Tells an HTTP/1.1 client of them.
pub(super) fn tell(wanted: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, wanted);
}

/// The one line of a field.
fn sole(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// RFC 9110 7.8: `name [ "/" version ]`, both tokens.
fn is_protocol(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
    text.len() <= NAME_BYTES && is_token(name) && version.is_none_or(is_token)
}

/// Protocols that a client would go on to speak with this hop itself.
fn is_of_the_connection(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http", "tls"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// Names are compared without regard to case (RFC 9110 7.8).
fn canonical(protocol: &str) -> Arc<str> {
    if protocol.eq_ignore_ascii_case(WEBSOCKET) { WEBSOCKET.into() } else { protocol.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_specification_has_the_answer_of_the_specification() {
        let accept = accept_of(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j", "not base64!!!!!!!!!!!!!=="] {
            assert_eq!(accept_of(&HeaderValue::from_static(bad)), None, "{bad}");
        }
    }

    #[test]
    fn names_of_protocols_are_tokens_and_some_concern_the_connection() {
        for (text, is) in
            [("websocket", true), ("irc/6.9", true), ("a b", false), ("", false), ("x/", false), ("/x", false)]
        {
            assert_eq!(is_protocol(text), is, "{text}");
        }
        for (text, is) in [("h2c", true), ("TLS/1.0", true), ("HTTP/2.0", true), ("httpx", false), ("websocket", false)]
        {
            assert_eq!(is_of_the_connection(text), is, "{text}");
        }
        assert_eq!(&*canonical("WebSocket"), "websocket");
    }
}
