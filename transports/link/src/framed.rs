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
use router_common::codec::{self, FrameDecoder, PREFACE};
use router_common::frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::link::{BoxLink, Capabilities, DetachedLink, Link, LinkError, PeerInfo};

/// Smallest read buffer: an idle link holds one of these.
const READ_MIN: usize = 8 * 1024;
/// Largest read buffer: bulk over loopback wants large reads.
const READ_MAX: usize = 256 * 1024;
/// A read is only attempted with room for at least this much.
const READ_ROOM: usize = 1024;
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
    /// Takes the preface and all whole frames out of the buffer.
    fn take_frames(&mut self, decoder: &FrameDecoder, into: &mut Vec<Frame>) {
        if self.poisoned {
            self.buffer.clear();
        }
        if !self.preface_seen && !self.take_preface() {
            return;
        }
        loop {
            match decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => {
                    self.since = None;
                    into.push(frame);
                }
                Ok(None) => break,
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
        if !self.buffer.is_empty() && self.since.is_none() {
            self.since = Some(tokio::time::Instant::now().into_std());
        }
    }

    fn end(&self) -> LinkError {
        match (self.preface_seen, self.buffer.len()) {
            (_, 0) => LinkError::Closed,
            (true, received) => LinkError::Truncated { what: "a frame", received },
            (false, received) => LinkError::Truncated { what: "the preface", received },
        }
    }

    /// Makes room for the next read, in one piece with the frame that has begun; says how much.
    fn make_room(&mut self, decoder: &FrameDecoder) -> usize {
        let missing = decoder.frame_len(&self.buffer).map_or(0, |whole| whole.saturating_sub(self.buffer.len()));
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(READ_ROOM) {
            let wanted = missing.max(self.size.saturating_sub(self.buffer.len())).max(READ_ROOM);
            if !self.buffer.try_reclaim(wanted) {
                // What is left of the old buffer lives on in the frames that share it.
                let mut fresh = BytesMut::with_capacity(self.buffer.len() + wanted);
                fresh.extend_from_slice(&self.buffer);
                self.buffer = fresh;
            }
        }
        self.buffer.capacity() - self.buffer.len()
    }

    /// Sizes the next buffer by what reads bring.
    fn learn(&mut self, read: usize, room: usize) {
        if read == room {
            self.lazy = 0;
            self.size = (self.size * 2).min(READ_MAX);
        } else if read < self.size / 4 && self.size > READ_MIN {
            self.lazy += 1;
            if self.lazy >= LAZY_READS {
                self.lazy = 0;
                self.size /= 2;
            }
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
