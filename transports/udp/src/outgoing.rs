//! The sending half of a connection: packets in flight, sent again until they are acknowledged or expire (SPEC 7).
//!
//! ```text
//!               sent            acknowledged
//!   Waiting ──────────> Flying ──────────────> Over
//!      ^                  │ │       expired      ^
//!      └──────────────────┘ └────────────────────┘
//!          lost, by later acknowledgements or by time
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use router_common::codec::{self, DecodeError};
use router_common::frame::Frame;
use router_common::limits::FRAME_HEADER_BYTES;

use crate::pacing::{Congestion, FLIGHT, RoundTrip};
use crate::packet::{self, Acked, HEADER_BYTES, Header, MAC_BYTES, MacKey};

/// A packet that nobody acknowledged for so long is given up, and the link with it: later than a session finds its peer dead,
/// so that it is the session who tells why.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(40);
/// A packet is taken to be lost when one that was sent so many transmissions later has come.
const REORDERED: u64 = 3;
/// Buffers up to this size are used again.
const SPARE_BYTES: usize = 2048;

/// The sending half.
#[derive(Debug)]
pub struct Outgoing {
    key: MacKey,
    connection: u64,
    /// Largest datagram.
    datagram: usize,
    /// The number of the first one in `flight`.
    floor: u64,
    flight: VecDeque<Packet>,
    /// Numbers to send, in this order.
    due: VecDeque<u64>,
    /// Those in `flight` that are not over.
    unfinished: usize,
    /// Transmissions so far.
    transmissions: u64,
    round_trip: RoundTrip,
    congestion: Congestion,
    /// No retransmission and no expiry is due before.
    wake_at: Option<Instant>,
    spare: Vec<BytesMut>,
    gave_up: bool,
}

#[derive(Debug)]
struct Packet {
    /// Header and frames; the MAC behind them after it was sent.
    datagram: BytesMut,
    length: usize,
    state: State,
    /// How often it was sent.
    times: u32,
    /// When it was sent last, and as which transmission.
    sent_at: Instant,
    transmission: u64,
    expires: Instant,
    /// Whether it holds more than requests, which nobody wants after their deadline.
    is_needed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Flying,
    Over,
}

/// An acknowledgement of what was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverSent;

/// The largest frame payload that fits a datagram of this size, in bytes.
#[must_use]
pub const fn max_frame(datagram: usize) -> u32 {
    datagram.saturating_sub(HEADER_BYTES + MAC_BYTES + FRAME_HEADER_BYTES) as u32
}

impl Outgoing {
    /// Nothing was sent. `datagram` is the largest datagram to send, in bytes.
    #[must_use]
    pub fn new(connection: u64, key: MacKey, datagram: usize) -> Self {
        Self {
            key,
            connection,
            datagram,
            floor: 1,
            flight: VecDeque::new(),
            due: VecDeque::new(),
            unfinished: 0,
            transmissions: 0,
            round_trip: RoundTrip::default(),
            congestion: Congestion::default(),
            wake_at: None,
            spare: Vec::new(),
            gave_up: false,
        }
    }

    /// Whether another packet may be made.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.unfinished < self.congestion.window() && self.flight.len() < FLIGHT
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.unfinished == 0
    }

    /// Whether something was given up that the peer had to learn.
    #[must_use]
    pub const fn has_given_up(&self) -> bool {
        self.gave_up
    }

    /// Makes packets of the frames at the front of `batch`, as full as can be, while there is room.
    ///
    /// # Errors
    /// The frame at the front fits no datagram; it stays there.
    pub fn push(&mut self, batch: &mut VecDeque<Frame>, now: Instant) -> Result<(), DecodeError> {
        while self.has_room() && !batch.is_empty() {
            let mut datagram =
                self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(self.datagram.min(SPARE_BYTES)));
            datagram.clear();
            datagram.put_bytes(0, HEADER_BYTES);
            let (mut expires, mut is_needed) = (now, false);
            while let Some(frame) = batch.front() {
                let before = datagram.len();
                let body = codec::encode(frame, &mut datagram);
                if datagram.len() + body.len() + MAC_BYTES > self.datagram {
                    datagram.truncate(before);
                    if before > HEADER_BYTES {
                        break;
                    }
                    let length = codec::encoded_len(frame).saturating_sub(FRAME_HEADER_BYTES);
                    let length = u32::try_from(length).unwrap_or(u32::MAX);
                    return Err(DecodeError::TooLarge { frame: frame.name(), length, limit: max_frame(self.datagram) });
                }
                // The MAC moves a large packet no more.
                datagram.reserve(body.len() + MAC_BYTES);
                datagram.put_slice(&body);
                let life = match frame {
                    Frame::Request(request) => request.head.deadline(),
                    _ => None,
                };
                is_needed |= life.is_none();
                expires = expires.max(now + life.unwrap_or(EXPIRES_AFTER).min(EXPIRES_AFTER));
                batch.pop_front();
            }
            self.due.push_back(self.floor + self.flight.len() as u64);
            self.unfinished += 1;
            let length = datagram.len();
            let packet = Packet {
                datagram,
                length,
                state: State::Waiting,
                times: 0,
                sent_at: now,
                transmission: 0,
                expires,
                is_needed,
            };
            self.flight.push_back(packet);
            self.wake_by(expires);
        }
        Ok(())
    }

    /// Whether a packet is to be sent now.
    pub fn is_due(&mut self) -> bool {
        while let Some(&number) = self.due.front() {
            let waits = |packet: &Packet| packet.state == State::Waiting;
            if self.place(number).and_then(|place| self.flight.get(place)).is_some_and(waits) {
                return true;
            }
            // It has come, or was given up, in the meantime.
            self.due.pop_front();
        }
        false
    }

    /// The next datagram to send, if one is due.
    pub fn poll_transmit(&mut self, acked: Acked, now: Instant) -> Option<&[u8]> {
        if !self.is_due() {
            return None;
        }
        let number = self.due.pop_front()?;
        let place = self.place(number)?;
        let floor = self.floor;
        let header = Header { connection: self.connection, number, floor, acked };
        self.transmissions += 1;
        let packet = self.flight.get_mut(place)?;
        packet.times = packet.times.saturating_add(1);
        packet.sent_at = now;
        packet.transmission = self.transmissions;
        packet.state = State::Flying;
        packet.datagram.truncate(packet.length);
        packet::seal(&mut packet.datagram, &header, &self.key);
        let retry_at = now + self.round_trip.patience(packet.times);
        self.wake_by(retry_at);
        self.flight.get(place).map(|packet| &packet.datagram[..])
    }

    /// A packet that has no frames.
    pub fn bare(&self, number: u64, acked: Acked, into: &mut BytesMut) {
        into.clear();
        into.put_bytes(0, HEADER_BYTES);
        let header = Header { connection: self.connection, number, floor: self.floor, acked };
        packet::seal(into, &header, &self.key);
    }

    /// What the peer says that it has.
    ///
    /// # Errors
    /// It was never sent; nothing was changed.
    pub fn acknowledged(&mut self, acked: Acked, now: Instant) -> Result<(), NeverSent> {
        let next = self.floor + self.flight.len() as u64;
        let highest = acked.base.saturating_add(u64::from(64 - acked.map.leading_zeros()));
        if acked.base > next || (acked.map != 0 && highest >= next) {
            return Err(NeverSent);
        }
        let mut newest = 0;
        let below = usize::try_from(acked.base.saturating_sub(self.floor)).unwrap_or(usize::MAX);
        for place in 0..below.min(self.flight.len()) {
            self.has_come(place, &mut newest, now);
        }
        let mut map = acked.map;
        while map != 0 {
            let number = acked.base + 1 + u64::from(map.trailing_zeros());
            map &= map - 1;
            if let Some(place) = self.place(number) {
                self.has_come(place, &mut newest, now);
            }
        }
        self.forget();
        if newest > REORDERED && acked.map != 0 {
            self.overtaken(newest - REORDERED);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) may have something to do.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Sends again what was waited for long enough, and gives up what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.wake_at.is_none_or(|at| now < at) {
            return;
        }
        let mut wake_at = None;
        for (number, packet) in (self.floor..).zip(&mut self.flight) {
            if packet.state == State::Over {
                continue;
            }
            if packet.expires <= now {
                packet.state = State::Over;
                self.unfinished -= 1;
                self.gave_up |= packet.is_needed;
                continue;
            }
            let mut at = packet.expires;
            if packet.state == State::Flying {
                let retry_at = packet.sent_at + self.round_trip.patience(packet.times);
                if retry_at <= now {
                    packet.state = State::Waiting;
                    self.due.push_back(number);
                    self.congestion.lost(packet.transmission, self.transmissions + 1);
                } else {
                    at = at.min(retry_at);
                }
            }
            wake_at = Some(wake_at.map_or(at, |wake_at: Instant| wake_at.min(at)));
        }
        self.wake_at = wake_at;
        self.forget();
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.floor)?).ok()
    }

    fn wake_by(&mut self, at: Instant) {
        if self.wake_at.is_none_or(|wake_at| at < wake_at) {
            self.wake_at = Some(at);
        }
    }

    fn has_come(&mut self, place: usize, newest: &mut u64, now: Instant) {
        let Some(packet) = self.flight.get_mut(place) else { return };
        // One that is to be sent again was sent; one that never was cannot have come.
        if packet.state == State::Over || packet.times == 0 {
            return;
        }
        packet.state = State::Over;
        self.unfinished -= 1;
        self.congestion.acknowledged();
        if packet.times == 1 {
            // Of several transmissions nobody knows which one came.
            *newest = (*newest).max(packet.transmission);
            self.round_trip.measured(now.saturating_duration_since(packet.sent_at));
        }
    }

    /// Those that were sent no later than `transmission` and have not come will not.
    fn overtaken(&mut self, transmission: u64) {
        for (number, packet) in (self.floor..).zip(&mut self.flight) {
            if packet.state == State::Flying && packet.transmission <= transmission {
                packet.state = State::Waiting;
                self.due.push_back(number);
                self.congestion.lost(packet.transmission, self.transmissions + 1);
            }
        }
    }

    /// The floor passes what is over.
    fn forget(&mut self) {
        while self.flight.front().is_some_and(|packet| packet.state == State::Over) {
            if let Some(packet) = self.flight.pop_front()
                && packet.datagram.capacity() <= SPARE_BYTES
                && self.spare.len() < FLIGHT
            {
                self.spare.push(packet.datagram);
            }
            self.floor += 1;
        }
        if self.flight.is_empty() {
            self.wake_at = None;
            self.due.clear();
        }
    }
}
