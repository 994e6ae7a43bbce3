//! HTTP messages to heads and back: the only file that knows both.
//!
//! It changes nothing on the way. Hop-by-hop fields are refused by the heads' encoding, so whoever sends has taken them
//! out before.

use std::time::Instant;

use bytes::BytesMut;
use http::header::{self, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode, Uri, request, response};
use router_common::endpoint::Claim;
use router_common::head::{self, HeadError, RequestHead, RequestParts, ResponseHead, Trailers};

use crate::call::Call;
use crate::context::{Cancellation, RequestContext};

/// What is wanted of a request's header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fields {
    /// Nobody will look at them.
    Unread,
    #[default]
    All,
}

/// A request's parts as a head in `memory`. `call` says what HTTP does not.
pub(crate) fn request_head<B>(
    request: &http::Request<B>,
    call: &Call,
    now: Instant,
    memory: &mut BytesMut,
) -> Result<RequestHead, HeadError> {
    let (uri, headers) = (request.uri(), request.headers());
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let parts = RequestParts {
        endpoint: call.endpoint,
        // A tunnel outlives whoever waits for its beginning.
        deadline: call
            .deadline
            .filter(|_| call.tunnel.is_none())
            .map(|deadline| deadline.saturating_duration_since(now)),
        hops: call.hops,
        method: request.method().as_str(),
        scheme: call.scheme,
        authority,
        target: uri.path_and_query().map_or("/", |target| target.as_str()),
        parameters: call.parameters.as_slice(),
        client: call.client,
        headers,
        claims: call.claims.as_deref().unwrap_or_default(),
        tunnel_protocol: call.tunnel.as_deref(),
    };
    RequestHead::encode_in(&parts, memory)
}

/// A head as a request's parts. `None`: HTTP's types cannot say it.
pub(crate) fn request_parts(head: &RequestHead, fields: Fields) -> Option<request::Parts> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(head.method().as_bytes()).ok()?;
    parts.uri = Uri::from_maybe_shared(head.target_bytes()).ok()?;
    if fields == Fields::All {
        parts.headers = header_map(head.headers())?;
    }
    Some(parts)
}

/// What a head says beside HTTP.
pub(crate) fn request_context(
    head: &RequestHead,
    deadline: Option<Instant>,
    cancellation: Cancellation,
) -> RequestContext {
    let mut context = RequestContext::default();
    context.endpoint = head.endpoint();
    context.deadline = deadline;
    context.cancellation = cancellation;
    context.hops = head.hops();
    context.scheme = head.scheme();
    context.authority = Authority::from_maybe_shared(head.authority_bytes()).ok();
    context.client = head.client();
    context.parameters = head.parameters().collect();
    context.tunnel = head.tunnel_protocol().map(Into::into);
    let mut claims = head.claims().peekable();
    if claims.peek().is_some() {
        let claims = claims.map(|(kind, value)| Claim { kind: kind.to_owned(), value: value.to_owned() });
        context = context.with_claims(claims);
    }
    context
}

/// A response's parts as a head in `memory`.
pub(crate) fn response_head(parts: &response::Parts, memory: &mut BytesMut) -> Result<ResponseHead, HeadError> {
    ResponseHead::encode_in(parts.status.as_u16(), &parts.headers, memory)
}

/// A head as a response's parts. `None`: HTTP's types cannot say it.
pub(crate) fn response_parts(head: &ResponseHead) -> Option<response::Parts> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(head.status()).ok()?;
    parts.headers = header_map(head.headers())?;
    Some(parts)
}

/// Trailers as HTTP's fields. `None`: HTTP's types cannot say them.
pub(crate) fn trailer_map(trailers: &Trailers) -> Option<HeaderMap> {
    header_map(trailers.headers())
}

/// Fields that whoever passes a message on is expected to add: room for them is made at once, because a map that grows
/// is made anew.
const ADDED_ON_THE_WAY: usize = 6;

fn header_map(fields: head::Fields<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::try_with_capacity(fields.len() + ADDED_ON_THE_WAY).ok()?;
    for (name, value) in fields {
        let name = header_name(name)?;
        headers.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok()?;
    }
    Some(headers)
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A field's name. Those of nearly every message are known at a glance; the library would read them letter by letter,
/// and copy the ones that it does not know.
fn header_name(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"accept" => header::ACCEPT,
        b"accept-encoding" => header::ACCEPT_ENCODING,
        b"accept-language" => header::ACCEPT_LANGUAGE,
        b"authorization" => header::AUTHORIZATION,
        b"content-length" => header::CONTENT_LENGTH,
        b"content-type" => header::CONTENT_TYPE,
        b"cookie" => header::COOKIE,
        b"forwarded" => header::FORWARDED,
        b"host" => header::HOST,
        b"user-agent" => header::USER_AGENT,
        b"via" => header::VIA,
        b"x-forwarded-for" => X_FORWARDED_FOR,
        b"x-forwarded-host" => X_FORWARDED_HOST,
        b"x-forwarded-proto" => X_FORWARDED_PROTO,
        b"x-request-id" => X_REQUEST_ID,
        _ => return HeaderName::from_bytes(name).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_known_at_a_glance_are_the_librarys() {
        for name in ["accept", "content-length", "forwarded", "via", "x-forwarded-proto", "x-request-id", "x-other"] {
            assert_eq!(header_name(name.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok());
        }
        assert_eq!(header_name(b"not a name"), None);
    }
}
