//! One socket for all services of a listener: datagrams go to the link whose connection and address they name, and
//! nobody gets a link before the address was proved (SPEC 7).
//!
//! The task that reads the socket belongs to the listener and its links: it ends with the last of them. It verifies no
//! MAC but that of a PROOF: links do that where they run.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::frame::Frame;
use router_common::identity::KeyId;
use router_common::limits;
use router_common::session::{CarrierKeys, Secrets};
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::channel::{Channel, Keys};
use crate::cookie::{Cookies, connection_of};
use crate::dial::NO_SECRET;
use crate::handshake::{self, Handshake, Presented};
use crate::packet::{self, Dropped, MacKey};
use crate::seat::{Keeper, Shared, Start};
use crate::socket::{self, BATCH, Space, is_about_a_peer};

/// How long to rest after an error of the socket that is not about one datagram.
const PAUSE: Duration = Duration::from_millis(10);

/// What the reading task is made of.
pub(crate) struct Demux {
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    secrets: Secrets,
    cookies: Cookies,
    ended: CancellationToken,
    keeper: Weak<DropGuard>,
    space: Space,
    woken: Vec<Waker>,
}

impl Demux {
    /// `ended` is what `shared` ends it with.
    pub(crate) fn new(
        socket: Arc<UdpSocket>,
        shared: Shared,
        ended: CancellationToken,
        secrets: Secrets,
        key: [u8; 32],
    ) -> (Self, Arc<Shared>, Keeper) {
        socket::prepare(&socket);
        let shared = Arc::new(shared);
        let keeper = Arc::new(ended.clone().drop_guard());
        let weak = Arc::downgrade(&keeper);
        let demux = Self {
            socket,
            shared: Arc::clone(&shared),
            secrets,
            cookies: Cookies::new(key, now()),
            ended,
            keeper: weak,
            space: Space::default(),
            woken: Vec::new(),
        };
        (demux, shared, keeper)
    }

    /// Reads until nobody is there for whom.
    pub(crate) async fn run(mut self) {
        let (ended, socket) = (self.ended.clone(), Arc::clone(&self.socket));
        loop {
            let readable = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                readable = socket.readable() => readable,
            };
            if readable.and_then(|()| self.read()).is_err() {
                // A socket that fails at once would be asked without end.
                let _ = tokio::time::timeout(PAUSE, ended.cancelled()).await;
            }
        }
    }

    /// Reads what is there, a bounded batch of it.
    fn read(&mut self) -> io::Result<()> {
        let now = now();
        let mut result = Ok(());
        for _ in 0..BATCH {
            let socket = &self.socket;
            let read = self.space.read(|buffer| {
                let filled = socket.try_recv_from(buffer.initialize_unfilled());
                Poll::Ready(filled.map(|(length, from)| {
                    buffer.advance(length);
                    from
                }))
            });
            match read {
                Poll::Ready(Ok((datagram, from))) => {
                    if let Err(reason) = self.take(datagram, from, now) {
                        self.shared.counters.count(reason);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Somebody who was sent something is not there any more: that concerns nobody else.
                Poll::Ready(Err(error)) if is_about_a_peer(&error) => {}
                Poll::Ready(Err(error)) => {
                    result = Err(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        self.woken.drain(..).for_each(Waker::wake);
        result
    }

    fn take(&mut self, datagram: BytesMut, from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let connection = packet::connection(&datagram).ok_or(Dropped::TooShort)?;
        if connection != 0 {
            return self.shared.post(connection, from, datagram, &mut self.woken);
        }
        match handshake::parse(datagram)? {
            Handshake::Hello { hash } => self.challenge(&hash, from, now),
            Handshake::Proof(presented) => self.admit(&presented, from, now),
            Handshake::Challenge { .. } | Handshake::Refused { .. } => Err(Dropped::Malformed),
        }
    }

    /// Asks for the cookie back, and forgets that anybody was there.
    fn challenge(&self, hash: &[u8; 32], from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        if !self.shared.is_accepting() {
            return Err(Dropped::NoRoom);
        }
        let cookie = self.cookies.make(hash, from, now);
        let answer = handshake::challenge(hash, cookie, !self.secrets.is_none());
        // One that does not leave is asked for again.
        let _ = socket::send_to(&self.socket, &answer, from);
        Ok(())
    }

    /// Makes a link for whoever sent the cookie back.
    fn admit(&mut self, presented: &Presented, from: SocketAddr, now: Instant) -> Result<(), Dropped> {
        if !self.cookies.check(&presented.cookie, &presented.hash, from, now) {
            return Err(Dropped::Forged);
        }
        let connection = connection_of(&presented.cookie);
        self.shared.may_begin(connection, now)?;
        let keeper = self.keeper.upgrade().ok_or(Dropped::NoRoom)?;
        let opened = presented.open()?;
        if opened.proof.is_some() == self.secrets.is_none() {
            return Err(Dropped::Malformed);
        }
        let hello = opened.hello.value();
        let fits = |keys: &CarrierKeys| presented.verifies(&MacKey::new(&keys.service));
        let keys = if self.secrets.is_none() {
            Some(NO_SECRET).filter(fits).ok_or(Dropped::Forged).map(Some)?
        } else {
            let id = hello.key_id.clone().unwrap_or_else(KeyId::sole);
            self.secrets.of(&id).map(|secret| secret.carrier_keys(hello.nonce, presented.cookie)).find(fits)
        };
        let start = match &keys {
            Some(keys) => {
                let keys = Keys { own: MacKey::new(&keys.gateway), peer: MacKey::new(&keys.service) };
                let channel = Channel::new(connection, keys, self.shared.datagram, limits::FRAME_PAYLOAD_BYTES);
                Start::Standing(Box::new(channel))
            }
            None => Start::Refusing(presented.hash),
        };
        let frames = [Some(Frame::Hello(opened.hello)), opened.proof.map(Frame::Proof)].into_iter().flatten().collect();
        self.shared.admit(
            (connection, from),
            (&self.socket, keeper),
            (presented.cookie, start, frames),
            &mut self.woken,
        );
        Ok(())
    }
}

impl Drop for Demux {
    fn drop(&mut self) {
        self.shared.end();
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
