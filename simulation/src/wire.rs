//! What can happen to connections, whatever they are made of: a host that dies with all its sockets, and the state of the
//! wire between two hosts.
//!
//! It knows no transport. Who carries bytes or frames asks here before each step, and is woken when the answer changes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use router_link::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// The network card of one host: it knows the host's connections, so that a crash closes them in a fixed order.
///
/// A runtime that is dropped drops its tasks in the order of their numbers, which it shares with all runtimes of the
/// process; would the tasks close their connections then, no two runs were alike.
#[derive(Default)]
pub(crate) struct Card {
    dead: AtomicBool,
    dies: Notify,
    slots: Mutex<Vec<Weak<dyn Close>>>,
}

/// Something that a crash closes.
trait Close: Send + Sync {
    fn close(&self);
}

/// Where a connection is, until its host crashes.
pub(crate) struct Slot<T>(Mutex<Option<T>>);

impl<T: Send> Close for Slot<T> {
    fn close(&self) {
        let taken = self.get().take();
        drop(taken);
    }
}

impl<T> Slot<T> {
    pub(crate) fn get(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Card {
    /// The next step closes all connections; from now on the host can do nothing with them.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.dies.notify_one();
    }

    /// The host has come back.
    pub(crate) fn revive(&self) {
        self.dead.store(false, Ordering::Relaxed);
        self.slots().clear();
    }

    /// To be run beside the host's software.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            self.dies.notified().await;
            let slots = std::mem::take(&mut *self.slots());
            for slot in slots.iter().filter_map(Weak::upgrade) {
                slot.close();
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Takes a connection of this host in.
    pub(crate) fn hold<T: Send + 'static>(&self, connection: T) -> Arc<Slot<T>> {
        let slot = Arc::new(Slot(Mutex::new(Some(connection))));
        let mut slots = self.slots();
        slots.retain(|slot| slot.strong_count() > 0);
        let of_any: Weak<dyn Close> = Arc::downgrade(&slot) as Weak<dyn Close>;
        slots.push(of_any);
        slot
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<dyn Close>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way between two hosts. Over the simulated network only resets are made here: the rest is the network's own.
#[derive(Default)]
pub(crate) struct Wire(Mutex<State>);

#[derive(Default)]
struct State {
    held: bool,
    partitioned: bool,
    partitions: u64,
    resets: u64,
    /// Longest way of a frame, where it is not the usual one.
    delay: Option<Duration>,
    wakers: Vec<Waker>,
}

/// How a wire was when a connection was made on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    partitions: u64,
    resets: u64,
}

/// What a wire does with a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// Nothing passes now.
    Held,
    /// Something of it was lost: nothing ever passes again, and nobody is told.
    Severed,
    Reset,
}

impl Wire {
    /// Resets all connections.
    pub(crate) fn reset(&self) {
        self.change(|state| state.resets += 1);
    }

    pub(crate) fn hold(&self) {
        self.change(|state| state.held = true);
    }

    pub(crate) fn partition(&self) {
        self.change(|state| {
            state.partitioned = true;
            state.partitions += 1;
        });
    }

    /// Everything passes again, as fast as usual. What was lost stays lost.
    pub(crate) fn mend(&self) {
        self.change(|state| {
            state.held = false;
            state.partitioned = false;
            state.delay = None;
        });
    }

    pub(crate) fn delay(&self, most: Duration) {
        self.change(|state| state.delay = Some(most));
    }

    pub(crate) fn longest_way(&self) -> Option<Duration> {
        self.state().delay
    }

    /// For a connection that is made now; `None` if none can be.
    pub(crate) fn connect(&self) -> Option<Made> {
        let state = self.state();
        (!state.partitioned).then_some(Made { partitions: state.partitions, resets: state.resets })
    }

    /// What becomes of a connection, and a waker for when that changes.
    pub(crate) fn fate(&self, made: Made, cx: &Context<'_>) -> Fate {
        let mut state = self.state();
        if state.resets != made.resets {
            return Fate::Reset;
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        match (state.partitions != made.partitions, state.held) {
            (true, _) => Fate::Severed,
            (false, true) => Fate::Held,
            (false, false) => Fate::Passes,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A byte stream of a host, on a wire.
pub(crate) struct Socket<S> {
    stream: Arc<Slot<S>>,
    card: Arc<Card>,
    wire: Arc<Wire>,
    made: Made,
    /// Bytes of one write at most.
    piece: usize,
}

impl<S: Unpin + Send + 'static> Socket<S> {
    pub(crate) fn new(stream: S, card: &Arc<Card>, wire: Arc<Wire>, made: Made, piece: usize) -> Self {
        Self { stream: card.hold(stream), card: Arc::clone(card), wire, made, piece }
    }

    /// Does something with the stream. Of a host that has crashed nothing is heard any more.
    fn with<T>(
        &self,
        cx: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        match self.wire.fate(self.made, cx) {
            Fate::Passes => {}
            Fate::Held | Fate::Severed => return Poll::Pending,
            Fate::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        match &mut *self.stream.get() {
            Some(stream) => act(Pin::new(stream), cx),
            None => Poll::Pending,
        }
    }
}

/// A simulated host is one runtime for its whole life.
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for Socket<S> {
    type Detached = Self;

    fn detach(self) -> io::Result<Self> {
        Ok(self)
    }

    fn attach(detached: Self) -> io::Result<Self> {
        Ok(detached)
    }
}

impl<S: AsyncRead + Unpin + Send + 'static> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin + Send + 'static> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = bytes.get(..self.piece).unwrap_or(bytes);
        self.with(cx, |stream, cx| stream.poll_write(cx, piece))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
