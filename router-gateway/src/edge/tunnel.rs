//! Tunnels at the edge: a client's bytes onto a stream and back, for as long as either side speaks (SPEC 4).
//!
//! [`Splice`] moves the bytes of a tunnel that a service has accepted. How the client asked for it, by HTTP/1.1's Upgrade or
//! HTTP/2's extended CONNECT, makes no difference here, nor does what the bytes mean.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use router_common::frame::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::EdgeContext;
use super::client::OpenGuard;
use super::held::{Counted, HeldBytes};
use super::opened::Opened;

/// The most that is read from a client at once, in bytes. An idle tunnel holds no buffer.
const READ_BYTES: usize = 16 * 1024;
/// Pieces that are moved each way before other tasks get a turn.
const ROUNDS: usize = 16;
/// How long a service may go on after a client that has left for good, in protocols where half a connection is none.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A client's end of a tunnel.
pub(super) trait TunnelIo: AsyncRead + AsyncWrite + Unpin {
    /// What follows is not the end of what was sent, and is not to look like it.
    fn cut(&mut self);

    /// Nobody will read what the client still sends; it is not to cost the client what it was sent.
    fn leave_unread(&self);
}

/// One tunnel at work: a state machine by hand, because it is kept for as long as nobody speaks.
pub(super) struct Splice<IO> {
    io: IO,
    opened: Opened,
    open: OpenGuard,
    context: Arc<EdgeContext>,
    /// The client may still send.
    up: bool,
    /// For the client, and not taken by its socket yet.
    down: Bytes,
    /// The service has ended.
    ended: bool,
    unflushed: bool,
    /// When anything moved last, and how long nothing may.
    moved: Instant,
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
}

/// The tunnel is to be cut, with this reason for the service where it is yet to be told.
struct Cut(Reason);

impl<IO: TunnelIo> Splice<IO> {
    pub(super) fn new(io: IO, opened: Opened, open: OpenGuard, context: Arc<EdgeContext>) -> Self {
        let (moved, limit) = (Instant::now(), context.settings.tunnel_idle_timeout);
        Self {
            io,
            opened,
            open,
            context,
            up: true,
            down: Bytes::new(),
            ended: false,
            unflushed: false,
            moved,
            limit,
            alarm: Box::pin(sleep_until(moved + limit)),
        }
    }

    /// Ends it for both sides, and does not pretend that it was over.
    pub(super) fn cut(&mut self, reason: Reason) {
        self.opened.tunnel.set_cancel_reason(reason);
        self.io.cut();
    }

    /// Moves bytes until the tunnel is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = false;
        for _ in 0..ROUNDS {
            let (up, down) = (self.poll_up(cx), self.poll_down(cx));
            match (up, down) {
                (Poll::Ready(Err(Cut(reason))), _) | (_, Poll::Ready(Err(Cut(reason)))) => {
                    self.cut(reason);
                    return Poll::Ready(());
                }
                (_, Poll::Ready(Ok(true))) => return Poll::Ready(()),
                (Poll::Pending, Poll::Pending) => {
                    if moved {
                        self.moved = Instant::now();
                    }
                    return self.poll_idle(cx);
                }
                _ => moved = true,
            }
        }
        self.moved = Instant::now();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One piece from the client.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        if !self.up {
            return Poll::Pending;
        }
        let tunnel = &mut self.opened.tunnel;
        let Ok(room) = ready!(tunnel.poll_room(cx)) else {
            // How it ended is told where it is read.
            self.up = false;
            return Poll::Pending;
        };
        let mut scratch = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
        let space = scratch.get_mut(..room.min(READ_BYTES)).unwrap_or_default();
        let mut piece = ReadBuf::uninit(space);
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece)) {
            tracing::debug!(%error, "a client left its tunnel");
            return Poll::Ready(Err(Cut(Reason::ClientDisconnected)));
        }
        if piece.filled().is_empty() {
            self.up = false;
            tunnel.finish();
            if self.opened.ends_with_client {
                self.limit = LAST_WORDS.min(self.limit);
                self.alarm.as_mut().reset(Instant::now() + self.limit);
            }
            return Poll::Ready(Ok(()));
        }
        let piece = self.counted(Bytes::copy_from_slice(piece.filled()))?;
        // It was open a moment ago, and tells how it ended where it is read.
        let _ = self.opened.tunnel.send(piece);
        Poll::Ready(Ok(()))
    }

    /// One piece for the client; says whether that was all.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Cut>> {
        let gone = |error: std::io::Error| {
            tracing::debug!(%error, "a client left its tunnel");
            Cut(Reason::ClientDisconnected)
        };
        if !self.down.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.down)).map_err(gone)?;
            if written == 0 {
                return Poll::Ready(Err(Cut(Reason::ClientDisconnected)));
            }
            self.down.advance(written);
            self.unflushed = true;
            return Poll::Ready(Ok(false));
        }
        if self.ended {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx)).map_err(gone)?;
            return Poll::Ready(Ok(true));
        }
        match self.opened.tunnel.poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.down = bytes;
                Poll::Ready(Ok(false))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a tunnel was cut");
                Poll::Ready(Err(Cut(Reason::ClientDisconnected)))
            }
            Poll::Ready(None) => {
                self.ended = true;
                // The service's end is that of both directions.
                if std::mem::take(&mut self.up) {
                    self.io.leave_unread();
                }
                Poll::Ready(Ok(false))
            }
            Poll::Pending => {
                if self.unflushed {
                    ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(gone)?;
                    self.unflushed = false;
                }
                Poll::Pending
            }
        }
    }

    /// Counts request bytes that live in this node until the last reference to them is dropped (SPEC 6).
    fn counted(&self, bytes: Bytes) -> Result<Bytes, Cut> {
        let connection: Arc<HeldBytes> = Arc::clone(&self.open.connection().held);
        let node = Arc::clone(&self.context.node_bytes);
        let length = bytes.len() as u64;
        let within_connection = connection.add(length, self.context.settings.max_connection_bytes);
        let within_node = node.add(length, node.limit());
        let counted = Bytes::from_owner(Counted::new(bytes, connection, node));
        if within_connection && within_node { Ok(counted) } else { Err(Cut(Reason::PayloadLimit)) }
    }

    /// Nothing moves: for too long?
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let until = self.moved + self.limit;
            if until <= Instant::now() {
                let reason = if self.up { Reason::DeadlineExceeded } else { Reason::ClientDisconnected };
                self.cut(reason);
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }
}
