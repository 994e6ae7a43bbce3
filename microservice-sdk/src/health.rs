//! Health: what a service says of itself, for whoever in it knows (SPEC 4, 5).
//!
//! It only passes the word on; what follows from it is the gateways' to decide.

use std::fmt;
use std::sync::Arc;

use router_common::frame::HealthStatus;

use crate::board::Board;

/// The health of the service, as its gateways are told. Cheap to clone; an extractor, and
/// [`Running::health`](crate::Running::health).
///
/// A service is `Healthy` until it says otherwise. `Degraded` gets requests only where no healthy instance can take them;
/// `Unhealthy` gets none, at once, until it is better. What is in flight goes on in any case.
#[derive(Clone)]
pub struct Health(Arc<Board>);

impl Health {
    pub(crate) const fn new(board: Arc<Board>) -> Self {
        Self(board)
    }

    /// Of a service without a gateway.
    pub(crate) fn of_nobody() -> Self {
        Self(Board::new(0))
    }

    /// What the gateways were told last.
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        self.0.health()
    }

    /// Tells all gateways, at once and with each heartbeat from now on.
    pub fn set(&self, status: HealthStatus) {
        self.0.set_health(status);
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.status()).finish()
    }
}
