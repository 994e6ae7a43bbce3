//! What a handler gets and gives: HTTP messages with the bodies of links.
//!
//! Nothing here knows how one is taken apart or made.

use router_link::Body;

/// A request as a handler gets it.
pub type Request = http::Request<Body>;
/// A response as a handler gives it.
pub type Response = http::Response<Body>;
