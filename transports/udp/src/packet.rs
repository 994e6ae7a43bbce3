//! Packets: what one datagram of a standing connection holds, byte by byte (SPEC 7).
//!
//! ```text
//!   0        8        16       24        32       40             n-16      n
//!   | connection | number | floor | acked base | acked map | whole frames | MAC |
//! ```
//!
//! Numbers are big-endian. The MAC is the first 16 bytes of an HMAC-SHA256 over everything before it. Nothing here knows
//! which numbers are due, or sockets.

use bytes::BytesMut;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes before the frames.
pub const HEADER_BYTES: usize = 40;
/// Bytes behind them.
pub const MAC_BYTES: usize = 16;
/// Smallest legal datagram of a connection, in bytes.
pub const PACKET_BYTES_MIN: usize = HEADER_BYTES + MAC_BYTES;
/// The smallest limit that a side may set for its datagrams, in bytes, and the default: it passes every path of today.
pub const DATAGRAM_BYTES: usize = 1200;
/// The largest one: what UDP over IPv4 carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The number of a packet that only acknowledges. It is not acknowledged itself.
pub const ACK: u64 = 0;
/// The number of the packet that ends a connection: its sender has forgotten it.
pub const END: u64 = u64::MAX;
/// The highest number that a packet with frames may have.
pub const NUMBER_MAX: u64 = 1 << 62;

/// What stands before the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which connection; never 0.
    pub connection: u64,
    /// From 1, in the order of first sending; or [`ACK`], or [`END`].
    pub number: u64,
    /// The lowest number that the sender may still send: those below are acknowledged or given up.
    pub floor: u64,
    /// What the sender has received.
    pub acked: Acked,
}

/// An acknowledgement: everything below `base`, and by bit `i` of `map` the number `base + 1 + i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// The lowest number that is still awaited.
    pub base: u64,
    /// The lowest bit is the number behind `base`.
    pub map: u64,
}

/// Why a datagram was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// Shorter than any datagram of this protocol.
    #[error("too short")]
    TooShort,
    /// Of no connection that is known, or from another address than that connection's.
    #[error("of no known connection")]
    Foreign,
    /// Its MAC fits no key, or its cookie not its address.
    #[error("forged")]
    Forged,
    /// Its number has come before, or was given up.
    #[error("replayed")]
    Replayed,
    /// It is authentic, and cannot be right.
    #[error("malformed")]
    Malformed,
    /// There was no room for it. It comes again.
    #[error("no room")]
    NoRoom,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::TooShort, Self::Foreign, Self::Forged, Self::Replayed, Self::Malformed, Self::NoRoom];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::Foreign => "foreign",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Malformed => "malformed",
            Self::NoRoom => "no_room",
        }
    }
}

/// The key of one direction of a connection. It never shows itself.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

impl MacKey {
    /// A key of 32 bytes: one of `CarrierKeys`, or zeros where no secret rules.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The tag of these bytes.
    #[must_use]
    pub fn tag(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = self.0.clone();
        mac.update(bytes);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; MAC_BYTES];
        tag.copy_from_slice(&full[..MAC_BYTES]);
        tag
    }

    /// Whether the last 16 bytes of `datagram` are the tag of those before, in constant time.
    #[must_use]
    pub fn verifies(&self, datagram: &[u8]) -> bool {
        let Some((bytes, tag)) = datagram.split_last_chunk::<MAC_BYTES>() else { return false };
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac.verify_truncated_left(tag).is_ok()
    }
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields = [self.connection, self.number, self.floor, self.acked.base, self.acked.map];
        for (place, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        bytes
    }

    /// The header at the front of `bytes`; unchecked.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = bytes.as_chunks::<8>().0.iter().copied().map(u64::from_be_bytes);
        let mut next = || fields.next().unwrap_or_default();
        let (connection, number, floor) = (next(), next(), next());
        Self { connection, number, floor, acked: Acked { base: next(), map: next() } }
    }

    /// Whether its fields can stand together.
    const fn is_possible(&self) -> bool {
        match self.number {
            ACK | END => self.floor <= NUMBER_MAX && self.acked.base <= NUMBER_MAX,
            number => number <= NUMBER_MAX && self.floor <= number && self.floor > 0 && self.acked.base <= NUMBER_MAX,
        }
    }
}

/// Writes the header over the front of `datagram`, which has room for it, and the MAC behind what it holds.
pub fn seal(datagram: &mut BytesMut, header: &Header, key: &MacKey) {
    if let Some(front) = datagram.first_chunk_mut::<HEADER_BYTES>() {
        *front = header.encode();
    }
    let tag = key.tag(datagram);
    datagram.extend_from_slice(&tag);
}

/// The connection that a datagram says it is of; 0: of none yet, it is part of a handshake.
#[must_use]
pub fn connection(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Checks a datagram's MAC, and takes header and MAC off: what stays are its frames.
///
/// # Errors
/// Why it is to be thrown away.
pub fn open(datagram: &mut BytesMut, connection: u64, key: &MacKey) -> Result<Header, Dropped> {
    let Some(front) = datagram.first_chunk::<HEADER_BYTES>() else { return Err(Dropped::TooShort) };
    if datagram.len() < PACKET_BYTES_MIN {
        return Err(Dropped::TooShort);
    }
    let header = Header::decode(front);
    if header.connection != connection {
        return Err(Dropped::Foreign);
    }
    if !key.verifies(datagram) {
        return Err(Dropped::Forged);
    }
    if !header.is_possible() {
        return Err(Dropped::Malformed);
    }
    datagram.truncate(datagram.len() - MAC_BYTES);
    let _ = datagram.split_to(HEADER_BYTES);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(number: u64, floor: u64) -> Header {
        Header { connection: 7, number, floor, acked: Acked { base: 9, map: 0b101 } }
    }

    fn sealed(header: &Header, frames: &[u8], key: &MacKey) -> BytesMut {
        let mut datagram = BytesMut::zeroed(HEADER_BYTES);
        datagram.extend_from_slice(frames);
        seal(&mut datagram, header, key);
        datagram
    }

    #[test]
    fn what_cannot_stand_together_is_malformed_though_it_is_authentic() {
        let key = MacKey::new(&[1; 32]);
        let bad = [header(3, 4), header(3, 0), header(NUMBER_MAX + 1, 1), header(END - 1, 1), header(ACK, END)];
        for header in bad {
            assert_eq!(open(&mut sealed(&header, b"", &key), 7, &key), Err(Dropped::Malformed), "{header:?}");
        }
        for header in [header(3, 3), header(3, 1), header(ACK, 4), header(END, 4)] {
            assert_eq!(open(&mut sealed(&header, b"", &key), 7, &key), Ok(header));
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            number in 1..NUMBER_MAX, map: u64, frames in prop::collection::vec(any::<u8>(), 0..300), bit: prop::sample::Index,
        ) {
            let (key, other) = (MacKey::new(&[1; 32]), MacKey::new(&[2; 32]));
            let header = Header { connection: 7, number, floor: 1, acked: Acked { base: 1, map } };
            let datagram = sealed(&header, &frames, &key);
            let mut opened = datagram.clone();
            prop_assert_eq!(open(&mut opened, 7, &key), Ok(header));
            prop_assert_eq!(&opened[..], &frames[..]);
            prop_assert_eq!(open(&mut datagram.clone(), 7, &other), Err(Dropped::Forged));
            prop_assert_eq!(open(&mut datagram.clone(), 8, &key), Err(Dropped::Foreign));
            let mut damaged = datagram.clone();
            let bit = bit.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&mut damaged, 7, &key).is_err());
        }

        #[test]
        fn any_bytes_are_dropped_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(open(&mut BytesMut::from(&bytes[..]), 7, &MacKey::new(&[1; 32])).is_err());
        }
    }
}
