//! What a side does with what its link brings. The gateway and the SDK each write one of these; the driver calls it.

use std::time::Duration;

use router_common::endpoint::EndpointDescriptor;
use router_common::frame::{CloseCode, HealthStatus, Reason, RefusedEndpoint, Welcome};
use router_common::session::{Accepted, Closed, Joining, Silence};

use crate::body::Body;
use crate::handle::Handle;
use crate::inbound::Inbound;
use crate::responder::Responder;

/// The user of one link. Called by its driver, one call at a time, and never under the session's lock. It must not
/// block: nothing else moves on the link meanwhile. A panic in it ends no more than the call it was in.
pub trait Application: Send + 'static {
    /// Gateway: an authenticated service says who it is. Its streams and endpoints come later.
    ///
    /// # Errors
    /// What the service is told before the link closes.
    fn join(&mut self, joining: Joining, handle: &Handle) -> Result<Accepted, Refused> {
        let _ = (joining, handle);
        Err(Refused::new(CloseCode::ProtocolError, "nothing can be joined here"))
    }

    /// Something that concerns the link as a whole. [`ConnectionEvent::Closed`] comes exactly once, last, even if the
    /// driver is dropped.
    fn event(&mut self, event: ConnectionEvent, handle: &Handle);

    /// The peer opened a stream. The request carries a [`RequestContext`](crate::RequestContext) and a
    /// [`Cancellation`](crate::Cancellation) as extensions. To be answered through `responder`, from here or any task.
    fn request(&mut self, request: http::Request<Body>, responder: Responder);

    /// Likewise, before the request is made HTTP, for an application that need not have all of it. By default all of it is
    /// made HTTP and given to [`Application::request`]; what HTTP's types cannot say is refused.
    fn arrived(&mut self, inbound: Inbound, responder: Responder) {
        match inbound.into_request(&responder) {
            Some(request) => self.request(request, responder),
            None => responder.reject(Reason::ProtocolError),
        }
    }
}

/// A gateway's no to a service that wants to join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refused {
    pub code: CloseCode,
    /// For the people who run the service.
    pub text: String,
}

impl Refused {
    #[must_use]
    pub fn new(code: CloseCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// What concerns a link as a whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// Service: the gateway said WELCOME.
    Welcomed(Box<Welcome>),
    /// Gateway: a whole endpoint set arrived; answer with [`Handle::endpoints_result`].
    Endpoints { revision: u64, endpoints: Vec<EndpointDescriptor> },
    /// Service: what became of a revision.
    EndpointsResult { revision: u64, refused: Vec<RefusedEndpoint> },
    /// The service's first heartbeat is acknowledged: requests may be routed here.
    Routable,
    /// What the peer says of itself.
    Heartbeat { status: HealthStatus, in_flight: u32, load: u32 },
    /// The moving average of the round trip changed.
    RoundTrip(Duration),
    /// A heartbeat was due and the last one is unanswered.
    HeartbeatMissed,
    /// The peer has been silent for `degraded_after`, or is heard again.
    Silence(Silence),
    /// Gateway: the instance's lease changed.
    Lease { limit: u32 },
    /// The peer asked that no more streams be opened on this link.
    PeerDraining,
    /// Our own drain is done: nothing of the peer's is in flight on this link.
    Drained,
    /// The link is over; all its streams have their outcomes. What is left is to tell the peer, if it is there.
    Closed(Closed),
}
