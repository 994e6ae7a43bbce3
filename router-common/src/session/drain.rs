//! The agreed end of opening streams on a link (SPEC 4, drain). It binds only the receiver's opening.
//!
//! ```text
//!   Open (Wanted while in the handshake)
//!    └── drain(): DRAIN(request) ────> Asked ── DRAIN(ack, last) ──────────> Agreed(last)
//!                                         └── 5 s: DRAIN(final, last seen) ──> Agreed(last seen)
//! ```

use std::time::Instant;

use super::event::Event;
use super::{Session, State};
use crate::frame::{Drain as DrainFrame, DrainPhase, Frame, StreamId};
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

impl Session {
    /// Asks the peer to open nothing more on this link; [`Event::Drained`] tells when all it opened is over. In the
    /// handshake: as soon as it has ended.
    pub fn drain(&mut self, now: Instant) {
        if self.drain != Drain::Open {
            return;
        }
        if matches!(self.state, State::Handshake(_)) {
            self.drain = Drain::Wanted;
        }
        if self.is_established() {
            self.drain = Drain::Asked { since: now };
            let last = StreamId::CONNECTION;
            self.scheduler.control(Frame::Drain(DrainFrame { phase: DrainPhase::Request, last }));
        }
    }

    /// The peer opens nothing above `last` any more.
    pub(super) fn agree_drain(&mut self, last: StreamId) {
        self.drain = Drain::Agreed { last, reported: false };
        self.await_stragglers();
        self.check_drained();
    }

    pub(super) fn check_drained(&mut self) {
        if self.accepted == 0
            && self.is_established()
            && let Drain::Agreed { last, reported: false } = self.drain
            && self.has_all_to(last)
        {
            self.drain = Drain::Agreed { last, reported: true };
            self.has_settled();
            self.events.push_back(Event::Drained);
        }
    }
}
