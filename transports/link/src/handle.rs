//! Handle: one link, for those who use it. Cheap to clone; all of it works from any thread.

use std::borrow::BorrowMut;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use router_common::endpoint::EndpointDescriptor;
use router_common::frame::{CloseCode, HealthStatus, RefusedEndpoint};
use router_common::session::lease::Lease;
use router_common::session::{Closed, ClosedBy, RegisterError};

use crate::body::Body;
use crate::call::Call;
use crate::environment::Environment;
use crate::exchange::Exchange;
use crate::link::PeerInfo;
use crate::shared::Shared;

/// One link. It does not keep the link alive: that is the driver's owner's part.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a request, or one that is lent, to the peer. Hop-by-hop fields are to be taken out before: they are refused,
    /// not stripped.
    pub fn call<R: BorrowMut<http::Request<Body>>>(&self, request: R, call: Call) -> Exchange<R> {
        Exchange::new(Arc::clone(&self.shared), request, call)
    }

    /// Asks the peer to open nothing more on this link. `ConnectionEvent::Drained` tells when all of its streams here
    /// are over; streams opened from this side go on (SPEC 4).
    pub fn drain(&self) {
        let now = self.shared.now();
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.act(|state| state.session.drain(now));
    }

    /// Ends the link with CLOSE; all streams on it get their outcome now.
    pub fn close(&self, code: CloseCode, text: impl Into<String>) {
        let text = text.into();
        self.shared.act(|state| state.session.close(code, text));
    }

    /// Service: offers the whole endpoint set, replacing the one before. `ConnectionEvent::EndpointsResult` answers.
    ///
    /// # Errors
    /// When the set is over a limit, or the link is not established.
    pub fn register(&self, revision: u64, endpoints: Vec<EndpointDescriptor>) -> Result<(), RegisterError> {
        self.shared.act(|state| state.session.register(revision, endpoints))
    }

    /// Gateway: answers an endpoint set; what is not named is accepted. Said again when a refused one is accepted later.
    pub fn endpoints_result(&self, revision: u64, refused: Vec<RefusedEndpoint>) {
        self.shared.act(|state| state.session.endpoints_result(revision, refused));
    }

    /// What the next heartbeat says: a status, and the load in thousandths of what can be borne. A change of status is
    /// said at once.
    pub fn set_health(&self, status: HealthStatus, load: u32) {
        let now = self.shared.now();
        self.shared.act(|state| state.session.set_health(status, load, now));
    }

    /// Service: tells the gateway the present limit of the instance's `Lease`, after `Lease::update`.
    pub fn announce_lease(&self) {
        self.shared.act(|state| state.session.announce_lease());
    }

    /// Service: binds the link by another lease, which other links to the same gateway share. What is in flight keeps its
    /// slots of the one before. The gateway is told by [`Handle::announce_lease`].
    pub fn share_lease(&self, lease: Arc<Lease>) {
        self.shared.act(|state| state.session.share_lease(lease));
    }

    /// Gives up streams that nobody has read for long, if the node's buffers are three quarters full. The link does so by
    /// itself whenever it has something else to do.
    pub fn relieve_stalled(&self) {
        let now = self.shared.now();
        self.shared.act(|state| state.session.relieve_stalled(now));
    }

    /// Whether requests can be sent: the handshake is done and nothing has ended it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.look(|state| state.session.is_established())
    }

    /// Whether either side has begun to drain this link.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Moving average of the heartbeats' round trip; `None` before the first.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.shared.round_trip()
    }

    /// Streams that are not over: opened here, opened by the peer.
    #[must_use]
    pub fn streams(&self) -> (usize, usize) {
        self.shared.look(|state| state.session.streams())
    }

    /// Whether it carries bodies of any length, trailers and tunnels. Where it does not, a message is one frame, and
    /// another is refused: see [`CallError::TooLarge`](crate::CallError) and [`CallError::Streams`](crate::CallError).
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.shared.whole.is_none()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.shared.peer
    }

    /// The clock and randomness of the link.
    #[must_use]
    pub fn environment(&self) -> &Arc<dyn Environment> {
        self.shared.environment()
    }

    /// Waits for the link's end; at once if it is over.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.shared.closed.subscribe();
        let ended = closed.wait_for(Option::is_some).await.ok().and_then(|closed| closed.clone());
        // The sender lives in what this handle holds, so the wait cannot fail.
        ended.unwrap_or_else(|| Closed { by: ClosedBy::Link, code: CloseCode::Normal, text: String::new() })
    }

    /// Whether both are the same link's.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.shared.peer)
    }
}
