//! One message: which link it is of, which in the order, a MAC, and then whole frames (SPEC 7). Pure.
//!
//! It knows nothing of AMQP, and not which key is right: see `keys`.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use router_common::codec::{encode, encoded_len};
use router_common::frame::Frame;
use sha2::Sha256;

/// Link id, sequence, MAC.
pub(crate) const HEADER_BYTES: usize = LINK_BYTES + 8 + MAC_BYTES;
const LINK_BYTES: usize = 16;
const MAC_BYTES: usize = 16;

/// A link's number, drawn by the service that opens it: whoever does not see its messages cannot guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) [u8; LINK_BYTES]);

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// What stands before a message's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) link: LinkId,
    pub(crate) sequence: u64,
    mac: [u8; MAC_BYTES],
}

impl Header {
    /// The header of a message that is long enough to have one.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (link, rest) = message.split_first_chunk::<LINK_BYTES>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let mac = rest.first_chunk::<MAC_BYTES>()?;
        Some(Self { link: LinkId(*link), sequence: u64::from_be_bytes(*sequence), mac: *mac })
    }
}

/// A key, made ready: what each message costs is the hashing alone.
#[derive(Clone)]
pub(crate) struct Seal(Hmac<Sha256>);

impl Seal {
    /// Before the handshake has given keys, and where there is no secret: it shows damage, and keeps nobody out.
    pub(crate) fn open() -> Self {
        Self::new(&[0; 32])
    }

    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// Whether the message was sealed with this key. In constant time.
    pub(crate) fn fits(&self, header: &Header, message: &[u8]) -> bool {
        self.over(message).verify_truncated_left(&header.mac).is_ok()
    }

    /// The MAC of everything but the MAC itself.
    fn over(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(message.get(..HEADER_BYTES - MAC_BYTES).unwrap_or_default());
        mac.update(message.get(HEADER_BYTES..).unwrap_or_default());
        mac
    }
}

/// A message that is being put together.
pub(crate) struct Draft {
    bytes: BytesMut,
}

impl Draft {
    pub(crate) fn new(link: LinkId, sequence: u64, expected: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + expected);
        bytes.put_slice(&link.0);
        bytes.put_u64(sequence);
        bytes.put_bytes(0, MAC_BYTES);
        Self { bytes }
    }

    /// Whether a frame fits beside what is there. The first one always does: a frame is never cut.
    pub(crate) fn has_room(&self, frame: &Frame, most: usize) -> bool {
        self.is_empty() || self.bytes.len() + encoded_len(frame) <= most
    }

    pub(crate) fn push(&mut self, frame: &Frame) {
        let body = encode(frame, &mut self.bytes);
        self.bytes.put_slice(&body);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    pub(crate) fn seal(mut self, seal: &Seal) -> Bytes {
        let mac = seal.over(&self.bytes).finalize().into_bytes();
        if let (Some(place), Some(mac)) =
            (self.bytes.get_mut(HEADER_BYTES - MAC_BYTES..HEADER_BYTES), mac.get(..MAC_BYTES))
        {
            place.copy_from_slice(mac);
        }
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use router_common::frame::HeartbeatAck;

    use super::*;

    fn message(seal: &Seal) -> Bytes {
        let mut draft = Draft::new(LinkId([7; 16]), 3, 0);
        draft.push(&Frame::HeartbeatAck(HeartbeatAck { sequence: 9 }));
        draft.seal(seal)
    }

    #[test]
    fn a_message_tells_its_link_and_its_place() {
        let seal = Seal::new(&[1; 32]);
        let message = message(&seal);
        let header = Header::read(&message).unwrap();
        assert_eq!((header.link, header.sequence), (LinkId([7; 16]), 3));
        assert!(seal.fits(&header, &message));
        assert!(!Seal::open().fits(&header, &message));
    }

    #[test]
    fn no_byte_of_a_message_can_be_changed() {
        let seal = Seal::new(&[1; 32]);
        let whole = message(&seal);
        for place in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[place] ^= 1;
            let header = Header::read(&changed).unwrap();
            assert!(!seal.fits(&header, &changed), "{place}");
        }
        let cut = &whole[..whole.len() - 1];
        assert!(!seal.fits(&Header::read(cut).unwrap(), cut));
        assert_eq!(Header::read(&whole[..HEADER_BYTES - 1]), None);
    }

    #[test]
    fn the_bytes_of_a_message_are_these() {
        let bytes = Draft::new(LinkId(*b"0123456789abcdef"), 258, 0).seal(&Seal::open());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "30313233343536373839616263646566\
             0000000000000102\
             201822bb7b23f840ad9ecc26b4fec70d"
        );
    }
}
