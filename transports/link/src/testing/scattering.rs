//! A transport for tests that does what the worst honest carrier may do: it delivers small frames in any order, late, and
//! some not at all. In memory, and drawn from a seed.
//!
//! What it promises is what [`Link`] says of links that are not ordered, and nothing more.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use router_common::codec::encoded_len;
use router_common::frame::Frame;
use router_common::limits::{FRAME_HEADER_BYTES, UNWELCOMED};
use router_common::testing::Random;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::harness::Ends;
use crate::link::{BoxFuture, BoxLink, Capabilities, Connector, DetachedLink, Link, LinkError, Listener, PeerInfo};

const TRANSPORT: &str = "scattering";
const TARGET: &str = "scattering:";

/// What a frame meets on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scattering {
    /// Largest frame payload, in bytes. Default 1132: what fits a datagram of 1200 bytes.
    pub max_frame: u32,
    /// Each frame takes a time of its own, up to this. Default 3 ms.
    pub delay: Duration,
    /// Of 100 frames so many never arrive. Default 0. Those of the handshake always do.
    pub loses: usize,
    /// What all of it is drawn from. Default 1.
    pub seed: u64,
}

impl Default for Scattering {
    fn default() -> Self {
        Self::CALM
    }
}

impl Scattering {
    /// Nothing is lost.
    pub const CALM: Self = Self { max_frame: 1132, delay: Duration::from_millis(3), loses: 0, seed: 1 };

    /// What its links can do.
    #[must_use]
    pub const fn capabilities(self) -> Capabilities {
        Capabilities { ordered: false, streaming: false, max_frame: self.max_frame }
    }

    /// Two ends of one link.
    #[must_use]
    pub fn ends(self) -> Ends {
        let (service, gateway) = self.pair(0);
        Ends { service: Box::new(service), gateway: Box::new(gateway) }
    }

    /// A connector, which may be cloned, and its listener.
    #[must_use]
    pub fn transport(self) -> (ScatteringConnector, ScatteringListener) {
        let (sender, receiver) = mpsc::channel(UNWELCOMED);
        let next = Arc::new(AtomicU64::new(1));
        (ScatteringConnector { scattering: self, sender, next }, ScatteringListener { receiver })
    }

    fn pair(self, number: u64) -> (ScatteringLink, ScatteringLink) {
        let (there, back) = (Arc::<Air>::default(), Arc::<Air>::default());
        let link = |end: &str, own: u64, sends: &Arc<Air>, receives: &Arc<Air>| ScatteringLink {
            scattering: self,
            random: Random::new(self.seed ^ (number << 1 | own).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            sends: Arc::clone(sends),
            receives: Arc::clone(receives),
            welcomed: false,
            alarm: None,
            peer: PeerInfo::new(TRANSPORT, format!("{TARGET}{number}/{end}")),
        };
        (link("listener", 0, &there, &back), link("connector", 1, &back, &there))
    }
}

/// Dials the listener it was made with.
#[derive(Debug, Clone)]
pub struct ScatteringConnector {
    scattering: Scattering,
    sender: mpsc::Sender<ScatteringLink>,
    next: Arc<AtomicU64>,
}

impl Connector for ScatteringConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        let (own, other) = self.scattering.pair(self.next.fetch_add(1, Ordering::Relaxed));
        let refused = LinkError::Target { target: TARGET.to_owned(), problem: "nobody takes the link".to_owned() };
        let result = self.sender.try_send(other).map(|()| Box::new(own) as BoxLink).map_err(|_| refused);
        Box::pin(std::future::ready(result))
    }

    fn target(&self) -> &str {
        TARGET
    }
}

/// Accepts what its connectors dial.
#[derive(Debug)]
pub struct ScatteringListener {
    receiver: mpsc::Receiver<ScatteringLink>,
}

impl Listener for ScatteringListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        match ready!(self.receiver.poll_recv(cx)) {
            Some(link) => Poll::Ready(Ok(Box::new(link))),
            None => Poll::Ready(Err(LinkError::Closed)),
        }
    }

    fn local(&self) -> &str {
        TARGET
    }
}

/// One direction.
#[derive(Default)]
struct Air(Mutex<Flying>);

#[derive(Default)]
struct Flying {
    /// HELLO to WELCOME, in order.
    handshake: VecDeque<Frame>,
    /// All others, each with the time of its arrival.
    frames: Vec<(Instant, Frame)>,
    closed: bool,
    abandoned: bool,
    receiver: Option<Waker>,
    closer: Option<Waker>,
}

impl Flying {
    fn is_empty(&self) -> bool {
        self.handshake.is_empty() && self.frames.is_empty()
    }
}

impl Air {
    fn lock(&self) -> MutexGuard<'_, Flying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut flying = self.lock();
        flying.closed = true;
        let receiver = flying.receiver.take();
        drop(flying);
        receiver.into_iter().for_each(Waker::wake);
    }

    fn abandon(&self) {
        let mut flying = self.lock();
        flying.abandoned = true;
        let (frames, closer) = (std::mem::take(&mut flying.frames), flying.closer.take());
        drop(flying);
        drop(frames);
        closer.into_iter().for_each(Waker::wake);
    }
}

/// One end of a link.
pub struct ScatteringLink {
    scattering: Scattering,
    random: Random,
    sends: Arc<Air>,
    receives: Arc<Air>,
    /// WELCOME has passed: what comes before it waits.
    welcomed: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    peer: PeerInfo,
}

impl Link for ScatteringLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        loop {
            let now = Instant::now();
            let mut flying = self.receives.lock();
            if let Some(frame) = flying.handshake.pop_front() {
                self.welcomed |= matches!(frame, Frame::Welcome(_));
                into.push(frame);
                let closer = if flying.is_empty() { flying.closer.take() } else { None };
                drop(flying);
                closer.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(()));
            }
            let next = flying.frames.iter().map(|(at, _)| *at).min().filter(|_| self.welcomed);
            if next.is_some_and(|at| at <= now) {
                let arrived: Vec<_> = flying.frames.extract_if(.., |(at, _)| *at <= now).collect();
                let closer = if flying.is_empty() { flying.closer.take() } else { None };
                drop(flying);
                closer.into_iter().for_each(Waker::wake);
                into.extend(arrived.into_iter().map(|(_, frame)| frame));
                return Poll::Ready(Ok(()));
            }
            if next.is_none() && flying.closed {
                return Poll::Ready(Err(LinkError::Closed));
            }
            flying.receiver = Some(cx.waker().clone());
            drop(flying);
            let Some(next) = next else { return Poll::Pending };
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            alarm.as_mut().reset(next);
            ready!(alarm.as_mut().poll(cx));
        }
    }

    fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        let mut flying = self.sends.lock();
        if flying.abandoned {
            return Poll::Ready(Err(LinkError::Closed));
        }
        while let Some(frame) = batch.pop_front() {
            let length = encoded_len(&frame) - FRAME_HEADER_BYTES;
            assert!(length <= self.scattering.max_frame as usize, "{} of {length} bytes", frame.name());
            let is_refusal = !self.welcomed && matches!(frame, Frame::Close(_));
            if frame.is_handshake() || is_refusal {
                self.welcomed |= matches!(frame, Frame::Welcome(_));
                flying.handshake.push_back(frame);
            } else if !self.random.chance(self.scattering.loses) {
                let micros = self.random.below(self.scattering.delay.as_micros() as usize + 1) as u64;
                flying.frames.push((Instant::now() + Duration::from_micros(micros), frame));
                // Even those that arrive at once do so in any order.
                let (last, other) = (flying.frames.len() - 1, self.random.below(flying.frames.len()));
                flying.frames.swap(last, other);
            }
        }
        let receiver = flying.receiver.take();
        drop(flying);
        receiver.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut flying = self.sends.lock();
        if !flying.abandoned && !flying.is_empty() {
            flying.closer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(flying);
        self.sends.close();
        Poll::Ready(())
    }

    fn capabilities(&self) -> Capabilities {
        self.scattering.capabilities()
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    fn detach(mut self: Box<Self>) -> Box<dyn DetachedLink> {
        self.alarm = None;
        self
    }
}

impl DetachedLink for ScatteringLink {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(self)
    }
}

impl Drop for ScatteringLink {
    fn drop(&mut self) {
        self.sends.close();
        self.receives.abandon();
    }
}

impl fmt::Debug for ScatteringLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScatteringLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}
