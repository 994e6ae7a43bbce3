//! In which order frames leave the link, where it matters: nothing before WELCOME, and CLOSE behind what was sent before
//! it (SPEC 7).

use std::time::{Duration, Instant};

use router_common::frame::Frame;

use crate::channel::{Channel, Room};
use crate::pacing::FLIGHT;

/// How long CLOSE waits for packets before it: a little less than its sender sends them again.
const CLOSE_WAITS: Duration = Duration::from_millis(900);

/// What is held back.
#[derive(Debug)]
pub struct Delivery {
    /// Nothing has to wait for WELCOME any more.
    is_open: bool,
    /// What came before WELCOME, of so many packets.
    held: Vec<Frame>,
    packets: usize,
    close: Option<Waiting>,
    /// CLOSE has been given out: nothing follows.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    frame: Frame,
    number: u64,
    until: Instant,
}

impl Delivery {
    /// For a service: WELCOME comes first.
    #[must_use]
    pub const fn before_welcome() -> Self {
        Self::new(false)
    }

    /// For a gateway, whose service has been heard out.
    #[must_use]
    pub const fn open() -> Self {
        Self::new(true)
    }

    const fn new(is_open: bool) -> Self {
        Self { is_open, held: Vec::new(), packets: 0, close: None, closed: false }
    }

    /// Whether a packet of frames can be taken.
    #[must_use]
    pub const fn room(&self) -> Room {
        if self.is_open || self.packets < FLIGHT { Room::Frames } else { Room::None }
    }

    /// Whether CLOSE has been given out.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sorts the frames of packet `number`, which stand in `frames` from `start` on: what is not to leave yet is taken out.
    pub fn sort(&mut self, frames: &mut Vec<Frame>, start: usize, number: u64, now: Instant) {
        let arrived = frames.get(start..).unwrap_or_default();
        let is_ordinary = !arrived.iter().any(|frame| matches!(frame, Frame::Welcome(_) | Frame::Close(_)));
        if is_ordinary && self.is_open {
            return;
        }
        let arrived = frames.split_off(start.min(frames.len()));
        if !is_ordinary {
            for frame in arrived {
                match frame {
                    Frame::Close(_) => {
                        self.close.get_or_insert(Waiting { frame, number, until: now + CLOSE_WAITS });
                    }
                    Frame::Welcome(_) if !self.is_open => {
                        self.is_open = true;
                        frames.push(frame);
                        frames.append(&mut self.held);
                    }
                    frame if self.is_open => frames.push(frame),
                    frame => self.held.push(frame),
                }
            }
        } else {
            self.packets += 1;
            self.held.extend(arrived);
        }
    }

    /// Gives CLOSE out when its time has come.
    pub fn release(&mut self, channel: &Channel, into: &mut Vec<Frame>, now: Instant) {
        let is_due = |close: &mut Waiting| channel.has_all_up_to(close.number) || now >= close.until;
        if let Some(close) = self.close.take_if(is_due) {
            self.closed = true;
            into.push(close.frame);
        }
    }

    /// Nothing more will come: CLOSE need not wait.
    pub fn end(&mut self, into: &mut Vec<Frame>) {
        if let Some(close) = self.close.take() {
            self.closed = true;
            into.push(close.frame);
        }
    }

    /// When [`release`](Self::release) is to be asked.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.close.as_ref().map(|close| close.until)
    }
}

#[cfg(test)]
mod tests {
    use router_common::frame::{Close, CloseCode, HeartbeatAck, ReceiveLimits, StreamId, Welcome};
    use router_common::identity::NodeId;
    use router_common::wire::Wire;

    use super::*;
    use crate::channel::Keys;
    use crate::packet::MacKey;

    fn welcome() -> Frame {
        let node: NodeId = "gw".parse().unwrap();
        Frame::Welcome(Box::new(Wire::new(Welcome {
            version: 1,
            extensions: Vec::new(),
            node,
            limits: ReceiveLimits::default(),
            heartbeat_ms: 1000,
            links: 1,
            revision: 0,
            incarnation: None,
            proof: None,
        })))
    }

    fn ack(sequence: u64) -> Frame {
        Frame::HeartbeatAck(HeartbeatAck { sequence })
    }

    fn close() -> Frame {
        let (code, last, text) = (CloseCode::Normal, StreamId::CONNECTION, String::new());
        Frame::Close(Box::new(Close { code, last, text }))
    }

    fn sort(delivery: &mut Delivery, frames: Vec<Frame>, number: u64) -> Vec<Frame> {
        let mut out = frames;
        delivery.sort(&mut out, 0, number, Instant::now());
        out
    }

    #[test]
    fn what_overtakes_welcome_follows_it() {
        let mut delivery = Delivery::before_welcome();
        assert_eq!(sort(&mut delivery, vec![ack(1)], 2), []);
        assert_eq!(sort(&mut delivery, vec![welcome(), ack(2)], 1), [welcome(), ack(1), ack(2)]);
        assert_eq!(sort(&mut delivery, vec![ack(3)], 3), [ack(3)]);
    }

    #[test]
    fn no_more_waits_for_welcome_than_can_be_in_flight() {
        let mut delivery = Delivery::before_welcome();
        for number in 2..2 + FLIGHT as u64 {
            assert_eq!(delivery.room(), Room::Frames);
            sort(&mut delivery, vec![ack(number)], number);
        }
        assert_eq!(delivery.room(), Room::None);
    }

    #[test]
    fn close_waits_for_what_was_sent_before_it_but_not_for_long() {
        let key = || MacKey::new(&[0; 32]);
        let channel = Channel::new(7, Keys { own: key(), peer: key() }, 1200, 65_536);
        let mut delivery = Delivery::open();
        let now = Instant::now();
        let mut frames = vec![ack(1), close()];
        delivery.sort(&mut frames, 0, 2, now);
        assert_eq!(frames, [ack(1)]);
        delivery.release(&channel, &mut frames, now);
        assert!(!delivery.is_closed(), "number 1 has not come");
        delivery.release(&channel, &mut frames, now + CLOSE_WAITS);
        assert_eq!(frames, [ack(1), close()]);
        assert!(delivery.is_closed());
    }
}
