//! Request heads, response heads and trailers: compact binary, specified byte by byte in `docs/PROTOCOL.md`.
//!
//! A head is encoded once, by the stream's opener or responder. Everywhere else it is a checked view over the bytes it
//! came in: decoding copies nothing, and what it hands out shares the frame's memory.

mod error;
mod fields;
mod reader;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use self::fields::Section;
use self::reader::Reader;
use crate::endpoint::{Claim, EndpointId};
use crate::limits;

pub use self::error::HeadError;
pub use self::fields::{Fields, is_hop_by_hop};

/// Extension: the protocol that a tunnel asks for. Odd, so that a peer that does not know it refuses the stream.
const TLV_TUNNEL_PROTOCOL: u16 = 0x0001;

/// How the client spoke to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// All that a request head says, for encoding one.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The service's endpoint; `None` for requests that a service opens, which are routed by method and path.
    pub endpoint: Option<EndpointId>,
    /// Time left to answer; `None`: no deadline. Carried in milliseconds, rounded up, so never 0 by rounding.
    pub deadline: Option<Duration>,
    /// Gateways passed so far.
    pub hops: u8,
    pub method: &'a str,
    pub scheme: Scheme,
    pub authority: &'a str,
    /// Raw path and query, as the client sent them.
    pub target: &'a str,
    /// `(start, length)` of each path parameter's raw bytes in `target`, in the template's order.
    pub parameters: &'a [(u16, u16)],
    pub client: Option<SocketAddr>,
    pub headers: &'a HeaderMap,
    pub claims: &'a [Claim],
    /// For TUNNEL: the protocol, `websocket` say.
    pub tunnel_protocol: Option<&'a str>,
}

/// A checked request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    bytes: Bytes,
    method: (u16, u16),
    authority: (u16, u16),
    target: (u16, u16),
    parameters: (u16, u16),
    /// Where the client's address stands.
    client: u16,
    fields: Section,
    claims: (u16, u16),
    extensions: Extensions,
}

/// What the extensions at the end of a head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Extensions {
    tunnel_protocol: Option<(u16, u16)>,
    unknown: Option<u16>,
}

impl RequestHead {
    /// Encodes a head.
    ///
    /// # Errors
    /// When it is over 32 KiB, or has something that may not cross: see [`HeadError`].
    pub fn encode(parts: &RequestParts<'_>) -> Result<Self, HeadError> {
        Self::put(parts, &mut BytesMut::with_capacity(Self::estimate(parts)))
    }

    /// Encodes a head in memory that it shares with the heads before and after it: whoever encodes many keeps `memory`,
    /// and few of them cost an allocation. What `memory` is made of lives as long as any head in it.
    ///
    /// # Errors
    /// See [`RequestHead::encode`].
    pub fn encode_in(parts: &RequestParts<'_>, memory: &mut BytesMut) -> Result<Self, HeadError> {
        make_room(memory, Self::estimate(parts));
        Self::put(parts, memory)
    }

    fn estimate(parts: &RequestParts<'_>) -> usize {
        estimate(parts.headers) + parts.authority.len() + parts.target.len() + 128
    }

    /// Encodes at the end of `memory`, which is empty, and cuts off what was encoded.
    fn put(parts: &RequestParts<'_>, out: &mut BytesMut) -> Result<Self, HeadError> {
        out.put_u32(parts.endpoint.map_or(0, EndpointId::as_u32));
        out.put_u32(parts.deadline.map_or(0, milliseconds));
        out.put_u8(parts.hops);
        out.put_u8(match parts.scheme {
            Scheme::Http => 0,
            Scheme::Https => 1,
        });
        put_prefixed(parts.method.as_bytes(), "the method", out)?;
        put_prefixed(parts.authority.as_bytes(), "the authority", out)?;
        put_prefixed(parts.target.as_bytes(), "the target", out)?;
        let count = u8::try_from(parts.parameters.len()).map_err(|_| HeadError::Malformed("path parameters"))?;
        out.put_u8(count);
        for (start, length) in parts.parameters {
            out.put_u16(*start);
            out.put_u16(*length);
        }
        put_client(parts.client, out);
        let fields = fields::put(parts.headers, out)?;
        let behind_fields = out.len();
        out.put_u16(u16::try_from(parts.claims.len()).map_err(|_| HeadError::Malformed("claims"))?);
        for claim in parts.claims {
            put_prefixed(claim.kind.as_bytes(), "a claim", out)?;
            put_prefixed(claim.value.as_bytes(), "a claim", out)?;
        }
        if let Some(protocol) = parts.tunnel_protocol {
            out.put_u16(TLV_TUNNEL_PROTOCOL);
            put_prefixed(protocol.as_bytes(), "the tunnel's protocol", out)?;
        }
        Self::index(out.split().freeze(), |reader| fields.skip(reader, behind_fields))
    }

    /// Checks and indexes a head.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn decode(bytes: Bytes) -> Result<Self, HeadError> {
        Self::index(bytes, fields::check)
    }

    /// Finds the parts of a head and checks them, all but the fields, which `fields` is to read.
    fn index(
        bytes: Bytes,
        fields: impl FnOnce(&mut Reader<'_>) -> Result<Section, HeadError>,
    ) -> Result<Self, HeadError> {
        check_size(&bytes, "a request head", limits::HEAD_BYTES)?;
        let mut reader = Reader::new(&bytes);
        reader.take(4 + 4 + 1, "the fixed part")?;
        if reader.u8("the scheme")? > 1 {
            return Err(HeadError::Malformed("scheme"));
        }
        let method = text(&mut reader, "the method", |b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))?;
        let authority = text(&mut reader, "the authority", |b| b.is_ascii_graphic())?;
        let target = text(&mut reader, "the target", |b| b.is_ascii_graphic())?;
        if method.1 == 0 {
            return Err(HeadError::Malformed("method"));
        }
        if !matches!(bytes.get(usize::from(target.0)), Some(b'/' | b'*')) || target.1 == 0 {
            return Err(HeadError::Malformed("target"));
        }
        let parameters = check_parameters(&mut reader, target.1)?;
        let client = reader.position() as u16;
        read_client(&mut reader)?;
        let fields = fields(&mut reader)?;
        let claims = check_claims(&mut reader)?;
        let extensions = check_extensions(&mut reader)?;
        Ok(Self { method, authority, target, parameters, client, fields, claims, extensions, bytes })
    }

    /// The head as it travels.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The endpoint at the service; `None`: to be routed by method and path.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointId> {
        EndpointId::new(self.u32_at(0))
    }

    /// Time that was left when the head was encoded; `None`: no deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.u32_at(4) {
            0 => None,
            milliseconds => Some(Duration::from_millis(u64::from(milliseconds))),
        }
    }

    /// Gateways passed so far.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.bytes[8]
    }

    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.bytes[9] == 1 { Scheme::Https } else { Scheme::Http }
    }

    #[must_use]
    pub fn method(&self) -> &str {
        self.str_at(self.method)
    }

    #[must_use]
    pub fn authority(&self) -> &str {
        self.str_at(self.authority)
    }

    /// The authority, sharing this head's memory.
    #[must_use]
    pub fn authority_bytes(&self) -> Bytes {
        self.bytes.slice(range(self.authority))
    }

    /// Raw path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        self.str_at(self.target)
    }

    /// Raw path and query, sharing this head's memory.
    #[must_use]
    pub fn target_bytes(&self) -> Bytes {
        self.bytes.slice(range(self.target))
    }

    /// `(start, length)` of each path parameter in [`target`](Self::target), in the template's order.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = (u16, u16)> {
        let start = usize::from(self.parameters.0);
        let bytes = &self.bytes[start..start + usize::from(self.parameters.1) * 4];
        bytes.chunks_exact(4).map(|p| (u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]])))
    }

    /// Where the HTTP client is, if that is known.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        let mut reader = Reader::new(self.bytes.get(usize::from(self.client)..)?);
        read_client(&mut reader).ok().flatten()
    }

    #[must_use]
    pub fn headers(&self) -> Fields<'_> {
        Fields::new(&self.bytes, self.fields)
    }

    /// The body's length, if the head says it.
    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.fields.content_length
    }

    /// The caller's claims, as `(type, value)`.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut reader = Reader::new(&self.bytes[usize::from(self.claims.0)..]);
        // All of this was checked by `decode`.
        (0..self.claims.1).map_while(move |_| {
            let kind = std::str::from_utf8(reader.prefixed("a claim").ok()?).ok()?;
            let value = std::str::from_utf8(reader.prefixed("a claim").ok()?).ok()?;
            Some((kind, value))
        })
    }

    /// For TUNNEL: the protocol that is asked for.
    #[must_use]
    pub fn tunnel_protocol(&self) -> Option<&str> {
        self.extensions.tunnel_protocol.map(|at| self.str_at(at))
    }

    /// The first extension that this version does not know and may not skip: the stream is then refused.
    #[must_use]
    pub const fn unknown_extension(&self) -> Option<u16> {
        self.extensions.unknown
    }

    fn u32_at(&self, at: usize) -> u32 {
        let b = &self.bytes[at..at + 4];
        u32::from_be_bytes([b[0], b[1], b[2], b[3]])
    }

    fn str_at(&self, at: (u16, u16)) -> &str {
        std::str::from_utf8(&self.bytes[range(at)]).unwrap_or_default()
    }
}

/// A checked response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    bytes: Bytes,
    fields: Section,
    extensions: Extensions,
}

impl ResponseHead {
    /// Encodes a head. `status` is 200 to 599.
    ///
    /// # Errors
    /// When it is over 32 KiB, or has something that may not cross: see [`HeadError`].
    pub fn encode(status: u16, headers: &HeaderMap) -> Result<Self, HeadError> {
        Self::put(status, headers, &mut BytesMut::with_capacity(estimate(headers) + 2))
    }

    /// Encodes a head in memory that it shares with others: see [`RequestHead::encode_in`].
    ///
    /// # Errors
    /// See [`ResponseHead::encode`].
    pub fn encode_in(status: u16, headers: &HeaderMap, memory: &mut BytesMut) -> Result<Self, HeadError> {
        make_room(memory, estimate(headers) + 2);
        Self::put(status, headers, memory)
    }

    fn put(status: u16, headers: &HeaderMap, out: &mut BytesMut) -> Result<Self, HeadError> {
        out.put_u16(status);
        let fields = fields::put(headers, out)?;
        let behind_fields = out.len();
        Self::index(out.split().freeze(), |reader| fields.skip(reader, behind_fields))
    }

    /// Checks and indexes a head.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn decode(bytes: Bytes) -> Result<Self, HeadError> {
        Self::index(bytes, fields::check)
    }

    fn index(
        bytes: Bytes,
        fields: impl FnOnce(&mut Reader<'_>) -> Result<Section, HeadError>,
    ) -> Result<Self, HeadError> {
        check_size(&bytes, "a response head", limits::HEAD_BYTES)?;
        let mut reader = Reader::new(&bytes);
        let status = reader.u16("the status")?;
        if !(200..=599).contains(&status) {
            return Err(HeadError::Status(status));
        }
        let fields = fields(&mut reader)?;
        let extensions = check_extensions(&mut reader)?;
        Ok(Self { bytes, fields, extensions })
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    #[must_use]
    pub fn headers(&self) -> Fields<'_> {
        Fields::new(&self.bytes, self.fields)
    }

    #[must_use]
    pub const fn content_length(&self) -> Option<u64> {
        self.fields.content_length
    }

    /// The first extension that this version does not know and may not skip: the stream is then cancelled.
    #[must_use]
    pub const fn unknown_extension(&self) -> Option<u16> {
        self.extensions.unknown
    }
}

/// Checked trailers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    bytes: Bytes,
    fields: Section,
}

impl Trailers {
    /// Encodes trailers.
    ///
    /// # Errors
    /// When they are over 8 KiB, or have something that may not cross: see [`HeadError`].
    pub fn encode(headers: &HeaderMap) -> Result<Self, HeadError> {
        let mut out = BytesMut::with_capacity(estimate(headers));
        fields::put(headers, &mut out)?;
        Self::decode(out.freeze())
    }

    /// Checks trailers.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn decode(bytes: Bytes) -> Result<Self, HeadError> {
        check_size(&bytes, "trailers", limits::TRAILERS_BYTES)?;
        let mut reader = Reader::new(&bytes);
        let fields = fields::check(&mut reader)?;
        match reader.left() {
            0 => Ok(Self { bytes, fields }),
            left => Err(HeadError::TrailingBytes(left)),
        }
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[must_use]
    pub fn headers(&self) -> Fields<'_> {
        Fields::new(&self.bytes, self.fields)
    }
}

/// What is taken at once where heads share memory: a dozen ordinary ones fit.
const SHARED_MEMORY: usize = 4096;

/// Makes `memory` an empty one with room for `size` bytes.
fn make_room(memory: &mut BytesMut, size: usize) {
    // A head that could not be encoded left its beginning.
    memory.clear();
    if memory.capacity() < size {
        memory.reserve(size.max(SHARED_MEMORY));
    }
}

fn estimate(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + 2
}

/// Whole milliseconds, rounded up; at least 1, because 0 says "no deadline".
fn milliseconds(deadline: Duration) -> u32 {
    u32::try_from(deadline.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
}

fn range((start, length): (u16, u16)) -> Range<usize> {
    usize::from(start)..usize::from(start) + usize::from(length)
}

fn check_size(bytes: &Bytes, what: &'static str, limit: usize) -> Result<(), HeadError> {
    if bytes.len() > limit {
        return Err(HeadError::TooLarge { what, size: bytes.len(), limit });
    }
    Ok(())
}

fn put_prefixed(bytes: &[u8], what: &'static str, out: &mut BytesMut) -> Result<(), HeadError> {
    let length = u16::try_from(bytes.len()).map_err(|_| HeadError::TooLarge {
        what,
        size: bytes.len(),
        limit: limits::HEAD_BYTES,
    })?;
    out.put_u16(length);
    out.put_slice(bytes);
    Ok(())
}

fn text(reader: &mut Reader<'_>, what: &'static str, allowed: impl Fn(u8) -> bool) -> Result<(u16, u16), HeadError> {
    let bytes = reader.prefixed(what)?;
    if !bytes.iter().fold(true, |so_far, byte| so_far & allowed(*byte)) {
        return Err(HeadError::Malformed(what));
    }
    Ok(((reader.position() - bytes.len()) as u16, bytes.len() as u16))
}

fn check_parameters(reader: &mut Reader<'_>, target_length: u16) -> Result<(u16, u16), HeadError> {
    let count = reader.u8("the parameter count")?;
    if usize::from(count) > limits::TEMPLATE_PARAMETERS {
        return Err(HeadError::Malformed("path parameters"));
    }
    let start = reader.position() as u16;
    for _ in 0..count {
        let (from, length) = (reader.u16("a parameter")?, reader.u16("a parameter")?);
        if u32::from(from) + u32::from(length) > u32::from(target_length) {
            return Err(HeadError::Malformed("path parameters"));
        }
    }
    Ok((start, u16::from(count)))
}

fn put_client(client: Option<SocketAddr>, out: &mut BytesMut) {
    match client.map(|client| (client.ip(), client.port())) {
        None => out.put_u8(0),
        Some((IpAddr::V4(ip), port)) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
            out.put_u16(port);
        }
        Some((IpAddr::V6(ip), port)) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
            out.put_u16(port);
        }
    }
}

fn read_client(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, HeadError> {
    const WHAT: &str = "the client's address";
    let ip: IpAddr = match reader.u8(WHAT)? {
        0 => return Ok(None),
        4 => <[u8; 4]>::try_from(reader.take(4, WHAT)?).map_err(|_| HeadError::Truncated(WHAT))?.into(),
        6 => <[u8; 16]>::try_from(reader.take(16, WHAT)?).map_err(|_| HeadError::Truncated(WHAT))?.into(),
        _ => return Err(HeadError::Malformed(WHAT)),
    };
    Ok(Some(SocketAddr::new(ip, reader.u16(WHAT)?)))
}

fn check_claims(reader: &mut Reader<'_>) -> Result<(u16, u16), HeadError> {
    let count = reader.u16("the claim count")?;
    let start = reader.position() as u16;
    for _ in 0..count {
        for what in ["a claim's type", "a claim's value"] {
            std::str::from_utf8(reader.prefixed(what)?).map_err(|_| HeadError::Malformed(what))?;
        }
    }
    Ok((start, count))
}

/// Reads the extensions up to the head's end. Unknown even ones are skipped; unknown odd ones are for the session to
/// refuse, because they concern one stream and not the link.
fn check_extensions(reader: &mut Reader<'_>) -> Result<Extensions, HeadError> {
    let mut extensions = Extensions::default();
    while reader.left() > 0 {
        let kind = reader.u16("an extension")?;
        if kind == TLV_TUNNEL_PROTOCOL {
            extensions.tunnel_protocol = Some(text(reader, "the tunnel's protocol", |b| b.is_ascii_graphic())?);
            continue;
        }
        reader.prefixed("an extension")?;
        if kind % 2 == 1 {
            extensions.unknown = extensions.unknown.or(Some(kind));
        }
    }
    Ok(extensions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn parts<'a>(headers: &'a HeaderMap, claims: &'a [Claim]) -> RequestParts<'a> {
        RequestParts {
            endpoint: EndpointId::new(7),
            deadline: Some(Duration::from_micros(1_500_500)),
            hops: 1,
            method: "GET",
            scheme: Scheme::Https,
            authority: "shop.example:8443",
            target: "/orders/42?full=1",
            parameters: &[(8, 2)],
            client: Some("[2001:db8::1]:4711".parse().unwrap()),
            headers,
            claims,
            tunnel_protocol: Some("websocket"),
        }
    }

    #[test]
    fn heads_that_share_memory_are_the_same_as_those_that_do_not() {
        let (good, bad) = (headers(&[("accept", "*/*")]), headers(&[("accept", "*/*"), ("connection", "close")]));
        let alone = (RequestHead::encode(&parts(&good, &[])).unwrap(), ResponseHead::encode(204, &good).unwrap());
        let mut memory = BytesMut::new();
        let mut kept = Vec::new();
        // Over the end of the shared memory, more than once.
        for _ in 0..2 * SHARED_MEMORY / alone.1.as_bytes().len() {
            assert!(RequestHead::encode_in(&parts(&bad, &[]), &mut memory).is_err());
            let request = RequestHead::encode_in(&parts(&good, &[]), &mut memory).unwrap();
            kept.push((request, ResponseHead::encode_in(204, &good, &mut memory).unwrap()));
        }
        assert!(kept.iter().all(|heads| *heads == alone));
    }

    #[test]
    fn a_request_head_says_what_was_put_into_it() {
        let fields = headers(&[("accept", "*/*"), ("content-length", "12")]);
        let claims = [Claim { kind: "scope".into(), value: "orders:read".into() }];
        let head = RequestHead::encode(&parts(&fields, &claims)).unwrap();
        assert_eq!(head.endpoint(), EndpointId::new(7));
        assert_eq!(head.deadline(), Some(Duration::from_millis(1501)));
        assert_eq!((head.hops(), head.scheme(), head.method()), (1, Scheme::Https, "GET"));
        assert_eq!((head.authority(), head.target()), ("shop.example:8443", "/orders/42?full=1"));
        assert_eq!(head.parameters().collect::<Vec<_>>(), [(8, 2)]);
        assert_eq!(head.client(), Some("[2001:db8::1]:4711".parse().unwrap()));
        assert_eq!(head.content_length(), Some(12));
        assert_eq!(head.claims().collect::<Vec<_>>(), [("scope", "orders:read")]);
        assert_eq!(head.tunnel_protocol(), Some("websocket"));
        let fields: Vec<_> = head.headers().collect();
        assert_eq!(fields, [(&b"accept"[..], "*/*".into()), (b"content-length", "12".into())]);
    }

    #[test]
    fn a_head_cut_anywhere_is_refused() {
        let fields = headers(&[("accept", "*/*")]);
        let mut parts = parts(&fields, &[]);
        parts.tunnel_protocol = None;
        let whole = RequestHead::encode(&parts).unwrap().as_bytes().clone();
        for end in 0..whole.len() {
            assert!(RequestHead::decode(whole.slice(..end)).is_err(), "cut at {end} of {}", whole.len());
        }
    }

    #[test]
    fn what_may_not_cross_is_refused_when_encoding() {
        for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"] {
            let fields = headers(&[(name, "x")]);
            assert_eq!(ResponseHead::encode(200, &fields), Err(HeadError::HopByHop(name.into())));
        }
        let twice = headers(&[("content-length", "1"), ("content-length", "1")]);
        assert_eq!(ResponseHead::encode(200, &twice), Err(HeadError::ContentLength));
        let list = headers(&[("content-length", "1, 1")]);
        assert_eq!(ResponseHead::encode(200, &list), Err(HeadError::ContentLength));
        assert_eq!(ResponseHead::encode(101, &HeaderMap::new()), Err(HeadError::Status(101)));
        let mut large = HeaderMap::new();
        large.insert("x", HeaderValue::from_bytes(&[b'a'; 40_000]).unwrap());
        assert!(matches!(ResponseHead::encode(200, &large), Err(HeadError::TooLarge { .. })));
        assert!(matches!(Trailers::encode(&large), Err(HeadError::TooLarge { .. })));
    }

    #[test]
    fn what_may_not_cross_is_refused_when_decoding() {
        let raw = |name: &[u8], value: &[u8]| {
            let mut out = BytesMut::new();
            out.put_u16(200);
            out.put_u16(1);
            out.put_u16(name.len() as u16);
            out.put_slice(name);
            out.put_u16(value.len() as u16);
            out.put_slice(value);
            ResponseHead::decode(out.freeze())
        };
        assert!(raw(b"a", b"b").is_ok());
        assert_eq!(raw(b"A", b"b"), Err(HeadError::FieldName("A".into())));
        assert_eq!(raw(b"", b"b"), Err(HeadError::FieldName(String::new())));
        assert_eq!(raw(b"a b", b"b"), Err(HeadError::FieldName("a b".into())));
        for bad in [b"a\rb", b"a\nb", b"a\0b", b"a\x7fb"] {
            assert_eq!(raw(b"a", bad), Err(HeadError::FieldValue("a".into())));
        }
        assert_eq!(raw(b"te", b"trailers"), Err(HeadError::HopByHop("te".into())));
    }

    #[test]
    fn unknown_even_extensions_are_skipped_and_odd_ones_reported() {
        let with = |kind: u16| {
            let mut out = BytesMut::from(&ResponseHead::encode(200, &HeaderMap::new()).unwrap().as_bytes()[..]);
            out.put_u16(kind);
            out.put_u16(3);
            out.put_slice(b"abc");
            ResponseHead::decode(out.freeze())
        };
        assert_eq!(with(0x1000).unwrap().unknown_extension(), None);
        assert_eq!(with(0x1001).unwrap().unknown_extension(), Some(0x1001));
    }
}
