//! The last that is done to a handler's answer before it leaves: what no frame may carry is taken out (SPEC 4), and a
//! problem gets the id of the request it answers (SPEC 12).
//!
//! It knows neither handlers nor links.

use http::{HeaderMap, HeaderName, HeaderValue};
use router_common::hop_by_hop;

use crate::error;
use crate::message::Response;

/// The id under which the gateway, and whoever came before it, know the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    headers.get(X_REQUEST_ID).cloned()
}

/// Makes an answer ready to leave.
pub(crate) fn finish(response: &mut Response, request_id: Option<&HeaderValue>) {
    hop_by_hop::strip(response.headers_mut());
    error::name_request(response, request_id.and_then(|id| id.to_str().ok()));
}
