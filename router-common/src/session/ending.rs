//! How a session ends: by CLOSE, by what the link brought, or with the link; and what its streams are told (SPEC 4).
//!
//! A CLOSE that overtakes answers, on a link that reorders, is `datagrams`' to wait for.

use super::event::{Closed, ClosedBy, ProtocolError, StreamFailure};
use super::stream::{Side, Wire};
use super::{Session, State};
use crate::frame::{Close, CloseCode, Frame, StreamId, bounded_text};

impl Session {
    /// Ends the link with CLOSE; all streams on it get their outcome now.
    pub fn close(&mut self, code: CloseCode, text: String) {
        if matches!(self.state, State::Closing(_) | State::Closed(_) | State::Ending { .. }) {
            return self.end_now();
        }
        let text = bounded_text(text);
        match code {
            // It takes nothing: what is queued is what it did not take.
            CloseCode::Overload => self.scheduler.clear(),
            _ => self.scheduler.clear_but_outcomes(),
        }
        let last = self.last_accepted;
        self.scheduler.control(Frame::Close(Box::new(Close { code, last, text: text.clone() })));
        self.end(Closed { by: ClosedBy::Local, code, text }, None);
    }

    /// What the link brought is not a frame.
    pub fn handle_error(&mut self, error: ProtocolError) {
        self.close(error.code, error.text);
    }

    /// The link ended.
    pub fn handle_link_closed(&mut self) {
        match &self.state {
            State::Closed(_) => {}
            State::Closing(closed) => self.state = State::Closed(closed.clone()),
            State::Ending { .. } => self.end_now(),
            State::Handshake(_) | State::Established => {
                let text = "the link ended without CLOSE".to_owned();
                self.end(Closed { by: ClosedBy::Link, code: CloseCode::Normal, text }, None);
            }
        }
    }

    /// The session is over: every stream gets its outcome. `accepted`: the highest id the peer took.
    pub(super) fn end(&mut self, closed: Closed, accepted: Option<StreamId>) {
        self.state = match closed.by {
            ClosedBy::Local => State::Closing(closed),
            ClosedBy::Peer | ClosedBy::Link => {
                self.scheduler.clear();
                State::Closed(closed)
            }
        };
        let slots: Vec<u32> = self.streams.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            let Some(stream) = self.streams.get_mut(slot as usize) else { continue };
            let unseen = match (stream.side, stream.wire, stream.id) {
                (Side::Opener, Wire::Unsent, _) => true,
                // What was answered was seen, whatever the peer says.
                (Side::Opener, Wire::Live, Some(id)) => {
                    !stream.receive.answered && accepted.is_some_and(|last| id > last)
                }
                _ => false,
            };
            stream.fail(if unseen { StreamFailure::Unseen } else { StreamFailure::Lost });
            self.notify(slot);
            self.finish_wire(slot);
        }
    }
}
