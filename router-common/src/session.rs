//! Session: the pure protocol state machine of one link (SPEC 4).
//!
//! Frames, operations and time come in; [`Session::poll`] says what to do. There is no I/O here, no task, no clock and
//! no randomness. One link has a session at each end; a simulation can step two of them through any schedule.
//!
//! Where to find what: `handshake` (HELLO to WELCOME), `registration` (endpoint sets), `outbound` (what an application
//! does with streams), `inbound` (what the peer does with them), `stream` (one exchange's states), `flow` (byte credit),
//! `lease` (request credit), `scheduler` (what leaves next), `liveness` (heartbeats), `drain`; `datagrams` (what is
//! otherwise on links that reorder and lose).
//!
//! A session never trusts the peer: what breaks a rule closes the link with a code ([`ProtocolError`]), and every queue
//! here is bounded by a lease, a window or a name in [`crate::limits`].

mod budget;
mod datagrams;
mod drain;
mod event;
mod flow;
mod handshake;
mod inbound;
pub mod lease;
mod liveness;
mod outbound;
mod pieces;
mod proof;
mod registration;
mod scheduler;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;

pub use self::budget::{Budget, Holding};
pub use self::event::{
    Accepted, Carrier, Closed, ClosedBy, Common, Event, GatewaySide, Joining, OpenError, Opening, Output,
    ProtocolError, Read, ReadHead, ServiceSide, Silence, StreamClosed, StreamFailure, StreamKey, TakenBack, Timers,
};
pub use self::proof::{CarrierKeys, Secret, SecretTooShort, Secrets};
pub use self::registration::RegisterError;

use self::datagrams::Datagrams;
use self::drain::Drain;
use self::flow::{FlowError, ReceiveWindow, SendCredit};
use self::handshake::Handshake;
use self::lease::Lease;
use self::liveness::{Due, Liveness};
use self::registration::Assembly;
use self::scheduler::Scheduler;
use self::stream::{Side, Stream, Wire};
use crate::endpoint::EndpointDescriptor;
use crate::frame::{
    Close, CloseCode, DrainPhase, Frame, HealthStatus, Heartbeat, HeartbeatAck, LeaseUpdate, ReceiveLimits,
    RefusedEndpoint, StreamId, bounded_text,
};
use crate::limits;

/// Which end of a link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Service,
    Gateway,
}

/// Room for ids that a session keeps. A map that is nearly full of entries that come and go is rebuilt again and again.
const IDS: usize = 128;

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Established,
    /// The peer's CLOSE is here, and may have overtaken answers: links that reorder.
    Ending {
        closed: Closed,
        until: Instant,
    },
    /// CLOSE is queued, behind outcomes of streams and nothing else.
    Closing(Closed),
    Closed(Closed),
}

/// One end of one link.
#[derive(Debug)]
pub struct Session {
    role: Role,
    common: Common,
    state: State,
    /// What the peer receives.
    peer: ReceiveLimits,
    handshake_ends: Instant,
    /// The latest time that was given: what a reader who has no clock reads at.
    clock: Instant,

    streams: Slab<Stream>,
    /// Streams that are not Done, by wire id.
    by_id: FxHashMap<StreamId, u32>,
    generation: u32,
    /// The id of the next stream opened here.
    next_id: u64,
    /// The highest id the peer has opened.
    last_peer_id: StreamId,
    /// The highest of them that went to a handler; higher ones were refused.
    last_accepted: StreamId,
    /// Streams opened here, and by the peer, that are not Done.
    opened: usize,
    accepted: usize,

    send_credit: SendCredit,
    receive_window: ReceiveWindow,
    /// What the peer may have in flight here.
    inbound_lease: Arc<Lease>,
    /// What this side may have in flight at the peer; the gateway's view of the instance's lease.
    outbound_lease: Option<Arc<Lease>>,

    scheduler: Scheduler,
    events: VecDeque<Event>,
    liveness: Option<Liveness>,
    overloaded_since: Option<Instant>,
    drain: Drain,
    /// The service's first heartbeat is acknowledged.
    routable: bool,
    peer_draining: bool,
    health: HealthStatus,
    load: u32,
    updates: Assembly<EndpointDescriptor>,
    results: Assembly<RefusedEndpoint>,
    /// Only on a link that reorders.
    datagrams: Option<Box<Datagrams>>,
}

impl Session {
    /// A service's end: sends HELLO.
    #[must_use]
    pub fn service(side: ServiceSide, now: Instant) -> Self {
        let ServiceSide { common, hello, secret, lease } = side;
        let common = common.fit_carrier();
        let (handshake, frame) = Handshake::service(hello, secret, &common, &lease);
        let mut session = Self::new(Role::Service, common, handshake, lease, now);
        session.scheduler.control(frame);
        session
    }

    /// A gateway's end: waits for HELLO.
    #[must_use]
    pub fn gateway(side: GatewaySide, now: Instant) -> Self {
        let GatewaySide { common, node, secrets, nonce, identity } = side;
        let lease = Lease::new(limits::SERVICE_OPENED_STREAMS as u32);
        let common = common.fit_carrier();
        Self::new(Role::Gateway, common, Handshake::gateway(node, secrets, nonce, identity), lease, now)
    }

    fn new(role: Role, common: Common, handshake: Handshake, inbound_lease: Arc<Lease>, now: Instant) -> Self {
        let window = common.limits.connection_window;
        let peers_first = match role {
            Role::Gateway => 1,
            Role::Service => 2,
        };
        Self {
            role,
            datagrams: Datagrams::new(common.carrier, peers_first),
            state: State::Handshake(Box::new(handshake)),
            peer: ReceiveLimits::default(),
            handshake_ends: now + common.timers.handshake,
            clock: now,
            streams: Slab::new(),
            by_id: FxHashMap::with_capacity_and_hasher(IDS, FxBuildHasher),
            generation: 0,
            next_id: match role {
                Role::Gateway => 2,
                Role::Service => 1,
            },
            last_peer_id: StreamId::CONNECTION,
            last_accepted: StreamId::CONNECTION,
            opened: 0,
            accepted: 0,
            send_credit: SendCredit::new(0),
            receive_window: ReceiveWindow::new(window, window),
            inbound_lease,
            outbound_lease: None,
            scheduler: Scheduler::default(),
            events: VecDeque::new(),
            liveness: None,
            overloaded_since: None,
            drain: Drain::Open,
            routable: false,
            peer_draining: false,
            health: HealthStatus::Healthy,
            load: 0,
            updates: Assembly::default(),
            results: Assembly::default(),
            common,
        }
    }

    /// Whether WELCOME has passed and no CLOSE.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// Whether CLOSE was sent or received, or the link ended.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Ending { .. } | State::Closing(_) | State::Closed(_))
    }

    /// Whether the peer asked to open no more streams here.
    #[must_use]
    pub const fn is_peer_draining(&self) -> bool {
        self.peer_draining
    }

    /// Whether frames should be read now. Not while the peer makes more control frames than it takes.
    #[must_use]
    pub const fn wants_read(&self) -> bool {
        self.overloaded_since.is_none()
    }

    /// Streams that are not over, opened here and by the peer.
    #[must_use]
    pub const fn streams(&self) -> (usize, usize) {
        (self.opened, self.accepted)
    }

    /// A frame arrived.
    ///
    /// # Errors
    /// When the peer broke the protocol. CLOSE is then queued already: keep polling until [`Output::Closed`].
    pub fn handle_frame(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        self.clock = now;
        let result = match &self.state {
            State::Handshake(_) => self.on_handshake(frame, now),
            State::Established => self.on_established(frame, now),
            State::Ending { .. } => self.on_ending(frame, now),
            State::Closing(_) | State::Closed(_) => Ok(()),
        };
        if let Err(error) = &result {
            self.close(error.code, error.text.clone());
        }
        self.watch_overload(now);
        self.relieve_stalled(now);
        result
    }

    /// What the link brought is not a frame.
    pub fn handle_error(&mut self, error: ProtocolError) {
        self.close(error.code, error.text);
    }

    /// The link ended.
    pub fn handle_link_closed(&mut self) {
        match &self.state {
            State::Closed(_) => {}
            State::Closing(closed) => self.state = State::Closed(closed.clone()),
            State::Ending { .. } => self.end_now(),
            State::Handshake(_) | State::Established => {
                let text = "the link ended without CLOSE".to_owned();
                self.end(Closed { by: ClosedBy::Link, code: CloseCode::Normal, text }, None);
            }
        }
    }

    /// Time has passed: at the latest when [`Output::Idle`] said.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        match &self.state {
            State::Handshake(_) if now >= self.handshake_ends => {
                self.close(CloseCode::HandshakeTimeout, "the handshake took too long".to_owned());
            }
            State::Established => self.on_time(now),
            State::Ending { until, .. } if now >= *until => self.end_now(),
            _ => {}
        }
    }

    fn on_time(&mut self, now: Instant) {
        self.relieve_stalled(now);
        while let Some(due) = self.liveness.as_mut().and_then(|liveness| liveness.due(now)) {
            match due {
                Due::Heartbeat { sequence, missed } => {
                    let (status, load) = (self.health, self.load);
                    let in_flight = self.inbound_lease.in_flight();
                    self.scheduler.control(Frame::Heartbeat(Heartbeat { sequence, status, in_flight, load }));
                    if missed {
                        self.events.push_back(Event::HeartbeatMissed);
                    }
                    // The last one may have been lost.
                    self.scheduler.lease |= self.datagrams.is_some() && self.role == Role::Service;
                }
                Due::Degraded => self.events.push_back(Event::Silence(Silence::Degraded)),
                Due::Dead => {
                    let after = self.common.timers.dead_after;
                    let text = format!("silent, or a heartbeat unanswered, for {} s", after.as_secs_f32());
                    return self.close(CloseCode::HeartbeatTimeout, text);
                }
            }
        }
        if self.datagrams.is_some() {
            self.datagrams_on_time(now);
        }
        if self.drain.overdue_at().is_some_and(|at| now >= at) {
            let last = self.last_peer_id;
            self.scheduler.control(Frame::Drain(crate::frame::Drain { phase: DrainPhase::Final, last }));
            self.agree_drain(last);
        }
        if self.overloaded_since.is_some_and(|since| now >= since + limits::OVERLOAD_TIMEOUT) {
            self.close(CloseCode::Overload, "the peer does not take its control frames".to_owned());
        }
    }

    /// Service: offers its whole endpoint set, replacing the one before.
    ///
    /// # Errors
    /// When the set is over a limit, or the link is not established.
    pub fn register(&mut self, revision: u64, endpoints: Vec<EndpointDescriptor>) -> Result<(), RegisterError> {
        if !self.is_established() {
            return Err(RegisterError::NotEstablished);
        }
        registration::check_ids(&endpoints).map_err(|error| RegisterError::Ids(error.text))?;
        if self.datagrams.is_some() {
            return self.offer(revision, endpoints);
        }
        for frame in registration::update_frames(revision, endpoints, self.peer.max_frame as usize)? {
            self.scheduler.control(frame);
        }
        Ok(())
    }

    /// Gateway: answers an endpoint set; what is not named is accepted.
    pub fn endpoints_result(&mut self, revision: u64, refused: Vec<RefusedEndpoint>) {
        if self.datagrams.is_some() && self.is_established() {
            self.answer_offer(revision, refused);
        } else if self.is_established() {
            for frame in registration::result_frames(revision, refused, self.peer.max_frame as usize) {
                self.scheduler.control(frame);
            }
        }
    }

    /// What the next heartbeat says. A change of status is said at once.
    pub fn set_health(&mut self, status: HealthStatus, load: u32, now: Instant) {
        self.load = load;
        if std::mem::replace(&mut self.health, status) != status
            && let Some(liveness) = &mut self.liveness
        {
            liveness.hurry(now);
        }
    }

    /// Service: tells the gateway the lease's present limit.
    pub fn announce_lease(&mut self) {
        if self.is_established() {
            self.scheduler.lease = true;
        }
    }

    /// Service: from now on the link is bound by this lease, since its gateway turned out to be one that has it already. What
    /// is in flight keeps its slots of the one before. The gateway is not told: see [`Session::announce_lease`].
    pub fn share_lease(&mut self, lease: Arc<Lease>) {
        self.inbound_lease = lease;
    }

    /// Asks the peer to open nothing more on this link; [`Event::Drained`] tells when all it opened is over. In the
    /// handshake: as soon as it has ended.
    pub fn drain(&mut self, now: Instant) {
        if self.drain != Drain::Open {
            return;
        }
        if matches!(self.state, State::Handshake(_)) {
            self.drain = Drain::Wanted;
        }
        if self.is_established() {
            self.drain = Drain::Asked { since: now };
            let last = StreamId::CONNECTION;
            self.scheduler.control(Frame::Drain(crate::frame::Drain { phase: DrainPhase::Request, last }));
        }
    }

    /// Ends the link with CLOSE; all streams on it get their outcome now.
    pub fn close(&mut self, code: CloseCode, text: String) {
        if matches!(self.state, State::Closing(_) | State::Closed(_) | State::Ending { .. }) {
            return self.end_now();
        }
        let text = bounded_text(text);
        match code {
            // It takes nothing: what is queued is what it did not take.
            CloseCode::Overload => self.scheduler.clear(),
            _ => self.scheduler.clear_but_outcomes(),
        }
        let last = self.last_accepted;
        self.scheduler.control(Frame::Close(Box::new(Close { code, last, text: text.clone() })));
        self.end(Closed { by: ClosedBy::Local, code, text }, None);
    }

    /// The next event alone, for a driver whose link takes no more frames now.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Stream(key) = &event
            && let Some(stream) = self.stream(*key)
        {
            stream.notified = false;
        }
        Some(event)
    }

    /// What to do next. Call until it says [`Output::Idle`] or [`Output::Closed`].
    pub fn poll(&mut self) -> Output {
        if let Some(event) = self.poll_event() {
            return Output::Event(event);
        }
        if let Some(frame) = self.next_frame() {
            if self.overloaded_since.is_some() && self.scheduler.control_len() <= limits::CONTROL_QUEUE {
                self.overloaded_since = None;
            }
            return Output::Transmit(frame);
        }
        match &mut self.state {
            State::Closing(closed) => {
                let closed = closed.clone();
                self.state = State::Closed(closed.clone());
                Output::Closed(closed)
            }
            State::Closed(closed) => Output::Closed(closed.clone()),
            State::Ending { until, .. } => Output::Idle { wake_at: Some(*until) },
            State::Handshake(_) | State::Established => Output::Idle { wake_at: self.wake_at() },
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due at the latest: what [`Output::Idle`] says, at any time.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.state {
            State::Closing(_) | State::Closed(_) => return None,
            State::Ending { until, .. } => return Some(*until),
            State::Handshake(_) | State::Established => {}
        }
        let Some(liveness) = &self.liveness else { return Some(self.handshake_ends) };
        let overload = self.overloaded_since.map(|since| since + limits::OVERLOAD_TIMEOUT);
        let datagrams = self.datagrams.as_ref().and_then(|datagrams| datagrams.wake_at());
        Some(
            [self.drain.overdue_at(), overload, datagrams].into_iter().flatten().fold(liveness.wake_at(), Instant::min),
        )
    }

    fn next_frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.scheduler.pop_control() {
            return Some(frame);
        }
        if !self.is_established() {
            return None;
        }
        if let Some(sequence) = self.scheduler.ack.take() {
            return Some(Frame::HeartbeatAck(HeartbeatAck { sequence }));
        }
        if std::mem::take(&mut self.scheduler.lease) {
            let (generation, limit) = (self.inbound_lease.generation(), self.inbound_lease.limit());
            return Some(Frame::Lease(LeaseUpdate { generation, limit }));
        }
        if std::mem::take(&mut self.scheduler.connection_window) {
            let bytes = self.receive_window.settle();
            return Some(Frame::Window(StreamId::CONNECTION, crate::frame::Window { bytes }));
        }
        self.next_window().or_else(|| self.next_data())
    }

    /// Reading pauses while the peer causes control frames faster than it takes them.
    fn watch_overload(&mut self, now: Instant) {
        let lease = self.inbound_lease.limit() as usize;
        if self.overloaded_since.is_none() && self.scheduler.control_len() > limits::CONTROL_QUEUE + lease {
            self.overloaded_since = Some(now);
        }
    }

    /// The session is over: every stream gets its outcome. `accepted`: the highest id the peer took.
    fn end(&mut self, closed: Closed, accepted: Option<StreamId>) {
        self.state = match closed.by {
            ClosedBy::Local => State::Closing(closed),
            ClosedBy::Peer | ClosedBy::Link => {
                self.scheduler.clear();
                State::Closed(closed)
            }
        };
        let slots: Vec<u32> = self.streams.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            let Some(stream) = self.streams.get_mut(slot as usize) else { continue };
            let unseen = match (stream.side, stream.wire, stream.id) {
                (Side::Opener, Wire::Unsent, _) => true,
                // What was answered was seen, whatever the peer says.
                (Side::Opener, Wire::Live, Some(id)) => {
                    !stream.receive.answered && accepted.is_some_and(|last| id > last)
                }
                _ => false,
            };
            stream.fail(if unseen { StreamFailure::Unseen } else { StreamFailure::Lost });
            self.notify(slot);
            self.finish_wire(slot);
        }
    }

    /// The peer opens nothing above `last` any more.
    fn agree_drain(&mut self, last: StreamId) {
        self.drain = Drain::Agreed { last, reported: false };
        self.await_stragglers();
        self.check_drained();
    }

    fn check_drained(&mut self) {
        if self.accepted == 0
            && self.is_established()
            && let Drain::Agreed { last, reported: false } = self.drain
            && self.has_all_to(last)
        {
            self.drain = Drain::Agreed { last, reported: true };
            self.has_settled();
            self.events.push_back(Event::Drained);
        }
    }

    /// Puts a new stream into the table.
    fn insert(&mut self, side: Side, wire: Wire) -> u32 {
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

    fn key(&self, slot: u32) -> StreamKey {
        let generation = self.streams.get(slot as usize).map_or(0, |stream| stream.generation);
        StreamKey { index: slot, generation }
    }

    /// The stream that `key` names, while it is not forgotten.
    fn stream(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.streams.get_mut(key.index as usize).filter(|stream| stream.generation == key.generation)
    }

    /// Somebody may wait for this stream.
    fn notify(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        if !stream.released && !std::mem::replace(&mut stream.notified, true) {
            let key = StreamKey { index: slot, generation: stream.generation };
            self.events.push_back(Event::Stream(key));
        }
    }

    /// The stream is Done: its slot of the lease is free, and frames for it are late from now on.
    fn finish_wire(&mut self, slot: u32) {
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

    fn forget(&mut self, slot: u32) {
        let stream = self.streams.remove(slot as usize);
        self.common.budget.sub(stream.receive.queue.len());
        self.common.budget.shrink(stream.receive.window.beyond());
        if self.streams.is_empty() && self.streams.capacity() > 1024 {
            self.streams.shrink_to_fit();
            self.by_id.shrink_to(IDS);
        }
    }

    /// Forgets what was received and not read.
    fn discard(&mut self, slot: u32) {
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

impl From<FlowError> for ProtocolError {
    fn from(_: FlowError) -> Self {
        Self::with(CloseCode::FlowControl, "more bytes than credit, or credit beyond its bound")
    }
}

#[cfg(any(test, feature = "testing"))]
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
