//! Links that reorder frames, may lose some, and carry a message in one frame or not at all (SPEC 4, 7): all that a
//! session does otherwise there. One on an ordinary link never comes here.
//!
//! The link promises that a frame arrives whole and at most once. Since the order of arrival says nothing, ids, sequences
//! and generations say what is new; and since a frame may never arrive, whatever waits for one gives up in the end:
//!
//! | what may be lost | what brings it back |
//! |---|---|
//! | REQUEST, a terminal, CANCEL | the opener forgets the stream [`limits::LOSS_GRACE`] after its deadline |
//! | ENDPOINTS_UPDATE, ENDPOINTS_RESULT | the set is offered again until it is answered |
//! | LEASE | it goes with every heartbeat |
//! | DRAIN | DRAIN(final), then CANCEL(refused) for each REQUEST |
//! | CLOSE | silence |
//!
//! That an opener frees the slot of a lease before the responder has said so is safe: the lease is the responder's to
//! protect, which counts by itself and refuses what exceeds it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::budget::Budget;
use super::drain::Drain;
use super::event::{Carrier, Closed, ClosedBy, Common, Event, ProtocolError, StreamFailure, StreamKey};
use super::outbound::HEAD_PREFIX;
use super::registration::{self, Part, Parts, RegisterError};
use super::stream::{ReceiveState, Side, Wire};
use super::{Role, Session, State};
use crate::endpoint::EndpointDescriptor;
use crate::frame::{
    Cancel, Close, CloseCode, Data, DataPayload, EndpointsResult, EndpointsUpdate, Frame, Heartbeat, ReceiveLimits,
    RefusedEndpoint, Request, Response, StreamId, bounded_text,
};
use crate::limits;

/// What a session keeps for such a link.
#[derive(Debug)]
pub(super) struct Datagrams {
    /// Largest frame that the link and the peer take, in bytes.
    room: usize,
    /// Which of the peer's ids have been seen.
    seen: Ids,
    /// When a stream that was opened here is forgotten, by slot; the generation says whether it is still that stream's.
    forget_at: Vec<(u32, Instant)>,
    /// No stream is forgotten before this. It may be early, because a stream that ends takes nothing back.
    overdue_at: Option<Instant>,
    /// When requests that an agreed drain covers are waited for no longer.
    settled_at: Option<Instant>,
    /// The highest sequence of a HEARTBEAT.
    heartbeat: u64,
    /// Results that were given.
    answers: u64,
    updates: Parts<EndpointDescriptor>,
    results: Parts<RefusedEndpoint>,
    /// The set that was offered and is not answered.
    offer: Option<Offer>,
    /// Parts of a set, or of a result, that are to be sent. They do not count as control frames that wait: there may be
    /// thousands, and a newer set takes their place.
    parts: VecDeque<Frame>,
}

#[derive(Debug)]
struct Offer {
    revision: u64,
    frames: Vec<Frame>,
    again_at: Instant,
}

impl Datagrams {
    /// For a session whose peer opens ids from `first` on.
    pub(super) fn new(carrier: Carrier, first: u64) -> Option<Box<Self>> {
        let Carrier::Datagrams { max_frame } = carrier else { return None };
        Some(Box::new(Self {
            room: max_frame as usize,
            seen: Ids::new(first),
            forget_at: Vec::new(),
            overdue_at: None,
            settled_at: None,
            heartbeat: 0,
            answers: 0,
            updates: Parts::default(),
            results: Parts::default(),
            offer: None,
            parts: VecDeque::new(),
        }))
    }

    /// When something is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let again = self.offer.as_ref().map(|offer| offer.again_at);
        [self.overdue_at, self.settled_at, again].into_iter().flatten().min()
    }
}

impl Common {
    /// States no larger frames than the carrier takes.
    pub(super) fn fit_carrier(mut self) -> Self {
        if let Carrier::Datagrams { max_frame } = self.carrier {
            self.limits.max_frame = self.limits.max_frame.min(max_frame);
        }
        self
    }
}

impl Session {
    /// Whether a message with a head of `head` bytes and a body of `body` bytes can be sent on this link. Always, where
    /// bodies stream.
    #[must_use]
    pub fn fits(&self, head: usize, body: usize) -> bool {
        self.datagrams.as_ref().is_none_or(|datagrams| HEAD_PREFIX + head + body <= datagrams.room)
    }

    /// What the link can do, as this session was told.
    #[must_use]
    pub const fn carrier(&self) -> Carrier {
        self.common.carrier
    }

    /// The node's buffer bound, as this session was told.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.common.budget
    }

    /// It is `now`: what is polled next is sent at that time. Only to be told where frames may be lost
    /// ([`Carrier::Datagrams`]), so that a stream is not forgotten before its time.
    pub fn observe(&mut self, now: Instant) {
        self.clock = now;
    }

    /// Windows do not bind here: each message is bounded by its frame, and their number by the lease.
    pub(super) fn establish_datagrams(&mut self, peer: &mut ReceiveLimits) {
        let Some(datagrams) = &mut self.datagrams else { return };
        datagrams.room = datagrams.room.min(peer.max_frame as usize);
        for limits in [peer, &mut self.common.limits] {
            limits.stream_window = limits::WINDOW_MAX as u32;
            limits.connection_window = limits::WINDOW_MAX as u32;
        }
    }

    pub(super) fn on_datagram(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        match (frame, self.role) {
            (Frame::Request(request), _) => self.on_whole_request(request, now),
            (Frame::Response(response), _) => self.on_whole_response(response, now),
            (Frame::ResponseData(data), _) => self.on_bare_end(data, now),
            (Frame::Cancel(stream, cancel), _) => self.on_any_cancel(stream, *cancel),
            (Frame::Heartbeat(heartbeat), _) => {
                self.on_any_heartbeat(heartbeat);
                Ok(())
            }
            (Frame::HeartbeatAck(ack), _) => self.on_heartbeat_ack(ack.sequence, now),
            (Frame::Drain(drain), _) => self.on_drain(drain),
            (Frame::Close(close), _) => {
                self.on_overtaking_close(*close);
                Ok(())
            }
            (Frame::Ignorable { .. }, _) => Ok(()),
            (Frame::EndpointsUpdate(wire), Role::Gateway) => {
                let bytes = wire.bytes().len();
                self.on_any_update(wire.into_value(), bytes)
            }
            (Frame::EndpointsResult(wire), Role::Service) => {
                let bytes = wire.bytes().len();
                self.on_any_result(wire.into_value(), bytes)
            }
            (Frame::Lease(lease), Role::Gateway) => {
                self.on_lease(lease);
                Ok(())
            }
            (frame, _) => Err(ProtocolError::new(format!("{} is not legal on this link", frame.name()))),
        }
    }

    fn on_whole_request(&mut self, request: Request, now: Instant) -> Result<(), ProtocolError> {
        let Request { stream: id, head, body, end, tunnel } = request;
        if id.is_gateway_opened() != (self.role == Role::Service) {
            return Err(ProtocolError::new(format!("REQUEST with id {id}, which is this side's to open")));
        }
        if !end || tunnel {
            return Err(ProtocolError::new(format!("REQUEST {id} is not a whole message")));
        }
        if !self.is_fresh(id) {
            // It has come before, or its CANCEL has: no handler gets it.
            return Ok(());
        }
        if matches!(self.drain, Drain::Agreed { reported: true, .. }) {
            self.refuse_request(id, crate::frame::Reason::Refused, "this link is drained");
            return Ok(());
        }
        self.admit(Request { stream: id, head, body, end, tunnel }, now)
    }

    /// Whether the peer's id was never seen, nor its CANCEL. It is seen from now on.
    fn is_fresh(&mut self, id: StreamId) -> bool {
        let Some(datagrams) = &mut self.datagrams else { return false };
        let is_fresh = datagrams.seen.note(id.as_u64());
        self.last_peer_id = self.last_peer_id.max(id);
        is_fresh
    }

    fn on_whole_response(&mut self, mut response: Response, now: Instant) -> Result<(), ProtocolError> {
        let id = response.stream;
        if response.tunnel || (!response.end && !response.body.is_empty()) {
            return Err(ProtocolError::new(format!("RESPONSE {id} is not a whole message")));
        }
        let Some(slot) = self.find(id, "RESPONSE", Side::Opener)? else { return Ok(()) };
        response.end |= self.streams.get(slot as usize).is_some_and(|stream| stream.receive.end_came);
        self.take_response(slot, response, now)
    }

    /// The end of an exchange whose RESPONSE was a head alone. It may overtake that.
    fn on_bare_end(&mut self, data: Data, now: Instant) -> Result<(), ProtocolError> {
        let Data { stream: id, payload } = data;
        if !matches!(&payload, DataPayload::Bytes { bytes, end: true } if bytes.is_empty()) {
            return Err(ProtocolError::new(format!("RESPONSE_STREAM_DATA on stream {id} is more than an end")));
        }
        let Some(slot) = self.find(id, "RESPONSE_STREAM_DATA", Side::Opener)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot as usize) else { return Ok(()) };
        if stream.wire != Wire::Live {
            self.finish_wire(slot);
        } else if !stream.receive.answered {
            stream.receive.end_came = true;
        } else if !matches!(stream.receive.state, ReceiveState::Ended) {
            return self.arrive(slot, Bytes::new(), true, now);
        }
        Ok(())
    }

    fn on_any_cancel(&mut self, id: StreamId, cancel: Cancel) -> Result<(), ProtocolError> {
        let mine = id.is_gateway_opened() == (self.role == Role::Gateway);
        if mine || self.by_id.contains_key(&id) {
            return self.on_cancel(id, cancel);
        }
        if self.is_fresh(id) {
            // It has overtaken its REQUEST, which finds its id seen. This is the terminal of both.
            let reason = cancel.reason;
            self.refuse_request(id, reason, "");
        }
        Ok(())
    }

    fn on_any_heartbeat(&mut self, heartbeat: Heartbeat) {
        let Some(datagrams) = &mut self.datagrams else { return };
        if heartbeat.sequence > datagrams.heartbeat {
            datagrams.heartbeat = heartbeat.sequence;
            self.on_heartbeat(heartbeat);
        } else {
            // What it says is old.
            self.scheduler.ack = Some(datagrams.heartbeat);
        }
    }

    /// CLOSE may have overtaken answers. What it says to be unseen is unseen at once; for the other outcomes there is as
    /// long as a carrier is given to take a CLOSE.
    fn on_overtaking_close(&mut self, close: Close) {
        let Close { code, last, text } = close;
        let closed = Closed { by: ClosedBy::Peer, code, text: bounded_text(text) };
        self.scheduler.clear();
        self.state = State::Ending { closed, until: self.clock + limits::CLOSE_TIMEOUT };
        let slots: Vec<u32> = self.streams.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            let Some(stream) = self.streams.get_mut(slot as usize) else { continue };
            let failure = match (stream.side, stream.wire, stream.id) {
                (_, Wire::Done, _) => continue,
                (Side::Opener, Wire::Unsent, _) => StreamFailure::Unseen,
                (Side::Opener, Wire::Live, Some(id)) if stream.receive.answered || id <= last => continue,
                (Side::Opener, Wire::Live, _) => StreamFailure::Unseen,
                (Side::Opener, ..) => StreamFailure::Closed,
                (Side::Responder, ..) => StreamFailure::Lost,
            };
            stream.fail(failure);
            self.notify(slot);
            self.finish_wire(slot);
        }
        let leaves = matches!(code, CloseCode::Normal | CloseCode::Shutdown);
        if self.opened > 0 && leaves && self.role == Role::Gateway {
            // So that nothing more is sent here meanwhile.
            self.events.push_back(Event::PeerDraining);
        }
        self.end_if_answered();
    }

    /// After the peer's CLOSE: outcomes that it has overtaken.
    pub(super) fn on_ending(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        let result = match frame {
            Frame::Response(response) => self.on_whole_response(response, now),
            Frame::ResponseData(data) => self.on_bare_end(data, now),
            Frame::Cancel(stream, cancel) if self.by_id.contains_key(&stream) => self.on_cancel(stream, *cancel),
            _ => Ok(()),
        };
        self.scheduler.clear();
        if result.is_ok() {
            self.end_if_answered();
        }
        result
    }

    fn end_if_answered(&mut self) {
        if self.opened == 0 {
            self.end_now();
        }
    }

    /// After the peer's CLOSE: what has no outcome yet gets none any more.
    pub(super) fn end_now(&mut self) {
        if let State::Ending { closed, .. } = &self.state {
            let closed = closed.clone();
            self.end(closed, None);
        }
    }

    /// Service: offers its endpoint set; schemas stay behind.
    pub(super) fn offer(&mut self, revision: u64, mut endpoints: Vec<EndpointDescriptor>) -> Result<(), RegisterError> {
        let Some(datagrams) = &mut self.datagrams else { return Ok(()) };
        for endpoint in &mut endpoints {
            endpoint.request_schema = None;
            endpoint.response_schema = None;
        }
        let frames = registration::small_update_frames(revision, endpoints, datagrams.room)?;
        datagrams.parts = frames.iter().cloned().collect();
        datagrams.offer = Some(Offer { revision, frames, again_at: self.clock + limits::OFFER_AGAIN });
        Ok(())
    }

    /// Gateway: answers one.
    pub(super) fn answer_offer(&mut self, revision: u64, refused: Vec<RefusedEndpoint>) {
        let Some(datagrams) = &mut self.datagrams else { return };
        datagrams.answers += 1;
        let generation = datagrams.answers;
        datagrams.parts = registration::small_result_frames(revision, generation, refused, datagrams.room).into();
    }

    fn on_any_update(&mut self, update: EndpointsUpdate, bytes: usize) -> Result<(), ProtocolError> {
        let EndpointsUpdate { revision, part, last, endpoints: items } = update;
        let Some(datagrams) = &mut self.datagrams else { return Ok(()) };
        let part = Part { revision, part, last, items, bytes };
        if let Some(endpoints) = datagrams.updates.add("ENDPOINTS_UPDATE", 0, part)? {
            registration::check_ids(&endpoints)?;
            self.events.push_back(Event::Endpoints { revision, endpoints });
        }
        Ok(())
    }

    fn on_any_result(&mut self, result: EndpointsResult, bytes: usize) -> Result<(), ProtocolError> {
        let EndpointsResult { revision, generation, part, last, refused: items } = result;
        let Some(datagrams) = &mut self.datagrams else { return Ok(()) };
        let part = Part { revision, part, last, items, bytes };
        if let Some(refused) = datagrams.results.add("ENDPOINTS_RESULT", generation, part)? {
            datagrams.offer.take_if(|offer| offer.revision <= revision);
            self.events.push_back(Event::EndpointsResult { revision, refused });
        }
        Ok(())
    }

    /// The next frame that is no control frame: a part of a set or a whole message.
    pub(super) fn next_message(&mut self) -> Option<Frame> {
        if let Some(part) = self.datagrams.as_mut()?.parts.pop_front() {
            return Some(part);
        }
        while let Some(key) = self.scheduler.next(true) {
            let Some(stream) = self.stream(key) else { continue };
            stream.scheduled = false;
            if super::outbound::wants(stream).is_some() {
                return Some(self.transmit::<true>(key.index, usize::MAX));
            }
        }
        None
    }

    /// A REQUEST leaves: what it waits for may be lost.
    pub(super) fn watch_loss(&mut self, key: StreamKey, deadline: Option<std::time::Duration>) {
        let after = deadline.unwrap_or(self.common.timers.dead_after) + limits::LOSS_GRACE;
        let Some(datagrams) = &mut self.datagrams else { return };
        // As many slots as there are streams at a time.
        if datagrams.forget_at.len() <= key.slot() {
            datagrams.forget_at.resize(key.slot() + 1, (0, self.clock));
        }
        let at = self.clock + after;
        datagrams.forget_at[key.slot()] = (key.generation, at);
        if datagrams.overdue_at.is_none_or(|next| at < next) {
            datagrams.overdue_at = Some(at);
        }
    }

    /// Time has passed.
    pub(super) fn datagrams_on_time(&mut self, now: Instant) {
        self.forget_overdue(now);
        let Some(datagrams) = &mut self.datagrams else { return };
        if let Some(offer) = datagrams.offer.as_mut().filter(|offer| offer.again_at <= now) {
            offer.again_at = now + limits::OFFER_AGAIN;
            if datagrams.parts.is_empty() {
                datagrams.parts = offer.frames.iter().cloned().collect();
            }
        }
        if datagrams.settled_at.is_some_and(|at| at <= now) {
            self.check_drained();
        }
    }

    /// Streams whose outcome should be here and is not: whatever became of it, it is not coming.
    fn forget_overdue(&mut self, now: Instant) {
        let Some(datagrams) = &mut self.datagrams else { return };
        if datagrams.overdue_at.is_none_or(|at| now < at) {
            return;
        }
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (slot, stream) in &self.streams {
            let known = datagrams.forget_at.get(slot).filter(|(generation, _)| *generation == stream.generation);
            let waits = stream.side == Side::Opener && matches!(stream.wire, Wire::Live | Wire::Cancelled);
            match known.filter(|_| waits) {
                Some((_, at)) if *at <= now => due.push(slot as u32),
                Some((_, at)) => next = Some(next.map_or(*at, |next| next.min(*at))),
                None => {}
            }
        }
        datagrams.overdue_at = next;
        if self.streams.is_empty() {
            datagrams.forget_at = Vec::new();
        }
        for slot in due {
            if let Some(stream) = self.streams.get_mut(slot as usize) {
                stream.fail(StreamFailure::Lost);
            }
            self.notify(slot);
            self.finish_wire(slot);
        }
    }

    /// The peer opens nothing above `last` any more; what it has opened may still be on its way.
    pub(super) fn await_stragglers(&mut self) {
        let settled_at = self.clock + limits::LOSS_GRACE;
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.settled_at = Some(settled_at);
        }
    }

    /// Whether nothing that an agreed drain covers is waited for.
    pub(super) fn has_all_to(&self, last: StreamId) -> bool {
        self.datagrams.as_ref().is_none_or(|datagrams| {
            let late = datagrams.settled_at.is_none_or(|at| at <= self.clock);
            late || datagrams.seen.has_all_to(last.as_u64())
        })
    }

    /// The drain is done.
    pub(super) fn has_settled(&mut self) {
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.settled_at = None;
        }
    }
}

/// Which ids of one side have been seen: all below `next` but those that are missing.
///
/// Ids are given one after the other, so nearly always none is missing, and those that are came in packets that are on
/// their way: stretches of ids, as many as packets, of which a packet layer bounds the number. Whatever a peer does, no id
/// is fresh twice.
#[derive(Debug)]
struct Ids {
    /// The lowest id above all that were seen.
    next: u64,
    /// By its first id, the last id of each stretch that is missing.
    missing: BTreeMap<u64, u64>,
}

impl Ids {
    const fn new(first: u64) -> Self {
        Self { next: first, missing: BTreeMap::new() }
    }

    /// Notes an id of this side's parity. Whether it is the first time.
    fn note(&mut self, id: u64) -> bool {
        if id >= self.next {
            if id > self.next {
                self.missing.insert(self.next, id - 2);
                self.bound();
            }
            self.next = id.saturating_add(2);
            return true;
        }
        let Some((&first, &last)) = self.missing.range(..=id).next_back() else { return false };
        if id > last {
            return false;
        }
        self.missing.remove(&first);
        if first < id {
            self.missing.insert(first, id - 2);
        }
        if id < last {
            self.missing.insert(id + 2, last);
            self.bound();
        }
        true
    }

    /// Of too many stretches the lowest counts as seen: nobody's packets are so late.
    fn bound(&mut self) {
        if self.missing.len() > limits::MISSING_IDS {
            self.missing.pop_first();
        }
    }

    /// Whether every id up to `last` was seen.
    fn has_all_to(&self, last: u64) -> bool {
        self.next > last && self.missing.first_key_value().is_none_or(|(first, _)| *first > last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn every_id_is_fresh_exactly_once_in_any_order() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut waiting: Vec<u64> = (0..300).map(|at| 2 + 2 * at).collect();
            let (mut ids, mut seen) = (Ids::new(2), HashSet::new());
            while !waiting.is_empty() {
                let id = waiting.swap_remove(random.below(waiting.len().min(1 + seed as usize)));
                assert_eq!(ids.note(id), seen.insert(id), "seed {seed}, id {id}");
                let again = 2 + 2 * random.below(300) as u64;
                if seen.contains(&again) {
                    assert!(!ids.note(again), "seed {seed}, id {again} again");
                }
                let all = (1..=300).take_while(|at| seen.contains(&(2 * at))).count() as u64;
                assert!(ids.has_all_to(2 * all) && !ids.has_all_to(2 * all + 2), "seed {seed}");
            }
            assert!(ids.missing.is_empty() && ids.next == 602);
        }
    }

    #[test]
    fn what_is_missing_is_bounded_and_forgotten_from_below() {
        let mut ids = Ids::new(1);
        let highest = 4 * limits::MISSING_IDS as u64 + 401;
        for id in (1..=highest).step_by(4) {
            assert!(ids.note(id));
        }
        assert_eq!(ids.missing.len(), limits::MISSING_IDS);
        assert!(!ids.note(3), "long forgotten");
        assert!(ids.note(highest - 2));
        // A leap costs one entry, however far it is.
        assert!(ids.note(limits::STREAM_ID_MAX) && ids.missing.len() <= limits::MISSING_IDS);
        assert!(ids.note(limits::STREAM_ID_MAX - 2) && ids.note((1 << 40) + 1) && !ids.note((1 << 40) + 1));
    }

    #[test]
    fn nothing_seen_is_all_up_to_nothing() {
        assert!(Ids::new(2).has_all_to(0) && Ids::new(1).has_all_to(0));
        assert!(!Ids::new(2).has_all_to(2) && !Ids::new(1).has_all_to(1));
    }
}
