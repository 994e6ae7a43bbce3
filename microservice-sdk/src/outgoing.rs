//! The last that is done to a handler's answer before it leaves: what no frame may carry is taken out (SPEC 4), and a
//! problem gets the id of the request it answers (SPEC 12).
//!
//! It knows neither handlers nor links.

use http::{HeaderMap, HeaderName};
use router_common::hop_by_hop;

use crate::error;
use crate::message::Response;

/// The field that carries it.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The id under which the gateway, and whoever came before it, know the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    const X_REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID);
    headers.get(X_REQUEST_ID)?.to_str().ok()
}

/// Makes an answer ready to leave. `request_id` is asked for where a problem is to say it.
pub(crate) fn finish<'a>(response: &mut Response, request_id: impl FnOnce() -> Option<&'a str>) {
    hop_by_hop::strip(response.headers_mut());
    error::name_request(response, request_id);
}
