//! What the macros' expansions call. Not for use by hand: it changes with them.

use std::future::Future;
use std::time::Duration;

use http::{Method, StatusCode};
use router_common::endpoint::{ClaimRequirement, EndpointDescriptor, EndpointId, TemplateError};

use crate::error::{EndpointError, Problem};
use crate::extract::{AnyState, FromRequest, FromRequestParts};
use crate::message::Response;
use crate::response::IntoResponse;

/// A function with `#[endpoint(..)]`: its type of the same name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an endpoint",
    label = "not an endpoint",
    note = "put `#[endpoint(GET, \"/path\")]` on the function"
)]
pub trait Described {
    const DEFINITION: Definition;
}

#[must_use]
pub const fn definition<T: Described>() -> Definition {
    T::DEFINITION
}

/// All that `#[endpoint(..)]` says, as constants.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) detached: bool,
    pub(crate) blocking: bool,
    method: &'static str,
    pub(crate) path: &'static str,
    timeout_ms: Option<u64>,
    max_request_bytes: Option<u64>,
    idempotent: bool,
    streaming_request: bool,
    streaming_response: bool,
    one_way: bool,
    deprecated: bool,
    summary: Option<&'static str>,
    tags: &'static [&'static str],
    claims: &'static [(&'static str, &'static [&'static str])],
}

macro_rules! setters {
    ($($name:ident($($value:ident: $ty:ty)?) => $set:expr;)*) => {$(
        #[must_use]
        pub const fn $name(mut self $(, $value: $ty)?) -> Self {
            self.$name = $set;
            self
        }
    )*};
}

impl Definition {
    #[must_use]
    pub const fn new(name: &'static str, method: &'static str, path: &'static str) -> Self {
        Self {
            name,
            detached: false,
            blocking: false,
            method,
            path,
            timeout_ms: None,
            max_request_bytes: None,
            idempotent: false,
            streaming_request: false,
            streaming_response: false,
            one_way: false,
            deprecated: false,
            summary: None,
            tags: &[],
            claims: &[],
        }
    }

    setters! {
        timeout_ms(value: u64) => Some(value);
        max_request_bytes(value: u64) => Some(value);
        idempotent() => true;
        streaming_request() => true;
        streaming_response() => true;
        one_way() => true;
        detached() => true;
        blocking() => true;
        deprecated() => true;
        summary(value: &'static str) => Some(value);
        tags(value: &'static [&'static str]) => value;
        claims(value: &'static [(&'static str, &'static [&'static str])]) => value;
    }

    /// The descriptor, under the id that the service gives it. The macro has checked the path and the method.
    pub(crate) fn descriptor(&self, id: EndpointId) -> Result<EndpointDescriptor, TemplateError> {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap_or(Method::GET);
        let mut descriptor = EndpointDescriptor::new(id, method, self.path.parse()?);
        descriptor.timeout = self.timeout_ms.map(Duration::from_millis);
        descriptor.max_request_bytes = self.max_request_bytes;
        descriptor.idempotent = self.idempotent;
        descriptor.streaming_request = self.streaming_request;
        descriptor.streaming_response = self.streaming_response;
        descriptor.one_way = self.one_way;
        descriptor.deprecated = self.deprecated;
        descriptor.summary = self.summary.map(str::to_owned);
        descriptor.tags = self.tags.iter().map(|tag| (*tag).to_owned()).collect();
        descriptor.requiring_claims = self
            .claims
            .iter()
            .map(|(kind, any_of)| ClaimRequirement {
                kind: (*kind).to_owned(),
                any_of: any_of.iter().map(|value| (*value).to_owned()).collect(),
            })
            .collect();
        Ok(descriptor)
    }
}

/// Asserts that an argument which is not the last can be extracted.
pub const fn argument<T: FromRequestParts<AnyState>>() {}

/// Asserts that the last argument can be extracted.
pub const fn last_argument<M, T: FromRequest<AnyState, M>>() {}

/// Asserts that a result is a response.
pub const fn output<T: IntoResponse>() {}

/// Asserts that a handler's future can change threads.
pub const fn future<F: Function + Copy>(_: F) {}

/// A pointer to a function whose future can change threads.
#[diagnostic::on_unimplemented(
    message = "the future of this endpoint cannot change threads",
    label = "its future is not `Send`",
    note = "something that is not `Send` (an `Rc`, a `RefCell` borrow, a `MutexGuard`) lives across an `.await`"
)]
pub trait Function {}

macro_rules! functions {
    ($(($($argument:ident),*))*) => {$(
        impl<F: Future + Send, $($argument),*> Function for fn($($argument),*) -> F {}
    )*};
}

functions! {
    () (A1) (A1, A2) (A1, A2, A3) (A1, A2, A3, A4) (A1, A2, A3, A4, A5) (A1, A2, A3, A4, A5, A6)
    (A1, A2, A3, A4, A5, A6, A7) (A1, A2, A3, A4, A5, A6, A7, A8) (A1, A2, A3, A4, A5, A6, A7, A8, A9)
    (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10) (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11)
    (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12)
}

/// A problem of a status that the macro has checked.
#[must_use]
pub fn problem(status: u16, code: &'static str) -> Problem {
    Problem::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), code)
}

/// The response of a derived error.
#[must_use]
pub fn error_response(error: &impl EndpointError) -> Response {
    crate::error::respond(error)
}
