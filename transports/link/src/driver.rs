//! Driver: the only loop that joins a session, a link and a clock.
//!
//! One turn: take what the link has, give it to the session, take what the session says, tell the application, and when
//! nothing more comes of that, send everything that is ready and flush **once**. That order is where the speed comes
//! from: answers that are given in place leave in one write, with whatever else is ready.

mod migrate;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use router_common::frame::{CloseCode, DataPayload, Frame};
use router_common::head::RequestHead;
use router_common::limits;
use router_common::session::{Closed, ClosedBy, Event, Output, ProtocolError, Session, StreamKey};
use tokio::time::Sleep;
use tracing::{debug, error};

use crate::application::{Application, ConnectionEvent};
use crate::body::Body;
use crate::environment::Environment;
use crate::handle::Handle;
use crate::inbound::Inbound;
use crate::link::{BoxLink, LinkError};
use crate::responder::Responder;
use crate::shared::{Begun, Shared};

pub use self::migrate::DetachedDriver;

/// Frames that wait for the link at most. What waits in the session can still be overtaken by control frames and
/// removed by a cancellation; what waits here cannot.
const BATCH_FRAMES: usize = 512;
/// Body bytes among them: large writes are what bulk costs least in.
const BATCH_BYTES: usize = 512 * 1024;
/// Turns until other tasks of the runtime get theirs. One may read and send half a MiB.
const TURNS: usize = 4;

/// Runs one link. A future that ends when the link is over; whoever owns it spawns it, and ends the link by dropping it.
#[must_use = "a link only lives while its driver is polled"]
pub struct Driver {
    link: BoxLink,
    shared: Arc<Shared>,
    handle: Handle,
    application: Box<dyn Application>,
    phase: Phase,
    received: Vec<Frame>,
    batch: VecDeque<Frame>,
    batch_bytes: usize,
    /// The link took frames and may not have flushed them.
    unflushed: bool,
    events: Vec<Happened>,
    wakers: Vec<Waker>,
    /// Made at the first poll, so that a driver may be built outside of the runtime that polls it.
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
    /// Whether the session takes frames now.
    reads: bool,
    /// Nothing can be sent any more.
    broken: bool,
    /// Why the link ended, as it says itself.
    failure: Option<LinkError>,
    /// The application knows that the session is over.
    told_over: bool,
    /// The last turn of this poll left nothing to be done: when it was, and when to wake. Whoever has acted since then
    /// has woken the driver.
    settled: Option<(Instant, Option<Instant>)>,
}

enum Phase {
    Running,
    /// The session is over: what is queued is flushed, and the link closed, until this time.
    Flushing {
        closed: Closed,
        until: Instant,
    },
    /// Flushed and closed; the peer's end is awaited, so that our CLOSE is not overtaken by a reset.
    Lingering {
        closed: Closed,
        until: Instant,
    },
    Over,
}

/// What the session said, with what had to be taken under its lock.
enum Happened {
    Request(StreamKey, RequestHead, Begun),
    Event(Event),
}

impl Driver {
    /// Joins `link` and `session`. To be polled within a tokio runtime.
    pub fn new(
        mut link: BoxLink,
        session: Session,
        application: impl Application,
        environment: Arc<dyn Environment>,
    ) -> (Self, Handle) {
        link.count_in(session.budget());
        debug_assert_eq!(session.carrier(), link.capabilities().carrier(), "the session is told what its link can do");
        let shared = Shared::new(session, link.peer().clone(), environment);
        let handle = Handle::new(Arc::clone(&shared));
        let driver = Self {
            link,
            shared,
            handle: handle.clone(),
            application: Box::new(application),
            phase: Phase::Running,
            received: Vec::new(),
            batch: VecDeque::new(),
            batch_bytes: 0,
            unflushed: false,
            events: Vec::new(),
            wakers: Vec::new(),
            sleep: None,
            armed: None,
            reads: true,
            broken: false,
            failure: None,
            told_over: false,
            settled: None,
        };
        (driver, handle)
    }

    /// One turn. Ready: there may be more to do at once.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let received = self.receive(cx);
        if let Some((since, wake_at)) = self.settled.take()
            && received == Received::Nothing
        {
            return self.sleep_until(wake_at, since, cx);
        }
        let now = self.shared.now();
        let next = self.steps(received, now, cx);
        if let Next::Over(mut closed) = next {
            self.tell_over(&mut closed);
            let until = if closed.by == ClosedBy::Link { now } else { now + limits::CLOSE_TIMEOUT };
            self.phase = Phase::Flushing { closed, until };
            return Poll::Ready(());
        }
        let sent = self.send(cx);
        let wake_at = match next {
            // The batch was full: go on filling it.
            Next::More(_) if sent == Sent::All => return Poll::Ready(()),
            Next::Sleep(wake_at) if sent == Sent::All && received == Received::Frames => {
                self.settled = Some((now, wake_at));
                return Poll::Ready(());
            }
            Next::More(wake_at) | Next::Sleep(wake_at) => wake_at,
            Next::Over(_) => None,
        };
        let idle = match received {
            Received::Nothing => true,
            Received::Paused => !self.reads,
            Received::Frames | Received::Failed => false,
        };
        if !idle || sent == Sent::Failed || self.sleep_until(wake_at, now, cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Received {
        if !self.reads && !self.broken {
            return Received::Paused;
        }
        match self.link.poll_recv(cx, &mut self.received) {
            Poll::Ready(Ok(())) => Received::Frames,
            // What the peer sent before its end was worth reading, its CLOSE above all; nothing more will come.
            Poll::Pending if self.broken => Received::Failed,
            Poll::Pending => Received::Nothing,
            Poll::Ready(Err(error)) => {
                self.failure.get_or_insert(error);
                Received::Failed
            }
        }
    }

    /// Steps and tells until nothing more comes of what was told: answers that are given in place are to leave together.
    fn steps(&mut self, mut received: Received, now: Instant, cx: &Context<'_>) -> Next {
        loop {
            let next = self.step(received, now, cx);
            for waker in self.wakers.drain(..) {
                waker.wake();
            }
            let told = !self.events.is_empty();
            self.tell(now);
            if !told || matches!(next, Next::Over(_)) {
                return next;
            }
            received = Received::Nothing;
        }
    }

    /// Feeds the session and takes what it says, all under one lock.
    fn step(&mut self, received: Received, now: Instant, cx: &Context<'_>) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.driver_works();
        state.take_late(now, &mut self.wakers);
        if shared.whole.is_some() {
            state.session.observe(now);
        }
        for frame in self.received.drain(..) {
            if let Err(error) = state.session.handle_frame(frame, now) {
                debug!(peer = %shared.peer, %error, "the peer broke the protocol");
            }
        }
        if received == Received::Failed {
            match &self.failure {
                // The peer is there, and is told what is wrong.
                Some(LinkError::Protocol(error)) => state.session.handle_error(ProtocolError::from(error.clone())),
                _ => state.session.handle_link_closed(),
            }
        }
        if self.armed.is_some_and(|at| now >= at) {
            self.armed = None;
            let overdue = |since| now.saturating_duration_since(since) >= limits::FRAME_TIMEOUT;
            if self.link.receiving_since().is_some_and(overdue) {
                state.session.close(CloseCode::FrameTimeout, "a frame began and did not end in time".to_owned());
            }
            state.session.handle_timeout(now);
        }
        let next = loop {
            // A session that is over has no more to send than its CLOSE.
            let output = if self.has_room() || state.session.is_over() {
                state.session.poll()
            } else if let Some(event) = state.session.poll_event() {
                Output::Event(event)
            } else {
                break Next::More(earlier(state.session.wake_at(), state.next_deadline()));
            };
            match output {
                Output::Transmit(frame) => {
                    self.batch_bytes += body_len(&frame);
                    self.batch.push_back(frame);
                }
                Output::Event(Event::Stream(key)) => state.take_wakers(key, &mut self.wakers),
                Output::Event(Event::Request(key, head)) => {
                    let begun = state.begin_body(key);
                    self.events.push(Happened::Request(key, head, begun));
                }
                Output::Event(event) => self.events.push(Happened::Event(event)),
                Output::Idle { wake_at } => break Next::Sleep(earlier(wake_at, state.next_deadline())),
                Output::Closed(closed) => break Next::Over(closed),
            }
        };
        self.reads = state.session.wants_read();
        if self.events.is_empty() {
            state.driver_sleeps(cx);
        }
        next
    }

    fn has_room(&self) -> bool {
        self.batch.len() < BATCH_FRAMES && self.batch_bytes < BATCH_BYTES
    }

    /// Sends what is ready, and flushes.
    fn send(&mut self, cx: &mut Context<'_>) -> Sent {
        if self.broken {
            return Sent::Failed;
        }
        if self.batch.is_empty() && !self.unflushed {
            return Sent::All;
        }
        self.unflushed = true;
        match self.link.poll_send(cx, &mut self.batch) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                self.batch_bytes = 0;
                Sent::All
            }
            Poll::Ready(Err(error)) => {
                self.failure.get_or_insert(error);
                self.broken = true;
                Sent::Failed
            }
            Poll::Pending => {
                self.batch_bytes = self.batch.iter().map(body_len).sum();
                Sent::Blocked
            }
        }
    }

    /// Arms the timer. It is only ever moved to an earlier time: a deadline that moves back with every frame is found
    /// out when the timer fires, so that nothing is paid for it on each turn.
    fn sleep_until(&mut self, wake_at: Option<Instant>, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let frame_due = self.link.receiving_since().map(|since| since + limits::FRAME_TIMEOUT);
        let Some(wake_at) = earlier(wake_at, frame_due) else { return Poll::Pending };
        // By way of a duration, because the environment's clock need not be tokio's.
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        if self.armed.is_none_or(|armed| wake_at < armed) {
            self.armed = Some(wake_at);
            let left = wake_at.saturating_duration_since(now);
            sleep.as_mut().reset(tokio::time::Instant::now() + left);
        }
        let fired = sleep.as_mut().poll(cx);
        if fired.is_ready() {
            // Due, by whatever clock.
            self.armed = self.armed.map(|armed| armed.min(now));
        }
        fired
    }

    /// Tells the application what happened.
    fn tell(&mut self, now: Instant) {
        let mut events = std::mem::take(&mut self.events);
        for happened in events.drain(..) {
            match happened {
                Happened::Request(key, head, begun) => self.request(key, head, begun, now),
                Happened::Event(event) => self.event(event, now),
            }
        }
        self.events = events;
    }

    fn request(&mut self, key: StreamKey, head: RequestHead, begun: Begun, now: Instant) {
        let responder = Responder::new(Arc::clone(&self.shared), key);
        let body = Body::incoming(&self.shared, key, begun, head.content_length(), None);
        let inbound = Inbound::new(head, body, now);
        let Self { application, .. } = self;
        guarded(|| application.arrived(inbound, responder));
    }

    fn event(&mut self, event: Event, now: Instant) {
        let event = match event {
            Event::Joining(joining) => {
                let Self { application, handle, .. } = self;
                let answer = guarded(|| application.join(*joining, handle));
                return self.shared.look(|state| match answer {
                    Some(Ok(accepted)) => state.session.welcome(accepted, now),
                    Some(Err(refused)) => state.session.refuse(refused.code, refused.text),
                    None => state.session.refuse(CloseCode::Shutdown, "an internal error".to_owned()),
                });
            }
            Event::Welcomed(welcome) => ConnectionEvent::Welcomed(welcome),
            Event::Endpoints { revision, endpoints } => ConnectionEvent::Endpoints { revision, endpoints },
            Event::EndpointsResult { revision, refused } => ConnectionEvent::EndpointsResult { revision, refused },
            Event::Routable => ConnectionEvent::Routable,
            Event::Heartbeat { status, in_flight, load } => ConnectionEvent::Heartbeat { status, in_flight, load },
            Event::RoundTrip(average) => {
                self.shared.set_round_trip(average);
                ConnectionEvent::RoundTrip(average)
            }
            Event::HeartbeatMissed => ConnectionEvent::HeartbeatMissed,
            Event::Silence(silence) => ConnectionEvent::Silence(silence),
            Event::Lease { limit } => ConnectionEvent::Lease { limit },
            Event::PeerDraining => {
                self.shared.draining.store(true, Ordering::Relaxed);
                ConnectionEvent::PeerDraining
            }
            Event::Drained => ConnectionEvent::Drained,
            // These two never come here, and others are of a later session.
            Event::Request(..) | Event::Stream(_) => return,
            other => return debug!(?other, "an event that this driver does not know"),
        };
        let Self { application, handle, .. } = self;
        guarded(|| application.event(event, handle));
    }

    /// Flushes and closes the link after the session's end.
    fn wind_up(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            let now = self.shared.now();
            let (closed, until, flushed) = match &self.phase {
                Phase::Flushing { closed, until } => (closed.clone(), *until, false),
                Phase::Lingering { closed, until } => (closed.clone(), *until, true),
                Phase::Running | Phase::Over => return Poll::Pending,
            };
            if now >= until || self.sleep_until(Some(until), now, cx).is_ready() {
                return Poll::Ready(closed);
            }
            if flushed {
                return self.drain_link(cx).map(|()| closed);
            }
            match self.send(cx) {
                Sent::Blocked => return Poll::Pending,
                Sent::Failed => return Poll::Ready(closed),
                Sent::All => {}
            }
            if self.link.poll_close(cx).is_pending() {
                return Poll::Pending;
            }
            // The peer that said CLOSE waits for our end; the one that hears ours may still be sending, and a reset
            // must not overtake what it is told.
            if closed.by == ClosedBy::Peer {
                return Poll::Ready(closed);
            }
            self.phase = Phase::Lingering { closed, until };
        }
    }

    /// Reads to the peer's end.
    fn drain_link(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.link.poll_recv(cx, &mut self.received) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.received.clear(),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
        }
    }

    /// The session is over, and the application is told, exactly once: before the peer, who may be long in taking its CLOSE
    /// or not be there at all. Nothing is to be routed here meanwhile.
    fn tell_over(&mut self, closed: &mut Closed) {
        if std::mem::replace(&mut self.told_over, true) {
            return;
        }
        if closed.by == ClosedBy::Link
            && let Some(failure) = &self.failure
        {
            closed.text = failure.to_string();
        }
        let event = ConnectionEvent::Closed(closed.clone());
        let Self { application, handle, .. } = self;
        guarded(|| application.event(event, handle));
    }

    /// The end, exactly once: every waiter wakes.
    fn finish(&mut self, mut closed: Closed) -> Closed {
        self.phase = Phase::Over;
        self.shared.uploads.close();
        self.shared.look(|state| state.take_all_wakers(&mut self.wakers));
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        self.tell_over(&mut closed);
        self.shared.closed.send_replace(Some(closed.clone()));
        closed
    }
}

impl Future for Driver {
    type Output = Closed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let this = self.get_mut();
        this.settled = None;
        for _ in 0..TURNS {
            if matches!(this.phase, Phase::Running) {
                if this.turn(cx).is_pending() {
                    return Poll::Pending;
                }
            } else {
                return match this.wind_up(cx) {
                    Poll::Ready(closed) => Poll::Ready(this.finish(closed)),
                    Poll::Pending => Poll::Pending,
                };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let closed = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Over => return,
            Phase::Flushing { closed, .. } | Phase::Lingering { closed, .. } => closed,
            Phase::Running => {
                self.shared.look(|state| state.session.handle_link_closed());
                Closed { by: ClosedBy::Link, code: CloseCode::Shutdown, text: "the link was dropped".to_owned() }
            }
        };
        self.finish(closed);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Driver({})", self.shared.peer)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Nothing,
    /// The session takes nothing now: the peer makes us answer more than it reads.
    Paused,
    Frames,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The link takes no more now.
    Blocked,
    Failed,
}

/// What the session wants next.
enum Next {
    /// It has more to send than the batch takes.
    More(Option<Instant>),
    Sleep(Option<Instant>),
    Over(Closed),
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A user's panic ends no more than the call it was in; what it held is dropped, which cancels its stream.
fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(call));
    if result.is_err() {
        error!("an application panicked");
    }
    result.ok()
}

fn body_len(frame: &Frame) -> usize {
    match frame {
        Frame::Request(request) => request.body.len(),
        Frame::Response(response) => response.body.len(),
        Frame::RequestData(data) | Frame::ResponseData(data) => match &data.payload {
            DataPayload::Bytes { bytes, .. } => bytes.len(),
            DataPayload::Trailers(_) => 0,
        },
        _ => 0,
    }
}
