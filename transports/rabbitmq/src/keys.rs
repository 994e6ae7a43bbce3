//! Which key seals which message: found out from the handshake that passes by (SPEC 7). Pure.
//!
//! It reads nonces and key ids out of HELLO and CHALLENGE and decides nothing else: who is let in is the session's to say.
//! Until both nonces are known, and wherever there is no secret, messages are sealed with the open key.

use std::fmt;

use router_common::codec::kind;
use router_common::frame::Frame;
use router_common::identity::KeyId;
use router_common::session::{CarrierKeys, Secrets};

use crate::message::{HEADER_BYTES, Header, Seal};

/// Which end of a link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Service,
    Gateway,
}

/// The keys of one link's end.
pub(crate) struct Keys {
    end: End,
    secrets: Secrets,
    /// Of HELLO.
    service: Option<([u8; 32], KeyId)>,
    /// What a gateway's next message may be sealed with: it learns by the first one which of several secrets is the
    /// service's.
    candidates: Vec<CarrierKeys>,
    sends: Seal,
    receives: Seal,
    welcomed: bool,
}

/// A message that the holder of the key has not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

impl Keys {
    pub(crate) fn new(end: End, secrets: Secrets) -> Self {
        Self {
            end,
            secrets,
            service: None,
            candidates: Vec::new(),
            sends: Seal::open(),
            receives: Seal::open(),
            welcomed: false,
        }
    }

    /// What the next message is to be sealed with.
    pub(crate) const fn sends(&self) -> &Seal {
        &self.sends
    }

    pub(crate) const fn end(&self) -> End {
        self.end
    }

    pub(crate) const fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Checks a message's MAC. A message of one handshake frame is let through with a wrong one until the handshake is
    /// over: the session answers it better than silence does, and believes none of it without a proof.
    ///
    /// # Errors
    /// [`Forged`].
    pub(crate) fn check(&mut self, header: &Header, message: &[u8]) -> Result<(), Forged> {
        if let Some(keys) = self.candidates.iter().find(|keys| Seal::new(&keys.service).fits(header, message)) {
            self.sends = Seal::new(&keys.gateway);
            self.receives = Seal::new(&keys.service);
            self.candidates = Vec::new();
            return Ok(());
        }
        if self.receives.fits(header, message) {
            return Ok(());
        }
        let first = message.get(HEADER_BYTES).copied();
        let may_be_open = match self.end {
            End::Service => [kind::CHALLENGE, kind::CLOSE],
            End::Gateway => [kind::PROOF, kind::CLOSE],
        };
        if !self.welcomed && first.is_some_and(|first| may_be_open.contains(&first)) && is_one_frame(message) {
            return Ok(());
        }
        Err(Forged)
    }

    /// To be told of each frame that was received.
    pub(crate) fn received(&mut self, frame: &Frame) {
        self.passes(frame, End::Gateway);
    }

    /// To be told of each frame, after it went into a message.
    pub(crate) fn sent(&mut self, frame: &Frame) {
        self.passes(frame, End::Service);
    }

    /// `hello` is the end at which HELLO goes this way.
    fn passes(&mut self, frame: &Frame, hello: End) {
        if self.welcomed {
            return;
        }
        match frame {
            Frame::Hello(frame) if self.end == hello && self.service.is_none() => {
                let hello = frame.value();
                self.service = Some((hello.nonce, hello.key_id.clone().unwrap_or_else(KeyId::sole)));
            }
            Frame::Challenge(challenge) if self.end != hello => {
                let Some((nonce, key)) = &self.service else { return };
                let mut keys = self.secrets.of(key).map(|secret| secret.carrier_keys(*nonce, challenge.value().nonce));
                match self.end {
                    End::Gateway => self.candidates = keys.collect(),
                    End::Service => {
                        if let Some(keys) = keys.next() {
                            self.sends = Seal::new(&keys.service);
                            self.receives = Seal::new(&keys.gateway);
                        }
                    }
                }
            }
            Frame::Welcome(_) if self.end != hello => self.welcomed = true,
            _ => {}
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("end", &self.end).field("welcomed", &self.welcomed).finish_non_exhaustive()
    }
}

/// Whether a message holds one frame and nothing behind it.
fn is_one_frame(message: &[u8]) -> bool {
    let Some(frame) = message.get(HEADER_BYTES..) else { return false };
    let Some(length) = frame.get(8..).and_then(|rest| rest.first_chunk::<4>()) else { return false };
    let length = u32::from_be_bytes(*length);
    usize::try_from(length).is_ok_and(|length| length.checked_add(12) == Some(frame.len()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use router_common::frame::{Challenge, Close, CloseCode, HeartbeatAck, Proof, StreamId};
    use router_common::session::Secret;
    use router_common::wire::Wire;

    use super::*;
    use crate::message::{Draft, LinkId};

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; 32]).unwrap()
    }

    /// As a service writes it, nonce and key id aside.
    fn hello() -> Frame {
        let instance = "88a876657273696f6e739101a8696e7374616e636584a773657276696365a66f7264657273a776657273696f6ea5312e322e30a6\
                        726567696f6ea765752d77657374a26964ab6f72646572732d37663963ab696e6361726e6174696f6ec410111111111111111111\
                        11111111111111a46c696e6b00a56c696e6b7301a56e6f6e6365c420a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1\
                        a1a1a1a1a1a1a1a1a66c696d69747383a96d61785f6672616d65ce00010000ad73747265616d5f77696e646f77ce00010000b163\
                        6f6e6e656374696f6e5f77696e646f77ce00400000a56c65617365cd0400";
        let bytes: Vec<u8> = instance
            .as_bytes()
            .chunks(2)
            .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
            .collect();
        Frame::Hello(Box::new(Wire::decode(bytes.into()).unwrap()))
    }

    fn challenge() -> Frame {
        let challenge = Challenge { algorithm: "hmac-sha256".to_owned(), nonce: [9; 32] };
        Frame::Challenge(Box::new(Wire::new(challenge)))
    }

    fn proof() -> Frame {
        Frame::Proof(Box::new(Wire::new(Proof { proof: [0; 32] })))
    }

    fn ack() -> Frame {
        Frame::HeartbeatAck(HeartbeatAck { sequence: 1 })
    }

    fn close() -> Frame {
        Frame::Close(Box::new(Close {
            code: CloseCode::Unauthenticated,
            last: StreamId::CONNECTION,
            text: String::new(),
        }))
    }

    fn sealed(seal: &Seal, frames: &[Frame]) -> Bytes {
        let mut draft = Draft::new(LinkId([1; 16]), 0, 0);
        for frame in frames {
            draft.push(frame);
        }
        draft.seal(seal)
    }

    fn check(keys: &mut Keys, message: &Bytes) -> Result<(), Forged> {
        keys.check(&Header::read(message).unwrap(), message)
    }

    /// One end sends, the other checks and receives.
    fn pass(from: &mut Keys, to: &mut Keys, frame: &Frame) -> Result<(), Forged> {
        let message = sealed(from.sends(), std::slice::from_ref(frame));
        from.sent(frame);
        check(to, &message)?;
        to.received(frame);
        Ok(())
    }

    /// Both ends after PROOF.
    fn shaken(service: Secrets, gateway: Secrets) -> (Keys, Keys) {
        let mut service = Keys::new(End::Service, service);
        let mut gateway = Keys::new(End::Gateway, gateway);
        pass(&mut service, &mut gateway, &hello()).unwrap();
        pass(&mut gateway, &mut service, &challenge()).unwrap();
        pass(&mut service, &mut gateway, &proof()).unwrap();
        (service, gateway)
    }

    fn several(secrets: [u8; 3]) -> Secrets {
        secrets.into_iter().map(|byte| (KeyId::sole(), secret(byte))).collect()
    }

    #[test]
    fn both_ends_come_to_the_same_keys_whichever_of_several_secrets_it_is() {
        for held in [[1, 2, 3], [2, 1, 3], [3, 2, 1]] {
            let (mut service, mut gateway) = shaken(Secrets::sole(secret(1)), several(held));
            assert_eq!(pass(&mut gateway, &mut service, &ack()), Ok(()));
            assert_eq!(pass(&mut service, &mut gateway, &ack()), Ok(()));
        }
    }

    #[test]
    fn without_the_secret_nothing_but_the_handshake_is_let_through() {
        let (_, mut gateway) = shaken(Secrets::sole(secret(7)), several([1, 2, 3]));
        let stranger = Seal::open();
        assert_eq!(check(&mut gateway, &sealed(&Seal::new(&[5; 32]), &[ack()])), Err(Forged));
        assert_eq!(check(&mut gateway, &sealed(&Seal::new(&[5; 32]), &[proof(), ack()])), Err(Forged));
        let (mut service, _) = shaken(Secrets::sole(secret(1)), several([1, 2, 3]));
        assert_eq!(check(&mut service, &sealed(&stranger, &[ack()])), Err(Forged));
        // Whoever does not let one in may say so.
        assert_eq!(check(&mut service, &sealed(&stranger, &[close()])), Ok(()));
    }

    #[test]
    fn one_sides_messages_are_not_the_others() {
        let (mut service, gateway) = shaken(Secrets::sole(secret(1)), several([1, 2, 3]));
        let own = sealed(service.sends(), &[ack()]);
        assert_eq!(check(&mut service, &own), Err(Forged));
        assert_eq!(check(&mut service, &sealed(gateway.sends(), &[ack()])), Ok(()));
    }
}
