//! What holds of a session at any time, for tests and simulations that look.

use super::Session;
use super::stream::{Side, Wire};
use crate::limits;

impl Session {
    /// What must hold at any time, for simulations.
    ///
    /// # Errors
    /// Says what does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        let live = |side| self.streams.iter().filter(|(_, s)| s.side == side && s.wire != Wire::Done).count();
        let counted = (live(Side::Opener), live(Side::Responder));
        if counted != (self.opened, self.accepted) {
            return Err(format!("{counted:?} streams live, {:?} counted", (self.opened, self.accepted)));
        }
        if !self.receive_window.is_sound() {
            return Err(format!("link window {:?}", self.receive_window));
        }
        for (slot, stream) in &self.streams {
            if !stream.receive.window.is_sound() {
                return Err(format!("stream {slot} window {:?}", stream.receive.window));
            }
            let most = limits::STREAM_WINDOW_MAX.max(self.common.limits.stream_window) as usize;
            if stream.receive.queue.len() > most {
                return Err(format!("stream {slot} buffers {}", stream.receive.queue.len()));
            }
            if stream.wire == Wire::Done && stream.permit.is_some() && (stream.side == Side::Opener || stream.released)
            {
                return Err(format!("stream {slot} is done and holds its lease"));
            }
        }
        for (id, slot) in &self.by_id {
            if self.streams.get(*slot as usize).is_none_or(|stream| stream.id != Some(*id)) {
                return Err(format!("id {id} names the wrong stream"));
            }
        }
        Ok(())
    }

    /// Streams in the table, whether over on the wire or not.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.streams.len()
    }
}
