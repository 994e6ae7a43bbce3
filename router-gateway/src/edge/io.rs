//! The byte stream under the HTTP library: patience with slow clients, and refusals in our own words.
//!
//! The HTTP library answers a head it cannot parse with an empty response, and closes a connection that is too slow
//! without a word. This stream stands below it and knows, by what passes, whether a message is being exchanged: it says
//! 408 to a head that does not come to its end, closes what is idle too long, and puts a problem document in the place
//! of the library's own refusals. It knows nothing of requests beyond where they begin.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Buf, BufMut, Bytes};
use router_common::problem::{Problem, ProblemCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::EdgeContext;
use super::client::ClientConnection;
use super::scan::HeadScan;
use super::tunnel::TunnelIo;
use crate::respond;

/// How HTTP/2 with prior knowledge begins (RFC 9113 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection that is closed with unread input is still read, so that its reset does not overtake the answer
/// (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much is read meanwhile, in bytes.
const LINGER_BYTES: usize = 256 * 1024;

/// Pieces that are no longer together are copied into one, in bytes: writing several costs the kernel more than that.
const FLAT: usize = 1024;

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// None any more: a tunnel's bytes.
    Opaque,
}

/// A little that was read before the HTTP library asked, and is still to be given to it.
#[derive(Debug, Default)]
struct Ahead {
    bytes: [u8; H2_PREFACE.len()],
    filled: usize,
    taken: usize,
}

impl Ahead {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..self.filled).unwrap_or_default()
    }

    /// Reads what there is room for; says how much came.
    fn poll_fill(&mut self, io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(self.bytes.get_mut(self.filled..).unwrap_or_default());
        ready!(Pin::new(io).poll_read(cx, &mut buf))?;
        let read = buf.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }

    /// Gives as much as fits.
    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let length = self.rest().len().min(to.remaining());
        to.put_slice(self.rest().get(..length).unwrap_or_default());
        self.taken += length;
        if self.taken == self.filled {
            *self = Self::default();
        }
    }
}

pub(super) struct EdgeIo<IO> {
    io: IO,
    connection: Arc<ClientConnection>,
    context: Arc<EdgeContext>,
    ahead: Ahead,
    /// What the HTTP library had read and not used when its state was given up: it stands before everything else.
    returned: Bytes,
    protocol: Protocol,
    /// The HTTP library waits for more to read.
    hungry: bool,
    /// Since when a request head has begun and is not complete.
    head_since: Option<Instant>,
    scan: HeadScan,
    /// Runs while a head is incomplete and nothing more has come.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Runs while a write does not get on.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Our last words. Once set, the HTTP library reads its end and writes into nothing.
    refusal: Option<Bytes>,
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> EdgeIo<IO> {
    pub(super) fn new(io: IO, connection: Arc<ClientConnection>, context: Arc<EdgeContext>) -> Self {
        Self {
            io,
            connection,
            context,
            ahead: Ahead::default(),
            returned: Bytes::new(),
            protocol: Protocol::Http1,
            hungry: false,
            head_since: None,
            scan: HeadScan::default(),
            alarm: None,
            stalled: None,
            refusal: None,
            lingering: None,
        }
    }

    /// Reads until it is clear which protocol the client speaks; `None` if it says nothing at all.
    pub(super) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Protocol>>> {
        loop {
            let seen = self.ahead.rest();
            if !H2_PREFACE.starts_with(seen) {
                return Poll::Ready(Ok(Some(Protocol::Http1)));
            }
            if seen.len() == H2_PREFACE.len() {
                self.protocol = Protocol::Http2;
                return Poll::Ready(Ok(Some(Protocol::Http2)));
            }
            if ready!(self.ahead.poll_fill(&mut self.io, cx))? == 0 {
                // An unfinished preface is left to the HTTP/1.1 parser, which says 400.
                return Poll::Ready(Ok((!self.ahead.rest().is_empty()).then_some(Protocol::Http1)));
            }
        }
    }

    /// Waits for a next request of a client that speaks HTTP/1.1; says whether one has begun, or the client has gone.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.returned.is_empty() || !self.ahead.rest().is_empty() {
            return Poll::Ready(Ok(true));
        }
        Poll::Ready(Ok(ready!(self.ahead.poll_fill(&mut self.io, cx))? > 0))
    }

    /// Takes back what the HTTP library had read: the beginning of a head that came together with an earlier request.
    pub(super) fn take_back(&mut self, bytes: Bytes) {
        self.hungry = false;
        // An empty rest would still hold the buffer that it was read into.
        self.returned = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    /// HTTP is over on this connection: what follows is a tunnel's, beginning with what the library had read beyond the
    /// request that asked for it.
    pub(super) fn turn_opaque(&mut self, read: Bytes) {
        let rest = std::mem::take(&mut self.returned);
        self.take_back(if rest.is_empty() { read } else { [read, rest].concat().into() });
        self.protocol = Protocol::Opaque;
        self.head_since = None;
        self.alarm = None;
        self.stalled = None;
    }

    /// Reads what was read before, and then the stream.
    fn poll_input(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.returned.is_empty() {
            let length = self.returned.len().min(buf.remaining());
            buf.put_slice(&self.returned.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if self.ahead.rest().is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        self.ahead.give(buf);
        // With what stands behind it: a head in two pieces would double the HTTP library's buffer, for good.
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Sees whether a client whose request is being answered is still there. The HTTP library could do it too, but reads
    /// into a buffer of its own size, which every request in flight would hold.
    ///
    /// # Errors
    /// The client has gone: nobody will read the answer.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // While a body comes, the HTTP library reads.
        let is_answered = !self.hungry && self.connection.has_one_open();
        if self.protocol != Protocol::Http1 || !is_answered || !self.ahead.rest().is_empty() {
            return Ok(());
        }
        match self.ahead.poll_fill(&mut self.io, cx) {
            Poll::Ready(Ok(0)) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client left before its answer"))
            }
            Poll::Ready(Err(error)) => Err(error),
            // Its next request, or more of its body, which the HTTP library will ask for.
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Takes note of bytes that the HTTP library is about to see.
    fn arrived(&mut self, bytes: &[u8]) {
        if self.protocol != Protocol::Http1 || bytes.is_empty() {
            return;
        }
        // What comes after a body that was given up is the rest of it, not a head.
        if self.connection.is_busy() || self.connection.has_unread() {
            self.head_since = None;
            return;
        }
        if self.head_since.is_none() {
            self.scan = HeadScan::default();
        }
        self.scan.feed(bytes);
        self.connection.note_partial_head(!self.scan.is_complete());
        if self.scan.is_complete() {
            self.head_since = None;
            self.connection.note_head(self.scan.found().two_lengths());
            return;
        }
        self.head_since.get_or_insert_with(Instant::now);
        if self.scan.seen() > self.context.settings.max_header_bytes {
            // The library would go on until its buffer is full.
            self.refuse(ProblemCode::HeadersTooLarge);
        }
    }

    /// Nothing to read: has the time for the head run out? How long a connection may be idle is seen to by its task: the
    /// HTTP library does not read while it waits for a next request.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(since) = self.head_since.filter(|_| !self.connection.is_busy()) else { return Poll::Pending };
        let deadline = since + self.context.settings.header_timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        ready!(alarm.as_mut().poll(cx));
        self.refuse(ProblemCode::RequestTimeout);
        // The end of input: the HTTP library closes.
        self.poll_refusal(cx)
    }

    fn refuse(&mut self, code: ProblemCode) {
        let id = self.context.request_ids.next(Instant::now().into_std());
        self.refusal = Some(respond::raw(&Problem::new(code), id.to_str().ok(), SystemTime::now()));
        self.connection.leave_unread();
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.refusal.as_mut().filter(|rest| rest.has_remaining()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.advance(written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Whether the HTTP library, which has called nobody since its last flush, is about to refuse by itself: then the
    /// code in whose place ours stands.
    fn own_refusal(&self, first: &[u8]) -> Option<ProblemCode> {
        if self.protocol != Protocol::Http1 || !self.connection.owes_nothing() {
            return None;
        }
        match first.get(..12)? {
            b"HTTP/1.1 431" | b"HTTP/1.0 431" => Some(ProblemCode::HeadersTooLarge),
            b"HTTP/1.1 414" | b"HTTP/1.0 414" => Some(ProblemCode::UriTooLong),
            _ => Some(ProblemCode::BadRequest),
        }
    }

    /// A write that did not get on for too long ends the connection: the client does not read.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.stalled.take().is_some() && self.connection.set_blocked(false) {
                // The body that held back is asked again.
                cx.waker().wake_by_ref();
            }
            return outcome;
        }
        if self.protocol == Protocol::Opaque {
            // A tunnel has a patience of its own.
            return outcome;
        }
        if self.protocol == Protocol::Http1 {
            self.connection.set_blocked(true);
        }
        self.look_ahead(cx)?;
        let patience = self.context.settings.body_idle_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (until, left) =
            self.lingering.get_or_insert_with(|| (Box::pin(sleep_until(Instant::now() + LINGER)), LINGER_BYTES));
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => match left.checked_sub(buf.filled().len()) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(()),
                },
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return until.as_mut().poll(cx),
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + 'static> TunnelIo for EdgeIo<IO> {
    fn cut(&mut self) {
        // Closing would end it like a service that has said all. What is no socket ends as it does.
        if let Some(socket) = (&self.io as &dyn Any).downcast_ref::<TcpStream>() {
            let _ = socket.set_zero_linger();
        }
    }

    fn leave_unread(&self) {
        self.connection.leave_unread();
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for EdgeIo<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return this.poll_refusal(cx);
        }
        let before = buf.filled().len();
        let input = this.poll_input(cx, buf);
        this.hungry = input.is_pending();
        match input {
            Poll::Ready(outcome) => {
                this.arrived(buf.filled().get(before..).unwrap_or_default());
                if this.refusal.is_some() {
                    buf.set_filled(before);
                    return this.poll_refusal(cx);
                }
                Poll::Ready(outcome)
            }
            Poll::Pending if this.protocol != Protocol::Http1 => Poll::Pending,
            Poll::Pending => this.poll_patience(cx),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EdgeIo<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_none()
            && let Some(code) = this.own_refusal(bufs.first().map(|first| &**first).unwrap_or_default())
        {
            this.refuse(code);
        }
        if this.refusal.is_some() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let io = Pin::new(&mut this.io);
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        let outcome = match bufs {
            [one] => io.poll_write(cx, one),
            _ if length <= FLAT => {
                let mut flat = [0; FLAT];
                let mut rest = &mut flat[..];
                for buf in bufs {
                    rest.put_slice(buf);
                }
                io.poll_write(cx, &flat[..length])
            }
            several => io.poll_write_vectored(cx, several),
        };
        this.poll_stalled(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return this.poll_refusal(cx);
        }
        let outcome = Pin::new(&mut this.io).poll_flush(cx);
        ready!(this.poll_stalled(cx, outcome))?;
        // The HTTP library flushes when its own buffer is empty.
        if this.protocol == Protocol::Http1 {
            this.connection.flushed();
            this.look_ahead(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            if this.refusal.is_some() {
                ready!(this.poll_refusal(cx))?;
            }
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if this.connection.has_unread() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
