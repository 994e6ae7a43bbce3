//! The bodies of the fuzz targets, as plain functions: what arbitrary bytes must never do to a decoder or a session.
//!
//! Nothing here knows who makes the bytes: `fuzz/` gives them from a fuzzer, ordinary tests from the stored corpora and
//! from a generator. Each function panics when it has found something.

mod input;
mod play;

use bytes::{BufMut, Bytes, BytesMut};

use self::input::Input;
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::frame::Frame;
use crate::limits::{FRAME_PAYLOAD_BYTES, FRAME_PAYLOAD_BYTES_MAX};

/// Decodes `data`, in pieces and whole, and encodes again what came out of it.
///
/// The first byte chooses the frame limit and the length of the pieces; the rest is the byte stream.
///
/// # Panics
/// When a piecewise reading differs from a whole one, or a frame does not survive its own encoding.
pub fn fuzz_decoder(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.u8();
    let max_payload = if choice & 0x80 == 0 { FRAME_PAYLOAD_BYTES } else { FRAME_PAYLOAD_BYTES_MAX };
    let piece = usize::from(choice & 0x7f) + 1;
    let stream = input.rest();
    let whole = decode_all(stream, stream.len().max(1), max_payload);
    assert_eq!(decode_all(stream, piece, max_payload), whole, "in pieces of {piece}");
    for frame in whole.0 {
        assert_survives_encoding(&frame);
    }
}

/// Plays the operations and frames that `data` spells against one session.
///
/// # Panics
/// When the session breaks an invariant, sends what it may not, or leaks a stream, a lease or a byte.
pub fn fuzz_session(data: &[u8]) {
    play::Play::new(Input::new(data)).run();
}

/// The frames of a byte stream that arrives in pieces, and the error that ends them.
fn decode_all(stream: &[u8], piece: usize, max_payload: u32) -> (Vec<Frame>, Option<DecodeError>) {
    let decoder = FrameDecoder::new(max_payload);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.put_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Encodes `frame`, decodes it and compares; returns the length of its body, for whoever counts credit.
fn assert_survives_encoding(frame: &Frame) -> usize {
    let mut out = BytesMut::new();
    let body: Bytes = codec::encode(frame, &mut out);
    out.put_slice(&body);
    assert_eq!(out.len(), codec::encoded_len(frame), "encoded_len of {frame:?}");
    let again = FrameDecoder::new(FRAME_PAYLOAD_BYTES_MAX).decode(&mut out);
    assert_eq!(again.as_ref(), Ok(&Some(frame.clone())));
    assert!(out.is_empty());
    match frame {
        // Data is not told from a head's first bytes by what `encode` returns, but its length is all that matters.
        Frame::Request(_) | Frame::Response(_) | Frame::RequestData(_) | Frame::ResponseData(_) => body.len(),
        _ => 0,
    }
}
