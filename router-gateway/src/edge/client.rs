//! ClientConnection: what a client connection's task, its requests and their bodies share.
//!
//! It is counters and flags, and the rest of a body that nobody wants: nobody waits on it, and it serves nothing itself.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use router_common::problem::Problem;
use tokio::time::{Sleep, sleep};

use super::held::HeldBytes;
use super::opened::Opened;
use crate::http_semantics::Introduction;

/// What an unread request body may still bring before its connection is given up, in bytes (SPEC 12: early responses).
const DISCARD_BYTES: u64 = 64 * 1024;
/// How long it may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// Shared by a connection's task, its requests and their bodies.
pub struct ClientConnection {
    peer: SocketAddr,
    /// Request bytes held for this connection (SPEC 6).
    pub(super) held: Arc<HeldBytes>,
    /// Requests whose response or whose own body has not come to its end.
    open: AtomicU32,
    /// A request was handed to the stack since the last flush: what is written answers it.
    answering: AtomicBool,
    /// Something began or ended since the task last looked: the time of being idle begins anew.
    stirred: AtomicBool,
    /// A head has begun and is not complete.
    partial_head: AtomicBool,
    /// The head that was read last had two lengths.
    two_lengths: AtomicBool,
    /// A body was not read to its end, so that closing must linger.
    unread: AtomicBool,
    /// The rest of a body will not be read, so that the HTTP library closes after the answer.
    given_up: AtomicBool,
    /// What was written last was not taken: the client reads slowly, or not at all.
    blocked: AtomicBool,
    /// The next answer is the last one here, and says so.
    last: AtomicBool,
    /// How the last request's sender presented itself.
    introduction: Mutex<Option<Arc<Introduction>>>,
    leftover: Mutex<Leftovers>,
    has_leftover: AtomicBool,
    task: AtomicWaker,
}

/// What is left to the connection's task, as long as there is one.
#[derive(Default)]
struct Leftovers {
    body: Option<Box<Leftover>>,
    /// Begins when its answer has been written.
    tunnel: Option<Box<Opened>>,
    /// The connection has ended: nobody will read anything any more.
    is_over: bool,
}

/// The rest of a request body that nobody wants.
struct Leftover {
    body: Incoming,
    left: u64,
    until: Pin<Box<Sleep>>,
    _open: OpenGuard,
}

impl ClientConnection {
    pub(super) fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            held: Arc::default(),
            open: AtomicU32::new(0),
            answering: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            partial_head: AtomicBool::new(false),
            two_lengths: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            last: AtomicBool::new(false),
            introduction: Mutex::new(None),
            leftover: Mutex::default(),
            has_leftover: AtomicBool::new(false),
            task: AtomicWaker::new(),
        })
    }

    /// The other end of the connection: the client, or the proxy before it.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How the sender of a request on this connection presents itself: as before, for the most part.
    ///
    /// # Errors
    /// `bad_request` if the request's host is not what HTTP asks for.
    pub fn introduction<B>(&self, request: &Request<B>) -> Result<Arc<Introduction>, Problem> {
        let (version, uri, headers) = (request.version(), request.uri(), request.headers());
        let mut last = self.introduction.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(known) if known.fits(version, uri, headers) => Ok(Arc::clone(known)),
            _ => Ok(Arc::clone(last.insert(Arc::new(Introduction::new(self.peer, "http", (version, uri, headers))?)))),
        }
    }

    /// A request goes to the stack. Says whether its head had two lengths.
    pub(super) fn begin(&self) -> bool {
        self.answering.store(true, Ordering::Relaxed);
        // There is a next request: whatever was unread has been read after all.
        self.unread.store(false, Ordering::Relaxed);
        self.two_lengths.swap(false, Ordering::Relaxed)
    }

    /// Whether something has begun or ended since this was last asked.
    pub(super) fn has_stirred(&self) -> bool {
        self.stirred.swap(false, Ordering::Relaxed)
    }

    /// The task to wake when there is a rest to be read.
    pub(super) fn driven_by(&self, task: &std::task::Waker) {
        self.task.register(task);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Whether one message is open and no other: for the most part, a response whose request has come whole.
    pub(super) fn has_one_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 1
    }

    pub(super) fn owes_nothing(&self) -> bool {
        !self.answering.load(Ordering::Relaxed) && !self.is_busy()
    }

    /// Whether nothing was begun that the HTTP library has not finished: it could be built anew and nobody would see it.
    pub(super) fn is_quiet(&self) -> bool {
        let any = |flags: [&AtomicBool; 3]| flags.iter().any(|flag| flag.load(Ordering::Relaxed));
        self.owes_nothing() && !any([&self.partial_head, &self.unread, &self.given_up])
    }

    pub(super) fn flushed(&self) {
        if self.answering.load(Ordering::Relaxed) && !self.is_busy() {
            self.answering.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn note_partial_head(&self, begun: bool) {
        self.partial_head.store(begun, Ordering::Relaxed);
    }

    pub(super) fn note_head(&self, two_lengths: bool) {
        self.two_lengths.store(two_lengths, Ordering::Relaxed);
    }

    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Says that nobody will read the rest of a body: what follows it cannot be told from it.
    pub(super) fn give_up(&self) {
        self.leave_unread();
        self.given_up.store(true, Ordering::Relaxed);
        self.give_notice();
    }

    /// Makes the next answer this connection's last.
    pub(super) fn give_notice(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// Whether the answer at hand is this connection's last.
    pub(super) fn answers_last(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Notes whether the client takes what is written; says whether it did not before.
    pub(super) fn set_blocked(&self, blocked: bool) -> bool {
        self.blocked.swap(blocked, Ordering::Relaxed)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Takes over a body that nobody reads any more: a little more of it is read, so that the connection lives on.
    pub(super) fn leave(&self, body: Incoming, open: OpenGuard) {
        if body.size_hint().lower() > DISCARD_BYTES {
            return self.give_up();
        }
        self.leave_unread();
        let mut leftovers = self.leftovers();
        if leftovers.is_over {
            return;
        }
        let leftover = Leftover { body, left: DISCARD_BYTES, until: Box::pin(sleep(DISCARD_TIME)), _open: open };
        let before = leftovers.body.replace(Box::new(leftover));
        self.has_leftover.store(true, Ordering::Release);
        drop(leftovers);
        drop(before);
        self.task.wake();
    }

    /// The connection's task ends. What was left to it holds the connection, and would for ever.
    pub(super) fn end(&self) {
        let mut leftovers = self.leftovers();
        leftovers.is_over = true;
        let left = (leftovers.body.take(), leftovers.tunnel.take());
        drop(leftovers);
        drop(left);
    }

    /// Leaves a tunnel to the connection's task, which is the one that calls.
    pub(super) fn leave_tunnel(&self, opened: Opened) {
        self.leftovers().tunnel = Some(Box::new(opened));
    }

    /// The tunnel that was left, once the HTTP library is done with its answer.
    pub(super) fn take_tunnel(&self) -> Option<Opened> {
        self.leftovers().tunnel.take().map(|opened| *opened)
    }

    fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on in what was left. Only the connection's task calls it.
    pub(super) fn poll_leftover(&self, cx: &mut Context<'_>) {
        if !self.has_leftover.load(Ordering::Acquire) {
            return;
        }
        let mut leftovers = self.leftovers();
        let Some(leftover) = leftovers.body.as_mut() else { return };
        let outcome = loop {
            match Pin::new(&mut leftover.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match leftover.left.checked_sub(length) {
                        Some(left) => leftover.left = left,
                        None => break Discarded::GivenUp,
                    }
                }
                Poll::Ready(Some(Err(_))) => break Discarded::GivenUp,
                Poll::Ready(None) => break Discarded::Whole,
                Poll::Pending if leftover.until.as_mut().poll(cx).is_ready() => break Discarded::GivenUp,
                Poll::Pending => return,
            }
        };
        if matches!(outcome, Discarded::Whole) {
            self.unread.store(false, Ordering::Relaxed);
        }
        let gone = leftovers.body.take();
        self.has_leftover.store(false, Ordering::Release);
        drop(leftovers);
        drop(gone);
        // The HTTP library was polled before; what it does about the end of the body, it does when polled again.
        cx.waker().wake_by_ref();
    }
}

enum Discarded {
    Whole,
    GivenUp,
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("peer", &self.peer).field("open", &self.open).finish_non_exhaustive()
    }
}

/// One open message of a connection; it is over when this is dropped.
pub(super) struct OpenGuard(Arc<ClientConnection>);

impl OpenGuard {
    pub(super) fn new(connection: Arc<ClientConnection>) -> Self {
        connection.open.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }

    pub(super) fn connection(&self) -> &Arc<ClientConnection> {
        &self.0
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.stirred.store(true, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
