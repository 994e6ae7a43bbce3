//! What leaves next (SPEC 4, order): control before data, and data round-robin over the streams that have credit.
//!
//! A stream stands in at most one ring at a time. Heads and bare ends need no credit and take turns with data, so that
//! a bulk stream does not hold up small requests and a stream of small requests does not starve bulk.

use std::collections::VecDeque;

use super::event::StreamKey;
use crate::frame::Frame;
use crate::limits;

/// The queues of one session.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    control: VecDeque<Frame>,
    /// The last heartbeat that waits for its answer: an answer covers all before it.
    pub(super) ack: Option<u64>,
    /// A LEASE is due: the newest tells all.
    pub(super) lease: bool,
    /// The link's WINDOW is due.
    pub(super) connection_window: bool,
    /// Streams whose WINDOW is due, each once.
    pub(super) windows: VecDeque<StreamKey>,
    /// Streams with a head or a bare end.
    heads: VecDeque<StreamKey>,
    /// Streams with data and credit.
    data: VecDeque<StreamKey>,
    data_was_last: bool,
}

/// Entries of streams that are gone are passed over when their turn comes; beyond this many they are swept out.
const STALE: usize = 256;

/// What a stream wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// A head, an end, or trailers: no credit needed.
    Free,
    /// Body bytes, and its own credit allows some.
    Data,
}

impl Scheduler {
    pub(super) fn control(&mut self, frame: Frame) {
        self.control.push_back(frame);
    }

    pub(super) fn pop_control(&mut self) -> Option<Frame> {
        self.control.pop_front()
    }

    /// Queued control frames.
    pub(super) fn control_len(&self) -> usize {
        self.control.len() + self.windows.len()
    }

    /// Forgets all but what is queued after this.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Likewise, except for the CANCELs: they are outcomes of streams, and a refusal among them lets a request go
    /// elsewhere that would otherwise count as lost.
    pub(super) fn clear_but_outcomes(&mut self) {
        let mut control = std::mem::take(&mut self.control);
        control.retain(|frame| matches!(frame, Frame::Cancel(..)));
        *self = Self { control, ..Self::default() };
    }

    /// Puts a stream into the ring it wants. `live` tells which entries still name a stream, of which there are `count`.
    pub(super) fn schedule(&mut self, key: StreamKey, wants: Wants, count: usize, live: impl Fn(StreamKey) -> bool) {
        let ring = match wants {
            Wants::Free => &mut self.heads,
            Wants::Data => &mut self.data,
        };
        if ring.len() > STALE + 2 * count {
            ring.retain(|key| live(*key));
        }
        ring.push_back(key);
    }

    /// The next stream to send from; with `credit`, the link's, data may go too.
    pub(super) fn next(&mut self, credit: bool) -> Option<StreamKey> {
        let data_may = credit && !self.data.is_empty();
        self.data_was_last = data_may && (self.heads.is_empty() || !self.data_was_last);
        if self.data_was_last { self.data.pop_front() } else { self.heads.pop_front() }
    }

    /// How much of a body the stream just taken may send: little while others wait.
    pub(super) fn chunk(&self, frame_room: usize) -> usize {
        let alone = self.heads.is_empty() && self.data.is_empty();
        if alone { frame_room } else { frame_room.min(limits::FAIR_CHUNK_BYTES) }
    }
}
