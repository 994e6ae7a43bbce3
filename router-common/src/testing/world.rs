//! A seeded world around a [`Pair`]: applications at both ends that open, answer, stall, fail, cancel, tunnel, register
//! and drain in random order, over links that drain, close and break midway, and a judge that knows what every body must
//! be.
//!
//! What it holds to: every request gets exactly one outcome; bodies are exact, or visibly cut after an exact beginning; a
//! body of another length than its head says is never complete; the last endpoint set is the one that is answered;
//! no stream sees another's bytes; neither lease is ever exceeded; when all is quiet nothing is left anywhere.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{End, Pair, Random, Setup};
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{CloseCode, Reason, ReceiveLimits};
use crate::head::{RequestHead, RequestParts, ResponseHead, Scheme, Trailers};
use crate::session::{Budget, Common, Event, Opening, Read, ReadHead, StreamFailure, StreamKey};

/// Request bodies, then response bodies: two streams of bytes that differ in every position and for every request.
fn byte(tag: u64, response: bool, at: usize) -> u8 {
    let seed = tag.wrapping_mul(0x9e37_79b9).wrapping_add(if response { 0x5bd1 } else { 0 }) as usize;
    (seed.wrapping_add(at.wrapping_mul(31)) >> (at % 3)) as u8
}

fn piece(tag: u64, response: bool, from: usize, length: usize) -> Bytes {
    (from..from + length).map(|at| byte(tag, response, at)).collect()
}

/// A body that is being sent.
#[derive(Debug)]
struct Sending {
    length: usize,
    sent: usize,
    trailers: bool,
    finished: bool,
}

impl Sending {
    /// Fields for its head: who it is, and sometimes a length, which is sometimes wrong.
    fn headers(&self, tag: u64, announced: bool, random: &mut Random) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("tag", HeaderValue::from(tag));
        if announced && random.chance(30) {
            let wrong = random.chance(10);
            headers.insert("content-length", HeaderValue::from(self.length + usize::from(wrong)));
            if wrong {
                headers.insert("wrong", HeaderValue::from(1));
            }
        }
        headers
    }
}

/// A body that is being read.
#[derive(Debug, Default)]
struct Reading {
    read: usize,
    trailers: bool,
    /// It does not read now.
    stalled: bool,
    /// The head announced another length: this cannot be complete.
    wrong: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Complete,
    Failed(StreamFailure),
    Abandoned,
}

#[derive(Debug)]
struct Call {
    tag: u64,
    by: End,
    key: StreamKey,
    sending: Sending,
    reading: Reading,
    answered: bool,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Handling {
    at: End,
    tag: u64,
    key: StreamKey,
    /// The request was HEAD; or asked for a tunnel.
    bodiless: bool,
    tunnel: bool,
    reading: Reading,
    request_over: bool,
    answer: Option<Sending>,
}

/// One run.
#[derive(Debug)]
pub struct World {
    random: Random,
    pub pair: Pair,
    calls: Vec<Call>,
    handlings: HashMap<(End, StreamKey), Handling>,
    next_tag: u64,
    opened: usize,
    finished: HashMap<u64, Outcome>,
    handled: HashMap<u64, u32>,
    winding_down: bool,
    /// The last endpoint set that was offered, and the last that was answered.
    offered: u64,
    settled: u64,
    budgets: [std::sync::Arc<Budget>; 2],
    lease: u32,
}

impl std::hash::Hash for End {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (*self as u8).hash(state);
    }
}

/// What a run saw.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub requests: usize,
    pub complete: usize,
    pub unseen: usize,
    pub cancelled: usize,
    pub lost: usize,
    pub abandoned: usize,
}

impl World {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let window = |random: &mut Random| {
            let most = if random.chance(50) { 2_000 } else { 100_000 };
            (1 + random.below(most) as u32).max(64)
        };
        let budget = if random.chance(20) { 60_000 } else { 100_000_000 };
        let budgets = [Budget::new(budget), Budget::new(budget)];
        let mut common = |budget: &std::sync::Arc<Budget>| Common {
            limits: ReceiveLimits {
                stream_window: window(&mut random),
                connection_window: window(&mut random).max(1_000),
                ..ReceiveLimits::default()
            },
            budget: budget.clone(),
            ..Common::default()
        };
        let (gateway, service) = (common(&budgets[0]), common(&budgets[1]));
        let lease = 1 + random.below(12) as u32;
        let pair = Pair::established(Setup { gateway, service, lease, ..Setup::default() });
        Self {
            random,
            pair,
            calls: Vec::new(),
            handlings: HashMap::new(),
            next_tag: 1,
            opened: 0,
            finished: HashMap::new(),
            handled: HashMap::new(),
            winding_down: false,
            offered: 0,
            settled: 0,
            budgets,
            lease,
        }
    }

    /// Runs `steps` random steps, then lets everything come to rest and judges.
    ///
    /// # Panics
    /// When something does not hold; the caller names the seed.
    pub fn run(mut self, steps: usize) -> Summary {
        for _ in 0..steps {
            self.step();
        }
        self.winding_down = true;
        match self.random.below(4) {
            0 => self.pair.cut(),
            1 => {
                let end = if self.random.chance(50) { End::Gateway } else { End::Service };
                self.pair.end(end).close(CloseCode::Shutdown, String::new());
            }
            2 => {
                let now = self.pair.now;
                self.pair.service.drain(now);
                self.pair.gateway.drain(now);
            }
            _ => {}
        }
        // Nobody stalls any more: a bounded number of rounds brings every stream to its end.
        for _ in 0..200_000 {
            if self.calls.is_empty() && self.handlings.is_empty() && self.in_transit() == 0 {
                break;
            }
            self.step();
        }
        self.judge()
    }

    fn in_transit(&mut self) -> usize {
        self.pair.wire(End::Gateway).len() + self.pair.wire(End::Service).len()
    }

    fn step(&mut self) {
        let end = if self.random.chance(50) { End::Gateway } else { End::Service };
        match self.random.below(20) {
            0..=4 => self.deliver(end, 1),
            5..=6 => self.deliver(end, 50),
            7..=9 => self.open(end),
            10..=12 => self.work_on_calls(),
            13..=16 => self.work_on_handlings(),
            17 => {
                let mut random = Random::new(self.random.number());
                self.pair.reorder(end, &mut random);
            }
            18 if self.random.chance(10) => self.change_lease(),
            18 if self.random.chance(10) => self.register(),
            19 if self.random.chance(20) => self.pass_time(),
            19 if !self.winding_down && self.random.chance(1) => self.disturb(end),
            _ => {}
        }
        self.pump();
        self.pair.gateway.check_invariants().unwrap();
        self.pair.service.check_invariants().unwrap();
        assert!(self.pair.lease.in_flight() <= self.lease, "the gateway is over the lease: {:?}", self.pair.lease);
        let handled = self.handlings.values().filter(|handling| handling.at == End::Service).count();
        assert!(handled <= self.lease as usize, "{handled} handlers under a lease of {}", self.lease);
    }

    fn deliver(&mut self, end: End, most: usize) {
        for _ in 0..most {
            match self.pair.deliver(end) {
                Some(result) => result.expect("both ends keep to the protocol"),
                None => break,
            }
        }
    }

    /// Takes what both sessions say.
    fn pump(&mut self) {
        for end in [End::Gateway, End::Service] {
            let (events, closed) = self.pair.poll(end);
            if closed.is_some() && self.in_transit() == 0 {
                self.pair.end(end.other()).handle_link_closed();
            }
            for event in events {
                match event {
                    Event::Request(key, head) => self.begin_handling(end, key, &head),
                    Event::Endpoints { revision, .. } => self.pair.gateway.endpoints_result(revision, Vec::new()),
                    Event::EndpointsResult { revision, .. } => self.settled = revision,
                    _ => {}
                }
            }
        }
    }

    fn change_lease(&mut self) {
        // Only upwards in what is asserted: a reduction binds later opens, so the highest grant is the bound.
        let limit = 1 + self.random.below(12) as u32;
        self.lease = self.lease.max(limit);
        let generation = self.pair.service_lease.generation() + 1;
        self.pair.service_lease.update(generation, limit);
        self.pair.service.announce_lease();
    }

    fn register(&mut self) {
        let set = (1..1 + self.random.below(500) as u32)
            .filter_map(EndpointId::new)
            .map(|id| EndpointDescriptor::new(id, http::Method::GET, format!("/{id}").parse().unwrap()))
            .collect();
        if self.pair.service.register(self.offered + 1, set).is_ok() {
            self.offered += 1;
        }
    }

    /// Mostly a little; now and then so much that a heartbeat is due, and with frames in transit that is a silence.
    fn pass_time(&mut self) {
        let millis = if self.random.chance(90) { 500 } else { self.random.below(20_000) };
        self.pair.advance(Duration::from_millis(millis as u64));
    }

    /// What happens to links.
    fn disturb(&mut self, end: End) {
        let now = self.pair.now;
        match self.random.below(6) {
            0 => self.pair.cut(),
            1 => self.pair.end(end).close(CloseCode::Shutdown, String::new()),
            _ => self.pair.end(end).drain(now),
        }
    }

    fn open(&mut self, by: End) {
        if self.winding_down || self.calls.len() > 40 {
            return;
        }
        let permit = match by {
            End::Gateway => match self.pair.lease.try_acquire() {
                Some(permit) => Some(permit),
                None => return,
            },
            End::Service => None,
        };
        let tag = self.next_tag;
        self.next_tag += 1;
        let mut sending = self.body();
        let tunnel = self.random.chance(8);
        let headers = sending.headers(tag, !tunnel, &mut self.random);
        let first = if self.random.chance(60) { sending.length } else { self.random.below(sending.length + 1) };
        let end = first == sending.length && !sending.trailers && self.random.chance(80);
        let head = RequestHead::encode(&RequestParts {
            endpoint: EndpointId::new(u32::from(by == End::Gateway)),
            deadline: None,
            hops: 0,
            method: if self.random.chance(10) { "HEAD" } else { "POST" },
            scheme: Scheme::Http,
            authority: "test",
            target: "/",
            parameters: &[],
            client: None,
            headers: &headers,
            claims: &[],
            tunnel_protocol: tunnel.then_some("websocket"),
        })
        .unwrap();
        sending.sent = first;
        sending.finished = end;
        let opening = Opening { head, body: piece(tag, false, 0, first), end, tunnel, permit };
        let Ok(key) = self.pair.end(by).open(opening) else {
            assert!(self.pair.end(by).is_peer_draining() || !self.pair.end(by).is_established());
            return;
        };
        self.opened += 1;
        let reading = Reading { stalled: self.random.chance(10), ..Reading::default() };
        self.calls.push(Call { tag, by, key, sending, reading, answered: false, outcome: None });
    }

    fn body(&mut self) -> Sending {
        let most = match self.random.below(10) {
            0..=3 => 1,
            4..=6 => 200,
            7..=8 => 40_000,
            _ => 300_000,
        };
        let length = self.random.below(most);
        Sending { length, sent: 0, trailers: self.random.chance(15), finished: false }
    }

    fn begin_handling(&mut self, at: End, key: StreamKey, head: &RequestHead) {
        let tag = head.headers().find(|(name, _)| name == b"tag").expect("every request has its tag").1;
        let tag: u64 = std::str::from_utf8(&tag).unwrap().parse().unwrap();
        let wrong = head.headers().any(|(name, _)| name == b"wrong");
        let (bodiless, tunnel) = (head.method() == "HEAD", head.tunnel_protocol().is_some());
        *self.handled.entry(tag).or_default() += 1;
        let reading = Reading { stalled: self.random.chance(10), wrong, ..Reading::default() };
        let handling = Handling { at, tag, key, bodiless, tunnel, reading, request_over: false, answer: None };
        assert!(self.handlings.insert((at, key), handling).is_none(), "one stream, two handlers");
    }

    fn work_on_calls(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        for call in &mut calls {
            if !self.winding_down && self.random.chance(2) {
                let reason = Reason::DeadlineExceeded;
                self.pair.end(call.by).cancel(call.key, reason, "");
                call.outcome = Some(Outcome::Abandoned);
                continue;
            }
            call.reading.stalled &= !self.winding_down && !self.random.chance(5);
            let session = self.pair.end(call.by);
            send_some(session, call.key, call.tag, false, &mut call.sending, &mut self.random);
            if !call.answered {
                match session.read_head(call.key) {
                    ReadHead::Pending => continue,
                    ReadHead::Failed(failure) => {
                        call.outcome = Some(Outcome::Failed(failure));
                        continue;
                    }
                    ReadHead::Ready(head) => {
                        let tag = head.headers().find(|(name, _)| name == b"tag").unwrap().1;
                        assert_eq!(&tag[..], call.tag.to_string().as_bytes(), "a response of another request");
                        call.answered = true;
                        call.reading.wrong = head.headers().any(|(name, _)| name == b"wrong");
                    }
                }
            }
            call.outcome = read_some(session, call.key, call.tag, true, &mut call.reading, &mut self.random);
        }
        for call in &calls {
            if let Some(outcome) = &call.outcome {
                self.pair.end(call.by).release(call.key);
                assert!(self.finished.insert(call.tag, outcome.clone()).is_none(), "two outcomes");
            }
        }
        calls.retain(|call| call.outcome.is_none());
        self.calls = calls;
    }

    fn work_on_handlings(&mut self) {
        let mut keys: Vec<_> = self.handlings.keys().copied().collect();
        keys.sort_by_key(|(end, key)| (*end as u8, *key));
        for at in keys {
            let Some(mut handling) = self.handlings.remove(&at) else { continue };
            if !self.handle(&mut handling) {
                self.handlings.insert(at, handling);
            }
        }
    }

    /// Works on one handler; `true`: it has ended.
    fn handle(&mut self, handling: &mut Handling) -> bool {
        let (tag, key) = (handling.tag, handling.key);
        handling.reading.stalled &= !self.winding_down && !self.random.chance(5);
        if !self.winding_down && self.random.chance(2) {
            self.pair.end(handling.at).cancel(key, Reason::HandlerFailed, "by chance");
            self.pair.end(handling.at).release(key);
            return true;
        }
        let session = self.pair.end(handling.at);
        if !handling.request_over {
            let outcome = read_some(session, key, tag, false, &mut handling.reading, &mut self.random);
            handling.request_over = outcome.is_some();
            if matches!(outcome, Some(Outcome::Failed(_))) {
                session.release(key);
                return true;
            }
        }
        if handling.answer.is_none() && (handling.request_over || self.random.chance(10)) {
            let mut sending = self.body();
            let mut headers = sending.headers(tag, !handling.tunnel, &mut self.random);
            if handling.bodiless {
                // The length is announced, and nothing of it sent: that is not wrong.
                headers.remove("wrong");
                sending.length = 0;
            }
            let first = if self.random.chance(60) { sending.length } else { 0 };
            // Or the head alone at first, as one-way endpoints have it.
            let end = first == sending.length && !sending.trailers && self.random.chance(80);
            let tunnel = handling.tunnel && self.random.chance(70);
            let status = if tunnel || self.random.chance(80) { 200 } else { 202 };
            let head = ResponseHead::encode(status, &headers).unwrap();
            (sending.sent, sending.finished) = (first, end);
            let body = piece(tag, true, 0, first);
            if self.pair.end(handling.at).respond(key, head, body, end, tunnel).is_err() {
                self.pair.end(handling.at).release(key);
                return true;
            }
            handling.answer = Some(sending);
        }
        let Some(answer) = &mut handling.answer else { return false };
        let session = self.pair.end(handling.at);
        let gone = !send_some(session, key, tag, true, answer, &mut self.random);
        let over = answer.finished || gone;
        if over {
            session.release(key);
        }
        over
    }

    fn judge(mut self) -> Summary {
        let severed = self.pair.gateway.is_over() || self.pair.service.is_over();
        assert!(self.calls.is_empty(), "calls without an outcome: {:?}", self.calls);
        assert!(self.handlings.is_empty(), "handlers that never ended: {:?}", self.handlings);
        assert_eq!(self.finished.len(), self.opened, "as many outcomes as requests");
        // Owed terminals may still be in transit.
        for (end, event) in self.pair.settle() {
            match event {
                Event::EndpointsResult { revision, .. } if end == End::Service => self.settled = revision,
                _ => {}
            }
        }
        for end in [End::Gateway, End::Service] {
            let session = self.pair.end(end);
            assert_eq!(session.remembered(), 0, "{end:?} remembers streams: {session:?}");
            assert_eq!(session.streams(), (0, 0));
        }
        assert_eq!(self.pair.lease.in_flight(), 0, "the gateway's view of the lease");
        assert_eq!(self.pair.service_lease.in_flight(), 0, "the service's lease");
        assert_eq!([self.budgets[0].used(), self.budgets[1].used()], [0, 0], "buffered bytes");
        assert!(severed || self.settled == self.offered, "set {} of {}", self.settled, self.offered);
        assert!(self.handled.values().all(|times| *times == 1), "a request reached two handlers");
        let mut summary = Summary { requests: self.opened, ..Summary::default() };
        for (tag, outcome) in &self.finished {
            match outcome {
                Outcome::Complete => summary.complete += 1,
                Outcome::Abandoned => summary.abandoned += 1,
                Outcome::Failed(StreamFailure::Unseen) => {
                    assert!(!self.handled.contains_key(tag), "called unseen, and a handler saw it");
                    summary.unseen += 1;
                }
                Outcome::Failed(StreamFailure::Lost) => summary.lost += 1,
                Outcome::Failed(_) => summary.cancelled += 1,
            }
        }
        summary
    }
}

/// Sends some more of a body; `false`: nothing can be sent any more.
fn send_some(
    session: &mut crate::session::Session,
    key: StreamKey,
    tag: u64,
    response: bool,
    sending: &mut Sending,
    random: &mut Random,
) -> bool {
    if sending.finished {
        return true;
    }
    while sending.sent < sending.length {
        match session.send_capacity(key) {
            Err(_) => return false,
            Ok(0) => return true,
            Ok(capacity) => {
                let length = (1 + random.below(capacity)).min(sending.length - sending.sent);
                session.send_data(key, piece(tag, response, sending.sent, length)).unwrap();
                sending.sent += length;
            }
        }
        if random.chance(30) {
            return true;
        }
    }
    let name = HeaderName::from_static("checksum");
    let trailers: HeaderMap = [(name, HeaderValue::from(sending.length))].into_iter().collect();
    let trailers = sending.trailers.then(|| Trailers::encode(&trailers).unwrap());
    sending.finished = true;
    session.finish(key, trailers).is_ok()
}

/// Reads some more of a body, checking every byte; gives the outcome when it is over.
fn read_some(
    session: &mut crate::session::Session,
    key: StreamKey,
    tag: u64,
    response: bool,
    reading: &mut Reading,
    random: &mut Random,
) -> Option<Outcome> {
    while !reading.stalled {
        match session.read(key) {
            Read::Pending => return None,
            Read::End => {
                assert!(!reading.wrong, "a body of another length than announced is complete");
                return Some(Outcome::Complete);
            }
            Read::Failed(failure) => return Some(Outcome::Failed(failure)),
            Read::Trailers(trailers) => {
                assert!(!std::mem::replace(&mut reading.trailers, true), "trailers twice");
                let length = trailers.headers().next().unwrap().1;
                assert_eq!(&length[..], reading.read.to_string().as_bytes(), "trailers of another body");
            }
            Read::Data(bytes) => {
                assert_eq!(bytes, piece(tag, response, reading.read, bytes.len()), "a body's bytes");
                reading.read += bytes.len();
            }
        }
        if random.chance(20) {
            return None;
        }
    }
    None
}
