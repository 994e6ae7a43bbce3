//! What the driver of a link and the users of its streams share: the session, and who waits for what.
//!
//! One mutex, held for a moment and never across an await, stands around the session; users act on it directly and wake
//! the driver if it sleeps. There is no channel and no task a stream. Nothing of a user's runs under the lock but the
//! hook of a lease that is freed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use router_common::frame::Reason;
use router_common::session::{Carrier, Closed, Read, Session, StreamKey};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::environment::Environment;
use crate::link::PeerInfo;

/// Slots of the table of waiters that are kept when nobody waits.
const KEPT: usize = 1024;

pub(crate) struct Shared {
    state: Mutex<State>,
    environment: Arc<dyn Environment>,
    pub(crate) peer: PeerInfo,
    /// Where a message is one frame, the largest one, in bytes.
    pub(crate) whole: Option<usize>,
    /// Uploads that go on after their response's head. Each ends with its stream.
    pub(crate) uploads: TaskTracker,
    /// In nanoseconds; 0: not known yet.
    round_trip: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) closed: watch::Sender<Option<Closed>>,
}

/// What the lock protects.
pub(crate) struct State {
    pub(crate) session: Session,
    /// What heads of this side are encoded in: they are many, small, and soon gone.
    pub(crate) heads: BytesMut,
    waiting: Vec<Waiting>,
    /// Slots of `waiting` that have a key.
    occupied: usize,
    /// No deadline of a watched stream is before this; `None`: there is none. It may be early, because a stream that ends
    /// takes nothing back.
    next_deadline: Option<Instant>,
    /// Wakes the driver.
    driver: Option<Waker>,
    /// The driver looks at nothing until it is woken.
    driver_sleeps: bool,
}

/// Who waits on one stream. The slot is reused by later streams; `key` tells them apart.
#[derive(Default)]
struct Waiting {
    key: Option<StreamKey>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    watchers: Watchers,
    /// When reader and watchers are woken in any case.
    deadline: Option<Instant>,
}

/// Who wants to know of a stream's end: nearly always one.
#[derive(Default)]
struct Watchers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Watchers {
    fn add(&mut self, waker: &Waker) {
        if self.first.iter().chain(&self.more).any(|known| known.will_wake(waker)) {
            return;
        }
        match &mut self.first {
            None => self.first = Some(waker.clone()),
            Some(_) => self.more.push(waker.clone()),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn take(&mut self) -> impl Iterator<Item = Waker> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.more))
    }
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// A head, body bytes, or the end.
    Read,
    /// Room to send, or the end.
    Write,
}

impl Shared {
    pub(crate) fn new(session: Session, peer: PeerInfo, environment: Arc<dyn Environment>) -> Arc<Self> {
        let whole = match session.carrier() {
            Carrier::Stream => None,
            Carrier::Datagrams { max_frame } => Some(max_frame as usize),
        };
        Arc::new(Self {
            whole,
            state: Mutex::new(State {
                session,
                heads: BytesMut::new(),
                waiting: Vec::new(),
                occupied: 0,
                next_deadline: None,
                driver: None,
                driver_sleeps: false,
            }),
            environment,
            peer,
            uploads: TaskTracker::new(),
            round_trip: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            closed: watch::Sender::new(None),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.environment.now()
    }

    pub(crate) fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// Acts on the session, and wakes the driver: there may be something to send now.
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let driver = state.take_driver();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Acts on the session in a way that gives nothing to send, or from the driver itself.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.lock())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere is no reason to take all streams of the link down with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application's end of a stream is gone. An unfinished one is cancelled with `reason`.
    pub(crate) fn release(&self, key: StreamKey, unfinished: Option<Reason>) {
        self.act(|state| {
            if let Some(reason) = unfinished {
                state.session.cancel(key, reason, "");
            }
            state.release(key);
        });
    }

    pub(crate) fn set_round_trip(&self, average: Duration) {
        let nanos = u64::try_from(average.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.round_trip.store(nanos, Ordering::Relaxed);
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl State {
    /// Remembers whom to wake. Remembered once: to be called again after each wake-up.
    pub(crate) fn wait(&mut self, key: StreamKey, interest: Interest, cx: &Context<'_>) {
        let waiting = self.waiting_on(key);
        let slot = match interest {
            Interest::Read => &mut waiting.reader,
            Interest::Write => &mut waiting.writer,
        };
        match slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Remembers one more who wants to know of the stream's end.
    pub(crate) fn watch(&mut self, key: StreamKey, cx: &Context<'_>) {
        self.waiting_on(key).watchers.add(cx.waker());
    }

    /// Whoever reads or watches the stream is woken at `deadline` too. Returns whether that is sooner than anything before: then the
    /// driver is to be woken.
    pub(crate) fn watch_until(&mut self, key: StreamKey, deadline: Instant) -> bool {
        self.waiting_on(key).deadline = Some(deadline);
        let sooner = self.next_deadline.is_none_or(|next| deadline < next);
        if sooner {
            self.next_deadline = Some(deadline);
        }
        sooner
    }

    /// No deadline is before this.
    pub(crate) const fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Takes whoever reads or watches a stream whose deadline has passed, and finds out which deadline is next. All streams are
    /// looked at: that is once for as long as the shortest of their deadlines is away, since most streams end before it.
    pub(crate) fn take_late(&mut self, now: Instant, into: &mut Vec<Waker>) {
        if self.next_deadline.is_none_or(|next| now < next) {
            return;
        }
        self.next_deadline = None;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.key.is_some()) {
            let Some(deadline) = waiting.deadline else { continue };
            if deadline <= now {
                waiting.deadline = None;
                into.extend(waiting.reader.take());
                into.extend(waiting.watchers.take());
            } else if self.next_deadline.is_none_or(|next| deadline < next) {
                self.next_deadline = Some(deadline);
            }
        }
    }

    fn waiting_on(&mut self, key: StreamKey) -> &mut Waiting {
        // As many slots as the session has streams at a time, which is bounded there.
        if self.waiting.len() <= key.slot() {
            self.waiting.resize_with(key.slot() + 1, Waiting::default);
        }
        let waiting = &mut self.waiting[key.slot()];
        if waiting.key != Some(key) {
            if waiting.key.replace(key).is_none() {
                self.occupied += 1;
            }
            waiting.reader = None;
            waiting.writer = None;
            waiting.watchers = Watchers::default();
            waiting.deadline = None;
        }
        waiting
    }

    /// Takes whoever can go on with a stream that moved, to be woken when the lock is free again.
    pub(crate) fn take_wakers(&mut self, key: StreamKey, into: &mut Vec<Waker>) {
        let Some(waiting) = self.waiting.get_mut(key.slot()).filter(|waiting| waiting.key == Some(key)) else {
            return;
        };
        into.extend(waiting.reader.take());
        if waiting.writer.is_none() && waiting.watchers.is_empty() {
            return;
        }
        let room = self.session.send_capacity(key);
        if room != Ok(0) {
            into.extend(waiting.writer.take());
        }
        if room.is_err() {
            into.extend(waiting.watchers.take());
        }
    }

    /// Takes everybody.
    pub(crate) fn take_all_wakers(&mut self, into: &mut Vec<Waker>) {
        for waiting in &mut self.waiting {
            into.extend(waiting.reader.take());
            into.extend(waiting.writer.take());
            into.extend(waiting.watchers.take());
        }
    }

    /// Lets go of a stream. Whoever still waits on it is woken, and finds it closed.
    pub(crate) fn release(&mut self, key: StreamKey) {
        self.session.release(key);
        let Some(waiting) = self.waiting.get_mut(key.slot()).filter(|waiting| waiting.key == Some(key)) else {
            return;
        };
        waiting.key = None;
        self.occupied -= 1;
        let waiters = [waiting.reader.take(), waiting.writer.take()];
        for waker in waiters.into_iter().flatten().chain(waiting.watchers.take()) {
            waker.wake();
        }
        if self.occupied == 0 && self.waiting.len() > KEPT {
            // After a burst.
            self.waiting = Vec::new();
        }
    }

    /// The driver's waker, once for each time that it sleeps.
    pub(crate) fn take_driver(&mut self) -> Option<Waker> {
        if std::mem::take(&mut self.driver_sleeps) { self.driver.clone() } else { None }
    }

    /// The driver works, and will look at what others do meanwhile.
    pub(crate) const fn driver_works(&mut self) {
        self.driver_sleeps = false;
    }

    /// The driver goes to sleep and wants to be woken by whoever acts.
    pub(crate) fn driver_sleeps(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.driver = Some(cx.waker().clone()),
        }
        self.driver_sleeps = true;
    }

    /// Reads what has arrived of a body, so that a small one is taken whole under the lock that is held anyway.
    pub(crate) fn begin_body(&mut self, key: StreamKey) -> Begun {
        match self.session.read(key) {
            Read::End => Begun::Whole(Bytes::new()),
            Read::Data(bytes) => match self.session.read(key) {
                Read::End => Begun::Whole(bytes),
                Read::Pending => Begun::Partial(Some(bytes), None),
                then => Begun::Partial(Some(bytes), Some(then)),
            },
            Read::Pending => Begun::Partial(None, None),
            then => Begun::Partial(None, Some(then)),
        }
    }
}

/// The beginning of a body.
#[derive(Debug)]
pub(crate) enum Begun {
    /// All of it, and no trailers.
    Whole(Bytes),
    /// First bytes, and what was read behind them.
    Partial(Option<Bytes>, Option<Read>),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("peer", &self.peer).finish_non_exhaustive()
    }
}
