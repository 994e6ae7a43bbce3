//! Links and HTTP connections in memory, with faults: the product's in-memory transport, whose frames take their time, are
//! held back, stop for good, or end with the link at any frame; and byte pipes for clients.
//!
//! It knows frames one by one, and not what is in them.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use router_common::frame::Frame;
use router_common::testing::Random;
use router_gateway::edge::{BoxIo, HttpListener};
use router_link::{BoxFuture, BoxLink, Capabilities, Connector, DetachedLink, Link, LinkError, Listener, PeerInfo};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use transport_in_memory::{InMemory, InMemoryLink};

use crate::client::Dial;
use crate::ledger::Ledger;
use crate::wire::{Card, Fate, Made, Slot, Socket, Wire};

/// Connections that wait to be accepted.
const BACKLOG: usize = 256;
/// Bytes that a client's connection holds each way.
const PIPE_BYTES: usize = 64 * 1024;
/// Frames on their way in one direction of a link.
const ON_THE_WAY: usize = 512;

/// How frames fare, where no fault says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) latency: (Duration, Duration),
    /// Of 100 links, so many end at some frame by themselves.
    pub(crate) cut: usize,
    /// Of 100 batches, so many have to wait before they leave.
    pub(crate) stall: usize,
}

type Dialled = (InMemoryLink, Arc<Wire>, Made);

/// The doors of one gateway: open while its process lives.
#[derive(Default)]
pub(crate) struct Doors {
    services: Mutex<Option<mpsc::Sender<Dialled>>>,
    clients: Mutex<Option<mpsc::Sender<DuplexStream>>>,
}

impl Doors {
    /// A process of the gateway opens them; those of the one before are closed.
    pub(crate) fn open(&self, card: &Arc<Card>, nature: &Arc<Nature>) -> (MemoryListener, MemoryHttpListener) {
        let (sender, dialled) = mpsc::channel(BACKLOG);
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let (sender, accept) = mpsc::channel(BACKLOG);
        *self.clients.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let services = MemoryListener { dialled, card: Arc::clone(card), nature: Arc::clone(nature) };
        (services, MemoryHttpListener { accept, card: Arc::clone(card) })
    }
}

/// What all links of a run share: what happens to them by itself, and the generator that says when.
pub(crate) struct Nature {
    weather: Weather,
    seed: u64,
    links: AtomicU64,
    calm: AtomicBool,
    ledger: Arc<Ledger>,
}

impl Nature {
    pub(crate) fn new(weather: Weather, seed: u64, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { weather, seed, links: AtomicU64::new(1), calm: AtomicBool::new(false), ledger })
    }

    /// From now on, links neither break nor stall by themselves.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn random(&self) -> Random {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        Random::new(Random::new(self.seed ^ (number << 40)).number())
    }
}

/// Dials a gateway, as a service does.
pub(crate) struct MemoryConnector {
    pub(crate) doors: Arc<Doors>,
    pub(crate) card: Arc<Card>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) nature: Arc<Nature>,
}

impl MemoryConnector {
    fn dial(&self) -> Option<BoxLink> {
        let made = self.wire.connect()?;
        let (own, other) = InMemory::pair();
        let sender = self.doors.services.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        sender.try_send((other, Arc::clone(&self.wire), made)).ok()?;
        Some(Box::new(FaultyLink::new(own, &self.card, Arc::clone(&self.wire), made, &self.nature)))
    }
}

impl Connector for MemoryConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        let refused = || LinkError::io("connecting in memory", io::ErrorKind::ConnectionRefused.into());
        Box::pin(std::future::ready(self.dial().ok_or_else(refused)))
    }

    fn target(&self) -> &str {
        "in-memory:"
    }
}

/// Accepts services.
pub(crate) struct MemoryListener {
    dialled: mpsc::Receiver<Dialled>,
    card: Arc<Card>,
    nature: Arc<Nature>,
}

impl Listener for MemoryListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        Poll::Ready(match ready!(self.dialled.poll_recv(cx)) {
            Some((link, wire, made)) => Ok(Box::new(FaultyLink::new(link, &self.card, wire, made, &self.nature))),
            None => Err(LinkError::Closed),
        })
    }

    fn local(&self) -> &str {
        "in-memory:"
    }
}

/// Accepts clients.
pub(crate) struct MemoryHttpListener {
    accept: mpsc::Receiver<DuplexStream>,
    card: Arc<Card>,
}

impl HttpListener for MemoryHttpListener {
    type Io = BoxIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(BoxIo, SocketAddr)>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        match self.accept.poll_recv(cx) {
            Poll::Ready(Some(stream)) => {
                let wire = Arc::new(Wire::default());
                let made = wire.connect().ok_or(io::ErrorKind::ConnectionRefused)?;
                let socket = Socket::new(stream, &self.card, wire, made, PIPE_BYTES);
                Poll::Ready(Ok((BoxIo::new(socket), address())))
            }
            // Doors are only closed with their gateway.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address())
    }
}

/// What stands for an address where there is none.
fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Dials gateways, as HTTP clients do.
pub(crate) struct MemoryDial {
    pub(crate) card: Arc<Card>,
    /// For each gateway.
    pub(crate) gateways: Vec<(Arc<Doors>, Arc<Wire>)>,
}

impl MemoryDial {
    fn connect(&self, gateway: usize) -> Option<BoxIo> {
        let (doors, wire) = self.gateways.get(gateway)?;
        let made = wire.connect()?;
        let (own, other) = tokio::io::duplex(PIPE_BYTES);
        doors.clients.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.try_send(other).ok()?;
        Some(BoxIo::new(Socket::new(own, &self.card, Arc::clone(wire), made, PIPE_BYTES)))
    }
}

impl Dial for MemoryDial {
    fn dial(&self, gateway: usize) -> BoxFuture<'_, io::Result<BoxIo>> {
        Box::pin(std::future::ready(self.connect(gateway).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())))
    }
}

/// One end of a link in memory, whose receiving takes time, and which can stop, stall and break.
struct FaultyLink {
    inner: Arc<Slot<InMemoryLink>>,
    peer: PeerInfo,
    card: Arc<Card>,
    wire: Arc<Wire>,
    made: Made,
    nature: Arc<Nature>,
    random: Random,
    /// Frames that are on their way, with when they arrive; never one before another that was sent earlier.
    on_the_way: VecDeque<(Instant, Frame)>,
    pulled: Vec<Frame>,
    /// What is told when all that was on its way has arrived.
    ended: Option<LinkError>,
    /// Frames that still arrive before the link breaks.
    left: Option<usize>,
    arrival: Option<Pin<Box<Sleep>>>,
    /// Nothing is sent until then.
    stall: Option<Pin<Box<Sleep>>>,
}

impl FaultyLink {
    fn new(inner: InMemoryLink, card: &Arc<Card>, wire: Arc<Wire>, made: Made, nature: &Arc<Nature>) -> Self {
        let mut random = nature.random();
        let left = random.chance(nature.weather.cut).then(|| 1 + random.below(80));
        Self {
            peer: inner.peer().clone(),
            inner: card.hold(inner),
            card: Arc::clone(card),
            wire,
            made,
            nature: Arc::clone(nature),
            random,
            on_the_way: VecDeque::new(),
            pulled: Vec::new(),
            ended: None,
            left,
            arrival: None,
            stall: None,
        }
    }

    /// Whether anything passes now.
    fn passes(&self, cx: &Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.card.is_dead() {
            return Poll::Pending;
        }
        match self.wire.fate(self.made, cx) {
            Fate::Passes => Poll::Ready(Ok(())),
            Fate::Held | Fate::Severed => Poll::Pending,
            Fate::Reset => Poll::Ready(Err(reset())),
        }
    }

    /// Takes frames from the peer's end and sends them on their way.
    fn pull(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none() && self.on_the_way.len() < ON_THE_WAY {
            let polled = match &mut *self.inner.get() {
                Some(link) => link.poll_recv(cx, &mut self.pulled),
                None => Poll::Pending,
            };
            match polled {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    for frame in std::mem::take(&mut self.pulled) {
                        let at = self.arrives_at();
                        self.on_the_way.push_back((at, frame));
                    }
                }
                Poll::Ready(Err(error)) => self.ended = Some(error),
            }
        }
    }

    fn arrives_at(&mut self) -> Instant {
        let (least, most) = self.nature.weather.latency;
        let most = self.wire.longest_way().unwrap_or(most).max(least);
        let range = usize::try_from((most - least).as_micros()).unwrap_or(0) + 1;
        // Most are fast.
        let drawn = self.random.below(range).min(self.random.below(range));
        let at = Instant::now() + least + Duration::from_micros(drawn as u64);
        self.on_the_way.back().map_or(at, |(last, _)| at.max(*last))
    }

    /// Gives out what has arrived; says whether the link has broken on the way.
    fn deliver(&mut self, into: &mut Vec<Frame>) -> bool {
        let now = Instant::now();
        while let Some((_, frame)) = self.on_the_way.pop_front_if(|(at, _)| *at <= now) {
            if self.left == Some(0) && !self.nature.is_calm() {
                return true;
            }
            self.left = self.left.map(|left| left.saturating_sub(1));
            into.push(frame);
        }
        false
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((at, _)) = self.on_the_way.front() else { return Poll::Pending };
        let arrival = self.arrival.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*at)));
        if arrival.deadline() != *at {
            arrival.as_mut().reset(*at);
        }
        arrival.as_mut().poll(cx)
    }
}

impl Link for FaultyLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        let before = into.len();
        loop {
            ready!(self.passes(cx))?;
            self.pull(cx);
            if self.deliver(into) {
                self.nature.ledger.fault("cut at a frame");
                self.nature.ledger.log(format!("{} breaks", self.peer));
                drop(self.inner.get().take());
                return Poll::Ready(Err(reset()));
            }
            if into.len() > before {
                return Poll::Ready(Ok(()));
            }
            if self.on_the_way.is_empty()
                && let Some(error) = self.ended.take()
            {
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_arrival(cx));
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        ready!(self.passes(cx))?;
        let may_stall = self.stall.is_none() && !batch.is_empty() && !self.nature.is_calm();
        if may_stall && self.random.chance(self.nature.weather.stall) {
            self.nature.ledger.fault("stalled sending");
            let stall = Duration::from_millis(1 + self.random.below(600) as u64);
            self.stall = Some(Box::pin(tokio::time::sleep(stall)));
        }
        if let Some(stall) = &mut self.stall {
            ready!(stall.as_mut().poll(cx));
            self.stall = None;
        }
        match &mut *self.inner.get() {
            Some(link) => link.poll_send(cx, batch),
            None => Poll::Ready(Err(reset())),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.inner.get() {
            Some(link) => link.poll_close(cx),
            None => Poll::Ready(()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// A simulated host is one runtime for its whole life.
    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        self
    }
}

impl DetachedLink for FaultyLink {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(self)
    }
}

fn reset() -> LinkError {
    LinkError::io("the simulated link", io::ErrorKind::ConnectionReset.into())
}
