//! Seats: the links of a listener, each with an inbox, and what must not begin again.
//!
//! It does not read the socket, and knows nothing of what datagrams say.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;
use router_common::frame::Frame;
use router_common::limits;
use rustc_hash::FxBuildHasher;
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::channel::Channel;
use crate::cookie::{COOKIE_LIFE, Cookie};
use crate::counters::Counters;
use crate::packet::Dropped;
use crate::socket;

/// Links of one listener at a time.
const LINKS: usize = 16 * 1024;
/// Links that nobody has accepted yet.
const BACKLOG: usize = limits::UNWELCOMED;
/// Connections whose cookie would still be good, so that they could be begun once more.
const SPENT: usize = 64 * 1024;
/// Datagrams that wait for one link, by number and in bytes.
const INBOX: usize = 256;
const INBOX_BYTES: usize = 4 * 1024 * 1024;

/// What a listener, its links and the task that reads for them share.
pub(crate) struct Shared {
    /// Ends the task.
    ended: CancellationToken,
    /// The largest datagram to send.
    pub(crate) datagram: usize,
    pub(crate) counters: Arc<Counters>,
    table: Mutex<Table>,
}

/// A link that is to be made.
pub(crate) struct Accepted {
    pub(crate) seat: Seat,
    pub(crate) cookie: Cookie,
    pub(crate) start: Start,
    /// What its session is told first.
    pub(crate) frames: Vec<Frame>,
}

/// How it begins.
pub(crate) enum Start {
    /// Its keys are known.
    Standing(Box<Channel>),
    /// Its MAC fits no secret. The session says so, to whoever sent the HELLO of this hash.
    Refusing([u8; 32]),
}

#[derive(Default)]
struct Table {
    links: HashMap<u64, Entry, FxBuildHasher>,
    spent: Spent,
    backlog: VecDeque<Accepted>,
    acceptor: Option<Waker>,
    /// Nobody accepts any more.
    is_deaf: bool,
    /// Nobody reads any more.
    is_over: bool,
}

struct Entry {
    peer: SocketAddr,
    inbox: Arc<Inbox>,
}

/// Connections that are over: a recorded handshake must not begin one of them again.
#[derive(Default)]
struct Spent {
    set: HashSet<u64, FxBuildHasher>,
    until: VecDeque<(Instant, u64)>,
}

#[derive(Default)]
struct Inbox(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    queue: VecDeque<BytesMut>,
    bytes: usize,
    waker: Option<Waker>,
    /// Where the link goes on, when it has taken what is here.
    elsewhere: Option<std::net::UdpSocket>,
    is_over: bool,
}

/// Whoever holds one keeps the task alive.
pub(crate) type Keeper = Arc<DropGuard>;

/// A link's place.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    inbox: Arc<Inbox>,
    connection: u64,
    peer: SocketAddr,
    /// A handshake like this one must not begin another link.
    is_authentic: bool,
    _keeper: Keeper,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(ended: CancellationToken, datagram: usize, counters: Arc<Counters>) -> Self {
        Self { ended, datagram, counters, table: Mutex::default() }
    }

    pub(crate) fn links(&self) -> usize {
        locked(&self.table).links.len()
    }

    /// Whether anybody accepts.
    pub(crate) fn is_accepting(&self) -> bool {
        !locked(&self.table).is_deaf
    }

    /// Puts a datagram into the inbox of the link whose it is.
    pub(crate) fn post(
        &self,
        connection: u64,
        from: SocketAddr,
        datagram: BytesMut,
        woken: &mut Vec<Waker>,
    ) -> Result<(), Dropped> {
        let table = locked(&self.table);
        let entry = table.links.get(&connection).filter(|entry| entry.peer == from).ok_or(Dropped::Foreign)?;
        entry.inbox.put(datagram, woken)
    }

    /// Whether this connection may begin: none of the kind has begun, and there is room.
    pub(crate) fn may_begin(&self, connection: u64, now: Instant) -> Result<(), Dropped> {
        let mut table = locked(&self.table);
        table.spent.forget(now);
        if table.links.contains_key(&connection) || table.spent.set.contains(&connection) {
            return Err(Dropped::Replayed);
        }
        let is_full = table.links.len() >= LINKS
            || table.backlog.len() >= BACKLOG
            || table.spent.set.len() + table.links.len() >= SPENT;
        if is_full || table.is_deaf { Err(Dropped::NoRoom) } else { Ok(()) }
    }

    /// Takes a link in, for whoever accepts next.
    pub(crate) fn admit(
        self: &Arc<Self>,
        (connection, peer): (u64, SocketAddr),
        (socket, keeper): (&Arc<UdpSocket>, Keeper),
        (cookie, start, frames): (Cookie, Start, Vec<Frame>),
        woken: &mut Vec<Waker>,
    ) {
        let inbox = Arc::new(Inbox::default());
        let seat = Seat {
            shared: Arc::clone(self),
            socket: Arc::clone(socket),
            inbox: Arc::clone(&inbox),
            connection,
            peer,
            is_authentic: matches!(start, Start::Standing(_)),
            _keeper: keeper,
        };
        let mut table = locked(&self.table);
        table.links.insert(connection, Entry { peer, inbox });
        table.backlog.push_back(Accepted { seat, cookie, start, frames });
        woken.extend(table.acceptor.take());
    }

    /// Leaves the address to another process: every link goes on with a socket of its own, which the system prefers for
    /// what its peer sends, and nobody listens here any more. What is lost on the way comes again.
    ///
    /// # Errors
    /// It cannot be shared; everything is as before.
    pub(crate) fn part(&self, socket: &UdpSocket) -> io::Result<()> {
        let address = socket::share(socket)?;
        self.stop_accepting();
        let mut woken = Vec::new();
        for entry in locked(&self.table).links.values() {
            match socket::beside(address, entry.peer) {
                Ok(own) => {
                    let mut letters = locked(&entry.inbox.0);
                    letters.elsewhere = Some(own);
                    woken.extend(letters.waker.take());
                }
                // It ends with the task.
                Err(error) => tracing::warn!(%error, peer = %entry.peer, "a link over UDP has to dial anew"),
            }
        }
        self.ended.cancel();
        woken.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Nobody reads any more.
    pub(crate) fn end(&self) {
        let mut table = locked(&self.table);
        table.is_over = true;
        let acceptor = table.acceptor.take();
        let inboxes: Vec<_> = table.links.values().map(|entry| Arc::clone(&entry.inbox)).collect();
        let backlog = std::mem::take(&mut table.backlog);
        drop(table);
        // Each of them takes itself out of the table.
        drop(backlog);
        acceptor.into_iter().for_each(Waker::wake);
        for inbox in inboxes {
            let waker = {
                let mut letters = locked(&inbox.0);
                letters.is_over = true;
                letters.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// The next link; `None`: there will be none any more.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        let mut table = locked(&self.table);
        if let Some(link) = table.backlog.pop_front() {
            return Poll::Ready(Some(link));
        }
        if table.is_over {
            return Poll::Ready(None);
        }
        remember(&mut table.acceptor, cx);
        Poll::Pending
    }

    /// Nobody accepts any more; the links that there are go on.
    pub(crate) fn stop_accepting(&self) {
        let mut table = locked(&self.table);
        table.is_deaf = true;
        let backlog = std::mem::take(&mut table.backlog);
        drop(table);
        drop(backlog);
    }

    fn leave(&self, connection: u64, is_authentic: bool) {
        let mut table = locked(&self.table);
        table.links.remove(&connection);
        if is_authentic && table.spent.set.insert(connection) {
            let now = tokio::time::Instant::now().into_std();
            table.spent.until.push_back((now + COOKIE_LIFE, connection));
        }
    }
}

impl Spent {
    fn forget(&mut self, now: Instant) {
        while let Some((_, connection)) = self.until.pop_front_if(|(until, _)| *until <= now) {
            self.set.remove(&connection);
        }
    }
}

impl Inbox {
    fn put(&self, datagram: BytesMut, woken: &mut Vec<Waker>) -> Result<(), Dropped> {
        let mut letters = locked(&self.0);
        if letters.queue.len() >= INBOX || letters.bytes >= INBOX_BYTES {
            return Err(Dropped::NoRoom);
        }
        letters.bytes += datagram.len();
        letters.queue.push_back(datagram);
        woken.extend(letters.waker.take());
        Ok(())
    }
}

impl Seat {
    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Moves the datagrams that are there to `into`, at least one; or says where the link goes on.
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        into: &mut VecDeque<BytesMut>,
    ) -> Poll<io::Result<Option<std::net::UdpSocket>>> {
        let mut letters = locked(&self.inbox.0);
        if letters.queue.is_empty() {
            if let Some(socket) = letters.elsewhere.take() {
                return Poll::Ready(Ok(Some(socket)));
            }
            if letters.is_over {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            remember(&mut letters.waker, cx);
            return Poll::Pending;
        }
        letters.bytes = 0;
        if into.is_empty() {
            std::mem::swap(into, &mut letters.queue);
        } else {
            into.append(&mut letters.queue);
        }
        Poll::Ready(Ok(None))
    }

    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        socket::send_to(&self.socket, datagram, self.peer)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.leave(self.connection, self.is_authentic);
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
