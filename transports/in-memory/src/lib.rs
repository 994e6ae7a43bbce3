//! The in-memory transport: frames as values between peers of one process (SPEC 7).
//!
//! Nothing is encoded, but everything is as if it were: frames are held to the receiver's limit and charged at their
//! encoded size, queues are bounded in those bytes, and a link that is dropped or closed ends for its peer as a socket's
//! would. There are no threads, no clock and no randomness here, so a run is as deterministic as its runtime.

mod pipe;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use router_common::frame::Frame;
use router_common::identity::Identity;
use router_common::limits;
use router_link::{BoxFuture, BoxLink, Capabilities, Connector, DetachedLink, Link, LinkError, Listener, PeerInfo};
use tokio::sync::mpsc;

use pipe::{Receiver, Sender};

const TRANSPORT: &str = "in-memory";
const TARGET: &str = "in-memory:";

/// A connector and its listener.
#[derive(Debug)]
pub struct InMemory;

impl InMemory {
    /// Makes both ends. The connector may be cloned and used from any thread. `max_frame` is the protocol's default.
    #[expect(clippy::new_ret_no_self, reason = "the transport has two ends, and nothing else")]
    #[must_use]
    pub fn new() -> (InMemoryConnector, InMemoryListener) {
        let (sender, receiver) = mpsc::channel(limits::UNWELCOMED);
        (InMemoryConnector { sender, next: Arc::new(AtomicU64::new(1)) }, InMemoryListener { receiver })
    }

    /// Two ends of one link, without connector and listener: the first is the dialling one.
    #[must_use]
    pub fn pair() -> (InMemoryLink, InMemoryLink) {
        pair(0)
    }
}

fn pair(number: u64) -> (InMemoryLink, InMemoryLink) {
    let (to_listener, from_connector) = pipe::pipe(limits::FRAME_PAYLOAD_BYTES);
    let (to_connector, from_listener) = pipe::pipe(limits::FRAME_PAYLOAD_BYTES);
    let peer = |end: &str| PeerInfo {
        identity: Some(Identity::InProcess),
        ..PeerInfo::new(TRANSPORT, format!("{TARGET}{number}/{end}"))
    };
    (
        InMemoryLink { sender: to_listener, receiver: from_listener, peer: peer("listener") },
        InMemoryLink { sender: to_connector, receiver: from_connector, peer: peer("connector") },
    )
}

/// Dials the listener it was made with.
#[derive(Debug, Clone)]
pub struct InMemoryConnector {
    sender: mpsc::Sender<InMemoryLink>,
    next: Arc<AtomicU64>,
}

impl Connector for InMemoryConnector {
    /// Never waits.
    ///
    /// # Errors
    /// The listener is gone, or has as many links waiting as may be.
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        let (own, other) = pair(self.next.fetch_add(1, Ordering::Relaxed));
        let refuse = |problem: &str| LinkError::Target { target: TARGET.to_owned(), problem: problem.to_owned() };
        let result = match self.sender.try_send(other) {
            Ok(()) => Ok(Box::new(own) as BoxLink),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(refuse("the listener is gone")),
            Err(mpsc::error::TrySendError::Full(_)) => Err(refuse("too many links wait to be accepted")),
        };
        Box::pin(std::future::ready(result))
    }

    fn target(&self) -> &str {
        TARGET
    }
}

/// Accepts what its connectors dial.
#[derive(Debug)]
pub struct InMemoryListener {
    receiver: mpsc::Receiver<InMemoryLink>,
}

impl Listener for InMemoryListener {
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

/// One end of an in-memory link. Dropping it ends both directions.
pub struct InMemoryLink {
    sender: Sender,
    receiver: Receiver,
    peer: PeerInfo,
}

impl fmt::Debug for InMemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Link for InMemoryLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        self.receiver.poll_recv(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        self.sender.poll_send(cx, batch)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.sender.close();
        Poll::Ready(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// There is no reactor to leave: wakers work from any thread.
    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        self
    }
}

impl DetachedLink for InMemoryLink {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(self)
    }
}
