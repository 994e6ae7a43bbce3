//! FramedLink: a link over any byte stream. Preface, decoding, and batched vectored writes (SPEC 4, 7).
//!
//! It knows bytes and frames; not sessions, and not which byte stream it runs on.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use router_common::codec::{self, DataParts, FrameDecoder, PREFACE};
use router_common::frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::link::{BoxLink, Capabilities, DetachedLink, Link, LinkError, PeerInfo};

/// Smallest read buffer: an idle link holds one of these.
const READ_MIN: usize = 8 * 1024;
/// Largest read buffer: bulk over loopback wants large reads.
const READ_MAX: usize = 512 * 1024;
/// A read is only attempted with room for at least this much.
const READ_ROOM: usize = 1024;
/// Buffers from this size on are used again: so large a one is costly to get, and cold in the processor's cache.
const SPARE_MIN: usize = 64 * 1024;
/// What one `poll_recv` reads at most before it gives the frames out.
const TURN_BYTES: usize = 256 * 1024;
/// Reads in a row that leave most of the buffer unused, until it shrinks.
const LAZY_READS: u32 = 16;
/// A body up to this size is copied next to its header; a larger one is written from where it is.
const COPY_BYTES: usize = 4 * 1024;
/// Headers and small bodies collected for one round of writing.
const SMALL_BYTES: usize = 128 * 1024;
/// Everything collected for one round of writing.
const ROUND_BYTES: usize = 1024 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 64;
/// Bytes of a wrong preface that an error quotes.
const QUOTED_BYTES: usize = 32;

/// A byte stream that can change its runtime.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The stream outside of any runtime's reactor.
    type Detached: Send + 'static;

    /// Leaves the current runtime's reactor.
    ///
    /// # Errors
    /// The operating system's.
    fn detach(self) -> io::Result<Self::Detached>;

    /// Joins the current runtime's reactor.
    ///
    /// # Errors
    /// The operating system's.
    fn attach(detached: Self::Detached) -> io::Result<Self>
    where
        Self: Sized;
}

/// An in-memory pipe has no reactor to leave.
impl ByteStream for tokio::io::DuplexStream {
    type Detached = Self;

    fn detach(self) -> io::Result<Self> {
        Ok(self)
    }

    fn attach(detached: Self) -> io::Result<Self> {
        Ok(detached)
    }
}

/// A link over a byte stream.
///
/// Its preface leaves with the first frames, so a gateway, which speaks second, says nothing at all to a peer that began
/// with something else.
pub struct FramedLink<IO> {
    io: IO,
    codec: Codec,
}

/// All of a framed link but its stream.
struct Codec {
    peer: PeerInfo,
    decoder: FrameDecoder,
    reading: Reading,
    writing: Writing,
}

struct Reading {
    buffer: BytesMut,
    /// The large buffer before, to be used again when nobody holds its bytes any more.
    spare: BytesMut,
    /// Nothing was read into `buffer` since it took the other one's place.
    untouched: bool,
    /// A large data frame that is given out as it comes.
    parts: Option<DataParts>,
    /// Capacity of the next buffer.
    size: usize,
    lazy: u32,
    preface_seen: bool,
    ended: bool,
    /// Bytes that are no frames came: what follows is thrown away.
    poisoned: bool,
    /// Found behind whole frames, and told after they have been given out.
    failed: Option<LinkError>,
    since: Option<Instant>,
}

/// Frames on their way out: small things in one buffer, large bodies between them.
struct Writing {
    small: BytesMut,
    /// How much of `small` is written.
    position: usize,
    /// Large bodies, each with the offset in `small` that it follows.
    bodies: VecDeque<(usize, Bytes)>,
    /// Bytes not yet written.
    left: usize,
    preface_queued: bool,
    unflushed: bool,
}

impl<IO: ByteStream> FramedLink<IO> {
    /// A link over `io`. `max_frame` is the largest payload this side accepts, in bytes: what it states in its
    /// `ReceiveLimits`.
    #[must_use]
    pub fn new(io: IO, peer: PeerInfo, max_frame: u32) -> Self {
        Self {
            io,
            codec: Codec {
                peer,
                decoder: FrameDecoder::new(max_frame),
                reading: Reading {
                    buffer: BytesMut::new(),
                    spare: BytesMut::new(),
                    untouched: false,
                    parts: None,
                    size: READ_MIN,
                    lazy: 0,
                    preface_seen: false,
                    ended: false,
                    poisoned: false,
                    failed: None,
                    since: None,
                },
                writing: Writing {
                    small: BytesMut::with_capacity(READ_MIN),
                    position: 0,
                    bodies: VecDeque::new(),
                    left: 0,
                    preface_queued: false,
                    unflushed: false,
                },
            },
        }
    }
}

impl<IO> fmt::Debug for FramedLink<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramedLink")
            .field("peer", &self.codec.peer)
            .field("buffered", &self.codec.reading.buffer.len())
            .field("unwritten", &self.codec.writing.left)
            .finish_non_exhaustive()
    }
}

impl<IO: ByteStream> Link for FramedLink<IO> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        let before = into.len();
        let reading = &mut self.codec.reading;
        let mut turn = 0;
        loop {
            if reading.failed.is_none() {
                reading.take_frames(&self.codec.decoder, into);
            }
            if into.len() > before {
                if reading.failed.is_some() || reading.ended || turn >= TURN_BYTES {
                    return Poll::Ready(Ok(()));
                }
            } else if let Some(error) = reading.failed.take() {
                reading.poisoned = true;
                return Poll::Ready(Err(error));
            } else if reading.ended {
                return Poll::Ready(Err(reading.end()));
            }
            let room = reading.make_room(&self.codec.decoder);
            match poll_read_buf(Pin::new(&mut self.io), cx, &mut reading.buffer) {
                Poll::Ready(Ok(0)) => reading.ended = true,
                Poll::Ready(Ok(read)) => {
                    turn += read;
                    reading.learn(read, room);
                }
                Poll::Ready(Err(error)) => reading.failed = Some(LinkError::io("reading", error)),
                Poll::Pending if into.len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        let writing = &mut self.codec.writing;
        loop {
            while writing.has_room()
                && let Some(frame) = batch.pop_front()
            {
                writing.push(&frame);
            }
            if writing.left == 0 {
                break;
            }
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = writing.slices(&mut slices);
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))
            };
            match written {
                Ok(0) => return Poll::Ready(Err(LinkError::io("writing", io::ErrorKind::WriteZero.into()))),
                Ok(written) => writing.advance(written),
                Err(error) => return Poll::Ready(Err(LinkError::io("writing", error))),
            }
        }
        if writing.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|error| LinkError::io("flushing", error))?;
            writing.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.io).poll_shutdown(cx).map(drop)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn peer(&self) -> &PeerInfo {
        &self.codec.peer
    }

    fn receiving_since(&self) -> Option<Instant> {
        self.codec.reading.since
    }

    fn detach(self: Box<Self>) -> Box<dyn DetachedLink> {
        Box::new(Detached::<IO> { io: self.io.detach(), codec: self.codec })
    }
}

struct Detached<IO: ByteStream> {
    io: io::Result<IO::Detached>,
    codec: Codec,
}

impl<IO: ByteStream> DetachedLink for Detached<IO> {
    fn attach(self: Box<Self>) -> io::Result<BoxLink> {
        Ok(Box::new(FramedLink { io: IO::attach(self.io?)?, codec: self.codec }))
    }
}

impl Reading {
    /// Takes the preface and all frames out of the buffer, and of a large data frame what there is.
    fn take_frames(&mut self, decoder: &FrameDecoder, into: &mut Vec<Frame>) {
        if self.poisoned {
            self.buffer.clear();
        }
        if !self.preface_seen && !self.take_preface() {
            return;
        }
        loop {
            if let Some(parts) = &mut self.parts {
                into.extend(parts.take(&mut self.buffer));
                if !parts.is_complete() {
                    break;
                }
                self.parts = None;
                self.since = None;
            }
            match decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => {
                    self.since = None;
                    into.push(frame);
                }
                Ok(None) => {
                    self.parts = decoder.begin_parts(&mut self.buffer);
                    if self.parts.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    self.failed = Some(error.into());
                    return;
                }
            }
        }
        self.note_partial();
    }

    /// Whether the preface has come. A wrong one is known from its first wrong byte.
    fn take_preface(&mut self) -> bool {
        let got = self.buffer.len().min(PREFACE.len());
        if self.buffer.get(..got) != PREFACE.get(..got) {
            self.failed = Some(LinkError::Preface { seen: describe(&self.buffer) });
            return false;
        }
        if got < PREFACE.len() {
            self.note_partial();
            return false;
        }
        self.buffer.advance(PREFACE.len());
        self.preface_seen = true;
        self.since = None;
        true
    }

    fn note_partial(&mut self) {
        if (!self.buffer.is_empty() || self.parts.is_some()) && self.since.is_none() {
            self.since = Some(tokio::time::Instant::now().into_std());
        }
    }

    fn end(&self) -> LinkError {
        let given = self.parts.as_ref().map_or(0, DataParts::taken);
        match (self.preface_seen, given + self.buffer.len()) {
            (_, 0) => LinkError::Closed,
            (true, received) => LinkError::Truncated { what: "a frame", received },
            (false, received) => LinkError::Truncated { what: "the preface", received },
        }
    }

    /// Makes room for the next read, in one piece with the frame that has begun; says how much.
    fn make_room(&mut self, decoder: &FrameDecoder) -> usize {
        if self.untouched && self.spare.try_reclaim(self.size) {
            // It was given up too early.
            std::mem::swap(&mut self.buffer, &mut self.spare);
            self.untouched = false;
        }
        let length = self.buffer.len();
        let missing = match self.parts {
            Some(_) => 0,
            None => decoder.frame_len(&self.buffer).map_or(0, |whole| whole.saturating_sub(length)),
        };
        let wanted = missing.max(self.size.saturating_sub(length)).max(READ_ROOM);
        // Room behind what others still hold is taken while it is worth a read.
        let least = missing.max(READ_ROOM).max(self.size / 8);
        if !self.buffer.try_reclaim(wanted) && self.buffer.capacity() - length < least {
            self.replace(length + wanted);
        }
        self.buffer.capacity() - length
    }

    /// Goes on in another buffer: what is left of this one lives on in the frames that share it.
    fn replace(&mut self, capacity: usize) {
        let mut next = std::mem::take(&mut self.spare);
        if !next.try_reclaim(capacity) {
            next = BytesMut::with_capacity(capacity);
        }
        next.extend_from_slice(&self.buffer);
        let mut old = std::mem::replace(&mut self.buffer, next);
        if capacity >= SPARE_MIN {
            old.clear();
            self.spare = old;
            self.untouched = self.buffer.is_empty();
        }
    }

    /// Sizes the next buffer by what reads bring.
    fn learn(&mut self, read: usize, room: usize) {
        self.untouched = false;
        if read == room {
            self.lazy = 0;
            self.size = (self.size * 2).min(READ_MAX);
        } else if read < self.size / 4 && self.size > READ_MIN {
            self.lazy += 1;
            if self.lazy >= LAZY_READS {
                self.lazy = 0;
                self.size /= 2;
                self.spare = BytesMut::new();
            }
        } else {
            self.lazy = 0;
        }
    }
}

impl Writing {
    fn has_room(&self) -> bool {
        self.small.len() < SMALL_BYTES && self.left < ROUND_BYTES
    }

    fn push(&mut self, frame: &Frame) {
        let before = self.small.len();
        if !self.preface_queued {
            self.preface_queued = true;
            self.small.put_slice(&PREFACE);
        }
        let body = codec::encode(frame, &mut self.small);
        self.unflushed = true;
        if body.len() <= COPY_BYTES {
            self.small.put_slice(&body);
            self.left += self.small.len() - before;
        } else {
            self.left += self.small.len() - before + body.len();
            self.bodies.push_back((self.small.len(), body));
        }
    }

    /// What is to be written next, in order; says how many slices there are.
    fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        let mut from = self.position;
        let mut add = |slice: &'a [u8]| {
            if let Some(slot) = into.get_mut(count)
                && !slice.is_empty()
            {
                *slot = IoSlice::new(slice);
                count += 1;
            }
        };
        for (at, body) in self.bodies.iter().take(SLICES) {
            add(&self.small[from..*at]);
            add(body);
            from = *at;
        }
        if self.bodies.len() <= SLICES {
            add(&self.small[from..]);
        }
        count
    }

    fn advance(&mut self, mut written: usize) {
        self.left -= written;
        while let Some((at, body)) = self.bodies.front_mut() {
            let small = written.min(*at - self.position);
            self.position += small;
            written -= small;
            let large = written.min(body.len());
            body.advance(large);
            written -= large;
            if self.position < *at || !body.is_empty() {
                return;
            }
            self.bodies.pop_front();
        }
        self.position += written;
        if self.left == 0 {
            self.position = 0;
            if self.small.capacity() > 2 * SMALL_BYTES {
                self.small = BytesMut::with_capacity(READ_MIN);
            } else {
                self.small.clear();
            }
        }
    }
}

/// Says what a stranger began with, for the people who run the listener.
fn describe(bytes: &[u8]) -> String {
    let looks_like = match bytes {
        [0x16, 0x03, ..] => " (a TLS handshake)",
        [b'A', b'M', b'Q', b'P', ..] => " (AMQP)",
        [b'P', b'R', b'I', b' ', ..] => " (HTTP/2)",
        [b'S', b'S', b'H', b'-', ..] => " (SSH)",
        _ if ["GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE "]
            .iter()
            .any(|method| bytes.starts_with(method.as_bytes())) =>
        {
            " (an HTTP request)"
        }
        _ if bytes.starts_with(b"STELLA/") => " (another version of the protocol)",
        _ => "",
    };
    let quoted = bytes.get(..QUOTED_BYTES).unwrap_or(bytes);
    format!("`{}`{looks_like}", quoted.escape_ascii())
}
