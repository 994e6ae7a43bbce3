//! One link through a broker: numbered and sealed messages to the other side's queue, and what the mailbox holds.
//!
//! It knows no topology: a station delivers to the mailbox and publishes what it is given. What the broker gave back, it
//! tells its session as refused: the other side has provably not seen it (SPEC 4).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use lapin::types::ShortString;
use router_common::codec::FrameDecoder;
use router_common::frame::{Cancel, Frame, Reason, StreamId};
use router_common::session::Budget;
use router_link::{BoxLink, Capabilities, DetachedLink, Link, LinkError, PeerInfo};

use crate::error::Broken;
use crate::keys::{End, Keys};
use crate::mailbox::{Mail, Mailbox};
use crate::message::{Draft, HEADER_BYTES, Header, LinkId};
use crate::publish::Publishing;
use crate::station::Station;
use crate::up::{Up, max_frame};

/// Messages of one link that wait for the socket. What is ready meanwhile shares the next one.
const ON_THEIR_WAY: usize = 2;
/// What one `poll_recv` gives out at most, in bytes.
const TURN_BYTES: usize = 256 * 1024;
/// Room that a message begins with, in bytes: for a few small frames.
const DRAFT_BYTES: usize = 2 * 1024;

/// What makes a link.
pub(crate) struct Making {
    pub(crate) station: Arc<Station>,
    pub(crate) up: Arc<Up>,
    pub(crate) id: LinkId,
    pub(crate) mailbox: Arc<Mailbox>,
    /// The other side's queue.
    pub(crate) to: ShortString,
    pub(crate) keys: Keys,
    pub(crate) peer: PeerInfo,
    /// Largest frame payload that is accepted, in bytes.
    pub(crate) max_frame: u32,
    /// Told when the link is over, and how far it came.
    pub(crate) on_end: Option<OnEnd>,
}

/// Told of a link's end: whether it ever was welcomed, and whether its queue was gone.
pub(crate) type OnEnd = Box<dyn FnOnce(Outcome) + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was welcomed, whatever came then.
    Welcomed,
    /// The other side did not let it in, or did not answer.
    NotWelcomed,
    /// The other side's queue is gone.
    Returned,
}

pub(crate) struct RabbitLink {
    station: Arc<Station>,
    up: Arc<Up>,
    id: LinkId,
    mailbox: Arc<Mailbox>,
    to: ShortString,
    keys: Keys,
    peer: PeerInfo,
    decoder: FrameDecoder,
    on_end: Option<OnEnd>,
    receiving: Receiving,
    sending: Sending,
}

#[derive(Default)]
struct Receiving {
    /// Number of the next message.
    next: u64,
    /// Bytes that are no frames came: what follows is thrown away.
    poisoned: bool,
    /// Told behind the frames before it.
    failed: Option<LinkError>,
    /// Nothing more will come.
    over: bool,
}

#[derive(Default)]
struct Sending {
    next: u64,
    on_their_way: VecDeque<Publishing>,
    closed: bool,
    /// The other side's queue is gone: everything that was sent comes back, in order, and this message last.
    last_to_return: Option<u64>,
    /// Streams of this side whose REQUEST came back, or never left.
    refused: Vec<StreamId>,
}

impl RabbitLink {
    pub(crate) fn new(making: Making) -> Self {
        let Making { station, up, id, mailbox, to, keys, peer, max_frame, on_end } = making;
        Self {
            station,
            up,
            id,
            mailbox,
            to,
            keys,
            peer,
            decoder: FrameDecoder::new(max_frame),
            on_end,
            receiving: Receiving::default(),
            sending: Sending::default(),
        }
    }

    /// Opens the link at the other side: a message without frames, which says where to answer.
    pub(crate) fn open(&mut self) {
        let queue = self.up.queue.clone();
        self.send_empty(Some(queue));
    }

    /// A message without frames: the first one opens the link, any other ends it.
    fn send_empty(&mut self, reply_to: Option<ShortString>) {
        let draft = self.draft(0);
        let publishing = self.publish(draft, reply_to);
        self.sending.on_their_way.push_back(publishing);
    }

    fn draft(&self, expected: usize) -> Draft {
        Draft::new(self.id, self.sending.next, expected)
    }

    fn publish(&mut self, draft: Draft, reply_to: Option<ShortString>) -> Publishing {
        self.sending.next += 1;
        self.up.publish(self.to.clone(), draft.seal(self.keys.sends()), reply_to)
    }

    /// Sends as many of these frames as one message takes.
    fn send_some(&mut self, batch: &mut VecDeque<Frame>) {
        let most = self.up.message_bytes;
        let mut draft = self.draft(DRAFT_BYTES);
        let mut handshake = None;
        while let Some(frame) = batch.front()
            && draft.has_room(frame, most)
            && let Some(frame) = batch.pop_front()
        {
            draft.push(&frame);
            self.mailbox.owed().sent(&frame);
            if !self.keys.is_welcomed() && frame.is_handshake() {
                handshake = Some(frame);
                // What comes behind it may have another key.
                break;
            }
        }
        let publishing = self.publish(draft, None);
        self.sending.on_their_way.push_back(publishing);
        if let Some(frame) = handshake {
            self.keys.sent(&frame);
        }
    }

    /// Looks at what waits for the socket; ready: there is room for one more message.
    fn poll_room(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<(), LinkError>> {
        while self.sending.on_their_way.len() >= most
            && let Some(first) = self.sending.on_their_way.front_mut()
        {
            let done = ready!(first.poll(cx));
            self.sending.on_their_way.pop_front();
            if let Err(error) = done {
                return Poll::Ready(Err(Broken::Broker(error.to_string()).into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads one message.
    ///
    /// # Errors
    /// What ends the link, behind the frames that were pushed.
    fn take(&mut self, message: Bytes, into: &mut Vec<Frame>) -> Result<(), LinkError> {
        let header = Header::read(&message).ok_or(Broken::Cut)?;
        let expected = self.receiving.next;
        if header.sequence != expected {
            return Err(Broken::Gap { expected, found: header.sequence }.into());
        }
        self.keys.check(&header, &message).map_err(|_| Broken::Forged)?;
        self.receiving.next = expected.saturating_add(1);
        if message.len() == HEADER_BYTES {
            let opens = expected == 0 && self.keys.end() == End::Gateway;
            return if opens { Ok(()) } else { Err(LinkError::Closed) };
        }
        if self.receiving.poisoned {
            return Ok(());
        }
        let mut frames = BytesMut::from(message);
        frames.advance(HEADER_BYTES);
        while let Some(frame) = self.decoder.decode(&mut frames)? {
            if !self.keys.is_welcomed() {
                self.keys.received(&frame);
            }
            self.mailbox.owed().received(self.keys.end(), &frame);
            into.push(frame);
        }
        if frames.is_empty() { Ok(()) } else { Err(Broken::Cut.into()) }
    }

    /// Notes what the broker gave back. Everything that is on its way will come back, too, and the link's end after it.
    fn take_back(&mut self, message: Bytes) -> Result<(), LinkError> {
        let Some(header) = Header::read(&message) else { return Ok(()) };
        let mut frames = BytesMut::from(message);
        frames.advance(HEADER_BYTES);
        // It was written here.
        while let Ok(Some(frame)) = FrameDecoder::new(u32::MAX).decode(&mut frames) {
            self.sending.refuse(&frame);
        }
        match self.sending.last_to_return {
            Some(last) if header.sequence >= last => Err(Broken::Returned.into()),
            Some(_) => Ok(()),
            None => {
                self.sending.last_to_return = Some(self.sending.next);
                self.sending.closed = true;
                self.send_empty(None);
                Ok(())
            }
        }
    }

    /// Tells the session what was refused.
    fn tell_refused(&mut self, into: &mut Vec<Frame>) {
        into.extend(self.sending.refused.drain(..).map(|stream| {
            Frame::Cancel(
                stream,
                Box::new(Cancel { reason: Reason::Refused, text: "returned by the broker".to_owned() }),
            )
        }));
    }
}

impl Sending {
    /// A stream of this side that the other side has not seen.
    fn refuse(&mut self, frame: &Frame) {
        if let Frame::Request(request) = frame {
            self.refused.push(request.stream);
        }
    }
}

impl Link for RabbitLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        let before = into.len();
        let mut turn = 0;
        while turn < TURN_BYTES && self.receiving.failed.is_none() {
            if self.receiving.over {
                return Poll::Ready(Err(LinkError::Closed));
            }
            let taken = match self.mailbox.poll_next(cx) {
                Poll::Ready(Mail::Message(message)) => {
                    turn += message.len();
                    self.take(message, into)
                }
                Poll::Ready(Mail::Returned(message)) => self.take_back(message),
                Poll::Ready(Mail::Ended(broken)) => {
                    if broken == Broken::Returned {
                        self.over(Outcome::Returned);
                    }
                    Err(broken.into())
                }
                Poll::Pending => break,
            };
            if let Err(error) = taken {
                self.tell_refused(into);
                match &error {
                    LinkError::Protocol(_) => self.receiving.poisoned = true,
                    _ => self.receiving.over = true,
                }
                if matches!(&error, LinkError::Io { .. }) && self.sending.last_to_return.is_some() {
                    self.over(Outcome::Returned);
                }
                self.receiving.failed = Some(error);
            }
        }
        self.tell_refused(into);
        if into.len() > before {
            return Poll::Ready(Ok(()));
        }
        match self.receiving.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if turn > 0 => {
                // Messages came, and nothing was in them: the station's first, or what is thrown away.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        while !batch.is_empty() {
            if self.sending.closed {
                // Nobody will see it, and the session is told so.
                for frame in batch.drain(..) {
                    self.sending.refuse(&frame);
                }
                cx.waker().wake_by_ref();
                break;
            }
            ready!(self.poll_room(cx, ON_THEIR_WAY))?;
            self.send_some(batch);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sending.closed {
            self.sending.closed = true;
            self.send_empty(None);
        }
        // Until all of it is in the socket: the process may end with this.
        self.poll_room(cx, 1).map(drop)
    }

    fn count_in(&mut self, budget: &Arc<Budget>) {
        self.station.count_in(budget);
        self.mailbox.count_in(budget);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: true, streaming: true, max_frame: max_frame(self.up.message_bytes) }
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Wakers work from any thread, and the connection stays where it is.
    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        self
    }
}

impl DetachedLink for RabbitLink {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(self)
    }
}

impl RabbitLink {
    fn over(&mut self, outcome: Outcome) {
        if let Some(on_end) = self.on_end.take() {
            on_end(outcome);
        }
    }
}

impl Drop for RabbitLink {
    fn drop(&mut self) {
        // First, so that a place which goes with its last link still sends it.
        if !self.sending.closed && !self.up.is_lost() {
            self.send_empty(None);
        }
        self.over(if self.keys.is_welcomed() { Outcome::Welcomed } else { Outcome::NotWelcomed });
        self.station.leave(self.id);
    }
}

impl fmt::Debug for RabbitLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitLink").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}
