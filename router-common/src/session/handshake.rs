//! HELLO, CHALLENGE, PROOF, WELCOME (SPEC 4, handshake).
//!
//! ```text
//!   service                          gateway
//!   HELLO ─────────────────────────> AwaitHello
//!   Hello   <─────────── CHALLENGE ─ Challenged     (where a shared secret rules)
//!   PROOF ─────────────────────────>
//!   Proved  <───────────── WELCOME ─ Deciding       (until the gateway's registry has decided)
//! ```

use std::sync::Arc;
use std::time::Instant;

use super::drain::Drain;
use super::event::{Accepted, Carrier, Common, Event, Joining, ProtocolError};
use super::lease::Lease;
use super::liveness::Liveness;
use super::proof::{Nonces, Prover, Secret, Secrets, Transcript};
use super::{SendCredit, Session, State};
use crate::frame::{
    Challenge, Close, CloseCode, Frame, Hello, PROTOCOL_VERSION, Proof, ReceiveLimits, StreamId, Welcome,
};
use crate::identity::{Identity, KeyId, NodeId};
use crate::limits;
use crate::session::{Closed, ClosedBy};
use crate::wire::Wire;

const ALGORITHM: &str = "hmac-sha256";

/// How far a handshake has come.
#[derive(Debug)]
pub(super) enum Handshake {
    /// Service: HELLO is sent.
    Hello { nonce: [u8; 32], secret: Option<Secret>, transcript: Transcript },
    /// Service: PROOF is sent; WELCOME must carry this.
    Proved { expected: [u8; 32] },
    /// Gateway: nothing has arrived.
    AwaitHello(Listening),
    /// Gateway: CHALLENGE is sent.
    Challenged { listening: Listening, hello: Hello, transcript: Transcript },
    /// Gateway: the application decides.
    Deciding { node: NodeId, hello: Hello, proof: Option<Proof> },
    /// Only while one state is exchanged for another.
    Moving,
}

/// What a gateway waits with.
#[derive(Debug)]
pub(super) struct Listening {
    node: NodeId,
    secrets: Secrets,
    nonce: [u8; 32],
    identity: Identity,
}

impl Handshake {
    pub(super) fn service(
        mut hello: Hello,
        secret: Option<Secret>,
        common: &Common,
        lease: &Arc<Lease>,
    ) -> (Self, Frame) {
        hello.limits = common.limits;
        hello.lease = lease.limit();
        let nonce = hello.nonce;
        let frame = Frame::Hello(Box::new(Wire::new(hello)));
        let mut transcript = Transcript::default();
        transcript.add(&frame);
        (Self::Hello { nonce, secret, transcript }, frame)
    }

    pub(super) fn gateway(node: NodeId, secrets: Secrets, nonce: [u8; 32], identity: Identity) -> Self {
        Self::AwaitHello(Listening { node, secrets, nonce, identity })
    }
}

fn refuse(code: CloseCode, text: impl Into<String>) -> ProtocolError {
    ProtocolError::with(code, text)
}

impl Session {
    pub(super) fn on_handshake(&mut self, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        let frame = match frame {
            Frame::Close(close) => {
                self.on_close(*close);
                return Ok(());
            }
            frame => frame,
        };
        let State::Handshake(handshake) = &mut self.state else { return Ok(()) };
        match (std::mem::replace(&mut **handshake, Handshake::Moving), frame) {
            (Handshake::AwaitHello(listening), Frame::Hello(wire)) => self.on_hello(listening, wire),
            (Handshake::Challenged { listening, hello, transcript }, Frame::Proof(wire)) => {
                self.on_proof(listening, hello, transcript, *wire)
            }
            (Handshake::Hello { nonce, secret, transcript }, Frame::Challenge(wire)) => {
                self.on_challenge(nonce, secret, transcript, wire)
            }
            (Handshake::Hello { secret, .. }, Frame::Welcome(wire)) => {
                if secret.is_some() {
                    let text = "the gateway did not prove that it holds the shared secret: it has another one, or none";
                    return Err(refuse(CloseCode::Unauthenticated, text));
                }
                self.on_welcome(wire.into_value(), now)
            }
            (Handshake::Proved { expected }, Frame::Welcome(wire)) => {
                let welcome = wire.into_value();
                let proved = welcome.proof.as_ref().is_some_and(|proof| {
                    use subtle::ConstantTimeEq;
                    proof.proof.ct_eq(&expected).into()
                });
                if !proved {
                    let text = "the gateway's proof does not fit: it holds another shared secret";
                    return Err(refuse(CloseCode::Unauthenticated, text));
                }
                self.on_welcome(welcome, now)
            }
            (_, frame) => Err(ProtocolError::new(format!("{} is not legal now in the handshake", frame.name()))),
        }
    }

    fn on_hello(&mut self, listening: Listening, wire: Box<Wire<Hello>>) -> Result<(), ProtocolError> {
        let hello = wire.value().clone();
        check_hello(&hello, self.common.carrier)?;
        let identity = self.identify(&listening, &hello)?;
        // Who names a key will be proved it, and wants the gateway's own proof, whoever it is besides.
        let is_known = matches!(identity, Identity::Certificate(_) | Identity::Token(_));
        if listening.secrets.is_none() || (is_known && hello.key_id.is_none()) {
            return self.decide(listening.node, hello, identity, None);
        }
        let mut transcript = Transcript::default();
        transcript.add(&Frame::Hello(wire));
        let challenge = Challenge { algorithm: ALGORITHM.to_owned(), nonce: listening.nonce };
        let frame = Frame::Challenge(Box::new(Wire::new(challenge)));
        transcript.add(&frame);
        self.scheduler.control(frame);
        self.state = State::Handshake(Box::new(Handshake::Challenged { listening, hello, transcript }));
        Ok(())
    }

    /// Who the service is before it proves a secret: by its token, or else as its carrier knows it.
    fn identify(&self, listening: &Listening, hello: &Hello) -> Result<Identity, ProtocolError> {
        let tokens = listening.secrets.tokens();
        let unauthenticated = |text: &str| Err(refuse(CloseCode::Unauthenticated, text));
        let Some(token) = &hello.token else {
            if listening.identity == Identity::Anonymous && listening.secrets.is_none() && !tokens.is_none() {
                return unauthenticated("this gateway wants a token or a certificate, and the service shows neither");
            }
            return Ok(listening.identity.clone());
        };
        if self.common.channel_binding.is_empty() {
            return unauthenticated(
                "a token is taken over TLS alone: whoever listens here could use it; dial `tls://`",
            );
        }
        if tokens.is_none() {
            return unauthenticated("this gateway takes no tokens");
        }
        match tokens.bearer(token) {
            Some(name) => Ok(Identity::Token(name.clone())),
            None => unauthenticated("the token is none of those that this gateway takes"),
        }
    }

    fn on_challenge(
        &mut self,
        nonce: [u8; 32],
        secret: Option<Secret>,
        mut transcript: Transcript,
        wire: Box<Wire<Challenge>>,
    ) -> Result<(), ProtocolError> {
        let Some(secret) = secret else {
            let text = "this gateway asks for a shared secret, and none is configured here";
            return Err(refuse(CloseCode::Unauthenticated, text));
        };
        if wire.value().algorithm != ALGORITHM {
            return Err(ProtocolError::new(format!("the gateway asks for a proof other than {ALGORITHM}")));
        }
        let nonces = Nonces { service: nonce, gateway: wire.value().nonce };
        transcript.add(&Frame::Challenge(wire));
        let binding = &self.common.channel_binding;
        let proof = Proof { proof: secret.prove(Prover::Service, &nonces, transcript.hash(), binding) };
        let frame = Frame::Proof(Box::new(Wire::new(proof)));
        transcript.add(&frame);
        let expected = secret.prove(Prover::Gateway, &nonces, transcript.hash(), binding);
        self.scheduler.control(frame);
        self.state = State::Handshake(Box::new(Handshake::Proved { expected }));
        Ok(())
    }

    fn on_proof(
        &mut self,
        listening: Listening,
        hello: Hello,
        mut transcript: Transcript,
        wire: Wire<Proof>,
    ) -> Result<(), ProtocolError> {
        let key = hello.key_id.clone().unwrap_or_else(KeyId::sole);
        let nonces = Nonces { service: hello.nonce, gateway: listening.nonce };
        let (hash, binding) = (transcript.hash(), &self.common.channel_binding);
        let proof = &wire.value().proof;
        // An unknown key id fails here and not before, so that a stranger cannot learn which ones exist.
        let Some(secret) =
            listening.secrets.of(&key).find(|secret| secret.verify(Prover::Service, &nonces, hash, binding, proof))
        else {
            let text = format!("the proof fits no shared secret with key id `{key}` of this gateway");
            return Err(refuse(CloseCode::Unauthenticated, text));
        };
        transcript.add(&Frame::Proof(Box::new(wire)));
        let own = Proof { proof: secret.prove(Prover::Gateway, &nonces, transcript.hash(), binding) };
        self.decide(listening.node, hello, Identity::Key(key), Some(own))
    }

    fn decide(
        &mut self,
        node: NodeId,
        hello: Hello,
        identity: Identity,
        proof: Option<Proof>,
    ) -> Result<(), ProtocolError> {
        let joining = Joining { hello: hello.clone(), identity };
        self.state = State::Handshake(Box::new(Handshake::Deciding { node, hello, proof }));
        self.events.push_back(Event::Joining(Box::new(joining)));
        Ok(())
    }

    /// Gateway: yes to [`Event::Joining`]. Sends WELCOME and the first heartbeat.
    pub fn welcome(&mut self, accepted: Accepted, now: Instant) {
        let State::Handshake(handshake) = &mut self.state else { return };
        let Handshake::Deciding { node, hello, proof } = std::mem::replace(&mut **handshake, Handshake::Moving) else {
            return;
        };
        let heartbeat_ms = u32::try_from(self.common.timers.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let Accepted { lease, revision, links } = accepted;
        let limits = self.common.limits;
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            extensions: Vec::new(),
            node,
            limits,
            heartbeat_ms,
            links,
            revision,
            incarnation: self.common.incarnation,
            proof,
        };
        self.scheduler.control(Frame::Welcome(Box::new(Wire::new(welcome))));
        lease.update(0, hello.lease.min(limits::LEASE_MAX));
        self.outbound_lease = Some(lease);
        self.establish(hello.limits, now);
    }

    /// Gateway: no to [`Event::Joining`].
    pub fn refuse(&mut self, code: CloseCode, text: String) {
        self.close(code, text);
    }

    fn on_welcome(&mut self, welcome: Welcome, now: Instant) -> Result<(), ProtocolError> {
        if welcome.version != PROTOCOL_VERSION {
            let text = format!("the gateway chose protocol version {}, which was not offered", welcome.version);
            return Err(refuse(CloseCode::UnsupportedVersion, text));
        }
        check_limits(&welcome.limits, self.common.carrier)?;
        let heartbeat = welcome.heartbeat();
        if heartbeat.is_zero() {
            return Err(ProtocolError::new("a heartbeat interval of 0"));
        }
        // The gateway's pace is followed; what counts as silence may not be shorter than it.
        let timers = &mut self.common.timers;
        timers.heartbeat = heartbeat;
        timers.degraded_after = timers.degraded_after.max(heartbeat * 3 / 2);
        timers.dead_after = timers.dead_after.max(heartbeat * 3);
        self.establish(welcome.limits, now);
        self.events.push_back(Event::Welcomed(Box::new(welcome)));
        Ok(())
    }

    fn establish(&mut self, mut peer: ReceiveLimits, now: Instant) {
        self.establish_datagrams(&mut peer);
        self.peer = peer;
        self.send_credit = SendCredit::new(peer.connection_window);
        self.state = State::Established;
        self.liveness = Some(Liveness::new(self.common.timers, now));
        self.handle_timeout(now);
        if std::mem::replace(&mut self.drain, Drain::Open) == Drain::Wanted {
            self.drain(now);
        }
    }

    /// The peer ends the link.
    pub(super) fn on_close(&mut self, close: Close) {
        let Close { code, last, text } = close;
        // What this side opened above `last` was never seen. In the handshake nothing was opened.
        let accepted = if self.is_established() { last } else { StreamId::CONNECTION };
        self.end(Closed { by: ClosedBy::Peer, code, text: crate::frame::bounded_text(text) }, Some(accepted));
    }
}

fn check_hello(hello: &Hello, carrier: Carrier) -> Result<(), ProtocolError> {
    if !hello.versions.contains(&PROTOCOL_VERSION) {
        let text = format!("the gateway speaks protocol version {PROTOCOL_VERSION}, HELLO offers {:?}", hello.versions);
        return Err(refuse(CloseCode::UnsupportedVersion, text));
    }
    if hello.extensions.len() > limits::EXTENSIONS {
        return Err(ProtocolError::new("HELLO names too many extensions"));
    }
    if hello.links == 0 || hello.links > limits::LINKS || hello.link >= hello.links {
        let text = format!("link {} of {}: there are 1 to {}, counted from 0", hello.link, hello.links, limits::LINKS);
        return Err(ProtocolError::new(text));
    }
    check_limits(&hello.limits, carrier)
}

fn check_limits(stated: &ReceiveLimits, carrier: Carrier) -> Result<(), ProtocolError> {
    let least = if carrier.is_streaming() { limits::FRAME_PAYLOAD_BYTES } else { limits::DATAGRAM_FRAME_BYTES };
    let frames = least..=limits::FRAME_PAYLOAD_BYTES_MAX;
    let windows = 1..=limits::WINDOW_MAX as u32;
    if !frames.contains(&stated.max_frame)
        || !windows.contains(&stated.stream_window)
        || !windows.contains(&stated.connection_window)
    {
        return Err(ProtocolError::new(format!("receive limits out of range: {stated:?}")));
    }
    Ok(())
}
