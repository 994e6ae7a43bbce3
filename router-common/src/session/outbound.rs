//! What an application does with streams, and what then leaves: opening, answering, sending, reading, cancelling.

use bytes::Bytes;

use super::event::{ClosedBy, OpenError, Opening, Read, ReadHead, StreamClosed, StreamFailure, StreamKey, TakenBack};
use super::scheduler::Wants;
use super::stream::{Head, ReceiveState, SendHalf, Side, Stream, Wire};
use super::{Session, State};
use crate::frame::{
    Cancel, CloseCode, Data, DataPayload, Frame, Reason, Request, Response, StreamId, Window, bounded_text,
};
use crate::head::{ResponseHead, Trailers};
use crate::limits;

/// Length of the field before a head in REQUEST and RESPONSE.
pub(super) const HEAD_PREFIX: usize = 2;
/// The status of a response that accepts a tunnel.
pub(super) const TUNNEL_STATUS: u16 = 200;

impl Session {
    /// Opens a stream. It gets its id, and becomes visible to the peer, when its REQUEST is polled.
    ///
    /// # Errors
    /// When this link takes no streams now; the request may go elsewhere.
    pub fn open(&mut self, opening: Opening) -> Result<StreamKey, OpenError> {
        match self.state {
            State::Handshake(_) => return Err(OpenError::NotEstablished),
            State::Ending { .. } | State::Closing(_) | State::Closed(_) => return Err(OpenError::Closed),
            State::Established if self.peer_draining => return Err(OpenError::Draining),
            State::Established => {}
        }
        let ids_left = (limits::STREAM_ID_MAX - self.next_id) / 2;
        let unbounded = opening.permit.is_none() && self.opened >= limits::SERVICE_OPENED_STREAMS;
        if unbounded || self.opened as u64 >= ids_left {
            return Err(OpenError::Full);
        }
        if self.datagrams.is_some() {
            self.check_whole(&opening)?;
        }
        let slot = self.insert(Side::Opener, Wire::Unsent);
        let Opening { head, body, end, tunnel, permit } = opening;
        let stream = &mut self.streams[slot as usize];
        stream.permit = permit;
        stream.head_request = head.method() == "HEAD";
        stream.send.head = Some(Head::Request(head));
        stream.send.begun = true;
        stream.send.tunnel = tunnel;
        stream.send.queue.push(body);
        stream.send.finished = end;
        self.schedule(slot);
        Ok(self.key(slot))
    }

    /// A message is one frame on this link.
    #[cold]
    fn check_whole(&self, opening: &Opening) -> Result<(), OpenError> {
        if opening.tunnel || !opening.end {
            return Err(OpenError::Streams);
        }
        let fits = self.fits(opening.head.as_bytes().len(), opening.body.len());
        if fits { Ok(()) } else { Err(OpenError::TooLarge) }
    }

    /// Answers a stream that the peer opened. Once; `end`: `body` is all of it; `tunnel`: accept the tunnel, which takes
    /// a 200 to a request that asked for one, and is an ordinary answer otherwise.
    ///
    /// Where a message is one frame ([`Carrier::Datagrams`](super::Carrier)), `body` is all of it; or there is none, and
    /// `end` is given later by [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the stream was cancelled or is answered already; or the answer does not fit: see [`fits`](Self::fits).
    pub fn respond(
        &mut self,
        key: StreamKey,
        head: ResponseHead,
        body: Bytes,
        end: bool,
        tunnel: bool,
    ) -> Result<(), StreamClosed> {
        if self.datagrams.is_some() && !(self.fits(head.as_bytes().len(), body.len()) && (end || body.is_empty())) {
            return Err(StreamClosed);
        }
        let stream = self.held(key).ok_or(StreamClosed)?;
        if stream.side != Side::Responder || stream.wire != Wire::Live || stream.send.begun {
            return Err(StreamClosed);
        }
        stream.send.tunnel &= tunnel && head.status() == TUNNEL_STATUS;
        stream.send.head = Some(Head::Response(head));
        stream.send.begun = true;
        stream.send.queue.push(body);
        stream.send.finished = end;
        self.schedule(key.index);
        Ok(())
    }

    /// Whether the stream carries opaque bytes both ways: for the opener once the response is here, for the responder
    /// until it answers otherwise.
    pub fn is_tunnel(&mut self, key: StreamKey) -> bool {
        self.held(key).is_some_and(|stream| stream.send.tunnel)
    }

    /// How many body bytes the stream takes now: its credit, and a little ahead of it. 0: wait for [`Event::Stream`].
    ///
    /// # Errors
    /// When nothing can be sent on it any more.
    ///
    /// [`Event::Stream`]: super::Event::Stream
    pub fn send_capacity(&mut self, key: StreamKey) -> Result<usize, StreamClosed> {
        let share = limits::SEND_QUEUES_BYTES / (self.opened + self.accepted).max(1);
        let stream = self.held(key).filter(|stream| !stream.is_send_closed()).ok_or(StreamClosed)?;
        Ok(stream.send.capacity(share.clamp(limits::SEND_QUEUE_SHARE_BYTES, limits::SEND_QUEUE_BYTES)))
    }

    /// Gives body bytes. Callers ask [`send_capacity`](Self::send_capacity) first; one piece beyond it is kept.
    ///
    /// # Errors
    /// When nothing can be sent on the stream any more.
    pub fn send_data(&mut self, key: StreamKey, bytes: Bytes) -> Result<(), StreamClosed> {
        if self.datagrams.is_some() {
            return Err(StreamClosed);
        }
        let stream = self.held(key).filter(|stream| !stream.is_send_closed() && stream.send.begun);
        stream.ok_or(StreamClosed)?.send.queue.push(bytes);
        self.schedule(key.index);
        Ok(())
    }

    /// The body is complete.
    ///
    /// # Errors
    /// When nothing can be sent on the stream any more.
    pub fn finish(&mut self, key: StreamKey, trailers: Option<Trailers>) -> Result<(), StreamClosed> {
        let streams = self.datagrams.is_none();
        let stream = self.held(key).filter(|stream| !stream.is_send_closed() && stream.send.begun);
        let send = &mut stream.ok_or(StreamClosed)?.send;
        send.finished = true;
        // A tunnel has no trailers, and neither has a message of one frame.
        send.trailers = trailers.filter(|_| !send.tunnel && streams).map(Box::new);
        self.schedule(key.index);
        Ok(())
    }

    /// Takes back what was given of a request that failed before any of it left ([`StreamFailure::Unseen`]), so that all
    /// of it can go elsewhere. `None`: some of it may have left, or it was taken back already.
    pub fn take_back(&mut self, key: StreamKey) -> Option<TakenBack> {
        let stream = self.held(key).filter(|stream| stream.side == Side::Opener && stream.id.is_none())?;
        if stream.wire != Wire::Done {
            return None;
        }
        stream.send.head.take()?;
        let pieces = std::iter::from_fn(|| stream.send.queue.pop()).collect();
        Some(TakenBack { pieces, trailers: stream.send.trailers.take().map(|trailers| *trailers) })
    }

    /// The response's head, once.
    pub fn read_head(&mut self, key: StreamKey) -> ReadHead {
        self.held(key).map_or(ReadHead::Failed(StreamFailure::Closed), Stream::read_head)
    }

    /// The next piece of the body that the peer sends. Taking a piece returns its credit.
    pub fn read(&mut self, key: StreamKey) -> Read {
        let now = self.clock;
        let Some(stream) = self.held(key) else { return Read::Failed(StreamFailure::Closed) };
        let read = stream.read(now);
        if let Read::Data(bytes) = &read {
            let more_may_come = stream.wire == Wire::Live && matches!(stream.receive.state, ReceiveState::Open);
            let is_due = stream.receive.window.take(bytes.len()) && more_may_come;
            self.common.budget.sub(bytes.len());
            if is_due {
                self.return_credit(key);
            }
        }
        read
    }

    fn return_credit(&mut self, key: StreamKey) {
        let Some(Stream { receive, .. }) = self.streams.get_mut(key.index as usize) else { return };
        if receive.window.fit(receive.queue.len(), &self.common.budget)
            && !std::mem::replace(&mut receive.window_queued, true)
        {
            self.scheduler.windows.push_back(key);
        }
    }

    /// Cancels a stream. The opener's slot of the lease stays taken until the responder's own end; a responder's CANCEL
    /// *is* that end, so its handler and body must be over.
    pub fn cancel(&mut self, key: StreamKey, reason: Reason, text: &str) {
        let Some(stream) = self.stream(key) else { return };
        let cancel = || Box::new(Cancel { reason, text: bounded_text(text.to_owned()) });
        match (stream.wire, stream.side, stream.id) {
            (Wire::Unsent, ..) => {
                stream.fail(StreamFailure::Closed);
                self.notify(key.index);
                self.finish_wire(key.index);
            }
            (Wire::Live, Side::Opener, Some(id)) => {
                stream.wire = Wire::Cancelled;
                stream.send.clear();
                stream.fail(StreamFailure::Closed);
                let frame = Frame::Cancel(id, cancel());
                self.scheduler.control(frame);
                self.discard(key.index);
                self.notify(key.index);
            }
            (Wire::Live | Wire::Owing, Side::Responder, Some(id)) => {
                stream.fail(StreamFailure::Closed);
                let frame = Frame::Cancel(id, cancel());
                self.scheduler.control(frame);
                self.notify(key.index);
                self.finish_wire(key.index);
            }
            _ => {}
        }
    }

    /// The responder's application gives up because the deadline has passed, of which the opener has not told yet. Its
    /// terminal is owed from now on, as after the opener's CANCEL.
    pub fn expire(&mut self, key: StreamKey) {
        if self.held(key).is_some_and(|stream| stream.side == Side::Responder && stream.wire == Wire::Live) {
            let text = "the deadline has passed".to_owned();
            self.owe(key.index, StreamFailure::Cancelled { reason: Reason::DeadlineExceeded, text });
        }
    }

    /// Why nobody waits for the responder's answer any more: the reason of a CANCEL, or that of the CLOSE by which an
    /// orderly end of the link took the stream with it. `None`: it is awaited, or answered, or the link broke.
    pub fn cancel_reason(&mut self, key: StreamKey) -> Option<Reason> {
        let ended = match &self.state {
            State::Closing(closed) | State::Closed(closed) | State::Ending { closed, .. }
                if closed.by != ClosedBy::Link =>
            {
                match closed.code {
                    CloseCode::Shutdown => Some(Reason::Shutdown),
                    CloseCode::Superseded => Some(Reason::Superseded),
                    _ => None,
                }
            }
            _ => None,
        };
        let stream = self.held(key)?;
        match &stream.receive.state {
            _ if stream.wire == Wire::Live => None,
            ReceiveState::Failed(StreamFailure::Cancelled { reason, .. }) => Some(*reason),
            _ => ended,
        }
    }

    /// The application lets go of the stream: its handler has ended and nobody reads its body any more. What is not
    /// finished is cancelled. Call it once for every stream; the key names nothing afterwards.
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.stream(key) else { return };
        if std::mem::replace(&mut stream.released, true) {
            return;
        }
        match (stream.side, stream.wire) {
            (Side::Opener, Wire::Unsent | Wire::Live) => self.cancel(key, Reason::ClientDisconnected, ""),
            (Side::Responder, Wire::Live | Wire::Owing) if !stream.send.finished || stream.wire == Wire::Owing => {
                let reason = match &stream.receive.state {
                    ReceiveState::Failed(StreamFailure::Cancelled { reason, .. }) => *reason,
                    _ => Reason::HandlerFailed,
                };
                self.cancel(key, reason, "");
            }
            _ => {}
        }
        // Cancelling may have been the end of it.
        match self.stream(key).map(|stream| stream.is_over()) {
            Some(true) => self.forget(key.index),
            Some(false) => self.discard(key.index),
            None => {}
        }
    }

    /// The stream that `key` names, until its application has let go of it.
    fn held(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.stream(key).filter(|stream| !stream.released)
    }

    /// Puts a stream into the ring it belongs to, unless it stands in one.
    pub(super) fn schedule(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        if stream.scheduled {
            return;
        }
        let Some(wants) = wants(stream) else { return };
        stream.scheduled = true;
        let key = StreamKey { index: slot, generation: stream.generation };
        let streams = &self.streams;
        let live = |key: StreamKey| streams.get(key.index as usize).is_some_and(|s| s.generation == key.generation);
        self.scheduler.schedule(key, wants, streams.len(), live);
    }

    /// The next stream's WINDOW.
    pub(super) fn next_window(&mut self) -> Option<Frame> {
        while let Some(key) = self.scheduler.windows.pop_front() {
            let Some(stream) = self.stream(key) else { continue };
            stream.receive.window_queued = false;
            let open = stream.wire == Wire::Live && matches!(stream.receive.state, ReceiveState::Open);
            if let Some(id) = stream.id.filter(|_| open) {
                return Some(Frame::Window(id, Window { bytes: stream.receive.window.settle() }));
            }
        }
        None
    }

    /// The next frame of some stream: a head with first bytes, a piece of data, trailers, or a bare end.
    pub(super) fn next_data(&mut self) -> Option<Frame> {
        if self.datagrams.is_some() {
            return self.next_message();
        }
        loop {
            let credit = self.send_credit.available();
            let key = self.scheduler.next(credit > 0)?;
            let Some(stream) = self.stream(key) else { continue };
            stream.scheduled = false;
            match wants(stream) {
                None => continue,
                // It was scheduled for its head, which has gone meanwhile; its data waits for the link's credit.
                Some(Wants::Data) if credit == 0 => {
                    self.schedule(key.index);
                    continue;
                }
                Some(_) => {}
            }
            return Some(self.transmit::<false>(key.index, credit));
        }
    }

    /// Sends from a stream: the next piece that credit allows, or the `WHOLE` message.
    pub(super) fn transmit<const WHOLE: bool>(&mut self, slot: u32, credit: usize) -> Frame {
        let max_frame = self.peer.max_frame as usize;
        let given = StreamId::new(self.next_id).unwrap_or(StreamId::CONNECTION);
        let stream = &mut self.streams[slot as usize];
        let id = *stream.id.get_or_insert(given);
        let (side, tunnel) = (stream.side, stream.send.tunnel);
        let head = stream.send.head.take();
        let head_size = head.as_ref().map_or(0, |head| HEAD_PREFIX + head_bytes(head));
        if stream.wire == Wire::Unsent {
            stream.wire = Wire::Live;
            self.next_id += 2;
            self.by_id.insert(id, slot);
        }
        let most = if WHOLE { usize::MAX } else { self.scheduler.chunk(max_frame - head_size).min(credit) };
        let (body, end, trailers) = take_body(&mut stream.send, most, head.is_none());
        if !WHOLE {
            self.send_credit.spend(body.len());
        }
        let wakes_writer = !body.is_empty() && !stream.send.finished;
        if WHOLE && let Some(Head::Request(request)) = &head {
            self.watch_loss(self.key(slot), request.deadline());
        }
        if end && side == Side::Responder {
            self.finish_wire(slot);
        } else {
            if wakes_writer {
                self.notify(slot);
            }
            self.schedule(slot);
        }
        let data = |payload| Data { stream: id, payload };
        match (head, side, trailers) {
            (Some(Head::Request(head)), ..) => Frame::Request(Request { stream: id, head, body, end, tunnel }),
            (Some(Head::Response(head)), ..) => Frame::Response(Response { stream: id, head, body, end, tunnel }),
            (None, Side::Opener, Some(trailers)) => Frame::RequestData(data(DataPayload::Trailers(*trailers))),
            (None, Side::Responder, Some(trailers)) => Frame::ResponseData(data(DataPayload::Trailers(*trailers))),
            (None, Side::Opener, None) => Frame::RequestData(data(DataPayload::Bytes { bytes: body, end })),
            (None, Side::Responder, None) => Frame::ResponseData(data(DataPayload::Bytes { bytes: body, end })),
        }
    }
}

const fn head_bytes(head: &Head) -> usize {
    match head {
        Head::Request(head) => head.as_bytes().len(),
        Head::Response(head) => head.as_bytes().len(),
    }
}

/// The next piece of a body, whether it is the last thing sent, and the trailers if they are what is sent. Trailers go
/// in a frame of their own, after a head and after all data.
fn take_body(send: &mut SendHalf, most: usize, headless: bool) -> (Bytes, bool, Option<Box<Trailers>>) {
    if headless && send.finished && send.queue.is_empty() && send.trailers.is_some() {
        send.ended = true;
        return (Bytes::new(), true, send.trailers.take());
    }
    let body = send.take(most);
    send.ended = send.ends_here();
    (body, send.ended, None)
}

/// What a stream has to send, if it may.
pub(super) fn wants(stream: &Stream) -> Option<Wants> {
    let send = &stream.send;
    if !matches!(stream.wire, Wire::Unsent | Wire::Live) || !send.begun || send.ended {
        return None;
    }
    if send.head.is_some() {
        return Some(Wants::Free);
    }
    if !send.queue.is_empty() {
        return (send.credit.available() > 0).then_some(Wants::Data);
    }
    send.finished.then_some(Wants::Free)
}
