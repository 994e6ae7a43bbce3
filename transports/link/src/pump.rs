//! Moving a body onto a stream: the first bytes with the head, the rest as credit allows.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use router_common::head::Trailers;
use router_common::session::{StreamKey, TakenBack};

use crate::body::Body;
use crate::body_error::BodyError;
use crate::convert;
use crate::shared::{Interest, Shared, State};

/// First bytes that wait for each other, so that they leave with the head.
pub(crate) const GATHER_BYTES: usize = 16 * 1024;
/// The most pieces they may come in: each is kept for as long as the bytes are.
const GATHER_PIECES: usize = 64;

/// The beginning of a body of ours.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Collected,
    /// What came and did not fit.
    pub(crate) carry: Option<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) ended: bool,
}

#[derive(Debug, Default)]
enum Collected {
    #[default]
    Nothing,
    One(Bytes),
    Many(Joined),
}

/// Several pieces in one. They live as long as their copy does: whoever counts bytes while they live counts these too.
#[derive(Debug)]
struct Joined {
    bytes: BytesMut,
    pieces: Vec<Bytes>,
}

impl Joined {
    fn push(&mut self, piece: Bytes) {
        self.bytes.extend_from_slice(&piece);
        self.pieces.push(piece);
    }
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is left of a body: what was taken of it and has not left, and what it still has to give.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// In order, before everything else.
    taken: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// `None`: what was taken is all.
    rest: Option<Body>,
}

impl Remains {
    /// What was taken, in order, then the trailers or the rest.
    pub(crate) const fn new(taken: VecDeque<Bytes>, trailers: Option<HeaderMap>, rest: Option<Body>) -> Self {
        Self { taken, trailers, rest }
    }

    /// Puts bytes before everything else.
    fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.taken.push_front(bytes);
        }
    }

    /// A body of them, behind the bytes that came first.
    pub(crate) fn with(mut self, first: Bytes) -> Body {
        self.put_back(first);
        Body::stream(self)
    }
}

impl http_body::Body for Remains {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(bytes) = this.taken.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

/// How far gathering came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The body has ended, or there is enough.
    Enough,
    /// The body has nothing more right now.
    Waits,
}

impl Gathered {
    /// Takes what the body has now.
    pub(crate) fn poll(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Result<Progress, BodyError> {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(Progress::Waits),
                Poll::Ready(None) => {
                    self.ended = true;
                    return Ok(Progress::Enough);
                }
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        if !self.push(bytes) {
                            return Ok(Progress::Enough);
                        }
                    }
                    Err(other) => {
                        if let Ok(trailers) = other.into_trailers() {
                            self.trailers = Some(trailers);
                            self.ended = true;
                            return Ok(Progress::Enough);
                        }
                    }
                },
            }
        }
    }

    /// Whether more may be taken.
    fn push(&mut self, bytes: Bytes) -> bool {
        match &mut self.bytes {
            _ if bytes.is_empty() => {}
            Collected::Nothing => self.bytes = Collected::One(bytes),
            Collected::One(first) if first.len() + bytes.len() <= GATHER_BYTES => {
                let mut many = Joined { bytes: BytesMut::with_capacity(GATHER_BYTES), pieces: Vec::new() };
                many.push(std::mem::take(first));
                many.push(bytes);
                self.bytes = Collected::Many(many);
            }
            Collected::Many(many)
                if many.bytes.len() + bytes.len() <= GATHER_BYTES && many.pieces.len() < GATHER_PIECES =>
            {
                many.push(bytes);
            }
            Collected::One(_) | Collected::Many(_) => {
                self.carry = Some(bytes);
                return false;
            }
        }
        self.len() < GATHER_BYTES
    }

    fn len(&self) -> usize {
        match &self.bytes {
            Collected::Nothing => 0,
            Collected::One(bytes) => bytes.len(),
            Collected::Many(many) => many.bytes.len(),
        }
    }

    /// Whether this is a whole message without trailers.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    pub(crate) fn take_bytes(&mut self) -> Bytes {
        match std::mem::take(&mut self.bytes) {
            Collected::Nothing => Bytes::new(),
            Collected::One(bytes) => bytes,
            Collected::Many(many) => Bytes::from_owner(many),
        }
    }

    /// What is to follow [`take_bytes`](Self::take_bytes) of `body`, which gave the beginning.
    pub(crate) fn take_remains(&mut self, body: &mut Body) -> Remains {
        Remains {
            taken: self.carry.take().into_iter().collect(),
            trailers: self.trailers.take(),
            rest: (!self.ended).then(|| std::mem::take(body)),
        }
    }
}

/// The rest of a body on its way onto a stream whose head was given.
#[derive(Debug)]
pub(crate) struct Pump {
    shared: Arc<Shared>,
    key: StreamKey,
    remains: Remains,
}

/// How pumping ended.
#[derive(Debug)]
pub(crate) enum Pumped {
    /// All was handed over.
    Finished,
    /// The stream takes no more: it was cancelled, answered already, or lost.
    StreamClosed,
    /// The body failed. The stream still stands.
    Failed(BodyError),
}

impl Pump {
    pub(crate) const fn new(shared: Arc<Shared>, key: StreamKey, remains: Remains) -> Self {
        Self { shared, key, remains }
    }

    /// The body as it was before any of it was given to a stream, which gave `back` what it had been given.
    pub(crate) fn into_whole(pump: Option<Self>, back: TakenBack) -> Body {
        let mut remains = pump.map(|pump| pump.remains).unwrap_or_default();
        back.pieces.into_iter().rev().for_each(|piece| remains.put_back(piece));
        if let Some(trailers) = back.trailers {
            remains.trailers = convert::trailer_map(&trailers);
        }
        Body::stream(remains)
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pumped> {
        // Waits for room and for the stream's end alike, before the body is asked: an end must be noticed even while
        // the body has nothing.
        let mut room = self.shared.look(|state| room(state, self.key, cx));
        loop {
            match room {
                None => return Poll::Ready(Pumped::StreamClosed),
                Some(0) => return Poll::Pending,
                Some(_) => {}
            }
            let trailers = match Pin::new(&mut self.remains).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Pumped::Failed(error)),
                Poll::Ready(None) => None,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        room = self.send(bytes, cx);
                        continue;
                    }
                    Err(other) => match other.into_trailers() {
                        Ok(trailers) => Some(trailers),
                        Err(_) => continue,
                    },
                },
            };
            let pumped = finish(&self.shared, self.key, trailers.as_ref());
            // The stream may have ended just before: then this is all that is left.
            self.remains = Remains { trailers, ..Remains::default() };
            return Poll::Ready(pumped);
        }
    }

    fn send(&mut self, bytes: Bytes, cx: &Context<'_>) -> Option<usize> {
        let Self { shared, key, remains } = self;
        shared.act(|state| {
            if state.session.send_capacity(*key).is_err() {
                remains.put_back(bytes);
                return None;
            }
            if !bytes.is_empty() {
                state.session.send_data(*key, bytes).ok()?;
            }
            room(state, *key, cx)
        })
    }
}

/// Ends the sending direction, with trailers if there are any.
pub(crate) fn finish(shared: &Shared, key: StreamKey, trailers: Option<&HeaderMap>) -> Pumped {
    let trailers = match trailers.map(Trailers::encode).transpose() {
        Ok(trailers) => trailers,
        Err(error) => return Pumped::Failed(error.into()),
    };
    match shared.act(|state| state.session.finish(key, trailers)) {
        Ok(()) => Pumped::Finished,
        Err(_) => Pumped::StreamClosed,
    }
}

/// Bytes the stream takes now; `None`: it takes none any more.
fn room(state: &mut State, key: StreamKey, cx: &Context<'_>) -> Option<usize> {
    let room = state.session.send_capacity(key).ok()?;
    state.wait(key, Interest::Write, cx);
    Some(room)
}
