//! The agreed end of opening streams on a link (SPEC 4, drain). It binds only the receiver's opening.
//!
//! ```text
//!   Open (Wanted while in the handshake)
//!    └── drain(): DRAIN(request) ────> Asked ── DRAIN(ack, last) ──────────> Agreed(last)
//!                                         └── 5 s: DRAIN(final, last seen) ──> Agreed(last seen)
//! ```

use std::time::Instant;

use crate::frame::StreamId;
use crate::limits;

/// Our own drain of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// The peer may open streams.
    Open,
    /// To begin when the handshake has ended.
    Wanted,
    /// DRAIN(request) is sent.
    Asked { since: Instant },
    /// The peer opens nothing above `last`.
    Agreed { last: StreamId, reported: bool },
}

impl Drain {
    /// When the peer's acknowledgement is overdue.
    pub(super) fn overdue_at(self) -> Option<Instant> {
        match self {
            Self::Asked { since } => Some(since + limits::DRAIN_ACK_TIMEOUT),
            Self::Open | Self::Wanted | Self::Agreed { .. } => None,
        }
    }

    /// Whether a request with this id is still taken.
    pub(super) fn admits(self, id: StreamId) -> bool {
        match self {
            Self::Open | Self::Wanted | Self::Asked { .. } => true,
            Self::Agreed { last, .. } => id <= last,
        }
    }
}
