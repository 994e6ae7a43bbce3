//! Inbound: a request as its link brought it, which becomes HTTP as far as somebody wants it to.
//!
//! Most of what reading a request costs is its header fields. Whoever finds its handler by the endpoint's number, and
//! knows what that handler looks at, need not pay for the rest. Nothing here knows handlers.

use std::fmt;
use std::time::Instant;

use http::request::Parts;
use router_common::endpoint::EndpointId;
use router_common::head::RequestHead;

use crate::body::Body;
use crate::context::RequestContext;
use crate::convert::{self, Fields};
use crate::responder::Responder;

/// A request that has arrived, and has been checked against the protocol, but not yet been made HTTP (SPEC 4).
pub struct Inbound {
    head: RequestHead,
    body: Body,
    arrived: Instant,
}

impl Inbound {
    pub(crate) const fn new(head: RequestHead, body: Body, arrived: Instant) -> Self {
        Self { head, body, arrived }
    }

    /// The receiver's own number of the endpoint; `None`: to be found by method and path.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointId> {
        self.head.endpoint()
    }

    /// When it arrived, by the local clock: when the turn of the link's driver began that brought it, and so the same for all
    /// that came together.
    #[must_use]
    pub const fn arrived(&self) -> Instant {
        self.arrived
    }

    /// When the answer is no longer wanted, by the local clock.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.head.deadline().and_then(|left| self.arrived.checked_add(left))
    }

    /// The text of a header field, of several the first. `name` is lower-case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let value = self.head.headers().value(name.as_bytes())?;
        // What HTTP's types take for text.
        std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte == b'\t' || matches!(byte, 0x20..0x7f)))
    }

    /// The body, which leaves an empty one behind.
    #[must_use]
    pub fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    /// Method, target and header fields, without extensions. `None`: HTTP's types cannot say it.
    #[must_use]
    pub fn parts(&self, fields: Fields) -> Option<Parts> {
        convert::request_parts(&self.head, fields)
    }

    /// What the router knows of the request beside its HTTP parts. `responder` is the one that came with it.
    #[must_use]
    pub fn context(&self, responder: &Responder) -> RequestContext {
        convert::request_context(&self.head, self.deadline(), responder.cancellation())
    }

    /// All of it as HTTP, with its [`RequestContext`] as an extension. `None`: HTTP's types cannot say it.
    #[must_use]
    pub fn into_request(mut self, responder: &Responder) -> Option<http::Request<Body>> {
        let mut parts = self.parts(Fields::All)?;
        parts.extensions.insert(self.context(responder));
        Some(http::Request::from_parts(parts, self.take_body()))
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbound({} {})", self.head.method(), self.head.target())
    }
}
