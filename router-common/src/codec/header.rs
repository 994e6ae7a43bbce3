//! The frame header: `type u8, flags u8, stream_id u48, length u32`, big-endian.

use crate::limits::{FRAME_HEADER_BYTES, STREAM_ID_MAX};

/// Frame types by number.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const CHALLENGE: u8 = 0x02;
    pub const PROOF: u8 = 0x03;
    pub const WELCOME: u8 = 0x04;
    pub const ENDPOINTS_UPDATE: u8 = 0x05;
    pub const ENDPOINTS_RESULT: u8 = 0x06;
    pub const HEARTBEAT: u8 = 0x07;
    pub const HEARTBEAT_ACK: u8 = 0x08;
    pub const REQUEST: u8 = 0x10;
    pub const REQUEST_STREAM_DATA: u8 = 0x11;
    pub const RESPONSE: u8 = 0x12;
    pub const RESPONSE_STREAM_DATA: u8 = 0x13;
    pub const CANCEL: u8 = 0x14;
    pub const WINDOW: u8 = 0x15;
    pub const LEASE: u8 = 0x16;
    pub const DRAIN: u8 = 0x17;
    pub const CLOSE: u8 = 0x18;
}

/// Flags by bit.
pub mod flags {
    pub const END_STREAM: u8 = 0x01;
    pub const TRAILERS: u8 = 0x02;
    pub const TUNNEL: u8 = 0x04;
    pub const IGNORABLE: u8 = 0x80;
}

/// A frame header, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: u8,
    pub flags: u8,
    /// 48 bits.
    pub stream: u64,
    /// Octets of payload that follow.
    pub length: u32,
}

impl FrameHeader {
    #[must_use]
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Self {
        let [kind, flags, s0, s1, s2, s3, s4, s5, l0, l1, l2, l3] = bytes;
        Self {
            kind,
            flags,
            stream: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }

    #[must_use]
    pub fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let [_, _, s0, s1, s2, s3, s4, s5] = (self.stream & STREAM_ID_MAX).to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [self.kind, self.flags, s0, s1, s2, s3, s4, s5, l0, l1, l2, l3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_twelve_big_endian_bytes() {
        let header = FrameHeader { kind: 0x10, flags: 0x01, stream: 0x0102_0304_0506, length: 0x0a0b_0c0d };
        let bytes = [0x10, 0x01, 1, 2, 3, 4, 5, 6, 0x0a, 0x0b, 0x0c, 0x0d];
        assert_eq!(header.encode(), bytes);
        assert_eq!(FrameHeader::decode(bytes), header);
    }
}
