//! The table of streams: how one enters it, is told of, and is forgotten when both ends have done with it (SPEC 4).
//!
//! What is said on a stream is not known here.

use super::Session;
use super::event::{Event, StreamKey};
use super::flow::{ReceiveWindow, SendCredit};
use super::stream::{Side, Stream, Wire};
use crate::limits;

/// Room for ids that a session keeps. A map that is nearly full of entries that come and go is rebuilt again and again.
pub(super) const IDS: usize = 128;

impl Session {
    /// Puts a new stream into the table.
    pub(super) fn insert(&mut self, side: Side, wire: Wire) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let mine = self.common.limits.stream_window;
        let window = ReceiveWindow::new(mine, limits::STREAM_WINDOW_MAX);
        let credit = SendCredit::new(self.peer.stream_window);
        match side {
            Side::Opener => self.opened += 1,
            Side::Responder => self.accepted += 1,
        }
        self.streams.insert(Stream::new(side, wire, self.generation, credit, window)) as u32
    }

    pub(super) fn key(&self, slot: u32) -> StreamKey {
        let generation = self.streams.get(slot as usize).map_or(0, |stream| stream.generation);
        StreamKey { index: slot, generation }
    }

    /// The stream that `key` names, while it is not forgotten.
    pub(super) fn stream(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.streams.get_mut(key.index as usize).filter(|stream| stream.generation == key.generation)
    }

    /// Somebody may wait for this stream.
    pub(super) fn notify(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        if !stream.released && !std::mem::replace(&mut stream.notified, true) {
            let key = StreamKey { index: slot, generation: stream.generation };
            self.events.push_back(Event::Stream(key));
        }
    }

    /// The stream is Done: its slot of the lease is free, and frames for it are late from now on.
    pub(super) fn finish_wire(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        if stream.wire != Wire::Done {
            // What never left can be taken back.
            if stream.wire != Wire::Unsent {
                stream.send.clear();
            }
            stream.wire = Wire::Done;
            if stream.side == Side::Opener {
                // The responder's goes with its application: a handler outlives a lost link.
                stream.permit = None;
            }
            if let Some(id) = stream.id {
                self.by_id.remove(&id);
            }
            match stream.side {
                Side::Opener => self.opened -= 1,
                Side::Responder => self.accepted -= 1,
            }
        }
        if stream.is_over() {
            self.forget(slot);
        }
        self.check_drained();
    }

    pub(super) fn forget(&mut self, slot: u32) {
        let stream = self.streams.remove(slot as usize);
        self.common.budget.sub(stream.receive.queue.len());
        self.common.budget.shrink(stream.receive.window.beyond());
        if self.streams.is_empty() && self.streams.capacity() > 1024 {
            self.streams.shrink_to_fit();
            self.by_id.shrink_to(IDS);
        }
    }

    /// Forgets what was received and not read.
    pub(super) fn discard(&mut self, slot: u32) {
        if let Some(stream) = self.streams.get_mut(slot as usize) {
            self.common.budget.sub(stream.discard());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (_, stream) in &self.streams {
            self.common.budget.sub(stream.receive.queue.len());
            self.common.budget.shrink(stream.receive.window.beyond());
        }
    }
}
