//! The datagrams of a handshake, byte by byte (SPEC 7): what is said before there is a connection.
//!
//! ```text
//!   0       8            16     17      18         20
//!   | zeros | `STELLA/1` | kind | flags | reserved | ...
//!
//!   1 HELLO      HELLO frame, zeros to 1200 bytes at least
//!   2 CHALLENGE  SHA-256 of the HELLO frame (32), CHALLENGE frame; flag 1: a secret rules
//!   3 PROOF      cookie (32), HELLO frame, PROOF frame where a secret rules, MAC (16)
//!   4 REFUSED    SHA-256 of the HELLO frame (32), CLOSE frame
//! ```
//!
//! Nothing here keeps anything: a datagram is made, or taken apart.

use bytes::{BufMut, BytesMut};
use router_common::codec::{self, FrameDecoder, FrameHeader, PREFACE};
use router_common::frame::{Challenge, Close, Frame, Hello, Proof};
use router_common::limits;
use router_common::wire::Wire;
use sha2::{Digest, Sha256};

use crate::cookie::Cookie;
use crate::packet::{DATAGRAM_BYTES, Dropped, MAC_BYTES, MacKey};

/// Bytes before what differs.
const FIXED_BYTES: usize = 20;
/// Bytes of a cookie, or of a hash.
const HASH_BYTES: usize = 32;
/// The smallest HELLO datagram: the answer is never larger than the question.
pub const HELLO_DATAGRAM_BYTES: usize = DATAGRAM_BYTES;

const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const REFUSED: u8 = 4;
const SECRET_RULES: u8 = 0x01;

const DECODER: FrameDecoder = FrameDecoder::new(limits::HANDSHAKE_BYTES as u32);

/// The algorithm that the session names in its own CHALLENGE, which this one must equal.
const ALGORITHM: &str = "hmac-sha256";

/// A datagram of a handshake. Frames are taken apart no further than is needed.
#[derive(Debug)]
pub enum Handshake {
    /// From a service: whose hash the cookie is to be made for.
    Hello {
        /// SHA-256 of the HELLO frame.
        hash: [u8; HASH_BYTES],
    },
    /// From a gateway.
    Challenge {
        /// SHA-256 of the HELLO frame that it answers.
        hash: [u8; HASH_BYTES],
        /// Whether the service has to prove that it holds a secret.
        secret: bool,
        /// The CHALLENGE frame, whose nonce is the cookie.
        frame: Box<Wire<Challenge>>,
    },
    /// From a service: not yet verified.
    Proof(Presented),
    /// From a gateway, to whoever proved the address and nothing else.
    Refused {
        /// SHA-256 of the HELLO frame that it answers.
        hash: [u8; HASH_BYTES],
        /// Why.
        frame: Box<Close>,
    },
}

/// A PROOF datagram. Its cookie is to be checked before anything else of it is looked at.
#[derive(Debug)]
pub struct Presented {
    /// What the service sends back.
    pub cookie: Cookie,
    /// SHA-256 of the HELLO frame.
    pub hash: [u8; HASH_BYTES],
    datagram: BytesMut,
}

/// What a PROOF datagram holds.
#[derive(Debug)]
pub struct Opened {
    /// The service's HELLO.
    pub hello: Box<Wire<Hello>>,
    /// Its PROOF, where a secret rules.
    pub proof: Option<Box<Wire<Proof>>>,
}

/// SHA-256 of a frame's bytes.
#[must_use]
pub fn hash(frame: &Frame) -> [u8; HASH_BYTES] {
    let mut bytes = BytesMut::new();
    put(frame, &mut bytes);
    Sha256::digest(&bytes).into()
}

/// A HELLO datagram.
#[must_use]
pub fn hello(frame: &Frame) -> BytesMut {
    let mut datagram = begin(HELLO, 0);
    put(frame, &mut datagram);
    if datagram.len() < HELLO_DATAGRAM_BYTES {
        datagram.resize(HELLO_DATAGRAM_BYTES, 0);
    }
    datagram
}

/// A CHALLENGE datagram for the HELLO of that hash.
#[must_use]
pub fn challenge(hash: &[u8; HASH_BYTES], cookie: Cookie, secret: bool) -> BytesMut {
    let mut datagram = begin(CHALLENGE, if secret { SECRET_RULES } else { 0 });
    datagram.put_slice(hash);
    let challenge = Challenge { algorithm: ALGORITHM.to_owned(), nonce: cookie };
    put(&Frame::Challenge(Box::new(Wire::new(challenge))), &mut datagram);
    datagram
}

/// A PROOF datagram.
#[must_use]
pub fn proof(cookie: &Cookie, hello: &Frame, proof: Option<&Frame>, key: &MacKey) -> BytesMut {
    let mut datagram = begin(PROOF, 0);
    datagram.put_slice(cookie);
    put(hello, &mut datagram);
    if let Some(proof) = proof {
        put(proof, &mut datagram);
    }
    let tag = key.tag(&datagram);
    datagram.put_slice(&tag);
    datagram
}

/// A REFUSED datagram for the HELLO of that hash.
#[must_use]
pub fn refused(hash: &[u8; HASH_BYTES], close: &Frame) -> BytesMut {
    let mut datagram = begin(REFUSED, 0);
    datagram.put_slice(hash);
    put(close, &mut datagram);
    datagram
}

/// Takes a datagram of connection 0 apart.
///
/// # Errors
/// It is none of a handshake.
pub fn parse(mut datagram: BytesMut) -> Result<Handshake, Dropped> {
    let Some(fixed) = datagram.first_chunk::<FIXED_BYTES>() else { return Err(Dropped::TooShort) };
    let ([kind, flags], preface) = ([fixed[16], fixed[17]], &fixed[8..16]);
    if preface != PREFACE {
        return Err(Dropped::Malformed);
    }
    match kind {
        HELLO => {
            if datagram.len() < HELLO_DATAGRAM_BYTES {
                return Err(Dropped::TooShort);
            }
            let frame = datagram.get(FIXED_BYTES..).and_then(first_hello).ok_or(Dropped::Malformed)?;
            Ok(Handshake::Hello { hash: Sha256::digest(frame).into() })
        }
        PROOF => {
            let cookie = *hash_at(&datagram).ok_or(Dropped::TooShort)?;
            let frame = datagram.get(FIXED_BYTES + HASH_BYTES..).and_then(first_hello).ok_or(Dropped::Malformed)?;
            Ok(Handshake::Proof(Presented { cookie, hash: Sha256::digest(frame).into(), datagram }))
        }
        CHALLENGE | REFUSED => {
            let hash = *hash_at(&datagram).ok_or(Dropped::TooShort)?;
            let _ = datagram.split_to(FIXED_BYTES + HASH_BYTES);
            match (kind, DECODER.decode(&mut datagram)) {
                (CHALLENGE, Ok(Some(Frame::Challenge(frame)))) => {
                    Ok(Handshake::Challenge { hash, secret: flags & SECRET_RULES != 0, frame })
                }
                (REFUSED, Ok(Some(Frame::Close(frame)))) => Ok(Handshake::Refused { hash, frame }),
                _ => Err(Dropped::Malformed),
            }
        }
        _ => Err(Dropped::Malformed),
    }
}

impl Presented {
    /// Whether the datagram was made with this key.
    #[must_use]
    pub fn verifies(&self, key: &MacKey) -> bool {
        key.verifies(&self.datagram)
    }

    /// Reads the frames.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn open(&self) -> Result<Opened, Dropped> {
        let end = self.datagram.len().checked_sub(MAC_BYTES).ok_or(Dropped::TooShort)?;
        let frames = self.datagram.get(FIXED_BYTES + HASH_BYTES..end).ok_or(Dropped::TooShort)?;
        let mut frames = BytesMut::from(frames);
        let mut next = || DECODER.decode(&mut frames).map_err(|_| Dropped::Malformed);
        let Some(Frame::Hello(hello)) = next()? else { return Err(Dropped::Malformed) };
        let proof = match next()? {
            None => None,
            Some(Frame::Proof(proof)) => Some(proof),
            Some(_) => return Err(Dropped::Malformed),
        };
        if frames.is_empty() { Ok(Opened { hello, proof }) } else { Err(Dropped::Malformed) }
    }
}

fn begin(kind: u8, flags: u8) -> BytesMut {
    let mut datagram = BytesMut::with_capacity(DATAGRAM_BYTES);
    datagram.put_u64(0);
    datagram.put_slice(&PREFACE);
    datagram.put_slice(&[kind, flags, 0, 0]);
    datagram
}

fn put(frame: &Frame, into: &mut BytesMut) {
    let body = codec::encode(frame, into);
    into.put_slice(&body);
}

fn hash_at(datagram: &[u8]) -> Option<&[u8; HASH_BYTES]> {
    datagram.get(FIXED_BYTES..)?.first_chunk()
}

/// The bytes of the HELLO frame at the front, by what its header says.
fn first_hello(bytes: &[u8]) -> Option<&[u8]> {
    let header = FrameHeader::decode(*bytes.first_chunk()?);
    let payload = usize::try_from(header.length).ok()?;
    let is_hello = header.kind == codec::kind::HELLO && payload <= limits::HELLO_BYTES;
    if is_hello { bytes.get(..limits::FRAME_HEADER_BYTES + payload) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use router_common::frame::{CloseCode, StreamId};

    use super::*;

    fn hello_frame() -> Frame {
        Frame::Hello(Box::new(Wire::new(router_common::testing::hello())))
    }

    #[test]
    fn each_kind_is_read_as_it_was_made() {
        let key = MacKey::new(&[1; 32]);
        let frame = hello_frame();
        let hash = hash(&frame);
        let asked = hello(&frame);
        assert_eq!(asked.len(), HELLO_DATAGRAM_BYTES);
        let read = parse(asked.clone()).unwrap();
        assert!(matches!(read, Handshake::Hello { hash: of } if of == hash), "{read:?}");
        for secret in [false, true] {
            let answer = challenge(&hash, [7; 32], secret);
            assert!(answer.len() < asked.len());
            let Handshake::Challenge { hash: of, secret: rules, frame } = parse(answer).unwrap() else { panic!() };
            assert_eq!((of, rules, frame.value().nonce), (hash, secret, [7; 32]));
        }
        let proof_frame = Frame::Proof(Box::new(Wire::new(Proof { proof: [8; 32] })));
        for second in [None, Some(&proof_frame)] {
            let Handshake::Proof(presented) = parse(proof(&[7; 32], &frame, second, &key)).unwrap() else { panic!() };
            assert_eq!((presented.cookie, presented.hash), ([7; 32], hash));
            assert!(presented.verifies(&key) && !presented.verifies(&MacKey::new(&[2; 32])));
            let opened = presented.open().unwrap();
            assert_eq!(Frame::Hello(opened.hello), frame);
            assert_eq!(opened.proof.map(Frame::Proof).as_ref(), second);
        }
        let close =
            Close { code: CloseCode::Unauthenticated, last: StreamId::CONNECTION, text: "not this secret".to_owned() };
        let Handshake::Refused { hash: of, frame } =
            parse(refused(&hash, &Frame::Close(Box::new(close.clone())))).unwrap()
        else {
            panic!()
        };
        assert_eq!((of, *frame), (hash, close));
    }

    #[test]
    fn a_hello_that_is_shorter_than_its_answer_may_be_is_dropped() {
        let mut short = hello(&hello_frame());
        short.truncate(HELLO_DATAGRAM_BYTES - 1);
        assert!(matches!(parse(short), Err(Dropped::TooShort)));
    }

    #[test]
    fn what_follows_the_frames_of_a_proof_is_malformed() {
        let key = MacKey::new(&[1; 32]);
        let frame = hello_frame();
        let Handshake::Proof(twice) = parse(proof(&[7; 32], &frame, Some(&frame), &key)).unwrap() else { panic!() };
        assert!(matches!(twice.open(), Err(Dropped::Malformed)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_dropped_without_a_panic(
            kind in 0_u8..6, bytes in prop::collection::vec(any::<u8>(), 0..1300), frame in any::<bool>(),
        ) {
            let mut datagram = begin(kind, 1);
            if frame {
                put(&hello_frame(), &mut datagram);
            }
            datagram.extend_from_slice(&bytes);
            if let Ok(Handshake::Proof(presented)) = parse(datagram) {
                let _ = presented.open();
                prop_assert!(!presented.verifies(&MacKey::new(&[1; 32])));
            }
            let _ = parse(BytesMut::from(&bytes[..]));
        }
    }
}
