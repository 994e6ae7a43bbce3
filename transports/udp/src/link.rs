//! A link over UDP: the packet layer, a carrier, and a timer (SPEC 7).
//!
//! It draws frames from datagrams whenever it is polled, and wakes whoever polls it when a packet has to be sent again. It
//! does not know what frames say, but for those of the handshake and CLOSE.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::codec::DecodeError;
use router_common::frame::Frame;
use router_link::{BoxLink, Capabilities, DetachedLink, Link, LinkError, PeerInfo};
use tokio::time::Sleep;

use crate::carrier::Carrier;
use crate::channel::{Arrival, Breach, Channel, Room};
use crate::counters::Counters;
use crate::delivery::Delivery;
use crate::dial::{Dialling, Heard};
use crate::handshake;
use crate::outgoing::{EXPIRES_AFTER, max_frame};
use crate::packet::{self, Dropped};
use crate::seat::{Accepted, Start};
use crate::socket::is_about_a_peer;

/// Name of the transport, and scheme of its URLs.
pub(crate) const TRANSPORT: &str = "udp";
pub(crate) const SCHEME: &str = "udp://";

/// Frames that wait here for a reader who only sends, at most: then packets are left to come again.
const READY_FRAMES: usize = 1024;
/// Frames that are given out in one turn, before anything else is looked at.
const TURN_FRAMES: usize = 1024;
/// When the kernel has no room for a datagram, it is asked again after this.
const RETRY: Duration = Duration::from_millis(1);
/// The network says so often in a row that nobody is there, until that is believed of a connection that stood. Anybody
/// may send such a message.
const REFUSALS: u32 = 3;

/// A connection over UDP.
pub(crate) struct UdpLink {
    carrier: Carrier,
    stage: Stage,
    peer: PeerInfo,
    datagram: usize,
    counters: Arc<Counters>,
    /// Datagrams that were not looked at yet.
    arrived: VecDeque<BytesMut>,
    /// Frames that were not given out yet.
    ready: Vec<Frame>,
    /// A datagram that the kernel had no room for, and when to try again.
    stuck: Option<(BytesMut, Instant)>,
    refusals: u32,
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
    /// What is left is sent, and nothing is waited for any more.
    is_closing: bool,
    /// The peer has forgotten the connection, or all was said.
    is_over: bool,
    /// Nothing works any more.
    failed: Option<LinkError>,
    /// The peer breaks the protocol: told once, and then what comes is thrown away.
    breach: Option<LinkError>,
    is_poisoned: bool,
}

enum Stage {
    /// A service that has no connection yet.
    Dialling(Box<Dialling>),
    Standing(Box<Standing>),
    /// A gateway, towards whoever proved an address and does not hold the secret.
    Refusing([u8; 32]),
    /// Only while one is exchanged for another.
    Moving,
}

struct Standing {
    channel: Box<Channel>,
    delivery: Delivery,
    /// A gateway's session has not welcomed the service: its CHALLENGE was the cookie, and does not leave again.
    is_challenging: bool,
}

impl UdpLink {
    /// A service's link that has not said anything.
    pub(crate) fn dialling(socket: Carrier, peer: SocketAddr, dialling: Dialling, datagram: usize) -> Self {
        let stage = Stage::Dialling(Box::new(dialling));
        Self::new(socket, stage, PeerInfo::at(TRANSPORT, peer), Vec::new(), datagram, Arc::default())
    }

    /// A gateway's link, whose session is told first what the handshake has brought.
    pub(crate) fn accepted(accepted: Accepted) -> Self {
        let Accepted { seat, cookie, start, frames } = accepted;
        let stage = match start {
            Start::Refusing(hash) => Stage::Refusing(hash),
            Start::Standing(channel) => {
                Stage::Standing(Box::new(Standing { channel, delivery: Delivery::open(), is_challenging: true }))
            }
        };
        let seen = SocketAddr::new(seat.peer().ip().to_canonical(), seat.peer().port());
        let peer = PeerInfo { handshake_nonce: Some(cookie), ..PeerInfo::at(TRANSPORT, seen) };
        let (datagram, counters) = (seat.shared().datagram, Arc::clone(&seat.shared().counters));
        Self::new(Carrier::Shared(seat), stage, peer, frames, datagram, counters)
    }

    fn new(
        carrier: Carrier,
        stage: Stage,
        peer: PeerInfo,
        ready: Vec<Frame>,
        datagram: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            carrier,
            stage,
            peer,
            datagram,
            counters,
            arrived: VecDeque::new(),
            ready,
            stuck: None,
            refusals: 0,
            sleep: None,
            armed: None,
            is_closing: false,
            is_over: false,
            failed: None,
            breach: None,
            is_poisoned: false,
        }
    }

    /// Looks at the datagrams that have arrived, while there is room for their frames.
    fn look(&mut self, now: Instant) {
        while self.ready.len() < TURN_FRAMES
            && let Some(datagram) = self.arrived.pop_front()
        {
            self.take(datagram, Room::Frames, now);
        }
        self.release(now);
    }

    /// Looks at what datagrams acknowledge when their frames cannot be taken.
    fn glance(&mut self, now: Instant) {
        while let Some(datagram) = self.arrived.pop_front() {
            let room = if self.ready.len() < READY_FRAMES { Room::Frames } else { Room::None };
            self.take(datagram, room, now);
        }
        self.release(now);
    }

    fn take(&mut self, datagram: BytesMut, room: Room, now: Instant) {
        let start = self.ready.len();
        let arrival = match &mut self.stage {
            Stage::Dialling(dialling) => {
                if packet::connection(&datagram) == Some(0) {
                    return self.hear(datagram, now);
                }
                match dialling.channel() {
                    Some(channel) => channel.receive(datagram, room, &mut self.ready, now),
                    None => Err(Dropped::Foreign),
                }
            }
            Stage::Standing(standing) => {
                let room = if standing.delivery.room() == Room::None { Room::None } else { room };
                standing.channel.receive(datagram, room, &mut self.ready, now)
            }
            Stage::Refusing(_) | Stage::Moving => Err(Dropped::Foreign),
        };
        let arrival = match arrival {
            Ok(arrival) => arrival,
            // A repeated datagram of the handshake is nothing to be counted.
            Err(reason) => return self.counters.count(reason),
        };
        self.refusals = 0;
        self.stand();
        let breach = match arrival {
            Arrival::Acknowledgement | Arrival::Put => return,
            Arrival::End => {
                self.is_over = true;
                if let Stage::Standing(standing) = &mut self.stage {
                    standing.delivery.end(&mut self.ready);
                }
                return;
            }
            Arrival::Frames(number) => {
                if self.is_poisoned {
                    self.ready.truncate(start);
                } else if let Stage::Standing(standing) = &mut self.stage {
                    standing.delivery.sort(&mut self.ready, start, number, now);
                }
                return;
            }
            Arrival::Broken(breach) => breach,
        };
        if self.is_poisoned {
            return self.ready.truncate(start);
        }
        self.is_poisoned = true;
        self.breach = Some(match breach {
            Breach::Frame(error) => LinkError::Protocol(error),
            Breach::Cut(received) => LinkError::Truncated { what: "a frame in its datagram", received },
        });
    }

    /// The first packet of the connection has come: it stands.
    fn stand(&mut self) {
        if !matches!(self.stage, Stage::Dialling(_)) {
            return;
        }
        if let Stage::Dialling(dialling) = std::mem::replace(&mut self.stage, Stage::Moving)
            && let Some(channel) = dialling.into_channel()
        {
            let delivery = Delivery::before_welcome();
            self.stage = Stage::Standing(Box::new(Standing { channel, delivery, is_challenging: false }));
        }
    }

    fn hear(&mut self, datagram: BytesMut, now: Instant) {
        let Stage::Dialling(dialling) = &mut self.stage else { return };
        match dialling.receive(datagram, now) {
            Ok(Heard::Frame(frame)) => self.ready.push(frame),
            Ok(Heard::Nothing) => {}
            Ok(Heard::Refused(close)) => {
                self.ready.push(close);
                self.is_over = true;
            }
            Err(reason) => self.counters.count(reason),
        }
    }

    fn release(&mut self, now: Instant) {
        if let Stage::Standing(standing) = &mut self.stage {
            let Standing { channel, delivery, .. } = &mut **standing;
            delivery.release(channel, &mut self.ready, now);
            if delivery.is_closed() {
                // Whoever said it waits to hear that it was heard.
                channel.hurry(now);
            }
        }
    }

    /// What is to be told in place of frames, once there are none.
    fn end(&mut self) -> Option<LinkError> {
        if let Some(breach) = self.breach.take() {
            return Some(breach);
        }
        if let Some(error) = self.failed.take() {
            self.is_over = true;
            return Some(error);
        }
        let closed = match &self.stage {
            Stage::Standing(standing) => {
                standing.delivery.is_closed() || (self.is_closing && standing.channel.is_idle())
            }
            _ => self.is_closing,
        };
        (closed || self.is_over).then_some(LinkError::Closed)
    }

    /// Takes frames that belong to the handshake, and makes packets of the others while there is room.
    fn push(&mut self, batch: &mut VecDeque<Frame>, now: Instant) -> Result<(), DecodeError> {
        match &mut self.stage {
            Stage::Standing(standing) => {
                if standing.is_challenging {
                    batch.retain(|frame| !matches!(frame, Frame::Challenge(_)));
                    standing.is_challenging = batch.is_empty();
                }
                standing.channel.push(batch, now)
            }
            Stage::Dialling(dialling) => {
                while let Some(frame) = batch.pop_front() {
                    if let Some(channel) = dialling.channel() {
                        batch.push_front(frame);
                        return channel.push(batch, now);
                    }
                    dialling.send(frame, now);
                }
                Ok(())
            }
            Stage::Refusing(hash) => {
                for frame in batch.drain(..) {
                    match frame {
                        Frame::Challenge(_) => {}
                        Frame::Close(_) => {
                            let refusal = handshake::refused(hash, &frame);
                            // One that does not leave is asked for again, with another PROOF.
                            let _ = self.carrier.send(&refusal);
                            self.is_closing = true;
                        }
                        // There is no key to protect it.
                        _ => {
                            let error = io::Error::new(io::ErrorKind::PermissionDenied, "the MAC fits no secret");
                            self.failed = Some(LinkError::io("welcoming", error));
                        }
                    }
                }
                Ok(())
            }
            Stage::Moving => Ok(()),
        }
    }

    /// Lets time pass, and sends what is due.
    fn tick(&mut self, now: Instant) {
        if let Some((datagram, _)) = self.stuck.take_if(|(_, at)| *at <= now) {
            self.put(&datagram, now);
        }
        let mut fail = |error| {
            self.failed.get_or_insert(error);
        };
        match &mut self.stage {
            Stage::Standing(standing) => {
                standing.channel.handle_timeout(now);
                if standing.channel.has_given_up() {
                    let text = format!("nothing was acknowledged for {EXPIRES_AFTER:?}");
                    fail(LinkError::io("sending", io::Error::new(io::ErrorKind::TimedOut, text)));
                }
            }
            Stage::Dialling(dialling) => {
                if let Some(channel) = dialling.channel() {
                    channel.handle_timeout(now);
                }
                if let Some(after) = dialling.too_late(now) {
                    fail(LinkError::ConnectTimeout { target: format!("{SCHEME}{}", self.peer.address), after });
                }
            }
            Stage::Refusing(_) | Stage::Moving => {}
        }
        self.release(now);
        while self.stuck.is_none() {
            let datagram = match &mut self.stage {
                Stage::Standing(standing) => standing.channel.poll_transmit(now),
                Stage::Dialling(dialling) => dialling.poll_transmit(now),
                Stage::Refusing(_) | Stage::Moving => None,
            };
            let Some(datagram) = datagram else { return };
            let sent = self.carrier.send(datagram);
            let copy = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                .then(|| BytesMut::from(datagram));
            self.after_sending(sent, copy, now);
        }
    }

    fn put(&mut self, datagram: &[u8], now: Instant) {
        let sent = self.carrier.send(datagram);
        self.after_sending(sent, Some(BytesMut::from(datagram)), now);
    }

    fn after_sending(&mut self, sent: io::Result<()>, datagram: Option<BytesMut>, now: Instant) {
        let Err(error) = sent else { return };
        match error.kind() {
            io::ErrorKind::WouldBlock => self.stuck = datagram.map(|datagram| (datagram, now + RETRY)),
            _ => self.carrier_failed(error),
        }
    }

    /// An error of the socket: most concern one datagram, which counts as lost.
    fn carrier_failed(&mut self, error: io::Error) {
        let ends = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                self.refusals += 1;
                // Who dials learns at once that nobody is there.
                self.refusals >= REFUSALS || matches!(self.stage, Stage::Dialling(_))
            }
            // Too large for the path, or a socket that is none any more.
            _ => !is_about_a_peer(&error),
        };
        if ends && self.failed.is_none() {
            let what =
                if matches!(self.stage, Stage::Dialling(_)) { "connecting to" } else { "exchanging datagrams with" };
            self.failed = Some(LinkError::io(format!("{what} {SCHEME}{}", self.peer.address), error));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if let Some((_, at)) = &self.stuck {
            return Some(*at);
        }
        match &self.stage {
            Stage::Dialling(dialling) => dialling.wake_at(),
            Stage::Standing(standing) => {
                standing.channel.wake_at().into_iter().chain(standing.delivery.wake_at()).min()
            }
            Stage::Refusing(_) | Stage::Moving => None,
        }
    }

    /// Arms the timer, which is only ever moved to an earlier time: what is due later is found out when it fires. Ready:
    /// something is due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wake_at) = self.wake_at() else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake_at.into())));
        if self.armed.is_none_or(|armed| wake_at < armed) {
            self.armed = Some(wake_at);
            sleep.as_mut().reset(wake_at.into());
        }
        let fired = sleep.as_mut().poll(cx);
        if fired.is_ready() {
            self.armed = None;
        }
        fired
    }

    /// Asks the carrier for more. Ready: something happened.
    fn poll_carrier(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.carrier.poll_recv(cx, &mut self.arrived) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                self.carrier_failed(error);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Link for UdpLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut Vec<Frame>) -> Poll<Result<(), LinkError>> {
        loop {
            let now = now();
            self.look(now);
            if !self.ready.is_empty() {
                into.append(&mut self.ready);
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.end() {
                self.tick(now);
                return Poll::Ready(Err(error));
            }
            if self.poll_carrier(cx).is_ready() {
                continue;
            }
            self.tick(now);
            let is_quiet = self.ready.is_empty() && self.failed.is_none();
            if is_quiet && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Frame>) -> Poll<Result<(), LinkError>> {
        loop {
            let now = now();
            self.push(batch, now)?;
            self.tick(now);
            if let Some(error) = self.failed.take() {
                self.is_over = true;
                return Poll::Ready(Err(error));
            }
            if self.is_over {
                return Poll::Ready(Err(LinkError::Closed));
            }
            if batch.is_empty() {
                if self.poll_timer(cx).is_pending() {
                    return Poll::Ready(Ok(()));
                }
            } else if self.poll_carrier(cx).is_ready() {
                // Acknowledgements make room.
                self.glance(now);
            } else if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.is_closing = true;
        loop {
            let now = now();
            if let Stage::Standing(standing) = &mut self.stage {
                standing.channel.hurry(now);
            }
            self.tick(now);
            let is_done = match &self.stage {
                Stage::Standing(standing) => standing.channel.is_idle() || standing.delivery.is_closed(),
                // Nobody is there who could be told.
                Stage::Dialling(_) | Stage::Refusing(_) | Stage::Moving => true,
            };
            if is_done || self.is_over || self.failed.is_some() {
                return Poll::Ready(());
            }
            if self.poll_carrier(cx).is_ready() {
                self.ready.clear();
                self.glance(now);
            } else if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: false, streaming: false, max_frame: max_frame(self.datagram) }
    }

    fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    fn detach(mut self: Box<Self>) -> Box<dyn DetachedLink> {
        self.sleep = None;
        self.armed = None;
        if let Err(error) = self.carrier.detach() {
            self.failed = Some(LinkError::io("leaving a runtime", error));
        }
        Box::new(Detached(self))
    }
}

struct Detached(Box<UdpLink>);

impl DetachedLink for Detached {
    fn attach(mut self: Box<Self>) -> io::Result<BoxLink> {
        self.0.carrier.attach()?;
        Ok(self.0)
    }
}

impl Drop for UdpLink {
    /// The peer is told, if it can be, that nobody is here any more; it would find out by silence.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Stage::Standing(standing) = &mut self.stage {
            let _ = self.carrier.send(standing.channel.end());
        }
    }
}

impl fmt::Debug for UdpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpLink({})", self.peer)
    }
}
