//! Frames and decoding errors as the golden vectors describe them: JSON that needs no Rust to be understood.

use http::HeaderMap;
use router_common::codec::DecodeError;
use router_common::frame::{Data, DataPayload, Frame};
use router_common::head::{Fields, HeadError, RequestHead, ResponseHead};
use router_common::wire::WireError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::vectors::to_hex;

/// A frame's type, stream, flags and content. Byte strings are hexadecimal, header values are text or `hex:`.
pub(crate) fn frame(frame: &Frame) -> Value {
    let stream = frame.stream().as_u64();
    let mut flags: Vec<&str> = Vec::new();
    let mut content = match frame {
        Frame::Hello(wire) => control(wire.value()),
        Frame::Challenge(wire) => control(wire.value()),
        Frame::Proof(wire) => control(wire.value()),
        Frame::Welcome(wire) => control(wire.value()),
        Frame::EndpointsUpdate(wire) => control(wire.value()),
        Frame::EndpointsResult(wire) => control(wire.value()),
        Frame::Heartbeat(value) => control(value),
        Frame::HeartbeatAck(value) => control(value),
        Frame::Cancel(_, value) => control(value),
        Frame::Window(_, value) => control(value),
        Frame::Lease(value) => control(value),
        Frame::Drain(value) => control(value),
        Frame::Close(value) => control(value),
        Frame::Request(request) => {
            flag(&mut flags, request.end, "END_STREAM");
            flag(&mut flags, request.tunnel, "TUNNEL");
            json!({ "head": request_head(&request.head), "body": to_hex(&request.body) })
        }
        Frame::Response(response) => {
            flag(&mut flags, response.end, "END_STREAM");
            flag(&mut flags, response.tunnel, "TUNNEL");
            json!({ "head": response_head(&response.head), "body": to_hex(&response.body) })
        }
        Frame::RequestData(data) | Frame::ResponseData(data) => body(data, &mut flags),
        Frame::Ignorable { kind, length } => {
            return json!({ "type": "ignorable", "number": kind, "length": length });
        }
    };
    let object = content.as_object_mut().expect("content is an object");
    object.insert("type".into(), frame.name().into());
    object.insert("stream".into(), stream.into());
    object.insert("flags".into(), flags.into());
    content
}

/// The kind of a decoding error, as the vectors name it.
pub(crate) fn error(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnknownType(_) => "unknown_type",
        DecodeError::Flags { .. } => "flags",
        DecodeError::Stream { .. } => "stream",
        DecodeError::TooLarge { .. } => "too_large",
        DecodeError::Control { source: WireError::Malformed(_), .. } => "control.malformed",
        DecodeError::Control { source: WireError::TrailingBytes(_), .. } => "control.trailing_bytes",
        DecodeError::Head { source, .. } => match source {
            HeadError::TooLarge { .. } => "head.too_large",
            HeadError::TooManyFields => "head.too_many_fields",
            HeadError::Truncated(_) => "head.truncated",
            HeadError::TrailingBytes(_) => "head.trailing_bytes",
            HeadError::Malformed(_) => "head.malformed",
            HeadError::FieldName(_) => "head.field_name",
            HeadError::FieldValue(_) => "head.field_value",
            HeadError::HopByHop(_) => "head.hop_by_hop",
            HeadError::ContentLength => "head.content_length",
            HeadError::Status(_) => "head.status",
            _ => "head",
        },
        _ => "other",
    }
}

/// Header fields from pairs of name and value.
pub(crate) fn headers(pairs: &[(&'static str, &'static [u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let value = http::HeaderValue::from_bytes(value).expect("a valid value");
        map.append(http::HeaderName::from_static(name), value);
    }
    map
}

fn flag(flags: &mut Vec<&str>, set: bool, name: &'static str) {
    if set {
        flags.push(name);
    }
}

fn body(data: &Data, flags: &mut Vec<&str>) -> Value {
    match &data.payload {
        DataPayload::Bytes { bytes, end } => {
            flag(flags, *end, "END_STREAM");
            json!({ "body": to_hex(bytes) })
        }
        DataPayload::Trailers(trailers) => {
            flags.extend(["END_STREAM", "TRAILERS"]);
            json!({ "trailers": fields(trailers.headers()) })
        }
    }
}

fn control<T: Serialize>(value: &T) -> Value {
    let mut value = serde_json::to_value(value).expect("control payloads are JSON too");
    bytes_to_hex(&mut value);
    json!({ "payload": value })
}

/// Byte strings, which serde gives as lists of numbers.
fn bytes_to_hex(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    for (name, value) in object {
        match value {
            Value::Array(bytes) if matches!(name.as_str(), "nonce" | "proof" | "incarnation") => {
                let bytes: Vec<u8> = bytes.iter().map(|byte| byte.as_u64().expect("a byte") as u8).collect();
                *value = to_hex(&bytes).into();
            }
            value => bytes_to_hex(value),
        }
    }
}

fn request_head(head: &RequestHead) -> Value {
    json!({
        "endpoint": head.endpoint().map_or(0, |id| id.as_u32()),
        "deadline_ms": head.deadline().map_or(0, |deadline| deadline.as_millis() as u64),
        "hops": head.hops(),
        "scheme": head.scheme().as_str(),
        "method": head.method(),
        "authority": head.authority(),
        "target": head.target(),
        "parameters": head.parameters().collect::<Vec<_>>(),
        "client": head.client().map(|client| client.to_string()),
        "headers": fields(head.headers()),
        "claims": head.claims().collect::<Vec<_>>(),
        "tunnel_protocol": head.tunnel_protocol(),
        "unknown_extension": head.unknown_extension(),
    })
}

fn response_head(head: &ResponseHead) -> Value {
    json!({
        "status": head.status(),
        "headers": fields(head.headers()),
        "unknown_extension": head.unknown_extension(),
    })
}

fn fields(fields: Fields<'_>) -> Vec<[String; 2]> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("hex:{}", to_hex(bytes)),
    };
    fields.map(|(name, value)| [text(name), text(&value)]).collect()
}
