//! Responses: what a handler may return.
//!
//! Bodies know their lengths and types say their content types; what is sent on the link is [`Response`]. Nothing here
//! knows requests.

mod sse;

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt as _;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use router_link::Body;

pub use self::sse::{Event, Sse};
use crate::error::{Internal, Problem};
use crate::message::Response;

/// Something that a handler may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned from an endpoint",
    label = "not a response",
    note = "responses: `Json`, `String`, `&'static str`, `Bytes`, `Vec<u8>`, `StatusCode`, `()` (204), `Body`, `Chunks` (a stream), `Sse` (events), `Problem`, `http::Response<Body>`, tuples like `(StatusCode, [(name, value); N], body)`, and `Result<T, E>` of two of them",
    note = "an error type becomes a response by `#[derive(EndpointError)]`; a type with `Serialize` by `Json(..)`"
)]
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

/// A part of a response that stands before the body in a tuple: headers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no part of a response's head",
    label = "not headers",
    note = "before the body of a response tuple stand: a `StatusCode` (first), `HeaderMap`, `[(name, value); N]`, `Extensions`"
)]
pub trait IntoResponseParts {
    /// Adds itself to the response.
    ///
    /// # Errors
    /// A header that is none: 500, because only the service's code can bring it about.
    fn add_to(self, response: &mut Response) -> Result<(), Problem>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.render()
    }
}

impl IntoResponse for Internal {
    fn into_response(self) -> Response {
        self.render()
    }
}

/// 204 No Content.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self;
        response
    }
}

impl IntoResponse for Infallible {
    fn into_response(self) -> Response {
        match self {}
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

macro_rules! typed {
    ($content_type:literal: $($ty:ty),+) => {$(
        impl IntoResponse for $ty {
            fn into_response(self) -> Response {
                with_type(self.into(), const { HeaderValue::from_static($content_type) })
            }
        }
    )+};
}

typed!("text/plain; charset=utf-8": String, &'static str);
typed!("application/octet-stream": Bytes, Vec<u8>, &'static [u8]);

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        match self {
            Cow::Borrowed(text) => text.into_response(),
            Cow::Owned(text) => text.into_response(),
        }
    }
}

fn with_type(body: Body, content_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A body of chunks that are sent as the stream gives them. An error cuts the response short, visibly to the client.
///
/// The endpoint is `streaming(response)`. Without a `Content-Type` before it in a tuple it is
/// `application/octet-stream`.
#[derive(Debug)]
pub struct Chunks<T>(pub T);

impl<T, E> IntoResponse for Chunks<T>
where
    T: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    fn into_response(self) -> Response {
        let body = Body::stream(StreamBody::new(self.0.map_ok(Frame::data)));
        with_type(body, const { HeaderValue::from_static("application/octet-stream") })
    }
}

impl IntoResponseParts for HeaderMap {
    fn add_to(self, response: &mut Response) -> Result<(), Problem> {
        // A name replaces what the body said of itself, then its further values are added.
        let headers = response.headers_mut();
        let mut current: Option<HeaderName> = None;
        for (name, value) in self {
            match (name, &current) {
                (Some(name), _) => {
                    headers.insert(name.clone(), value);
                    current = Some(name);
                }
                (None, Some(name)) => {
                    headers.append(name.clone(), value);
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}

impl<K, V, const N: usize> IntoResponseParts for [(K, V); N]
where
    K: TryInto<HeaderName, Error: std::fmt::Display>,
    V: TryInto<HeaderValue, Error: std::fmt::Display>,
{
    fn add_to(self, response: &mut Response) -> Result<(), Problem> {
        // A name replaces what the body said of itself, then its further values are added.
        let headers = response.headers_mut();
        let mut said: [Option<HeaderName>; N] = [const { None }; N];
        for ((name, value), slot) in self.into_iter().zip(0..N) {
            let name: HeaderName = name.try_into().map_err(|error| bad_header(&error))?;
            let value = value.try_into().map_err(|error| bad_header(&error))?;
            if said[..slot].iter().flatten().any(|earlier| *earlier == name) {
                headers.append(name, value);
            } else {
                said[slot] = Some(name.clone());
                headers.insert(name, value);
            }
        }
        Ok(())
    }
}

fn bad_header(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "an endpoint gave a header that is none");
    Problem::internal()
}

impl IntoResponseParts for Extensions {
    fn add_to(self, response: &mut Response) -> Result<(), Problem> {
        response.extensions_mut().extend(self);
        Ok(())
    }
}

macro_rules! impl_tuples {
    ($(($($part:ident),*))*) => {$(
        #[allow(non_snake_case, unused_mut, reason = "the parts are named by their types, and there may be none")]
        impl<$($part,)* R> IntoResponse for ($($part,)* R,)
        where
            $($part: IntoResponseParts,)*
            R: IntoResponse,
        {
            fn into_response(self) -> Response {
                let ($($part,)* body,) = self;
                let mut response = body.into_response();
                $(
                    if let Err(problem) = $part.add_to(&mut response) {
                        return problem.into_response();
                    }
                )*
                response
            }
        }

        #[allow(non_snake_case, reason = "the parts are named by their types")]
        impl<$($part,)* R> IntoResponse for (StatusCode, $($part,)* R)
        where
            $($part: IntoResponseParts,)*
            R: IntoResponse,
        {
            fn into_response(self) -> Response {
                let (status, $($part,)* body) = self;
                let mut response = ($($part,)* body,).into_response();
                *response.status_mut() = status;
                response
            }
        }
    )*};
}

impl_tuples! { () (P1) (P1, P2) (P1, P2, P3) }
