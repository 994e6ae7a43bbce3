//! What the peer does on an established link, frame by frame.

use std::time::Instant;

use bytes::Bytes;

use super::event::{Event, ProtocolError, StreamFailure};
use super::flow::FlowError;
use super::outbound::TUNNEL_STATUS;
use super::registration::{self, Part};
use super::stream::{ReceiveState, Received, Side, Stream, Wire};
use super::{Drain, Role, Session};
use crate::frame::{
    Cancel, CloseCode, Data, DataPayload, Drain as DrainFrame, DrainPhase, EndpointsResult, EndpointsUpdate, Frame,
    Heartbeat, LeaseUpdate, Reason, Request, Response, StreamId, Window, bounded_text,
};
use crate::limits;

impl Session {
    pub(super) fn on_established(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        if let Some(silence) = self.liveness.as_mut().and_then(|liveness| liveness.hear(now)) {
            self.events.push_back(Event::Silence(silence));
        }
        if self.datagrams.is_some() {
            return self.on_datagram(frame, now);
        }
        match (frame, self.role) {
            (Frame::Request(request), _) => self.on_request(request, now),
            (Frame::Response(response), _) => self.on_response(response, now),
            (Frame::RequestData(data), _) => self.on_data(data, Side::Responder, now),
            (Frame::ResponseData(data), _) => self.on_data(data, Side::Opener, now),
            (Frame::Cancel(stream, cancel), _) => self.on_cancel(stream, *cancel),
            (Frame::Window(stream, window), _) => self.on_window(stream, window),
            (Frame::Heartbeat(heartbeat), _) => {
                self.on_heartbeat(heartbeat);
                Ok(())
            }
            (Frame::HeartbeatAck(ack), _) => self.on_heartbeat_ack(ack.sequence, now),
            (Frame::Drain(drain), _) => self.on_drain(drain),
            (Frame::Close(close), _) => {
                self.on_close(*close);
                Ok(())
            }
            (Frame::Ignorable { .. }, _) => Ok(()),
            (Frame::EndpointsUpdate(wire), Role::Gateway) => {
                let bytes = wire.bytes().len();
                self.on_update(wire.into_value(), bytes)
            }
            (Frame::EndpointsResult(wire), Role::Service) => {
                let bytes = wire.bytes().len();
                self.on_result(wire.into_value(), bytes)
            }
            (Frame::Lease(lease), Role::Gateway) => {
                self.on_lease(lease);
                Ok(())
            }
            (frame, _) => Err(ProtocolError::new(format!("{} is not legal here after WELCOME", frame.name()))),
        }
    }

    fn on_request(&mut self, request: Request, now: Instant) -> Result<(), ProtocolError> {
        let Request { stream: id, ref body, .. } = request;
        if id.is_gateway_opened() != (self.role == Role::Service) {
            return Err(ProtocolError::new(format!("REQUEST with id {id}, which is this side's to open")));
        }
        if id <= self.last_peer_id {
            return Err(ProtocolError::new(format!("REQUEST {id} after {}: ids only increase", self.last_peer_id)));
        }
        self.last_peer_id = id;
        self.charge_link(body.len())?;
        if body.len() > self.common.limits.stream_window as usize {
            return Err(FlowError.into());
        }
        self.admit(request, now)
    }

    /// A REQUEST that was charged, whose id is fresh.
    #[inline(always)]
    pub(super) fn admit(&mut self, request: Request, now: Instant) -> Result<(), ProtocolError> {
        let Request { stream: id, head, body, end, tunnel } = request;
        if !self.drain.admits(id) {
            self.refuse_request(id, Reason::Refused, "this link is drained");
            return Ok(());
        }
        if head.unknown_extension().is_some() {
            self.refuse_request(id, Reason::ProtocolError, "the head has an extension that is not known here");
            return Ok(());
        }
        if tunnel && head.tunnel_protocol().is_none() {
            self.refuse_request(id, Reason::ProtocolError, "a tunnel without a protocol");
            return Ok(());
        }
        let Some(permit) = self.inbound_lease.try_acquire() else {
            self.refuse_request(id, Reason::Refused, "the lease is used up");
            return Ok(());
        };
        let slot = self.insert(Side::Responder, Wire::Live);
        self.by_id.insert(id, slot);
        let expected = if tunnel { None } else { head.content_length() };
        let stream = &mut self.streams[slot as usize];
        stream.id = Some(id);
        stream.permit = Some(permit);
        stream.receive.expected = expected;
        stream.send.tunnel = tunnel;
        if self.take_in(slot, body, end, now)? == Received::WrongLength {
            self.streams[slot as usize].released = true;
            let key = self.key(slot);
            self.cancel(key, Reason::ProtocolError, "the body does not have the length that its head says");
            return Ok(());
        }
        self.last_accepted = self.last_accepted.max(id);
        let key = self.key(slot);
        self.events.push_back(Event::Request(key, head));
        Ok(())
    }

    pub(super) fn refuse_request(&mut self, id: StreamId, reason: Reason, text: &str) {
        self.scheduler.control(Frame::Cancel(id, Box::new(Cancel { reason, text: text.to_owned() })));
    }

    fn on_response(&mut self, response: Response, now: Instant) -> Result<(), ProtocolError> {
        let id = response.stream;
        self.charge_link(response.body.len())?;
        let Some(slot) = self.find(id, "RESPONSE", Side::Opener)? else { return Ok(()) };
        self.take_response(slot, response, now)
    }

    /// A RESPONSE that was charged, for a stream that was opened here.
    #[inline(always)]
    pub(super) fn take_response(&mut self, slot: u32, response: Response, now: Instant) -> Result<(), ProtocolError> {
        let Response { stream: id, head, body, end, tunnel } = response;
        let stream = &mut self.streams[slot as usize];
        if stream.wire == Wire::Cancelled {
            if end {
                self.finish_wire(slot);
            }
            return Ok(());
        }
        if std::mem::replace(&mut stream.receive.answered, true) {
            return Err(ProtocolError::new(format!("a second RESPONSE on stream {id}")));
        }
        if tunnel && !(stream.send.tunnel && head.status() == TUNNEL_STATUS) {
            return Err(ProtocolError::new(format!("RESPONSE makes stream {id} a tunnel, which it cannot be")));
        }
        // A tunnel that is not accepted is an ordinary exchange.
        stream.send.tunnel = tunnel;
        if head.unknown_extension().is_some() {
            stream.fail(StreamFailure::Cancelled {
                reason: Reason::ProtocolError,
                text: "the response's head has an extension that is not known here".to_owned(),
            });
            if end {
                self.finish_wire(slot);
            } else {
                let key = self.key(slot);
                self.cancel(key, Reason::ProtocolError, "the head has an extension that is not known here");
            }
            self.notify(slot);
            return Ok(());
        }
        let bodiless = stream.head_request || matches!(head.status(), 204 | 304) || tunnel;
        stream.receive.expected = head.content_length().filter(|_| !bodiless);
        stream.receive.head = Some(head);
        self.arrive(slot, body, end, now)
    }

    fn on_data(&mut self, data: Data, side: Side, now: Instant) -> Result<(), ProtocolError> {
        let Data { stream: id, payload } = data;
        if let DataPayload::Bytes { bytes, .. } = &payload {
            self.charge_link(bytes.len())?;
        }
        let name = if side == Side::Responder { "REQUEST_STREAM_DATA" } else { "RESPONSE_STREAM_DATA" };
        let Some(slot) = self.find(id, name, side)? else { return Ok(()) };
        let stream = &mut self.streams[slot as usize];
        if stream.wire != Wire::Live {
            let end = matches!(payload, DataPayload::Trailers(_) | DataPayload::Bytes { end: true, .. });
            if end && stream.side == Side::Opener {
                self.finish_wire(slot);
            }
            return Ok(());
        }
        if side == Side::Opener && !stream.receive.answered {
            return Err(ProtocolError::new(format!("{name} before RESPONSE on stream {id}")));
        }
        if matches!(stream.receive.state, ReceiveState::Ended) {
            return Err(ProtocolError::new(format!("{name} after END_STREAM on stream {id}")));
        }
        match payload {
            DataPayload::Bytes { bytes, end } => self.arrive(slot, bytes, end, now),
            DataPayload::Trailers(_) if stream.send.tunnel => {
                Err(ProtocolError::new(format!("trailers on stream {id}, which is a tunnel")))
            }
            DataPayload::Trailers(trailers) => {
                if matches!(stream.receive.state, ReceiveState::Open) {
                    stream.receive_trailers(trailers);
                }
                self.after_arrival(slot, true);
                Ok(())
            }
        }
    }

    /// Body bytes for a stream that is Live.
    pub(super) fn arrive(&mut self, slot: u32, bytes: Bytes, end: bool, now: Instant) -> Result<(), ProtocolError> {
        let received = self.take_in(slot, bytes, end, now)?;
        // A sender that goes on after its length was wrong is told to stop; a response that ended so has ended.
        if received == Received::WrongLength && !end && self.streams[slot as usize].side == Side::Opener {
            let key = self.key(slot);
            self.cancel(key, Reason::ProtocolError, "the body is longer than its head says");
            self.notify(slot);
            return Ok(());
        }
        self.after_arrival(slot, end);
        Ok(())
    }

    /// Charges a stream's window and keeps the bytes, unless nobody will read them.
    fn take_in(&mut self, slot: u32, bytes: Bytes, end: bool, now: Instant) -> Result<Received, ProtocolError> {
        let stream = &mut self.streams[slot as usize];
        stream.receive.window.receive(bytes.len())?;
        if stream.released || matches!(stream.receive.state, ReceiveState::Failed(_)) {
            return Ok(Received::Kept);
        }
        let before = stream.receive.queue.len();
        let received = stream.receive(bytes, end, now);
        let added = stream.receive.queue.len() - before;
        self.common.budget.add(added);
        if added > 0 && self.common.budget.is_exceeded() {
            self.relieve(now);
        }
        Ok(received)
    }

    fn after_arrival(&mut self, slot: u32, end: bool) {
        self.notify(slot);
        if end && self.streams.get(slot as usize).is_some_and(|stream| stream.side == Side::Opener) {
            self.finish_wire(slot);
        }
    }

    /// Gives up what has stalled for long, while the node's buffers fill up. With every frame and every timeout; and to be
    /// called where neither comes to a link while others fill the node.
    pub fn relieve_stalled(&mut self, now: Instant) {
        while self.common.budget.is_high() {
            let Some(before) = now.checked_sub(limits::STALLED_AFTER) else { return };
            if !self.relieve(before) {
                return;
            }
        }
    }

    /// Gives up the stream that nobody has read for longest, if that is since `before` or earlier. Returns whether there
    /// was one.
    fn relieve(&mut self, before: Instant) -> bool {
        let waiting = self.streams.iter().filter_map(|(slot, s)| s.receive.waiting_since.map(|since| (since, slot)));
        let Some((_, slot)) = waiting.min().filter(|(since, _)| *since <= before) else { return false };
        let slot = slot as u32;
        self.common.budget.note_given_up();
        let stalled = StreamFailure::Cancelled { reason: Reason::Stalled, text: "nobody read the body".to_owned() };
        let stream = &mut self.streams[slot as usize];
        stream.receive.state = ReceiveState::Failed(stalled);
        if stream.side == Side::Opener && stream.wire == Wire::Live {
            let key = self.key(slot);
            self.cancel(key, Reason::Stalled, "nobody read the body");
        }
        self.discard(slot);
        self.notify(slot);
        true
    }

    pub(super) fn on_cancel(&mut self, id: StreamId, cancel: Cancel) -> Result<(), ProtocolError> {
        let Some(slot) = self.known(id, "CANCEL")? else { return Ok(()) };
        let stream = &mut self.streams[slot as usize];
        let Cancel { reason, text } = cancel;
        let failure = match stream.side {
            Side::Opener if reason == Reason::Refused && !stream.receive.answered => StreamFailure::Unseen,
            Side::Opener | Side::Responder => StreamFailure::Cancelled { reason, text: bounded_text(text) },
        };
        match (stream.side, stream.wire) {
            (Side::Opener, _) => {
                stream.fail(failure);
                self.notify(slot);
                self.finish_wire(slot);
            }
            (Side::Responder, Wire::Live) => {
                let released = stream.released;
                self.owe(slot, failure);
                if released {
                    let key = self.key(slot);
                    self.cancel(key, reason, "");
                } else {
                    self.notify(slot);
                }
            }
            (Side::Responder, _) => {}
        }
        Ok(())
    }

    /// Nobody waits for the answer any more. Whoever still reads sees the cancellation, not the rest.
    pub(super) fn owe(&mut self, slot: u32, failure: StreamFailure) {
        let stream = &mut self.streams[slot as usize];
        stream.wire = Wire::Owing;
        stream.send.clear();
        stream.receive.state = ReceiveState::Failed(failure);
        self.discard(slot);
    }

    fn on_window(&mut self, id: StreamId, window: Window) -> Result<(), ProtocolError> {
        if id == StreamId::CONNECTION {
            self.send_credit.grant(window.bytes)?;
            return Ok(());
        }
        let Some(slot) = self.known(id, "WINDOW")? else { return Ok(()) };
        self.streams[slot as usize].send.credit.grant(window.bytes)?;
        self.schedule(slot);
        self.notify(slot);
        Ok(())
    }

    pub(super) fn on_heartbeat(&mut self, heartbeat: Heartbeat) {
        let Heartbeat { sequence, status, in_flight, load } = heartbeat;
        self.scheduler.ack = Some(self.scheduler.ack.map_or(sequence, |last| last.max(sequence)));
        self.events.push_back(Event::Heartbeat { status, in_flight, load });
        if self.role == Role::Gateway {
            self.service_is_acknowledged();
        }
    }

    pub(super) fn on_heartbeat_ack(&mut self, sequence: u64, now: Instant) -> Result<(), ProtocolError> {
        let Some(Ok(average)) = self.liveness.as_mut().map(|liveness| liveness.answer(sequence, now)) else {
            return Err(ProtocolError::new(format!("HEARTBEAT_ACK {sequence} for a heartbeat that was never sent")));
        };
        self.events.extend(average.map(Event::RoundTrip));
        if self.role == Role::Service {
            self.service_is_acknowledged();
        }
        Ok(())
    }

    /// The service's first heartbeat has its ack: the gateway routes from when it gives it, and so a service that has
    /// it knows that it is routed to.
    fn service_is_acknowledged(&mut self) {
        if !std::mem::replace(&mut self.routable, true) {
            self.events.push_back(Event::Routable);
        }
    }

    pub(super) fn on_lease(&mut self, update: LeaseUpdate) {
        let limit = update.limit.min(limits::LEASE_MAX);
        if self.outbound_lease.as_ref().is_some_and(|lease| lease.update(update.generation, limit)) {
            self.events.push_back(Event::Lease { limit });
        }
    }

    pub(super) fn on_drain(&mut self, drain: DrainFrame) -> Result<(), ProtocolError> {
        match (drain.phase, self.drain) {
            (DrainPhase::Request, _) => {
                // The highest id that was opened; this side opens nothing above it from now on.
                let last = StreamId::new(self.next_id.saturating_sub(2)).unwrap_or(StreamId::CONNECTION);
                self.scheduler.control(Frame::Drain(DrainFrame { phase: DrainPhase::Ack, last }));
                if !std::mem::replace(&mut self.peer_draining, true) {
                    self.fail_opened(|stream| stream.wire == Wire::Unsent);
                    self.events.push_back(Event::PeerDraining);
                }
            }
            (DrainPhase::Final, _) => {
                let above = |id| id > drain.last;
                self.fail_opened(|s| s.wire == Wire::Unsent || !s.receive.answered && s.id.is_some_and(above));
                if !std::mem::replace(&mut self.peer_draining, true) {
                    self.events.push_back(Event::PeerDraining);
                }
            }
            (DrainPhase::Ack, Drain::Asked { .. }) => self.agree_drain(drain.last),
            // The peer's answer crossed our DRAIN(final).
            (DrainPhase::Ack, Drain::Agreed { .. }) => {}
            (DrainPhase::Ack, Drain::Open | Drain::Wanted) => {
                return Err(ProtocolError::new("DRAIN(ack) without DRAIN(request)"));
            }
        }
        Ok(())
    }

    /// Streams opened here that the peer provably never saw.
    fn fail_opened(&mut self, unseen: impl Fn(&Stream) -> bool) {
        let opened = |s: &Stream| s.side == Side::Opener && s.wire != Wire::Done;
        let slots: Vec<u32> =
            self.streams.iter().filter(|(_, s)| opened(s) && unseen(s)).map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.streams[slot as usize].fail(StreamFailure::Unseen);
            self.notify(slot);
            self.finish_wire(slot);
        }
    }

    fn on_update(&mut self, update: EndpointsUpdate, bytes: usize) -> Result<(), ProtocolError> {
        let EndpointsUpdate { revision, part, last, endpoints: items } = update;
        if let Some(endpoints) = self.updates.add("ENDPOINTS_UPDATE", Part { revision, part, last, items, bytes })? {
            registration::check_ids(&endpoints)?;
            self.events.push_back(Event::Endpoints { revision, endpoints });
        }
        Ok(())
    }

    fn on_result(&mut self, result: EndpointsResult, bytes: usize) -> Result<(), ProtocolError> {
        let EndpointsResult { revision, part, last, refused: items, .. } = result;
        if let Some(refused) = self.results.add("ENDPOINTS_RESULT", Part { revision, part, last, items, bytes })? {
            self.events.push_back(Event::EndpointsResult { revision, refused });
        }
        Ok(())
    }

    /// Charges the link's credit, which returns on arrival, kept or not.
    fn charge_link(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        self.receive_window.receive(bytes)?;
        if self.receive_window.take(bytes) {
            self.scheduler.connection_window = true;
        }
        Ok(())
    }

    /// The stream `id`; `None` if it is over. An id that was never opened closes the link.
    fn known(&self, id: StreamId, name: &'static str) -> Result<Option<u32>, ProtocolError> {
        if let Some(slot) = self.by_id.get(&id) {
            return Ok(Some(*slot));
        }
        let mine = id.is_gateway_opened() == (self.role == Role::Gateway);
        let opened = if mine { id.as_u64() < self.next_id } else { id <= self.last_peer_id };
        if opened {
            Ok(None)
        } else {
            Err(ProtocolError::new(format!("{name} for stream {id}, which was never opened")))
        }
    }

    /// Likewise, for frames that only one side of a stream may send.
    pub(super) fn find(&self, id: StreamId, name: &'static str, side: Side) -> Result<Option<u32>, ProtocolError> {
        let slot = self.known(id, name)?;
        let mine = id.is_gateway_opened() == (self.role == Role::Gateway);
        if mine != (side == Side::Opener) {
            let text = format!("{name} on stream {id} from the wrong side");
            return Err(ProtocolError::with(CloseCode::ProtocolError, text));
        }
        Ok(slot)
    }
}
