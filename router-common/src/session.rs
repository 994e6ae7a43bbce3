//! Session: the pure protocol state machine of one link (SPEC 4).
//!
//! Frames, operations and time come in; [`Session::poll`] says what to do. There is no I/O here, no task, no clock and
//! no randomness. One link has a session at each end; a simulation can step two of them through any schedule.
//!
//! Where to find what: `handshake` (HELLO to WELCOME), `registration` (endpoint sets), `outbound` (what an application
//! does with streams), `inbound` (what the peer does with them), `table` (all streams), `stream` (one exchange's states),
//! `flow` (byte credit), `lease` (request credit), `scheduler` (what leaves next), `liveness` (heartbeats), `drain`,
//! `ending`; `datagrams` (what is otherwise on links that reorder and lose).
//!
//! A session never trusts the peer: what breaks a rule closes the link with a code ([`ProtocolError`]), and every queue
//! here is bounded by a lease, a window or a name in [`crate::limits`].

mod budget;
mod datagrams;
mod drain;
mod ending;
mod event;
mod flow;
mod handshake;
mod inbound;
#[cfg(any(test, feature = "testing"))]
mod invariants;
pub mod lease;
mod liveness;
mod outbound;
mod pieces;
mod proof;
mod registration;
mod scheduler;
mod stream;
mod table;

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
use self::flow::{ReceiveWindow, SendCredit};
use self::handshake::Handshake;
use self::lease::Lease;
use self::liveness::{Due, Liveness};
use self::registration::Assembly;
use self::scheduler::Scheduler;
use self::stream::Stream;
use self::table::IDS;
use crate::endpoint::EndpointDescriptor;
use crate::frame::{
    CloseCode, DrainPhase, Frame, HealthStatus, Heartbeat, HeartbeatAck, LeaseUpdate, ReceiveLimits, RefusedEndpoint,
    StreamId,
};
use crate::limits;

/// Which end of a link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Service,
    Gateway,
}

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
}
