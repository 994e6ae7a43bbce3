//! One request/response exchange (SPEC 4, stream life): what is said on it, never who says it when.
//!
//! ```text
//!            opener                                      responder
//!
//!   Unsent ── REQUEST sent ──> Live             REQUEST received ──> Live
//!     │                         │                                     │
//!   cancel                      ├─ their END or CANCEL ──> Done       ├─ our END or CANCEL sent ──> Done
//!     │                         │                                     │
//!     v                       our CANCEL                         their CANCEL
//!   (never existed)             │                                     │
//!                               v                                     v
//!                           Cancelled ─ their END or CANCEL ─> Done   Owing ── released: our CANCEL ──> Done
//! ```
//!
//! The opener's slot of the lease is freed in Done, and by nothing earlier. A stream is forgotten when it is Done *and*
//! its application has released it. Until then the responder counts it against its own lease, so that what outlives a
//! lost link is at work within the lease too.

use std::time::Instant;

use bytes::Bytes;

use super::event::{Read, ReadHead, StreamFailure};
use super::flow::{ReceiveWindow, SendCredit};
use super::lease::Permit;
use super::pieces::Pieces;
use crate::frame::StreamId;
use crate::head::{RequestHead, ResponseHead, Trailers};
use crate::limits;

/// Where a stream stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Opened here, REQUEST not yet sent: it has no id.
    Unsent,
    Live,
    /// The opener cancelled; the responder's terminal is still due.
    Cancelled,
    /// The responder was told of a cancellation; its own terminal is still due.
    Owing,
    /// Nothing more is sent, and nothing that arrives counts.
    Done,
}

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Opener,
    Responder,
}

/// A head that waits to be sent.
#[derive(Debug)]
pub(super) enum Head {
    Request(RequestHead),
    Response(ResponseHead),
}

/// What is yet to be sent.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) head: Option<Head>,
    /// The head was given (and perhaps sent): data may follow.
    pub(super) begun: bool,
    /// Both ways are opaque: asked for with REQUEST, and kept by a RESPONSE that accepts.
    pub(super) tunnel: bool,
    pub(super) queue: Pieces,
    pub(super) trailers: Option<Box<Trailers>>,
    /// The application has given everything.
    pub(super) finished: bool,
    /// END_STREAM has been sent.
    pub(super) ended: bool,
    pub(super) credit: SendCredit,
}

impl SendHalf {
    /// Forgets what was not sent.
    pub(super) fn clear(&mut self) {
        self.head = None;
        self.queue.clear();
        self.trailers = None;
    }

    /// How many bytes the application may add now, where the queue may have `most`.
    pub(super) fn capacity(&self, most: usize) -> usize {
        (self.credit.available() + limits::SEND_AHEAD_BYTES).min(most).saturating_sub(self.queue.len())
    }

    /// A piece of at most `most` bytes, which the credit allows; empty if nothing waits.
    pub(super) fn take(&mut self, most: usize) -> Bytes {
        let piece = self.queue.take(most.min(self.credit.available()));
        self.credit.spend(piece.len());
        piece
    }

    /// Everything was taken and no trailers wait: END_STREAM goes with the piece just taken.
    pub(super) fn ends_here(&self) -> bool {
        self.finished && self.queue.is_empty() && self.trailers.is_none()
    }
}

/// How far reading has come.
#[derive(Debug)]
pub(super) enum ReceiveState {
    /// More is to come.
    Open,
    /// END_STREAM arrived.
    Ended,
    Failed(StreamFailure),
}

/// What has arrived.
#[derive(Debug)]
pub(super) struct ReceiveHalf {
    pub(super) state: ReceiveState,
    /// The response's head, until the application takes it.
    pub(super) head: Option<ResponseHead>,
    /// RESPONSE has arrived.
    pub(super) answered: bool,
    /// The end has overtaken RESPONSE (links that reorder).
    pub(super) end_came: bool,
    pub(super) queue: Pieces,
    pub(super) trailers: Option<Box<Trailers>>,
    pub(super) window: ReceiveWindow,
    /// A WINDOW frame for this stream waits in the scheduler.
    pub(super) window_queued: bool,
    /// Bytes the head promised, and bytes that came.
    pub(super) expected: Option<u64>,
    pub(super) received: u64,
    /// Since when bytes wait and nobody has read any.
    pub(super) waiting_since: Option<Instant>,
}

/// A stream's end in one session.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) generation: u32,
    /// `None` before transmission.
    pub(super) id: Option<StreamId>,
    pub(super) side: Side,
    pub(super) wire: Wire,
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
    /// The slot it takes of a lease: the opener's until it is Done, the responder's until it is forgotten.
    pub(super) permit: Option<Permit>,
    /// The request's method was HEAD: a response has no body, whatever its content-length says.
    pub(super) head_request: bool,
    /// It stands in one of the scheduler's rings.
    pub(super) scheduled: bool,
    /// An event that tells of it waits to be polled.
    pub(super) notified: bool,
    /// The application has let go.
    pub(super) released: bool,
}

impl Stream {
    pub(super) fn new(side: Side, wire: Wire, generation: u32, credit: SendCredit, window: ReceiveWindow) -> Self {
        Self {
            generation,
            id: None,
            side,
            wire,
            send: SendHalf {
                head: None,
                begun: false,
                tunnel: false,
                queue: Pieces::default(),
                trailers: None,
                finished: false,
                ended: false,
                credit,
            },
            receive: ReceiveHalf {
                state: ReceiveState::Open,
                head: None,
                answered: false,
                end_came: false,
                queue: Pieces::default(),
                trailers: None,
                window,
                window_queued: false,
                expected: None,
                received: 0,
                waiting_since: None,
            },
            permit: None,
            head_request: false,
            scheduled: false,
            notified: false,
            released: false,
        }
    }

    /// Whether nothing more can be given to be sent.
    pub(super) const fn is_send_closed(&self) -> bool {
        !matches!(self.wire, Wire::Unsent | Wire::Live) || self.send.finished
    }

    /// Whether the session may forget it.
    pub(super) fn is_over(&self) -> bool {
        self.wire == Wire::Done && self.released
    }

    /// Body bytes and perhaps the end arrive. The caller has charged them.
    pub(super) fn receive(&mut self, bytes: Bytes, end: bool, now: Instant) -> Received {
        let receive = &mut self.receive;
        receive.received += bytes.len() as u64;
        let wrong_length = receive.expected.is_some_and(|expected| match end {
            true => expected != receive.received,
            false => expected < receive.received,
        });
        if wrong_length {
            self.fail(StreamFailure::Length);
            return Received::WrongLength;
        }
        if !bytes.is_empty() {
            receive.waiting_since.get_or_insert(now);
            // What ends the message is read at once by whoever waits for it.
            if end { receive.queue.push(bytes) } else { receive.queue.push_detached(bytes) }
        }
        if end {
            receive.state = ReceiveState::Ended;
        }
        Received::Kept
    }

    /// Trailers arrive; they end the direction.
    pub(super) fn receive_trailers(&mut self, trailers: Trailers) -> Received {
        let receive = &mut self.receive;
        if receive.expected.is_some_and(|expected| expected != receive.received) {
            self.fail(StreamFailure::Length);
            return Received::WrongLength;
        }
        receive.trailers = Some(Box::new(trailers));
        receive.state = ReceiveState::Ended;
        Received::Kept
    }

    /// Reading ends here, unless it had ended. Bytes that arrived before can still be read, so that a body is an exact
    /// beginning of what was sent and then visibly cut.
    pub(super) fn fail(&mut self, failure: StreamFailure) {
        if matches!(self.receive.state, ReceiveState::Open) {
            self.receive.state = ReceiveState::Failed(failure);
        }
    }

    /// A head whose body failed before there was anything of it is no answer: it was not read, so that who waits for it
    /// can be told what happened, or send the request again.
    pub(super) fn read_head(&mut self) -> ReadHead {
        let receive = &mut self.receive;
        if let ReceiveState::Failed(failure) = &receive.state
            && receive.queue.is_empty()
        {
            return ReadHead::Failed(failure.clone());
        }
        if let Some(head) = receive.head.take() {
            return ReadHead::Ready(head);
        }
        match &receive.state {
            ReceiveState::Failed(failure) => ReadHead::Failed(failure.clone()),
            ReceiveState::Ended => ReadHead::Failed(StreamFailure::Closed),
            ReceiveState::Open => ReadHead::Pending,
        }
    }

    pub(super) fn read(&mut self, now: Instant) -> Read {
        let receive = &mut self.receive;
        if let Some(bytes) = receive.queue.pop() {
            receive.waiting_since = (!receive.queue.is_empty()).then_some(now);
            return Read::Data(bytes);
        }
        match &receive.state {
            ReceiveState::Open => Read::Pending,
            ReceiveState::Failed(failure) => Read::Failed(failure.clone()),
            ReceiveState::Ended => receive.trailers.take().map_or(Read::End, |trailers| Read::Trailers(*trailers)),
        }
    }

    /// Forgets what was not read; returns how many bytes that were.
    pub(super) fn discard(&mut self) -> usize {
        self.receive.trailers = None;
        self.receive.head = None;
        self.receive.waiting_since = None;
        self.receive.queue.clear()
    }
}

/// What became of arriving bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Kept,
    WrongLength,
}
