//! A seeded world in which frames are mangled on their way: bits flipped, frames dropped, doubled, exchanged and made up.
//!
//! No exchange is judged here. What holds against any peer: nothing panics, the session's invariants hold at every step,
//! and when the link is over and every stream released, nothing is left in any budget, lease or table.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{End, Pair, Random, Setup};
use crate::codec::{self, FrameDecoder};
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{
    Cancel, CloseCode, Data, DataPayload, Drain, DrainPhase, Frame, HealthStatus, Heartbeat, HeartbeatAck, LeaseUpdate,
    Reason, ReceiveLimits, Request, Response, StreamId, Window,
};
use crate::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use crate::limits;
use crate::session::{Budget, Carrier, Common, Event, Opening, Output, Read, StreamKey};

/// One run.
#[derive(Debug)]
pub struct Hostile {
    random: Random,
    pair: Pair,
    held: Vec<(End, StreamKey)>,
    budgets: [Arc<Budget>; 2],
    revision: u64,
}

impl Hostile {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::on(Carrier::Stream, seed)
    }

    /// On a link of this kind.
    #[must_use]
    pub fn on(carrier: Carrier, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let budgets = [20_000, 2_000_000].map(Budget::new);
        let mut common = |budget: &Arc<Budget>| Common {
            carrier,
            limits: ReceiveLimits {
                stream_window: [1, 100, limits::STREAM_WINDOW, i32::MAX as u32][random.below(4)],
                connection_window: [1, 5_000, limits::CONNECTION_WINDOW][random.below(3)],
                ..ReceiveLimits::default()
            },
            budget: budget.clone(),
            ..Common::default()
        };
        let (gateway, service) = (common(&budgets[0]), common(&budgets[1]));
        let lease = 1 + random.below(8) as u32;
        let pair = Pair::established(Setup { gateway, service, lease, ..Setup::default() });
        Self { random, pair, held: Vec::new(), budgets, revision: 0 }
    }

    /// Runs at most `steps` random steps, then ends the link and judges. Gives how many steps the link stood.
    ///
    /// # Panics
    /// When something does not hold; the caller names the seed.
    pub fn run(mut self, steps: usize) -> usize {
        let mut stood = 0;
        while stood < steps && !(self.pair.gateway.is_over() && self.pair.service.is_over()) {
            self.step();
            self.pair.gateway.check_invariants().unwrap();
            self.pair.service.check_invariants().unwrap();
            stood += 1;
        }
        self.pair.cut();
        for end in [End::Gateway, End::Service] {
            while let Some(event) = self.pair.end(end).poll_event() {
                if let Event::Request(key, _) = event {
                    self.held.push((end, key));
                }
            }
        }
        for (end, key) in std::mem::take(&mut self.held) {
            self.pair.end(end).release(key);
        }
        for end in [End::Gateway, End::Service] {
            let session = self.pair.end(end);
            assert_eq!((session.remembered(), session.streams()), (0, (0, 0)), "{end:?}: {session:?}");
        }
        assert_eq!([self.budgets[0].used(), self.budgets[1].used()], [0, 0], "buffered bytes");
        assert_eq!((self.pair.lease.in_flight(), self.pair.service_lease.in_flight()), (0, 0), "leases");
        stood
    }

    fn step(&mut self) {
        let end = if self.random.chance(50) { End::Gateway } else { End::Service };
        match self.random.below(20) {
            0..=3 => self.open(end),
            4..=9 => self.act(),
            10..=17 => self.deliver(end),
            18 => self.control(end),
            _ => {
                let by = Duration::from_millis(self.random.below(2_000) as u64);
                self.pair.advance(by);
            }
        }
        for end in [End::Gateway, End::Service] {
            self.poll(end);
        }
    }

    fn poll(&mut self, end: End) {
        // Sometimes a link takes nothing for a while.
        let most = if self.random.chance(20) { self.random.below(4) } else { usize::MAX };
        for _ in 0..most {
            match self.pair.end(end).poll() {
                Output::Transmit(frame) => self.pair.wire(end.other()).push_back(frame),
                Output::Event(Event::Request(key, _)) => self.held.push((end, key)),
                Output::Event(Event::Endpoints { revision, .. }) => {
                    self.pair.gateway.endpoints_result(revision, vec![])
                }
                Output::Event(_) => {}
                Output::Idle { .. } | Output::Closed(_) => return,
            }
        }
    }

    fn body(&mut self) -> Bytes {
        let most = [1, 2, 500, 20_000, 100_000][self.random.below(5)];
        vec![7; self.random.below(most)].into()
    }

    fn headers(&mut self, body: usize) -> HeaderMap {
        let length = if self.random.chance(80) { body } else { self.random.below(1000) };
        let field = (http::header::CONTENT_LENGTH, HeaderValue::from(length));
        if self.random.chance(30) { [field].into_iter().collect() } else { HeaderMap::new() }
    }

    fn request_head(&mut self, body: usize) -> RequestHead {
        RequestHead::encode(&RequestParts {
            endpoint: EndpointId::new(1),
            deadline: None,
            hops: 0,
            method: if self.random.chance(10) { "HEAD" } else { "POST" },
            scheme: Scheme::Http,
            authority: "test",
            target: "/",
            parameters: &[],
            client: None,
            headers: &self.headers(body),
            claims: &[],
            tunnel_protocol: self.random.chance(20).then_some("websocket"),
        })
        .unwrap()
    }

    fn response_head(&mut self, body: usize) -> ResponseHead {
        let status = [200, 200, 204, 304, 500][self.random.below(5)];
        ResponseHead::encode(status, &self.headers(body)).unwrap()
    }

    fn trailers(&mut self) -> Option<Trailers> {
        let field = (HeaderName::from_static("checksum"), HeaderValue::from_static("0"));
        self.random.chance(20).then(|| Trailers::encode(&[field].into_iter().collect()).unwrap())
    }

    fn open(&mut self, end: End) {
        let body = self.body();
        let head = self.request_head(body.len());
        let permit = if end == End::Gateway { self.pair.lease.try_acquire() } else { None };
        let (end_stream, tunnel) = (self.random.chance(50), self.random.chance(20));
        if let Ok(key) = self.pair.end(end).open(Opening { head, body, end: end_stream, tunnel, permit }) {
            self.held.push((end, key));
        }
    }

    /// An application does something with one of its streams, in no sensible order.
    fn act(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.below(self.held.len());
        let (end, key) = self.held[at];
        let body = self.body();
        let (trailers, tunnel, whole) = (self.trailers(), self.random.chance(30), self.random.chance(50));
        let head = self.response_head(body.len());
        let what = self.random.below(12);
        let session = self.pair.end(end);
        // Whatever is out of order is an error value, or nothing at all.
        match what {
            0..=2 => {
                let _ = session.respond(key, head, body, whole, tunnel);
            }
            3..=4 => {
                if session.send_capacity(key).is_ok_and(|room| room > 0) {
                    session.send_data(key, body).unwrap_or_default();
                }
            }
            5 => session.finish(key, trailers).unwrap_or_default(),
            6 => session.cancel(key, Reason::Shutdown, "by chance"),
            7..=8 => {
                session.release(key);
                self.held.swap_remove(at);
            }
            _ => {
                let _ = session.read_head(key);
                while let Read::Data(_) = session.read(key) {}
            }
        }
    }

    fn control(&mut self, end: End) {
        let now = self.pair.now;
        match self.random.below(40) {
            0..=2 => self.pair.end(end).drain(now),
            3..=12 => {
                self.revision += 1;
                let set = (1..1 + self.random.below(50) as u32)
                    .filter_map(EndpointId::new)
                    .map(|id| EndpointDescriptor::new(id, http::Method::GET, format!("/{id}").parse().unwrap()))
                    .collect();
                let _ = self.pair.service.register(self.revision, set);
            }
            13..=25 => {
                let generation = self.pair.service_lease.generation() + 1;
                self.pair.service_lease.update(generation, self.random.below(12) as u32);
                self.pair.service.announce_lease();
            }
            26..=38 => {
                let status = if self.random.chance(50) { HealthStatus::Healthy } else { HealthStatus::Degraded };
                self.pair.end(end).set_health(status, 1, now);
            }
            _ => self.pair.end(end).close(CloseCode::Shutdown, String::new()),
        }
    }

    /// The next frame arrives, or something like it, or something else.
    fn deliver(&mut self, end: End) {
        let wire = self.pair.wire(end).len();
        match self.random.below(100) {
            0 => {
                self.pair.wire(end).pop_front();
            }
            1 if wire > 0 => {
                let again = self.pair.wire(end)[0].clone();
                self.pair.wire(end).push_front(again);
            }
            2 if wire > 1 => self.pair.wire(end).swap(0, 1),
            3..=8 => {
                let frame = self.invent();
                self.pair.wire(end).push_front(frame);
            }
            9 => return self.flip(end),
            _ => {}
        }
        for _ in 0..1 + self.random.below(4) {
            let _ = self.pair.deliver(end);
        }
    }

    /// One bit of a frame's encoding is another.
    fn flip(&mut self, end: End) {
        let Some(frame) = self.pair.wire(end).pop_front() else { return };
        let mut bytes = BytesMut::new();
        let body = codec::encode(&frame, &mut bytes);
        bytes.extend_from_slice(&body);
        let at = self.random.below(bytes.len().min(200));
        bytes[at] ^= 1 << self.random.below(8);
        let now = self.pair.now;
        match FrameDecoder::new(limits::FRAME_PAYLOAD_BYTES).decode(&mut bytes) {
            Ok(Some(frame)) => {
                let _ = self.pair.end(end).handle_frame(frame, now);
            }
            Ok(None) => {}
            Err(error) => self.pair.end(end).handle_error(error.into()),
        }
    }

    /// A frame that nobody sent.
    fn invent(&mut self) -> Frame {
        let stream = StreamId::new(1 + self.random.below(40) as u64).unwrap_or_default();
        let (end, tunnel) = (self.random.chance(50), self.random.chance(20));
        let body = if self.random.chance(50) { Bytes::new() } else { self.body() };
        let body = body.slice(..body.len().min(30_000));
        let payload = |trailers: Option<Trailers>, bytes: Bytes| match trailers {
            Some(trailers) => DataPayload::Trailers(trailers),
            None => DataPayload::Bytes { bytes, end },
        };
        match self.random.below(14) {
            0 => Frame::Request(Request { stream, head: self.request_head(body.len()), body, end, tunnel }),
            1 => Frame::Response(Response { stream, head: self.response_head(body.len()), body, end, tunnel }),
            2 => Frame::RequestData(Data { stream, payload: payload(self.trailers(), body) }),
            3 => Frame::ResponseData(Data { stream, payload: payload(self.trailers(), body) }),
            4..=5 => {
                let reason = Reason::from(1 + self.random.below(10) as u8);
                Frame::Cancel(stream, Box::new(Cancel { reason, text: String::new() }))
            }
            6 => Frame::Window(stream, Window { bytes: [0, 1, 70_000, u32::MAX][self.random.below(4)] }),
            7 => Frame::Window(StreamId::CONNECTION, Window { bytes: self.random.below(100) as u32 }),
            8 => Frame::Heartbeat(Heartbeat {
                sequence: self.random.number(),
                status: HealthStatus::Unknown,
                in_flight: u32::MAX,
                load: u32::MAX,
            }),
            9 => Frame::HeartbeatAck(HeartbeatAck { sequence: self.random.below(3) as u64 }),
            10 => Frame::Lease(LeaseUpdate { generation: self.random.below(20) as u64, limit: u32::MAX }),
            11 => {
                let phase = [DrainPhase::Request, DrainPhase::Ack, DrainPhase::Final][self.random.below(3)];
                Frame::Drain(Drain { phase, last: stream })
            }
            _ => Frame::Ignorable { kind: 0x70, length: 9 },
        }
    }
}
