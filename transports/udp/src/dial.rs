//! The service's side of the handshake: HELLO until a CHALLENGE comes, PROOF until a packet of the connection does (SPEC 7).
//!
//! ```text
//!   Silent ── HELLO of the session ──> Asking ── CHALLENGE ──> Challenged ── PROOF of the session ──> Presenting
//!                                        └──────── CHALLENGE, where no secret rules ───────────────────^
//! ```
//!
//! It reads nonces out of the frames that pass; what else they say is the session's to judge. No sockets, no clock.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use router_common::frame::Frame;
use router_common::limits;
use router_common::session::{CarrierKeys, Secret};

use crate::channel::{Channel, Keys};
use crate::cookie::connection_of;
use crate::handshake::{self, Handshake};
use crate::packet::{Dropped, MacKey};

/// Until a lost datagram of the handshake is sent again, at first; doubled each time,
const REPEAT_FIRST: Duration = Duration::from_millis(100);
/// up to this.
const REPEAT_MAX: Duration = Duration::from_millis(500);

/// Keys where no secret rules: they find damage, and keep nobody out.
pub(crate) const NO_SECRET: CarrierKeys = CarrierKeys { service: [0; 32], gateway: [0; 32] };

/// A service that dials.
#[derive(Debug)]
pub struct Dialling {
    secret: Option<Secret>,
    datagram: usize,
    /// How long each half of the handshake may take.
    patience: Duration,
    step: Step,
    /// What is sent again and again.
    asking: BytesMut,
    repeat_at: Option<Instant>,
    repeat_after: Duration,
    until: Option<Instant>,
}

#[derive(Debug)]
enum Step {
    Silent,
    Asking { hello: Frame, hash: [u8; 32] },
    Challenged { hello: Frame, hash: [u8; 32], cookie: [u8; 32] },
    Presenting { hash: [u8; 32], channel: Box<Channel> },
}

/// What a datagram of the handshake leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A frame for the session.
    Frame(Frame),
    /// Nothing to be told.
    Nothing,
    /// The gateway does not let this service in, and says why.
    Refused(Frame),
}

impl Dialling {
    /// `secret`: what is to be proved. `datagram`: the largest one to send, in bytes. `patience`: how long to wait for the
    /// answer to HELLO, and then for that to PROOF.
    #[must_use]
    pub fn new(secret: Option<Secret>, datagram: usize, patience: Duration) -> Self {
        Self {
            secret,
            datagram,
            patience,
            step: Step::Silent,
            asking: BytesMut::new(),
            repeat_at: None,
            repeat_after: REPEAT_FIRST,
            until: None,
        }
    }

    /// A frame of the session, which has no connection yet. What cannot be said yet is not: a service that gives up before
    /// it was heard has nothing to tell.
    pub fn send(&mut self, frame: Frame, now: Instant) {
        match (std::mem::replace(&mut self.step, Step::Silent), frame) {
            (Step::Silent, frame @ Frame::Hello(_)) => {
                self.ask(handshake::hello(&frame), now);
                self.step = Step::Asking { hash: handshake::hash(&frame), hello: frame };
            }
            (Step::Challenged { hello, hash, cookie }, frame @ Frame::Proof(_)) => {
                self.present(&hello, hash, cookie, Some(&frame), now);
            }
            (step, _) => self.step = step,
        }
    }

    /// The connection, once there is one: it stands when its first packet has come.
    pub fn channel(&mut self) -> Option<&mut Channel> {
        match &mut self.step {
            Step::Presenting { channel, .. } => Some(channel),
            _ => None,
        }
    }

    /// The connection for good.
    pub fn into_channel(self) -> Option<Box<Channel>> {
        match self.step {
            Step::Presenting { channel, .. } => Some(channel),
            _ => None,
        }
    }

    /// Takes a datagram of connection 0 in.
    ///
    /// # Errors
    /// Why it is thrown away.
    pub fn receive(&mut self, datagram: BytesMut, now: Instant) -> Result<Heard, Dropped> {
        match handshake::parse(datagram)? {
            Handshake::Challenge { hash: of, secret, frame } => {
                let (hello, hash) = match std::mem::replace(&mut self.step, Step::Silent) {
                    Step::Asking { hello, hash } if hash == of => (hello, hash),
                    // The answer to another HELLO, or to one that was repeated.
                    step => {
                        self.step = step;
                        return Err(Dropped::Replayed);
                    }
                };
                let cookie = frame.value().nonce;
                if !secret {
                    self.present(&hello, hash, cookie, None, now);
                    return Ok(Heard::Nothing);
                }
                self.repeat_at = None;
                self.step = Step::Challenged { hello, hash, cookie };
                Ok(Heard::Frame(Frame::Challenge(frame)))
            }
            Handshake::Refused { hash: of, frame } => match &self.step {
                Step::Presenting { hash, .. } if *hash == of => Ok(Heard::Refused(Frame::Close(frame))),
                _ => Err(Dropped::Foreign),
            },
            Handshake::Hello { .. } | Handshake::Proof(_) => Err(Dropped::Malformed),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<&[u8]> {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_at = Some(now + self.repeat_after);
            self.repeat_after = (self.repeat_after * 2).min(REPEAT_MAX);
            return Some(&self.asking);
        }
        self.channel()?.poll_transmit(now)
    }

    /// Whether nobody answered in time, and how long that was.
    #[must_use]
    pub fn too_late(&self, now: Instant) -> Option<Duration> {
        self.until.is_some_and(|until| until <= now).then_some(self.patience)
    }

    /// When there may be something to do.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let channel = match &self.step {
            Step::Presenting { channel, .. } => channel.wake_at(),
            _ => None,
        };
        [self.repeat_at, self.until, channel].into_iter().flatten().min()
    }

    fn ask(&mut self, datagram: BytesMut, now: Instant) {
        self.asking = datagram;
        self.repeat_at = Some(now);
        self.repeat_after = REPEAT_FIRST;
        self.until = Some(now + self.patience);
    }

    fn present(&mut self, hello: &Frame, hash: [u8; 32], cookie: [u8; 32], proof: Option<&Frame>, now: Instant) {
        let keys = match (&self.secret, hello, proof) {
            (Some(secret), Frame::Hello(hello), Some(_)) => secret.carrier_keys(hello.value().nonce, cookie),
            _ => NO_SECRET,
        };
        let keys = Keys { own: MacKey::new(&keys.service), peer: MacKey::new(&keys.gateway) };
        self.ask(handshake::proof(&cookie, hello, proof, &keys.own), now);
        let channel = Channel::new(connection_of(&cookie), keys, self.datagram, limits::FRAME_PAYLOAD_BYTES);
        self.step = Step::Presenting { hash, channel: Box::new(channel) };
    }
}

#[cfg(test)]
mod tests {
    use router_common::frame::{Close, CloseCode, Proof, StreamId};
    use router_common::wire::Wire;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn hello() -> Frame {
        Frame::Hello(Box::new(Wire::new(router_common::testing::hello())))
    }

    fn dialling(now: Instant) -> Dialling {
        let secret = Secret::new([5; 32]).unwrap();
        let mut dialling = Dialling::new(Some(secret), 1200, PATIENCE);
        assert!(dialling.poll_transmit(now).is_none() && dialling.wake_at().is_none());
        dialling.send(hello(), now);
        dialling
    }

    #[test]
    fn hello_is_repeated_with_growing_pauses_until_patience_ends() {
        let start = Instant::now();
        let mut dialling = dialling(start);
        let mut sent_at = Vec::new();
        let mut now = start;
        while dialling.too_late(now).is_none() {
            while dialling.poll_transmit(now).is_some() {
                sent_at.push((now - start).as_millis());
            }
            now = dialling.wake_at().unwrap();
        }
        assert_eq!(now - start, PATIENCE);
        assert_eq!(sent_at[..6], [0, 100, 300, 700, 1200, 1700]);
    }

    #[test]
    fn a_challenge_counts_once_and_only_for_its_own_hello() {
        let now = Instant::now();
        let mut dialling = dialling(now);
        let own = handshake::hash(&hello());
        assert_eq!(dialling.receive(handshake::challenge(&[1; 32], [7; 32], true), now), Err(Dropped::Replayed));
        let heard = dialling.receive(handshake::challenge(&own, [7; 32], true), now);
        assert!(matches!(heard, Ok(Heard::Frame(Frame::Challenge(_)))), "{heard:?}");
        assert_eq!(dialling.receive(handshake::challenge(&own, [8; 32], true), now), Err(Dropped::Replayed));
        assert!(dialling.channel().is_none());
        dialling.send(Frame::Proof(Box::new(Wire::new(Proof { proof: [9; 32] }))), now);
        assert!(dialling.channel().is_some());
        let presented = handshake::parse(dialling.poll_transmit(now).unwrap().into()).unwrap();
        let Handshake::Proof(presented) = presented else { panic!("{presented:?}") };
        let keys = Secret::new([5; 32]).unwrap().carrier_keys(router_common::testing::hello().nonce, [7; 32]);
        assert!(presented.cookie == [7; 32] && presented.verifies(&MacKey::new(&keys.service)));
    }

    #[test]
    fn only_whoever_saw_hello_can_refuse() {
        let now = Instant::now();
        let mut dialling = dialling(now);
        let own = handshake::hash(&hello());
        let (code, last, text) = (CloseCode::Unauthenticated, StreamId::CONNECTION, String::new());
        let close = Frame::Close(Box::new(Close { code, last, text }));
        assert_eq!(dialling.receive(handshake::refused(&own, &close), now), Err(Dropped::Foreign));
        assert_eq!(dialling.receive(handshake::challenge(&own, [7; 32], false), now), Ok(Heard::Nothing));
        assert_eq!(dialling.receive(handshake::refused(&[1; 32], &close), now), Err(Dropped::Foreign));
        assert_eq!(dialling.receive(handshake::refused(&own, &close), now), Ok(Heard::Refused(close)));
    }
}
