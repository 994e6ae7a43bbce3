//! Frames to bytes and back: the 12-byte header, compact heads, MessagePack control payloads (SPEC 4).
//!
//! Knows no state: whether a frame is legal *now* is the session's question. Whatever bytes come in, there is no panic
//! and no allocation beyond the frame they announce.

mod frames;
mod header;
mod parts;

pub use frames::{FrameDecoder, encode, encoded_len};
pub use header::{FrameHeader, flags, kind};
pub use parts::DataParts;

// Parts of frames, so they stand beside `frame`; here under the names that readers of the codec look for.
pub use crate::{head, wire};

/// The eight bytes that begin a byte stream, both ways.
pub const PREFACE: [u8; 8] = *b"STELLA/1";

/// Why bytes are not a frame. Always fatal to the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    #[error("flags {flags:#04x} are not allowed on {frame}")]
    Flags { frame: &'static str, flags: u8 },
    #[error("{frame} with stream id {stream}")]
    Stream { frame: &'static str, stream: u64 },
    #[error("a payload of {length} bytes is over the limit of {limit} for {frame}")]
    TooLarge { frame: &'static str, length: u32, limit: u32 },
    #[error("{frame}: {source}")]
    Control { frame: &'static str, source: wire::WireError },
    #[error("{frame}: {source}")]
    Head { frame: &'static str, source: head::HeadError },
}
