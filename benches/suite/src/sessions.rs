//! Two sessions with an established link, and one request over it. No task, no clock, no socket.

use bytes::{Bytes, BytesMut};
use router_common::codec::{self, FrameDecoder};
use router_common::frame::Frame;
use router_common::head::{RequestHead, ResponseHead};
use router_common::limits;
use router_common::session::{Event, Opening, Output, Read, ReadHead, Session, StreamKey};
use router_common::testing::{Pair, Setup};

/// How frames get from one session to the other.
#[derive(Debug)]
pub enum Wire {
    /// As values, as in memory.
    Values,
    /// Through their encoding, as on a byte stream.
    Bytes { buffer: BytesMut, decoder: FrameDecoder },
}

impl Wire {
    #[must_use]
    pub fn bytes() -> Self {
        Self::Bytes { buffer: BytesMut::new(), decoder: FrameDecoder::new(limits::FRAME_PAYLOAD_BYTES) }
    }

    fn carry(&mut self, frame: Frame) -> Frame {
        match self {
            Self::Values => frame,
            Self::Bytes { buffer, decoder } => {
                let body = codec::encode(&frame, buffer);
                buffer.extend_from_slice(&body);
                decoder.decode(buffer).expect("our own frame").expect("a whole one")
            }
        }
    }
}

/// A gateway's and a service's session.
#[derive(Debug)]
pub struct Sessions {
    pair: Pair,
    wire: Wire,
    request: RequestHead,
    response: ResponseHead,
    body: Bytes,
}

impl Sessions {
    #[must_use]
    pub fn new(wire: Wire, body: Bytes) -> Self {
        let (request, response) = (super::heads::request(), super::heads::response_without_length());
        Self { pair: Pair::established(Setup::default()), wire, request, response, body }
    }

    /// Open, arrive, answer, arrive, read: gives the number of body bytes that came back.
    ///
    /// # Panics
    /// When the sessions do not do what they are for.
    pub fn round_trip(&mut self) -> usize {
        let Self { pair, wire, request, response, body } = self;
        let permit = pair.lease.try_acquire();
        let opening = Opening { head: request.clone(), body: Bytes::new(), end: true, tunnel: false, permit };
        let call = pair.gateway.open(opening).expect("room for a stream");
        let arrived = carry(&mut pair.gateway, &mut pair.service, wire, pair.now);
        assert!(arrived.is_none(), "the gateway has nothing to handle");
        let handling = requested(&mut pair.service).expect("the request arrives");
        assert_eq!(pair.service.read(handling), Read::End);
        pair.service.respond(handling, response.clone(), body.clone(), true, false).expect("an open stream");
        pair.service.release(handling);
        carry(&mut pair.service, &mut pair.gateway, wire, pair.now);
        let ReadHead::Ready(head) = pair.gateway.read_head(call) else { panic!("the answer arrives") };
        assert_eq!(head.status(), 200);
        let mut length = 0;
        while let Read::Data(bytes) = pair.gateway.read(call) {
            length += bytes.len();
        }
        pair.gateway.release(call);
        // The reader's credit goes back.
        carry(&mut pair.gateway, &mut pair.service, wire, pair.now);
        length
    }
}

/// Gives `from`'s frames to `to`, and the request that `from` itself reports on the way.
fn carry(from: &mut Session, to: &mut Session, wire: &mut Wire, now: std::time::Instant) -> Option<StreamKey> {
    let mut request = None;
    loop {
        match from.poll() {
            Output::Transmit(frame) => to.handle_frame(wire.carry(frame), now).expect("both keep to the protocol"),
            Output::Event(Event::Request(key, _)) => request = Some(key),
            Output::Event(_) => {}
            Output::Idle { .. } => return request,
            Output::Closed(closed) => panic!("closed: {closed:?}"),
        }
    }
}

fn requested(service: &mut Session) -> Option<StreamKey> {
    loop {
        match service.poll_event() {
            Some(Event::Request(key, _)) => return Some(key),
            Some(_) => {}
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_brings_the_whole_body_back_however_frames_travel() {
        for wire in [Wire::Values, Wire::bytes()] {
            let mut sessions = Sessions::new(wire, Bytes::from_static(b"Hello, World!"));
            assert_eq!((sessions.round_trip(), sessions.round_trip()), (13, 13));
            assert_eq!(sessions.pair.lease.in_flight(), 0);
        }
    }
}
