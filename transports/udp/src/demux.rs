//! One socket for all services of a listener: datagrams go to the link whose connection and address they name, and
//! nobody gets a link before the address was proved (SPEC 7).
//!
//! The task that reads the socket belongs to the listener and its links: it ends with the last of them. It verifies no
//! MAC but that of a PROOF: links do that where they run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::frame::Frame;
use router_common::identity::KeyId;
use router_common::limits;
use router_common::session::{CarrierKeys, Secrets};
use rustc_hash::FxBuildHasher;
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::carrier::{self, BATCH, Carrier, Space};
use crate::channel::{Channel, Keys};
use crate::cookie::{COOKIE_LIFE, Cookies, connection_of};
use crate::counters::Counters;
use crate::dial::NO_SECRET;
use crate::handshake::{self, Handshake, Presented};
use crate::link::{Start, UdpLink};
use crate::packet::{self, Dropped, MacKey};

/// Links of one listener at a time.
const LINKS: usize = 16 * 1024;
/// Links that nobody has accepted yet.
const BACKLOG: usize = limits::UNWELCOMED;
/// Connections whose cookie would still be good, so that they could be begun once more.
const SPENT: usize = 64 * 1024;
/// Datagrams that wait for one link, by number and in bytes.
const INBOX: usize = 256;
const INBOX_BYTES: usize = 4 * 1024 * 1024;
/// How long to rest after an error of the socket that is not about one datagram.
const PAUSE: Duration = Duration::from_millis(10);

type ByConnection<T> = HashMap<u64, T, FxBuildHasher>;

/// What a listener, its links and the task that reads for them share.
pub(crate) struct Shared {
    socket: UdpSocket,
    secrets: Secrets,
    cookies: Cookies,
    datagram: usize,
    pub(crate) counters: Arc<Counters>,
    table: Mutex<Table>,
}

struct Table {
    links: ByConnection<Entry>,
    spent: Spent,
    backlog: VecDeque<UdpLink>,
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
    is_over: bool,
}

/// Whoever holds one keeps the task alive.
pub(crate) type Keeper = Arc<DropGuard>;

/// A link's place.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    connection: u64,
    peer: SocketAddr,
    /// A handshake like this one must not begin another link.
    is_authentic: bool,
    _keeper: Keeper,
}

/// What the reading task is made of.
pub(crate) struct Demux {
    shared: Arc<Shared>,
    ended: CancellationToken,
    keeper: std::sync::Weak<DropGuard>,
    space: Space,
    woken: Vec<Waker>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Demux {
    pub(crate) fn new(
        socket: UdpSocket,
        secrets: Secrets,
        key: [u8; 32],
        datagram: usize,
    ) -> (Self, Arc<Shared>, Keeper) {
        carrier::prepare(&socket);
        let table = Table {
            links: ByConnection::default(),
            spent: Spent::default(),
            backlog: VecDeque::new(),
            acceptor: None,
            is_deaf: false,
            is_over: false,
        };
        let shared = Arc::new(Shared {
            socket,
            secrets,
            cookies: Cookies::new(key, now()),
            datagram,
            counters: Arc::default(),
            table: Mutex::new(table),
        });
        let ended = CancellationToken::new();
        let keeper = Arc::new(ended.clone().drop_guard());
        let weak = Arc::downgrade(&keeper);
        let demux =
            Self { shared: Arc::clone(&shared), ended, keeper: weak, space: Space::default(), woken: Vec::new() };
        (demux, shared, keeper)
    }

    /// Reads until nobody is there for whom.
    pub(crate) async fn run(mut self) {
        let (ended, shared) = (self.ended.clone(), Arc::clone(&self.shared));
        loop {
            let readable = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                readable = shared.socket.readable() => readable,
            };
            if readable.and_then(|()| self.read()).is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Reads what is there, a bounded batch of it.
    fn read(&mut self) -> io::Result<()> {
        let now = now();
        let mut result = Ok(());
        for _ in 0..BATCH {
            let socket = &self.shared.socket;
            let read = self.space.read(|buffer| {
                let filled = socket.try_recv_from(buffer.initialize_unfilled());
                Poll::Ready(filled.map(|(length, from)| {
                    buffer.advance(length);
                    from
                }))
            });
            match read {
                Poll::Ready(Ok((datagram, from))) => {
                    if let Err(reason) = self.take(datagram, from, now) {
                        self.shared.counters.count(reason);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Somebody who was sent something is not there any more: that concerns nobody else.
                Poll::Ready(Err(error)) if is_about_a_peer(&error) => {}
                Poll::Ready(Err(error)) => {
                    result = Err(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        self.woken.drain(..).for_each(Waker::wake);
        result
    }

    fn take(&mut self, datagram: BytesMut, from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let connection = packet::connection(&datagram).ok_or(Dropped::TooShort)?;
        if connection != 0 {
            let table = locked(&self.shared.table);
            let entry = table.links.get(&connection).filter(|entry| entry.peer == from).ok_or(Dropped::Foreign)?;
            return entry.inbox.put(datagram, &mut self.woken);
        }
        match handshake::parse(datagram)? {
            Handshake::Hello { hash } => self.challenge(&hash, from, now),
            Handshake::Proof(presented) => self.admit(&presented, from, now),
            Handshake::Challenge { .. } | Handshake::Refused { .. } => Err(Dropped::Malformed),
        }
    }

    /// Asks for the cookie back, and forgets that anybody was there.
    fn challenge(&self, hash: &[u8; 32], from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let shared = &self.shared;
        if locked(&shared.table).is_deaf {
            return Err(Dropped::NoRoom);
        }
        let cookie = shared.cookies.make(hash, from, now);
        let answer = handshake::challenge(hash, cookie, !shared.secrets.is_none());
        // One that does not leave is asked for again.
        let _ = carrier::send_to(&shared.socket, &answer, from);
        Ok(())
    }

    /// Makes a link for whoever sent the cookie back.
    fn admit(&mut self, presented: &Presented, from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let shared = &self.shared;
        if !shared.cookies.check(&presented.cookie, &presented.hash, from, now) {
            return Err(Dropped::Forged);
        }
        let connection = connection_of(&presented.cookie);
        {
            let mut table = locked(&shared.table);
            table.spent.forget(now);
            if table.links.contains_key(&connection) || table.spent.set.contains(&connection) {
                return Err(Dropped::Replayed);
            }
            let is_full = table.links.len() >= LINKS
                || table.backlog.len() >= BACKLOG
                || table.spent.set.len() + table.links.len() >= SPENT;
            if is_full || table.is_deaf {
                return Err(Dropped::NoRoom);
            }
        }
        let keeper = self.keeper.upgrade().ok_or(Dropped::NoRoom)?;
        let opened = presented.open()?;
        if opened.proof.is_some() == shared.secrets.is_none() {
            return Err(Dropped::Malformed);
        }
        let nonce = opened.hello.value().nonce;
        let fits = |keys: &CarrierKeys| presented.verifies(&MacKey::new(&keys.service));
        let keys = if shared.secrets.is_none() {
            Some(NO_SECRET).filter(fits).ok_or(Dropped::Forged).map(Some)?
        } else {
            let id = opened.hello.value().key_id.clone().unwrap_or_else(KeyId::sole);
            shared.secrets.of(&id).map(|secret| secret.carrier_keys(nonce, presented.cookie)).find(fits)
        };
        let handshake = [Some(Frame::Hello(opened.hello)), opened.proof.map(Frame::Proof)];
        let start = match &keys {
            Some(keys) => {
                let keys = Keys { own: MacKey::new(&keys.gateway), peer: MacKey::new(&keys.service) };
                Start::Standing(Channel::new(connection, keys, shared.datagram, limits::FRAME_PAYLOAD_BYTES))
            }
            // The session says that the proof fits no secret, and it is heard.
            None => Start::Refusing(presented.hash),
        };
        let inbox = Arc::new(Inbox::default());
        let seat = Seat {
            shared: Arc::clone(shared),
            inbox: Arc::clone(&inbox),
            connection,
            peer: from,
            is_authentic: keys.is_some(),
            _keeper: keeper,
        };
        let frames = handshake.into_iter().flatten().collect();
        let counters = Arc::clone(&shared.counters);
        let link =
            UdpLink::accepted(Carrier::Shared(seat), from, presented.cookie, start, frames, shared.datagram, counters);
        let mut table = locked(&shared.table);
        table.links.insert(connection, Entry { peer: from, inbox });
        table.backlog.push_back(link);
        self.woken.extend(table.acceptor.take());
        Ok(())
    }
}

impl Drop for Demux {
    fn drop(&mut self) {
        let mut table = locked(&self.shared.table);
        table.is_over = true;
        let acceptor = table.acceptor.take();
        let inboxes: Vec<_> = table.links.values().map(|entry| Arc::clone(&entry.inbox)).collect();
        let backlog = std::mem::take(&mut table.backlog);
        drop(table);
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
}

impl Shared {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn links(&self) -> usize {
        locked(&self.table).links.len()
    }

    /// The next link; `None`: there will be none any more.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<UdpLink>> {
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
            table.spent.until.push_back((now() + COOKIE_LIFE, connection));
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
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, into: &mut VecDeque<BytesMut>) -> Poll<io::Result<()>> {
        let mut letters = locked(&self.inbox.0);
        if letters.queue.is_empty() {
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
        Poll::Ready(Ok(()))
    }

    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        carrier::send_to(&self.shared.socket, datagram, self.peer)
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

/// Errors that the network reports of one peer.
pub(crate) fn is_about_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | Interrupted)
}
