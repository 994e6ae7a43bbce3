//! Whole frames: decoding from a buffer, encoding into one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;

use super::DecodeError;
use super::header::{FrameHeader, flags, kind};
use crate::frame::{Data, DataPayload, Frame, Request, Response, StreamId};
use crate::head::{HeadError, RequestHead, ResponseHead, Trailers};
use crate::limits::{self, FRAME_HEADER_BYTES};
use crate::wire;

/// Length of the field that tells a head from the first body bytes.
const HEAD_PREFIX: usize = 2;

/// Takes frames out of a byte stream.
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    max_payload: u32,
}

impl FrameDecoder {
    /// `max_payload`: what this side stated in its [`ReceiveLimits`](crate::frame::ReceiveLimits), in bytes.
    #[must_use]
    pub const fn new(max_payload: u32) -> Self {
        Self { max_payload }
    }

    /// Takes the next whole frame from the front of `buffer`; `Ok(None)`: more bytes are needed. Payloads are not
    /// copied: they share the buffer's memory.
    ///
    /// # Errors
    /// When the bytes are not a frame. A length over the limit is found before its payload arrives.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let Some(header) = buffer.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::decode(*header);
        let rule = Rule::of(header, self.max_payload)?;
        let whole = FRAME_HEADER_BYTES + header.length as usize;
        if buffer.len() < whole {
            return Ok(None);
        }
        let mut payload = buffer.split_to(whole);
        payload.advance(FRAME_HEADER_BYTES);
        rule.read(header, payload.freeze()).map(Some)
    }

    /// The header at the front of `buffer`, if it is there and legal.
    pub(super) fn header(&self, buffer: &[u8]) -> Option<FrameHeader> {
        let header = FrameHeader::decode(*buffer.first_chunk::<FRAME_HEADER_BYTES>()?);
        Rule::of(header, self.max_payload).is_ok().then_some(header)
    }

    /// How many bytes the frame at the front of `buffer` takes in all, once its header is there.
    #[must_use]
    pub fn frame_len(&self, buffer: &[u8]) -> Option<usize> {
        let header = FrameHeader::decode(*buffer.first_chunk::<FRAME_HEADER_BYTES>()?);
        Some(FRAME_HEADER_BYTES + header.length.min(self.max_payload) as usize)
    }
}

/// What a type of frame may look like.
struct Rule {
    name: &'static str,
    kind: u8,
}

impl Rule {
    /// Checks everything that the header alone shows.
    fn of(header: FrameHeader, max_payload: u32) -> Result<Self, DecodeError> {
        use flags::{END_STREAM, IGNORABLE, TRAILERS, TUNNEL};
        const SMALL: usize = limits::SMALL_CONTROL_BYTES;
        // (name, legal flags, whether it speaks of a stream, its own limit)
        let (name, legal, of_stream, limit) = match header.kind {
            kind::HELLO => ("HELLO", 0, Some(false), limits::HELLO_BYTES),
            kind::CHALLENGE => ("CHALLENGE", 0, Some(false), limits::HANDSHAKE_BYTES),
            kind::PROOF => ("PROOF", 0, Some(false), limits::HANDSHAKE_BYTES),
            kind::WELCOME => ("WELCOME", 0, Some(false), limits::HANDSHAKE_BYTES),
            kind::ENDPOINTS_UPDATE => ("ENDPOINTS_UPDATE", 0, Some(false), usize::MAX),
            kind::ENDPOINTS_RESULT => ("ENDPOINTS_RESULT", 0, Some(false), usize::MAX),
            kind::HEARTBEAT => ("HEARTBEAT", 0, Some(false), SMALL),
            kind::HEARTBEAT_ACK => ("HEARTBEAT_ACK", 0, Some(false), SMALL),
            kind::REQUEST => ("REQUEST", END_STREAM | TUNNEL, Some(true), usize::MAX),
            kind::REQUEST_STREAM_DATA => ("REQUEST_STREAM_DATA", END_STREAM | TRAILERS, Some(true), usize::MAX),
            kind::RESPONSE => ("RESPONSE", END_STREAM | TUNNEL, Some(true), usize::MAX),
            kind::RESPONSE_STREAM_DATA => ("RESPONSE_STREAM_DATA", END_STREAM | TRAILERS, Some(true), usize::MAX),
            kind::CANCEL => ("CANCEL", 0, Some(true), SMALL),
            kind::WINDOW => ("WINDOW", 0, None, SMALL),
            kind::LEASE => ("LEASE", 0, Some(false), SMALL),
            kind::DRAIN => ("DRAIN", 0, Some(false), SMALL),
            kind::CLOSE => ("CLOSE", 0, Some(false), SMALL),
            _ if header.flags & IGNORABLE != 0 => ("an ignorable frame", u8::MAX, None, usize::MAX),
            unknown => return Err(DecodeError::UnknownType(unknown)),
        };
        let only_trailers = header.flags & TRAILERS != 0 && header.flags & END_STREAM == 0;
        if header.flags & !legal != 0 || (only_trailers && legal != u8::MAX) {
            return Err(DecodeError::Flags { frame: name, flags: header.flags });
        }
        if of_stream.is_some_and(|of_stream| of_stream != (header.stream != 0)) {
            return Err(DecodeError::Stream { frame: name, stream: header.stream });
        }
        let limit = max_payload.min(u32::try_from(limit).unwrap_or(u32::MAX));
        if header.length > limit {
            return Err(DecodeError::TooLarge { frame: name, length: header.length, limit });
        }
        Ok(Self { name, kind: header.kind })
    }

    fn read(&self, header: FrameHeader, payload: Bytes) -> Result<Frame, DecodeError> {
        let stream =
            StreamId::new(header.stream).ok_or(DecodeError::Stream { frame: self.name, stream: header.stream })?;
        let end = header.flags & flags::END_STREAM != 0;
        let tunnel = header.flags & flags::TUNNEL != 0;
        Ok(match self.kind {
            kind::HELLO => Frame::Hello(self.wire(payload)?),
            kind::CHALLENGE => Frame::Challenge(self.wire(payload)?),
            kind::PROOF => Frame::Proof(self.wire(payload)?),
            kind::WELCOME => Frame::Welcome(self.wire(payload)?),
            kind::ENDPOINTS_UPDATE => Frame::EndpointsUpdate(self.wire(payload)?),
            kind::ENDPOINTS_RESULT => Frame::EndpointsResult(self.wire(payload)?),
            kind::HEARTBEAT => Frame::Heartbeat(self.control(&payload)?),
            kind::HEARTBEAT_ACK => Frame::HeartbeatAck(self.control(&payload)?),
            kind::REQUEST => {
                let (head, body) = self.split(payload)?;
                let head = RequestHead::decode(head).map_err(|source| self.head(source))?;
                Frame::Request(Request { stream, head, body, end, tunnel })
            }
            kind::RESPONSE => {
                let (head, body) = self.split(payload)?;
                let head = ResponseHead::decode(head).map_err(|source| self.head(source))?;
                Frame::Response(Response { stream, head, body, end, tunnel })
            }
            kind::REQUEST_STREAM_DATA => Frame::RequestData(self.data(stream, header, payload)?),
            kind::RESPONSE_STREAM_DATA => Frame::ResponseData(self.data(stream, header, payload)?),
            kind::CANCEL => Frame::Cancel(stream, Box::new(self.control(&payload)?)),
            kind::WINDOW => Frame::Window(stream, self.control(&payload)?),
            kind::LEASE => Frame::Lease(self.control(&payload)?),
            kind::DRAIN => Frame::Drain(self.control(&payload)?),
            kind::CLOSE => Frame::Close(Box::new(self.control(&payload)?)),
            kind => Frame::Ignorable { kind, length: header.length },
        })
    }

    fn control<T: DeserializeOwned>(&self, payload: &Bytes) -> Result<T, DecodeError> {
        wire::decode(payload).map_err(|source| DecodeError::Control { frame: self.name, source })
    }

    fn wire<T: DeserializeOwned>(&self, payload: Bytes) -> Result<Box<wire::Wire<T>>, DecodeError> {
        match wire::Wire::decode(payload) {
            Ok(wire) => Ok(Box::new(wire)),
            Err(source) => Err(DecodeError::Control { frame: self.name, source }),
        }
    }

    fn head(&self, source: HeadError) -> DecodeError {
        DecodeError::Head { frame: self.name, source }
    }

    /// A u16 length, a head of that length, and the first body bytes.
    fn split(&self, mut payload: Bytes) -> Result<(Bytes, Bytes), DecodeError> {
        let length = payload.try_get_u16().map_err(|_| self.head(HeadError::Truncated("the head's length")))?;
        if payload.len() < usize::from(length) {
            return Err(self.head(HeadError::Truncated("the head")));
        }
        let head = payload.split_to(usize::from(length));
        Ok((head, payload))
    }

    fn data(&self, stream: StreamId, header: FrameHeader, payload: Bytes) -> Result<Data, DecodeError> {
        let payload = if header.flags & flags::TRAILERS != 0 {
            DataPayload::Trailers(Trailers::decode(payload).map_err(|source| self.head(source))?)
        } else {
            DataPayload::Bytes { bytes: payload, end: header.flags & flags::END_STREAM != 0 }
        };
        Ok(Data { stream, payload })
    }
}

/// Appends a frame to `out`, except for its body, which is returned so that a link can send it without copying it:
/// `out`, then the body, is the frame. The body is empty for frames without one.
#[must_use = "the body belongs behind what was appended"]
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Bytes {
    match frame {
        Frame::Hello(wire) => put_control(kind::HELLO, StreamId::CONNECTION, wire.bytes(), out),
        Frame::Challenge(wire) => put_control(kind::CHALLENGE, StreamId::CONNECTION, wire.bytes(), out),
        Frame::Proof(wire) => put_control(kind::PROOF, StreamId::CONNECTION, wire.bytes(), out),
        Frame::Welcome(wire) => put_control(kind::WELCOME, StreamId::CONNECTION, wire.bytes(), out),
        Frame::EndpointsUpdate(wire) => put_control(kind::ENDPOINTS_UPDATE, StreamId::CONNECTION, wire.bytes(), out),
        Frame::EndpointsResult(wire) => put_control(kind::ENDPOINTS_RESULT, StreamId::CONNECTION, wire.bytes(), out),
        Frame::Heartbeat(value) => put_control(kind::HEARTBEAT, StreamId::CONNECTION, &wire::encode(value), out),
        Frame::HeartbeatAck(value) => put_control(kind::HEARTBEAT_ACK, StreamId::CONNECTION, &wire::encode(value), out),
        Frame::Cancel(stream, value) => put_control(kind::CANCEL, *stream, &wire::encode(value), out),
        Frame::Window(stream, value) => put_control(kind::WINDOW, *stream, &wire::encode(value), out),
        Frame::Lease(value) => put_control(kind::LEASE, StreamId::CONNECTION, &wire::encode(value), out),
        Frame::Drain(value) => put_control(kind::DRAIN, StreamId::CONNECTION, &wire::encode(value), out),
        Frame::Close(value) => put_control(kind::CLOSE, StreamId::CONNECTION, &wire::encode(value), out),
        Frame::Request(request) => {
            let flags = stream_flags(request.end, request.tunnel);
            put_head(kind::REQUEST, flags, request.stream, request.head.as_bytes(), request.body.len(), out);
            return request.body.clone();
        }
        Frame::Response(response) => {
            let flags = stream_flags(response.end, response.tunnel);
            put_head(kind::RESPONSE, flags, response.stream, response.head.as_bytes(), response.body.len(), out);
            return response.body.clone();
        }
        Frame::RequestData(data) => return put_data(kind::REQUEST_STREAM_DATA, data, out),
        Frame::ResponseData(data) => return put_data(kind::RESPONSE_STREAM_DATA, data, out),
        Frame::Ignorable { kind, length } => {
            put_header(*kind, flags::IGNORABLE, StreamId::CONNECTION, *length as usize, out);
            out.put_bytes(0, *length as usize);
        }
    }
    Bytes::new()
}

/// The octets a frame takes on the wire, header included.
#[must_use]
pub fn encoded_len(frame: &Frame) -> usize {
    let payload = match frame {
        Frame::Hello(wire) => wire.bytes().len(),
        Frame::Challenge(wire) => wire.bytes().len(),
        Frame::Proof(wire) => wire.bytes().len(),
        Frame::Welcome(wire) => wire.bytes().len(),
        Frame::EndpointsUpdate(wire) => wire.bytes().len(),
        Frame::EndpointsResult(wire) => wire.bytes().len(),
        Frame::Request(request) => HEAD_PREFIX + request.head.as_bytes().len() + request.body.len(),
        Frame::Response(response) => HEAD_PREFIX + response.head.as_bytes().len() + response.body.len(),
        Frame::RequestData(data) | Frame::ResponseData(data) => match &data.payload {
            DataPayload::Bytes { bytes, .. } => bytes.len(),
            DataPayload::Trailers(trailers) => trailers.as_bytes().len(),
        },
        Frame::Ignorable { length, .. } => *length as usize,
        // Rare and small: encoding them is the simplest way to know.
        Frame::Heartbeat(value) => wire::encode(value).len(),
        Frame::HeartbeatAck(value) => wire::encode(value).len(),
        Frame::Cancel(_, value) => wire::encode(value).len(),
        Frame::Window(_, value) => wire::encode(value).len(),
        Frame::Lease(value) => wire::encode(value).len(),
        Frame::Drain(value) => wire::encode(value).len(),
        Frame::Close(value) => wire::encode(value).len(),
    };
    FRAME_HEADER_BYTES + payload
}

const fn stream_flags(end: bool, tunnel: bool) -> u8 {
    (if end { flags::END_STREAM } else { 0 }) | (if tunnel { flags::TUNNEL } else { 0 })
}

fn put_header(kind: u8, flags: u8, stream: StreamId, length: usize, out: &mut BytesMut) {
    // The session never makes a payload larger than a peer's limit, which is 32 bits wide.
    let header = FrameHeader { kind, flags, stream: stream.as_u64(), length: length as u32 };
    out.put_slice(&header.encode());
}

fn put_control(kind: u8, stream: StreamId, payload: &[u8], out: &mut BytesMut) {
    put_header(kind, 0, stream, payload.len(), out);
    out.put_slice(payload);
}

fn put_head(kind: u8, flags: u8, stream: StreamId, head: &[u8], body: usize, out: &mut BytesMut) {
    put_header(kind, flags, stream, HEAD_PREFIX + head.len() + body, out);
    out.put_u16(head.len() as u16);
    out.put_slice(head);
}

fn put_data(kind: u8, data: &Data, out: &mut BytesMut) -> Bytes {
    match &data.payload {
        DataPayload::Bytes { bytes, end } => {
            put_header(kind, stream_flags(*end, false), data.stream, bytes.len(), out);
            bytes.clone()
        }
        DataPayload::Trailers(trailers) => {
            put_header(kind, flags::END_STREAM | flags::TRAILERS, data.stream, trailers.as_bytes().len(), out);
            out.put_slice(trailers.as_bytes());
            Bytes::new()
        }
    }
}
