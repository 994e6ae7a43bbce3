//! The head of an ordinary request, eight headers, and of its answer.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use router_common::endpoint::EndpointId;
use router_common::head::{HeadError, RequestHead, RequestParts, ResponseHead, Scheme};

/// What a browser's request looks like behind a gateway.
#[must_use]
pub fn request_headers() -> HeaderMap {
    [
        (header::ACCEPT, "application/json, text/plain;q=0.8, */*;q=0.5"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.7"),
        (header::CONTENT_TYPE, "application/json"),
        (header::COOKIE, "session=4f6b1d0a9e2c4f8b8a5d7c6e3f1a2b3c; theme=dark"),
        (header::REFERER, "https://shop.example/orders"),
        (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        (header::VIA, "1.1 gw-1"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .into_iter()
    .collect()
}

#[must_use]
pub fn response_headers() -> HeaderMap {
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store"), (header::CONTENT_LENGTH, "13")]
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

/// `GET /orders/4711?expand=items` with those headers.
///
/// # Errors
/// Never for headers that fit a head.
pub fn encode_request(headers: &HeaderMap) -> Result<RequestHead, HeadError> {
    RequestHead::encode(&RequestParts {
        endpoint: EndpointId::new(7),
        deadline: Some(Duration::from_secs(30)),
        hops: 1,
        method: "GET",
        scheme: Scheme::Http,
        authority: "shop.example",
        target: "/orders/4711?expand=items",
        parameters: &[(8, 4)],
        client: Some(SocketAddr::from(([192, 0, 2, 7], 50_123))),
        headers,
        claims: &[],
        tunnel_protocol: None,
    })
}

/// # Panics
/// Never: the head is small and well formed.
#[must_use]
pub fn request() -> RequestHead {
    encode_request(&request_headers()).expect("a small head")
}

/// # Panics
/// Never: the head is small and well formed.
#[must_use]
pub fn response() -> ResponseHead {
    ResponseHead::encode(200, &response_headers()).expect("a small head")
}

/// The same for a body of any length.
///
/// # Panics
/// Never: the head is small and well formed.
#[must_use]
pub fn response_without_length() -> ResponseHead {
    let mut headers = response_headers();
    headers.remove(header::CONTENT_LENGTH);
    ResponseHead::encode(200, &headers).expect("a small head")
}
