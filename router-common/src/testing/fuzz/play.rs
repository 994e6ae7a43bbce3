//! One session against a peer that does anything: operations and frames spelled by bytes.
//!
//! The first byte sets the scene (see `Scene`), then come operations of one byte and their arguments, all in the order
//! of `Play::step`. The peer's frames obey no rule; the session's own output is held to all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};

use super::assert_survives_encoding;
use super::input::Input;
use crate::codec::FrameDecoder;
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{
    Cancel, Challenge, Close, CloseCode, Data, DataPayload, Drain, DrainPhase, EndpointsResult, EndpointsUpdate, Frame,
    HealthStatus, Heartbeat, HeartbeatAck, Hello, LeaseUpdate, Proof, Reason, ReceiveLimits, RefusedEndpoint, Request,
    Response, StreamId, Welcome, Window,
};
use crate::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use crate::identity::{Identity, Incarnation, Instance};
use crate::limits;
use crate::session::lease::Lease;
use crate::session::{
    Accepted, Budget, Carrier, Common, Event, GatewaySide, Opening, Output, ProtocolError, Read, ReadHead, Secret,
    Secrets, ServiceSide, Session, StreamKey, Timers,
};
use crate::wire::Wire;

static ZEROS: [u8; limits::FRAME_PAYLOAD_BYTES as usize] = [0; limits::FRAME_PAYLOAD_BYTES as usize];

/// How a case begins: the bits of its first byte.
#[derive(Debug, Clone, Copy)]
struct Scene(u8);

impl Scene {
    const fn is_service(self) -> bool {
        self.0 & 0x01 != 0
    }
    const fn has_secret(self) -> bool {
        self.0 & 0x02 != 0
    }
    const fn small_budget(self) -> bool {
        self.0 & 0x04 != 0
    }
    const fn small_windows(self) -> bool {
        self.0 & 0x08 != 0
    }
    /// The peer does not even keep to the handshake; else the case begins on an established link.
    const fn raw_handshake(self) -> bool {
        self.0 & 0x10 != 0
    }
    const fn small_lease(self) -> bool {
        self.0 & 0x20 != 0
    }
    /// Output is taken only where the case says so.
    const fn lazy_output(self) -> bool {
        self.0 & 0x40 != 0
    }

    fn limits(self) -> ReceiveLimits {
        match self.small_windows() {
            true => ReceiveLimits { stream_window: 1000, connection_window: 4000, ..ReceiveLimits::default() },
            false => ReceiveLimits::default(),
        }
    }

    fn common(self, budget: &Arc<Budget>) -> Common {
        Common {
            carrier: Carrier::Stream,
            limits: self.limits(),
            timers: Timers::default(),
            budget: Arc::clone(budget),
            channel_binding: Bytes::new(),
            incarnation: None,
        }
    }

    fn hello(self) -> Hello {
        Hello {
            versions: vec![1],
            extensions: Vec::new(),
            instance: Instance {
                service: "orders".parse().expect("a valid name"),
                version: "1.0.0".parse().expect("a valid version"),
                region: "local".parse().expect("a valid region"),
                id: "one".parse().expect("a valid id"),
            },
            incarnation: Incarnation([7; 16]),
            link: 0,
            links: 1,
            preference: 0,
            key_id: None,
            token: None,
            nonce: [1; 32],
            limits: self.limits(),
            lease: if self.small_lease() { 2 } else { limits::LEASE },
        }
    }

    fn secret(self) -> Option<Secret> {
        self.has_secret().then(|| Secret::new([9; 32]).expect("32 bytes"))
    }

    fn service(self, budget: &Arc<Budget>, lease: &Arc<Lease>, now: Instant) -> Session {
        let side = ServiceSide {
            common: self.common(budget),
            hello: self.hello(),
            secret: self.secret(),
            lease: Arc::clone(lease),
        };
        Session::service(side, now)
    }

    fn gateway(self, budget: &Arc<Budget>, now: Instant) -> Session {
        let side = GatewaySide {
            common: self.common(budget),
            node: "gw".parse().expect("a valid name"),
            secrets: self.secret().map_or_else(Secrets::none, Secrets::sole),
            nonce: [2; 32],
            identity: Identity::Anonymous,
        };
        Session::gateway(side, now)
    }
}

/// What was said on one stream.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    answered: bool,
    /// END_STREAM.
    ended: bool,
    cancelled: bool,
}

/// One case.
pub(super) struct Play<'a> {
    input: Input<'a>,
    scene: Scene,
    session: Session,
    budget: Arc<Budget>,
    /// The instance's lease: what the session under test grants, or is granted.
    lease: Arc<Lease>,
    now: Instant,
    /// Streams whose handle the application holds.
    keys: Vec<StreamKey>,
    /// What the session may still send: on the link, and on each stream that it has sent on.
    link_credit: u64,
    credit: BTreeMap<StreamId, u64>,
    /// What the session has said on each stream, and the highest id that it opened.
    said: BTreeMap<StreamId, Said>,
    last_opened: StreamId,
    /// The session has ended.
    closed: bool,
}

impl<'a> Play<'a> {
    pub(super) fn new(mut input: Input<'a>) -> Self {
        let scene = Scene(input.u8());
        let now = Instant::now();
        let budget = Budget::new(if scene.small_budget() { 2000 } else { limits::NODE_BUFFER_BYTES });
        let lease = Lease::new(scene.hello().lease);
        let session = match scene.is_service() {
            true => scene.service(&budget, &lease, now),
            false => scene.gateway(&budget, now),
        };
        let mut play = Self {
            input,
            scene,
            session,
            budget,
            lease,
            now,
            keys: Vec::new(),
            link_credit: u64::from(scene.limits().connection_window),
            credit: BTreeMap::new(),
            said: BTreeMap::new(),
            last_opened: StreamId::CONNECTION,
            closed: false,
        };
        if !scene.raw_handshake() {
            play.shake_hands();
        }
        play
    }

    pub(super) fn run(mut self) {
        while !self.input.is_empty() && !self.closed {
            self.step();
            self.check();
            if !self.scene.lazy_output() {
                self.take_output(usize::MAX);
                self.check();
            }
        }
        self.finish();
    }

    /// Runs the handshake with an honest peer, which then goes away.
    fn shake_hands(&mut self) {
        let budget = Budget::new(limits::NODE_BUFFER_BYTES);
        let mut peer = match self.scene.is_service() {
            true => self.scene.gateway(&budget, self.now),
            false => self.scene.service(&budget, &Lease::new(self.scene.hello().lease), self.now),
        };
        let mut to_session = VecDeque::new();
        for _ in 0..8 {
            while let Some(frame) = Self::next_handshake_frame(&mut peer, &self.lease, self.now) {
                to_session.push_back(frame);
            }
            while let Some(frame) = to_session.pop_front() {
                self.session.handle_frame(frame, self.now).expect("the peer is honest");
            }
            while let Some(frame) = Self::next_handshake_frame(&mut self.session, &self.lease, self.now) {
                peer.handle_frame(frame, self.now).expect("the session is honest");
            }
        }
        assert!(self.session.is_established() && peer.is_established());
    }

    fn next_handshake_frame(session: &mut Session, lease: &Arc<Lease>, now: Instant) -> Option<Frame> {
        loop {
            match session.poll() {
                Output::Transmit(frame) => return Some(frame),
                Output::Event(Event::Joining(_)) => {
                    let lease = Arc::clone(lease);
                    session.welcome(Accepted { lease, revision: 0, links: 1 }, now);
                }
                Output::Event(_) => {}
                Output::Idle { .. } | Output::Closed(_) => return None,
            }
        }
    }

    fn step(&mut self) {
        match self.input.u8() % 32 {
            0 => self.raw_bytes(),
            kind @ 1..=15 => {
                let frame = self.frame(kind);
                self.handle(frame);
            }
            16 => self.open(),
            17 => self.respond(),
            18 => self.send_data(),
            19 => self.finish_body(),
            20 => self.read(),
            21 => {
                if let Some(key) = self.key() {
                    let _: ReadHead = self.session.read_head(key);
                }
            }
            22 => {
                if let Some(key) = self.key() {
                    let reason = Reason::from(self.input.u8());
                    self.session.cancel(key, reason, "cancelled by the case");
                }
            }
            23 => self.release(),
            24 => self.session.drain(self.now),
            25 => {
                let status = [HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy];
                let status = status[usize::from(self.input.u8() % 3)];
                self.session.set_health(status, 500, self.now);
            }
            26 => {
                let (generation, limit) = (u64::from(self.input.u8()), u32::from(self.input.u8()));
                self.lease.update(generation, limit);
                // Only a service announces a lease.
                if self.scene.is_service() {
                    self.session.announce_lease();
                }
            }
            27 => self.register(),
            28 => {
                self.now += Duration::from_millis(u64::from(self.input.u16()));
                self.session.handle_timeout(self.now);
            }
            29 => match self.input.u8() {
                0 => self.session.close(CloseCode::Normal, "closed by the case".to_owned()),
                1 => self.session.refuse(CloseCode::Forbidden, "refused by the case".to_owned()),
                2 => self.session.handle_link_closed(),
                _ => {}
            },
            30 => {
                let most = usize::from(self.input.u8());
                self.take_output(most);
            }
            _ => {
                let (kind, length) = (self.input.u8(), u32::from(self.input.u16()));
                self.handle(Frame::Ignorable { kind, length });
            }
        }
    }

    /// Bytes as a link would bring them.
    fn raw_bytes(&mut self) {
        let length = usize::from(self.input.u16());
        let mut buffer = BytesMut::new();
        buffer.put_slice(self.input.bytes(length));
        let decoder = FrameDecoder::new(self.scene.limits().max_frame);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => self.handle(frame),
                Ok(None) => return,
                Err(error) => return self.session.handle_error(ProtocolError::from(error)),
            }
        }
    }

    fn handle(&mut self, frame: Frame) {
        let grant = match &frame {
            Frame::Window(stream, window) => Some((*stream, u64::from(window.bytes))),
            _ => None,
        };
        if self.session.handle_frame(frame, self.now).is_err() {
            return;
        }
        if let Some((stream, bytes)) = grant {
            match stream {
                StreamId::CONNECTION => self.link_credit = self.link_credit.saturating_add(bytes),
                // Credit may come before the first byte is sent, so every grant counts from the start.
                stream => *self.stream_credit(stream) += bytes,
            }
        }
    }

    fn stream_credit(&mut self, stream: StreamId) -> &mut u64 {
        let first = u64::from(self.scene.limits().stream_window);
        self.credit.entry(stream).or_insert(first)
    }

    fn stream(&mut self) -> StreamId {
        StreamId::new(u64::from(self.input.u8())).unwrap_or(StreamId::CONNECTION)
    }

    fn body(&mut self) -> Bytes {
        Bytes::from_static(&ZEROS[..usize::from(self.input.u16())])
    }

    /// A frame of the peer's; `kind` is the operation's number.
    fn frame(&mut self, kind: u8) -> Frame {
        match kind {
            1 => {
                let (stream, flags, body) = (self.stream(), self.input.u8(), self.body());
                let head = self.request_head(flags, body.len());
                Frame::Request(Request { stream, head, body, end: flags & 1 != 0, tunnel: flags & 2 != 0 })
            }
            2 => {
                let (stream, flags, body) = (self.stream(), self.input.u8(), self.body());
                let head = response_head(flags, body.len());
                Frame::Response(Response { stream, head, body, end: flags & 1 != 0, tunnel: flags & 2 != 0 })
            }
            3 | 4 => {
                let (stream, flags) = (self.stream(), self.input.u8());
                let payload = DataPayload::Bytes { bytes: self.body(), end: flags & 1 != 0 };
                data(kind == 3, Data { stream, payload })
            }
            5 => {
                let (stream, flags) = (self.stream(), self.input.u8());
                data(flags & 1 == 0, Data { stream, payload: DataPayload::Trailers(trailers()) })
            }
            6 => {
                let (stream, reason) = (self.stream(), Reason::from(self.input.u8()));
                Frame::Cancel(stream, Box::new(Cancel { reason, text: String::new() }))
            }
            7 => Frame::Window(self.stream(), Window { bytes: self.input.u32() }),
            8 => {
                let (sequence, status) = (u64::from(self.input.u8()), HealthStatus::Degraded);
                Frame::Heartbeat(Heartbeat { sequence, status, in_flight: 1, load: 2 })
            }
            9 => Frame::HeartbeatAck(HeartbeatAck { sequence: u64::from(self.input.u8()) }),
            10 => {
                let (generation, limit) = (u64::from(self.input.u8()), u32::from(self.input.u8()));
                Frame::Lease(LeaseUpdate { generation, limit })
            }
            11 => {
                let phases = [DrainPhase::Request, DrainPhase::Ack, DrainPhase::Final];
                let phase = phases[usize::from(self.input.u8() % 3)];
                Frame::Drain(Drain { phase, last: self.stream() })
            }
            12 => {
                let (code, last) = (CloseCode::from(self.input.u8()), self.stream());
                Frame::Close(Box::new(Close { code, last, text: String::new() }))
            }
            13 => self.update(),
            14 => {
                let (revision, part) = (u64::from(self.input.u8()), u32::from(self.input.u8()));
                let last = self.input.u8() & 1 != 0;
                let refused = endpoints(self.input.u8())
                    .into_iter()
                    .map(|endpoint| RefusedEndpoint { id: endpoint.id, reason: "taken".to_owned() })
                    .collect();
                Frame::EndpointsResult(Box::new(Wire::new(EndpointsResult {
                    revision,
                    generation: 0,
                    part,
                    last,
                    refused,
                })))
            }
            _ => self.handshake_frame(),
        }
    }

    fn update(&mut self) -> Frame {
        let (revision, part) = (u64::from(self.input.u8()), u32::from(self.input.u8()));
        let last = self.input.u8() & 1 != 0;
        let endpoints = endpoints(self.input.u8());
        Frame::EndpointsUpdate(Box::new(Wire::new(EndpointsUpdate { revision, part, last, endpoints })))
    }

    fn handshake_frame(&mut self) -> Frame {
        let choice = self.input.u8();
        let proof = Proof { proof: [choice; 32] };
        match choice % 4 {
            0 => {
                let mut hello = self.scene.hello();
                hello.versions = vec![u16::from(self.input.u8() % 3)];
                hello.links = u16::from(self.input.u8() % 3);
                hello.limits.max_frame = self.input.u32();
                Frame::Hello(Box::new(Wire::new(hello)))
            }
            1 => {
                let algorithm = if choice & 4 == 0 { "hmac-sha256" } else { "none" }.to_owned();
                Frame::Challenge(Box::new(Wire::new(Challenge { algorithm, nonce: [choice; 32] })))
            }
            2 => Frame::Proof(Box::new(Wire::new(proof))),
            _ => {
                let welcome = Welcome {
                    version: 1,
                    extensions: Vec::new(),
                    node: "gw".parse().expect("a valid name"),
                    limits: self.scene.limits(),
                    heartbeat_ms: u32::from(self.input.u16()),
                    links: 1,
                    revision: 0,
                    incarnation: None,
                    proof: (choice & 4 != 0).then_some(proof),
                };
                Frame::Welcome(Box::new(Wire::new(welcome)))
            }
        }
    }

    fn request_head(&self, flags: u8, body: usize) -> RequestHead {
        let headers = length_header(flags, body);
        let parts = RequestParts {
            endpoint: if self.scene.is_service() { EndpointId::new(1) } else { None },
            deadline: None,
            hops: 0,
            method: if flags & 0x40 != 0 { "HEAD" } else { "POST" },
            scheme: Scheme::Http,
            authority: "a",
            target: "/a",
            parameters: &[],
            client: None,
            headers: &headers,
            claims: &[],
            tunnel_protocol: None,
        };
        let head = RequestHead::encode(&parts).expect("a valid head");
        if flags & 0x20 == 0 {
            return head;
        }
        let odd = [head.as_bytes().as_ref(), &[0x77, 0x77, 0, 0]].concat();
        RequestHead::decode(odd.into()).expect("an unknown extension is no error of the head")
    }

    /// One of the application's streams.
    fn key(&mut self) -> Option<StreamKey> {
        let choice = usize::from(self.input.u8());
        (!self.keys.is_empty()).then(|| self.keys[choice % self.keys.len()])
    }

    fn open(&mut self) {
        let (flags, body) = (self.input.u8(), self.body());
        // The gateway takes a slot of the instance's lease first.
        let permit = match self.scene.is_service() {
            true => None,
            false => match self.lease.try_acquire() {
                Some(permit) => Some(permit),
                None => return,
            },
        };
        let head = self.request_head(flags & !0x20, body.len());
        let opening = Opening { head, body, end: flags & 1 != 0, tunnel: flags & 2 != 0, permit };
        if let Ok(key) = self.session.open(opening) {
            self.keys.push(key);
        }
    }

    fn respond(&mut self) {
        let Some(key) = self.key() else { return };
        let (flags, body) = (self.input.u8(), self.body());
        let head = response_head(flags & !0x20, body.len());
        // A stream that is over or was answered says so; the case goes on.
        let _ = self.session.respond(key, head, body, flags & 1 != 0, false);
    }

    fn send_data(&mut self) {
        let Some(key) = self.key() else { return };
        let body = self.body();
        if self.session.send_capacity(key).is_ok_and(|capacity| capacity > 0) {
            let _ = self.session.send_data(key, body);
        }
    }

    fn finish_body(&mut self) {
        let Some(key) = self.key() else { return };
        let trailers = (self.input.u8() & 1 != 0).then(trailers);
        let _ = self.session.finish(key, trailers);
    }

    fn read(&mut self) {
        if let Some(key) = self.key() {
            let _: Read = self.session.read(key);
        }
    }

    fn release(&mut self) {
        let Some(key) = self.key() else { return };
        self.keys.retain(|held| *held != key);
        self.session.release(key);
    }

    fn register(&mut self) {
        let (revision, set) = (u64::from(self.input.u8()), endpoints(self.input.u8()));
        match self.scene.is_service() {
            true => {
                // A set that names an id twice is refused before it is sent.
                let _ = self.session.register(revision, set);
            }
            false => {
                let refuse =
                    |endpoint: EndpointDescriptor| RefusedEndpoint { id: endpoint.id, reason: "taken".to_owned() };
                self.session.endpoints_result(revision, set.into_iter().map(refuse).collect());
            }
        }
    }

    /// Takes at most `most` outputs.
    fn take_output(&mut self, most: usize) {
        for taken in 0..most {
            assert!(taken < 100_000, "poll() goes on and on");
            match self.session.poll() {
                Output::Transmit(frame) => self.sent(&frame),
                Output::Event(Event::Request(key, _)) => self.keys.push(key),
                Output::Event(Event::Joining(_)) => {
                    if self.input.u8() % 4 == 3 {
                        self.session.refuse(CloseCode::Forbidden, "not welcome".to_owned());
                    } else {
                        let lease = Arc::clone(&self.lease);
                        self.session.welcome(Accepted { lease, revision: 0, links: 1 }, self.now);
                    }
                }
                Output::Event(_) => {}
                Output::Idle { wake_at } => {
                    assert!(wake_at.is_some(), "a link has always something to wait for");
                    return;
                }
                Output::Closed(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Holds a frame of the session's to the rules.
    fn sent(&mut self, frame: &Frame) {
        assert!(!self.closed, "{} after the end", frame.name());
        let stream = frame.stream();
        let body = assert_survives_encoding(frame) as u64;
        let service_only =
            matches!(frame, Frame::Hello(_) | Frame::Proof(_) | Frame::EndpointsUpdate(_) | Frame::Lease(_));
        let gateway_only = matches!(frame, Frame::Challenge(_) | Frame::Welcome(_) | Frame::EndpointsResult(_));
        assert!(!(if self.scene.is_service() { gateway_only } else { service_only }), "{} from here", frame.name());
        let own = stream.is_gateway_opened() != self.scene.is_service();
        if stream != StreamId::CONNECTION {
            self.said_on(stream, own, frame);
        }
        if body > 0 {
            self.link_credit = self.link_credit.checked_sub(body).expect("more than the link's credit");
            let credit = self.stream_credit(stream);
            *credit = credit.checked_sub(body).expect("more than the stream's credit");
        }
    }

    /// Nothing follows what ends a stream, or a direction of it.
    fn said_on(&mut self, stream: StreamId, own: bool, frame: &Frame) {
        let name = frame.name();
        let said = self.said.entry(stream).or_default();
        assert!(!said.cancelled, "{name} on {stream} after its CANCEL");
        assert!(own || !said.ended, "{name} on {stream} after its end");
        let data_ends = |data: &Data| !matches!(data.payload, DataPayload::Bytes { end: false, .. });
        let ends = match frame {
            Frame::Request(request) => {
                assert!(own && stream > self.last_opened, "{name} on {stream} after {}", self.last_opened);
                self.last_opened = stream;
                request.end
            }
            Frame::Response(response) => {
                assert!(!own && !std::mem::replace(&mut said.answered, true), "{name} on {stream}");
                response.end
            }
            Frame::RequestData(data) => {
                assert!(own && !said.ended, "{name} on {stream}");
                data_ends(data)
            }
            Frame::ResponseData(data) => {
                assert!(!own && said.answered, "{name} on {stream}");
                data_ends(data)
            }
            Frame::Cancel(..) => {
                said.cancelled = true;
                false
            }
            _ => false,
        };
        said.ended |= ends;
    }

    fn check(&self) {
        if let Err(what) = self.session.check_invariants() {
            panic!("{what}");
        }
    }

    /// Ends the link and everything on it: nothing may be left.
    fn finish(mut self) {
        self.take_output(usize::MAX);
        self.session.handle_link_closed();
        self.take_output(usize::MAX);
        assert!(self.closed, "a link that ended is closed");
        for key in std::mem::take(&mut self.keys) {
            self.session.release(key);
        }
        self.check();
        assert_eq!(self.session.streams(), (0, 0), "streams after the end");
        assert_eq!(self.session.remembered(), 0, "streams remembered after their release");
        assert_eq!((self.budget.used(), self.budget.grown()), (0, 0), "bytes after the end");
        assert_eq!(self.lease.in_flight(), 0, "slots of the lease after the end");
    }
}

fn data(request: bool, data: Data) -> Frame {
    if request { Frame::RequestData(data) } else { Frame::ResponseData(data) }
}

/// Bit 2: a content-length that fits; bit 3: one that does not.
fn length_header(flags: u8, body: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let length = match flags & 0x0c {
        0x04 => body,
        0x08 => body + 1,
        0x0c => body.saturating_sub(1),
        _ => return headers,
    };
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    headers
}

fn response_head(flags: u8, body: usize) -> ResponseHead {
    let status = if flags & 0x10 != 0 { 204 } else { 200 };
    let head = ResponseHead::encode(status, &length_header(flags, body)).expect("a valid head");
    if flags & 0x20 == 0 {
        return head;
    }
    let odd = [head.as_bytes().as_ref(), &[0x77, 0x77, 0, 0]].concat();
    ResponseHead::decode(odd.into()).expect("an unknown extension is no error of the head")
}

fn trailers() -> Trailers {
    let mut headers = HeaderMap::new();
    headers.insert("checksum", HeaderValue::from_static("0"));
    Trailers::encode(&headers).expect("valid trailers")
}

/// So many endpoints; from 200 on, the last id stands twice.
fn endpoints(count: u8) -> Vec<EndpointDescriptor> {
    let twice = count >= 200;
    let count = u32::from(count % 8);
    let ids = (1..=count).chain(twice.then_some(1));
    ids.filter_map(EndpointId::new)
        .map(|id| {
            let path = format!("/e/{id}").parse().expect("a valid template");
            EndpointDescriptor::new(id, Method::GET, path)
        })
        .collect()
}
