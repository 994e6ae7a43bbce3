//! Channel: both halves of a connection that stands, without sockets and without a clock (SPEC 7).
//!
//! Frames go in and come out; datagrams go in and come out; time is an argument. Frames come out in the order in which
//! they arrive, each once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::codec::{DecodeError, FrameDecoder};
use router_common::frame::Frame;

use crate::outgoing::Outgoing;
use crate::packet::{self, ACK, Dropped, END, MacKey, PACKET_BYTES_MIN};
use crate::replay::ReplayWindow;

/// How long an acknowledgement waits for a packet that can carry it.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Packets after which it waits no longer.
const ACK_EVERY: u32 = 8;

/// A connection.
#[derive(Debug)]
pub struct Channel {
    connection: u64,
    peer_key: MacKey,
    decoder: FrameDecoder,
    outgoing: Outgoing,
    arrived: ReplayWindow,
    /// Packets with frames since the last acknowledgement.
    unacknowledged: u32,
    ack_at: Option<Instant>,
    /// The last packet without frames.
    bare: BytesMut,
}

/// What a datagram brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The frames of the packet with this number.
    Frames(u64),
    /// Only an acknowledgement.
    Acknowledgement,
    /// The peer has forgotten the connection.
    End,
    /// Its frames stay outside: there is no room. It comes again.
    Put,
    /// The peer is who it should be, and breaks the protocol.
    Broken(Breach),
}

/// How an authentic packet breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// A frame that cannot be read.
    Frame(DecodeError),
    /// A frame that goes beyond its datagram; of so many bytes of it.
    Cut(usize),
}

/// Whether frames can be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// They can.
    Frames,
    /// Only what else a packet says.
    None,
}

/// The two directions' keys, as one side has them.
#[derive(Debug, Clone)]
pub struct Keys {
    /// For what this side sends.
    pub own: MacKey,
    /// For what the peer sends.
    pub peer: MacKey,
}

impl Channel {
    /// `datagram`: the largest one to send, in bytes. `max_frame`: the largest payload of a frame that is accepted.
    #[must_use]
    pub fn new(connection: u64, keys: Keys, datagram: usize, max_frame: u32) -> Self {
        Self {
            connection,
            peer_key: keys.peer,
            decoder: FrameDecoder::new(max_frame),
            outgoing: Outgoing::new(connection, keys.own, datagram),
            arrived: ReplayWindow::default(),
            unacknowledged: 0,
            ack_at: None,
            bare: BytesMut::with_capacity(PACKET_BYTES_MIN),
        }
    }

    /// Takes frames from the front of `batch` while there is room in flight.
    ///
    /// # Errors
    /// The frame at the front fits no datagram.
    pub fn push(&mut self, batch: &mut VecDeque<Frame>, now: Instant) -> Result<(), DecodeError> {
        self.outgoing.push(batch, now)
    }

    /// Takes a datagram in, and appends its frames to `into`.
    ///
    /// # Errors
    /// Why it is thrown away.
    pub fn receive(
        &mut self,
        mut datagram: BytesMut,
        room: Room,
        into: &mut Vec<Frame>,
        now: Instant,
    ) -> Result<Arrival, Dropped> {
        let header = packet::open(&mut datagram, self.connection, &self.peer_key)?;
        self.outgoing.acknowledged(header.acked, now).map_err(|_| Dropped::Malformed)?;
        match header.number {
            END => return Ok(Arrival::End),
            ACK => {
                self.arrived.raise(header.floor.min(packet::NUMBER_MAX));
                return Ok(Arrival::Acknowledgement);
            }
            _ => {}
        }
        self.arrived.raise(header.floor);
        if !self.arrived.is_new(header.number) {
            // Its acknowledgement was lost, perhaps.
            self.ack_at = Some(now);
            return Err(Dropped::Replayed);
        }
        if room == Room::None {
            return Ok(Arrival::Put);
        }
        self.arrived.record(header.number);
        self.unacknowledged += 1;
        // Whoever sends is to learn soon of what is missing.
        let has_gaps = self.arrived.base() <= header.number;
        let ack_at = if has_gaps || self.unacknowledged >= ACK_EVERY { now } else { now + ACK_DELAY };
        self.ack_at = Some(self.ack_at.map_or(ack_at, |at| at.min(ack_at)));
        loop {
            match self.decoder.decode(&mut datagram) {
                Ok(Some(frame)) => into.push(frame),
                Ok(None) if datagram.is_empty() => return Ok(Arrival::Frames(header.number)),
                Ok(None) => return Ok(Arrival::Broken(Breach::Cut(datagram.len()))),
                Err(error) => return Ok(Arrival::Broken(Breach::Frame(error))),
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<&[u8]> {
        let has_packet = self.outgoing.is_due();
        if !has_packet && self.ack_at.is_none_or(|at| now < at) {
            return None;
        }
        let acked = self.arrived.acked();
        self.unacknowledged = 0;
        self.ack_at = None;
        if has_packet {
            return self.outgoing.poll_transmit(acked, now);
        }
        self.outgoing.bare(ACK, acked, &mut self.bare);
        Some(&self.bare)
    }

    /// The last datagram of the connection.
    pub fn end(&mut self) -> &[u8] {
        self.outgoing.bare(END, self.arrived.acked(), &mut self.bare);
        &self.bare
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.outgoing.handle_timeout(now);
    }

    /// When there may be something to do.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match (self.outgoing.wake_at(), self.ack_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// An acknowledgement that waits is due now.
    pub fn hurry(&mut self, now: Instant) {
        self.ack_at = self.ack_at.map(|at| at.min(now));
    }

    /// Whether every number up to this one has come, or was given up.
    #[must_use]
    pub const fn has_all_up_to(&self, number: u64) -> bool {
        self.arrived.base() > number
    }

    /// Whether everything that was sent is acknowledged.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.outgoing.is_idle()
    }

    /// Whether something was given up that the peer had to learn: the connection is of no use any more.
    #[must_use]
    pub const fn has_given_up(&self) -> bool {
        self.outgoing.has_given_up()
    }
}
