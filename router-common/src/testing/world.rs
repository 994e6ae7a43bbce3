//! A seeded world around a [`Pair`]: applications at both ends that open, answer, stall, fail, cancel and drain in
//! random order, and a judge that knows what every body must be.
//!
//! What it holds to: every request gets exactly one outcome; bodies are exact, or visibly cut after an exact beginning;
//! no stream sees another's bytes; neither lease is ever exceeded; when all is quiet nothing is left anywhere.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{End, Pair, Random, Setup};
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

/// A body that is being read.
#[derive(Debug, Default)]
struct Reading {
    read: usize,
    trailers: bool,
    /// It does not read now.
    stalled: bool,
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
        let budgets = [Budget::new(100_000_000), Budget::new(100_000_000)];
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
            19 if self.random.chance(20) => self.pair.advance(Duration::from_millis(500)),
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
                if let Event::Request(key, head) = event {
                    self.begin_handling(end, key, &head);
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
        let mut headers = HeaderMap::new();
        headers.insert("tag", HeaderValue::from(tag));
        if self.random.chance(30) {
            headers.insert("content-length", HeaderValue::from(sending.length));
        }
        let first = if self.random.chance(60) { sending.length } else { self.random.below(sending.length + 1) };
        let end = first == sending.length && !sending.trailers && self.random.chance(80);
        let head = RequestHead::encode(&RequestParts {
            endpoint: crate::endpoint::EndpointId::new(u32::from(by == End::Gateway)),
            deadline: None,
            hops: 0,
            method: "POST",
            scheme: Scheme::Http,
            authority: "test",
            target: "/",
            parameters: &[],
            client: None,
            headers: &headers,
            claims: &[],
            tunnel_protocol: None,
        })
        .unwrap();
        sending.sent = first;
        sending.finished = end;
        let opening = Opening { head, body: piece(tag, false, 0, first), end, tunnel: false, permit };
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
        let tag = head.headers().find(|(name, _)| &name[..] == b"tag").expect("every request has its tag").1;
        let tag: u64 = std::str::from_utf8(&tag).unwrap().parse().unwrap();
        *self.handled.entry(tag).or_default() += 1;
        let reading = Reading { stalled: self.random.chance(10), ..Reading::default() };
        let handling = Handling { at, tag, key, reading, request_over: false, answer: None };
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
                        let tag = head.headers().find(|(name, _)| &name[..] == b"tag").unwrap().1;
                        assert_eq!(&tag[..], call.tag.to_string().as_bytes(), "a response of another request");
                        call.answered = true;
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
            let first = if self.random.chance(60) { sending.length } else { 0 };
            let end = first == sending.length && !sending.trailers;
            let mut headers = HeaderMap::new();
            headers.insert("tag", HeaderValue::from(tag));
            let head = ResponseHead::encode(200, &headers).unwrap();
            (sending.sent, sending.finished) = (first, end);
            let body = piece(tag, true, 0, first);
            if self.pair.end(handling.at).respond(key, head, body, end, false).is_err() {
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
        assert!(self.calls.is_empty(), "calls without an outcome: {:?}", self.calls);
        assert!(self.handlings.is_empty(), "handlers that never ended: {:?}", self.handlings);
        assert_eq!(self.finished.len(), self.opened, "as many outcomes as requests");
        // Owed terminals may still be in transit.
        self.pair.settle();
        for end in [End::Gateway, End::Service] {
            let session = self.pair.end(end);
            assert_eq!(session.remembered(), 0, "{end:?} remembers streams: {session:?}");
            assert_eq!(session.streams(), (0, 0));
        }
        assert_eq!(self.pair.lease.in_flight(), 0, "the gateway's view of the lease");
        assert_eq!(self.pair.service_lease.in_flight(), 0, "the service's lease");
        assert_eq!([self.budgets[0].used(), self.budgets[1].used()], [0, 0], "buffered bytes");
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
            Read::End => return Some(Outcome::Complete),
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
