//! Large data frames in parts, as they come: a frame of body bytes says nothing by where it ends, so whoever reads a
//! byte stream need not gather one before its bytes can go on.

use bytes::{Buf, BytesMut};

use super::frames::FrameDecoder;
use super::header::{flags, kind};
use crate::frame::{Data, DataPayload, Frame, StreamId};
use crate::limits::FRAME_HEADER_BYTES;

/// Frames up to this payload, in bytes, are given out whole.
const WHOLE_BYTES: usize = 16 * 1024;

/// The rest of a data frame whose header was taken. Its parts are data frames themselves; the last one has the frame's
/// END_STREAM.
#[derive(Debug)]
pub struct DataParts {
    stream: StreamId,
    request: bool,
    end: bool,
    length: usize,
    left: usize,
}

impl FrameDecoder {
    /// Takes the header of a data frame that is large, and not whole in `buffer`. To be asked when
    /// [`decode`](Self::decode) found nothing whole, and so has checked the header if there is one.
    #[must_use]
    pub fn begin_parts(&self, buffer: &mut BytesMut) -> Option<DataParts> {
        let header = self.header(buffer)?;
        let request = match header.kind {
            kind::REQUEST_STREAM_DATA => true,
            kind::RESPONSE_STREAM_DATA => false,
            _ => return None,
        };
        let length = header.length as usize;
        if header.flags & flags::TRAILERS != 0 || length <= WHOLE_BYTES {
            return None;
        }
        let stream = StreamId::new(header.stream)?;
        buffer.advance(FRAME_HEADER_BYTES);
        Some(DataParts { stream, request, end: header.flags & flags::END_STREAM != 0, length, left: length })
    }
}

impl DataParts {
    /// Takes what there is of the frame; `None`: nothing.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let most = self.left.min(buffer.len());
        if most == 0 {
            return None;
        }
        self.left -= most;
        let bytes = buffer.split_to(most).freeze();
        let payload = DataPayload::Bytes { bytes, end: self.end && self.left == 0 };
        let data = Data { stream: self.stream, payload };
        Some(if self.request { Frame::RequestData(data) } else { Frame::ResponseData(data) })
    }

    /// Whether all of it was taken.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Bytes of the frame that were taken, its header included.
    #[must_use]
    pub const fn taken(&self) -> usize {
        FRAME_HEADER_BYTES + self.length - self.left
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::encode;
    use crate::limits::FRAME_PAYLOAD_BYTES;

    const DECODER: FrameDecoder = FrameDecoder::new(FRAME_PAYLOAD_BYTES);

    fn encoded(length: usize) -> BytesMut {
        let payload = DataPayload::Bytes { bytes: Bytes::from(vec![7; length]), end: true };
        let frame = Frame::ResponseData(Data { stream: StreamId::new(4).unwrap(), payload });
        let mut out = BytesMut::new();
        let body = encode(&frame, &mut out);
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn the_parts_are_the_frame_and_only_the_last_one_ends_the_stream() {
        let mut whole = encoded(50_000);
        let mut buffer = whole.split_to(20_000);
        assert_eq!(DECODER.decode(&mut buffer), Ok(None));
        let mut parts = DECODER.begin_parts(&mut buffer).expect("it is large");
        let (mut length, mut ends) = (0, Vec::new());
        loop {
            while let Some(frame) = parts.take(&mut buffer) {
                let Frame::ResponseData(Data { payload: DataPayload::Bytes { bytes, end }, .. }) = frame else {
                    panic!("{frame:?}")
                };
                length += bytes.len();
                ends.push(end);
            }
            assert_eq!(parts.taken(), length + FRAME_HEADER_BYTES);
            if parts.is_complete() {
                break;
            }
            buffer.unsplit(whole.split_to(whole.len().min(20_000)));
        }
        assert_eq!((length, &ends[..]), (50_000, &[false, false, true][..]));
    }

    #[test]
    fn small_frames_and_other_frames_stay_whole() {
        let mut small = encoded(WHOLE_BYTES).split_to(1_000);
        assert!(DECODER.begin_parts(&mut small).is_none());
        assert_eq!(small.len(), 1_000);
        let mut head = encoded(50_000);
        head[0] = kind::RESPONSE;
        assert!(DECODER.begin_parts(&mut head).is_none());
        let mut trailers = encoded(50_000);
        trailers[1] |= flags::TRAILERS;
        assert!(DECODER.begin_parts(&mut trailers).is_none());
        assert!(DECODER.begin_parts(&mut encoded(50_000).split_to(11)).is_none());
    }
}
