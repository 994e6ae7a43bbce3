//! A seeded world on a link that delivers frames in any order and loses some ([`Carrier::Datagrams`]): applications at both
//! ends that ask, answer, fail, cancel, register, lease, drain and close, and a judge.
//!
//! What it holds to: every request gets exactly one outcome; no handler runs twice, and none for a request that is called
//! unseen, before or after; what is answered is whole and right; nobody is handed a request after [`Event::Drained`]; where
//! nothing was lost or broken, no outcome is unknown and the last endpoint set is the one that is answered. And when all is
//! quiet nothing is left: no stream, no slot of a lease, no buffered byte, whatever was lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::world::Summary;
use super::{End, Pair, Random, Setup};
use crate::endpoint::{EndpointDescriptor, EndpointId};
use crate::frame::{CloseCode, Reason, RefusedEndpoint};
use crate::head::{RequestHead, RequestParts, ResponseHead, Scheme};
use crate::limits;
use crate::session::{
    Budget, Carrier, Common, Event, OpenError, Opening, Read, ReadHead, StreamFailure, StreamKey, Timers,
};

/// What a tag's bodies are made of.
fn body(tag: u64, answer: bool, length: usize) -> Bytes {
    let seed = tag.wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(answer) * 77);
    (0..length as u64).map(|at| (seed.wrapping_add(at * 31) >> (at % 3)) as u8).collect()
}

fn tagged(tag: u64, length: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("tag", HeaderValue::from(tag));
    headers.insert("content-length", HeaderValue::from(length));
    headers
}

/// Who is told apart by the tag, and how long the body is.
fn read_tags<'a>(headers: impl Iterator<Item = (&'a [u8], Bytes)>) -> (u64, usize) {
    let (mut tag, mut length) = (0, 0);
    for (name, value) in headers {
        let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        match name {
            b"tag" => tag = number.expect("a tag"),
            b"content-length" => length = number.expect("a length") as usize,
            _ => {}
        }
    }
    (tag, length)
}

/// How a run is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Frames are lost, of a hundred so many.
    pub loses: usize,
    /// The link may break, close and drain at any time.
    pub disturbs: bool,
}

#[derive(Debug)]
struct Call {
    tag: u64,
    by: End,
    key: StreamKey,
    answer: Option<usize>,
    came: Vec<u8>,
}

#[derive(Debug)]
struct Handling {
    tag: u64,
    at: End,
    key: StreamKey,
    length: usize,
    /// The head has left; the end follows.
    began: bool,
}

/// One run.
#[derive(Debug)]
pub struct Scattered {
    random: Random,
    weather: Weather,
    pair: Pair,
    calls: Vec<Call>,
    handlings: Vec<Handling>,
    tags: u64,
    opened: usize,
    finished: HashMap<u64, Option<StreamFailure>>,
    abandoned: usize,
    /// Requests that came to a handler; and those of them that it refused unseen.
    handled: HashSet<u64>,
    refused: HashSet<u64>,
    drained: [bool; 2],
    winding_down: bool,
    broken: bool,
    offered: u64,
    answered: u64,
    /// Endpoints of the last set that was offered, and what came of it.
    set: usize,
    budgets: [Arc<Budget>; 2],
}

impl Scattered {
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let mut random = Random::new(seed ^ 0x5ca7);
        let budgets = [100_000_000; 2].map(Budget::new);
        let mut common = |budget: &Arc<Budget>| Common {
            carrier: Carrier::Datagrams { max_frame: limits::DATAGRAM_FRAME_BYTES + random.below(2_000) as u32 },
            timers: Timers::default(),
            budget: budget.clone(),
            ..Common::default()
        };
        let (gateway, service) = (common(&budgets[0]), common(&budgets[1]));
        let pair =
            Pair::established(Setup { gateway, service, lease: 1 + random.below(12) as u32, ..Setup::default() });
        Self {
            random,
            weather,
            pair,
            calls: Vec::new(),
            handlings: Vec::new(),
            tags: 0,
            opened: 0,
            finished: HashMap::new(),
            abandoned: 0,
            handled: HashSet::new(),
            refused: HashSet::new(),
            drained: [false; 2],
            winding_down: false,
            broken: false,
            offered: 0,
            answered: 0,
            set: 0,
            budgets,
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
        self.wind_down();
        self.judge()
    }

    /// A service that leaves in good order: it drains, and closes as soon as that is done, its last answers on their way.
    ///
    /// # Panics
    /// When a request is lost by that; the caller names the seed.
    pub fn leave(mut self, steps: usize) -> Summary {
        for _ in 0..steps {
            self.step();
        }
        self.winding_down = true;
        let now = self.pair.now;
        self.pair.service.drain(now);
        while !self.drained[End::Service as usize] {
            self.step();
        }
        self.pair.service.close(CloseCode::Normal, String::new());
        self.broken = true;
        for _ in 0..100_000 {
            if self.calls.is_empty() && self.handlings.is_empty() && self.in_transit() == 0 {
                break;
            }
            self.step();
        }
        let lost = |(tag, failure): (&u64, &Option<StreamFailure>)| {
            (*failure == Some(StreamFailure::Lost) && self.handled.contains(tag)).then_some(*tag)
        };
        // What the service asked of the gateway is not the gateway's to finish.
        let by_gateway: Vec<u64> = self.finished.iter().filter_map(lost).filter(|tag| tag % 2 == 0).collect();
        assert!(by_gateway.is_empty(), "answered, and lost by the service's CLOSE: {by_gateway:?}");
        self.wind_down();
        self.judge()
    }

    fn in_transit(&mut self) -> usize {
        self.pair.wire(End::Gateway).len() + self.pair.wire(End::Service).len()
    }

    fn wind_down(&mut self) {
        self.winding_down = true;
        // Whatever was lost has its time: the longest deadline, and the grace.
        for _ in 0..200 {
            for _ in 0..20 {
                self.step();
            }
            for end in [End::Gateway, End::Service] {
                self.deliver(end, usize::MAX);
            }
            self.pump();
            self.pass(Duration::from_millis(500));
        }
    }

    fn step(&mut self) {
        let end = if self.random.chance(50) { End::Gateway } else { End::Service };
        match self.random.below(20) {
            0..=6 => self.deliver(end, 1),
            7 => self.deliver(end, 20),
            8..=10 => self.open(end),
            11..=13 => self.work_on_calls(),
            14..=17 => self.work_on_handlings(),
            18 if self.random.chance(10) => self.change_lease(),
            18 if self.random.chance(10) => self.register(),
            19 if self.random.chance(10) && !self.winding_down => {
                let millis = self.random.below(400);
                self.pass(Duration::from_millis(millis as u64));
            }
            19 if self.weather.disturbs && !self.winding_down && self.random.chance(2) => self.disturb(end),
            _ => {}
        }
        self.pump();
        self.pair.gateway.check_invariants().unwrap();
        self.pair.service.check_invariants().unwrap();
    }

    fn deliver(&mut self, end: End, most: usize) {
        for _ in 0..most {
            let loses = !self.winding_down && self.random.chance(self.weather.loses);
            if loses && self.pair.take_any(end, &mut self.random).is_some() {
                self.broken = true;
                continue;
            }
            match self.pair.deliver_any(end, &mut self.random) {
                Some(result) => result.expect("both ends keep to the protocol"),
                None => break,
            }
        }
    }

    fn pump(&mut self) {
        for end in [End::Gateway, End::Service] {
            let (events, closed) = self.pair.poll(end);
            if closed.is_some() && self.in_transit() == 0 && !self.pair.end(end.other()).is_over() {
                self.pair.end(end.other()).handle_link_closed();
            }
            for event in events {
                match event {
                    Event::Request(key, head) => {
                        assert!(!self.drained[end as usize], "a request after Drained");
                        let (tag, length) = read_tags(head.headers());
                        assert!(self.handled.insert(tag), "request {tag} reached two handlers");
                        self.handlings.push(Handling { tag, at: end, key, length, began: false });
                    }
                    Event::Endpoints { revision, endpoints } => {
                        assert!(endpoints.iter().all(|endpoint| endpoint.request_schema.is_none()));
                        let refused = endpoints
                            .iter()
                            .filter(|endpoint| endpoint.id.as_u32() % 3 == 0)
                            .map(|endpoint| RefusedEndpoint { id: endpoint.id, reason: format!("{revision}") })
                            .collect();
                        self.pair.gateway.endpoints_result(revision, refused);
                    }
                    Event::EndpointsResult { revision, refused } => {
                        let set = refused.len();
                        assert!(refused.iter().all(|refusal| refusal.reason == format!("{revision}")), "mixed answers");
                        assert!(revision < self.offered || set == self.set / 3, "{set} of {}", self.set);
                        self.answered = self.answered.max(revision);
                    }
                    Event::Drained => self.drained[end as usize] = true,
                    _ => {}
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.pair.advance(time);
        self.pump();
    }

    fn change_lease(&mut self) {
        let generation = self.pair.service_lease.generation() + 1;
        self.pair.service_lease.update(generation, 1 + self.random.below(12) as u32);
        self.pair.service.announce_lease();
    }

    fn register(&mut self) {
        if self.winding_down {
            return;
        }
        let count = self.random.below(300);
        let set = (1..=count as u32)
            .filter_map(EndpointId::new)
            .map(|id| {
                let path = format!("/{id}").parse().unwrap();
                let mut endpoint = EndpointDescriptor::new(id, http::Method::GET, path);
                endpoint.request_schema = Some("{}".repeat(3_000));
                endpoint
            })
            .collect();
        if self.pair.service.register(self.offered + 1, set).is_ok() {
            (self.offered, self.set) = (self.offered + 1, count);
        }
    }

    fn disturb(&mut self, end: End) {
        let now = self.pair.now;
        match self.random.below(6) {
            0 => {
                self.broken = true;
                self.pair.cut();
            }
            1 => {
                self.broken = true;
                self.pair.end(end).close(CloseCode::Shutdown, String::new());
            }
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
        self.tags += 2;
        let tag = self.tags + u64::from(by == End::Service);
        let most = [1, 200, 900, 4_000][self.random.below(4)];
        let length = self.random.below(most);
        let head = RequestHead::encode(&RequestParts {
            endpoint: EndpointId::new(u32::from(by == End::Gateway)),
            deadline: self.random.chance(70).then(|| Duration::from_secs(1 + self.random.below(20) as u64)),
            hops: 0,
            method: "POST",
            scheme: Scheme::Http,
            authority: "test",
            target: "/",
            parameters: &[],
            client: None,
            headers: &tagged(tag, length),
            claims: &[],
            tunnel_protocol: None,
        })
        .unwrap();
        let fits = self.pair.end(by).fits(head.as_bytes().len(), length);
        let opening = Opening { head, body: body(tag, false, length), end: true, tunnel: false, permit };
        match self.pair.end(by).open(opening) {
            Ok(key) => {
                assert!(fits, "{length} bytes do not fit");
                self.opened += 1;
                self.calls.push(Call { tag, by, key, answer: None, came: Vec::new() });
            }
            Err(OpenError::TooLarge) => assert!(!fits),
            Err(error) => {
                let session = self.pair.end(by);
                assert!(session.is_peer_draining() || !session.is_established(), "{error}");
            }
        }
    }

    fn work_on_calls(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.retain_mut(|call| {
            let outcome = self.read(call);
            let gives_up = outcome.is_none() && !self.winding_down && self.random.chance(3);
            if gives_up {
                self.pair.end(call.by).cancel(call.key, Reason::DeadlineExceeded, "");
                self.abandoned += 1;
            }
            if let Some(outcome) = outcome {
                assert!(self.finished.insert(call.tag, outcome).is_none(), "two outcomes");
            } else if !gives_up {
                return true;
            }
            self.pair.end(call.by).release(call.key);
            false
        });
        self.calls = calls;
    }

    /// The outcome of a call, if it is there.
    fn read(&mut self, call: &mut Call) -> Option<Option<StreamFailure>> {
        let session = self.pair.end(call.by);
        if call.answer.is_none() {
            match session.read_head(call.key) {
                ReadHead::Pending => return None,
                ReadHead::Failed(failure) => return Some(Some(failure)),
                ReadHead::Ready(head) => {
                    let (tag, length) = read_tags(head.headers());
                    assert_eq!(tag, call.tag, "the answer to another request");
                    call.answer = Some(length);
                }
            }
        }
        loop {
            match session.read(call.key) {
                Read::Pending => return None,
                Read::Failed(failure) => return Some(Some(failure)),
                Read::Trailers(_) => panic!("trailers"),
                Read::Data(bytes) => call.came.extend_from_slice(&bytes),
                Read::End => {
                    assert_eq!(&call.came[..], &body(call.tag, true, call.answer.unwrap_or_default())[..], "a body");
                    return Some(None);
                }
            }
        }
    }

    fn work_on_handlings(&mut self) {
        let mut handlings = std::mem::take(&mut self.handlings);
        handlings.retain_mut(|handling| !self.handle(handling));
        self.handlings = handlings;
    }

    /// Works on one handler; `true`: it has ended.
    fn handle(&mut self, handling: &mut Handling) -> bool {
        let Handling { tag, at, key, length, began } = *handling;
        let session = self.pair.end(at);
        if began {
            if !self.random.chance(50) {
                return false;
            }
            let _ = session.finish(key, None);
            session.release(key);
            return true;
        }
        if session.send_capacity(key).is_err() {
            session.release(key);
            return true;
        }
        match self.random.below(20) {
            0..=9 if !self.winding_down => return false,
            10 => {
                let reason = if self.random.chance(50) { Reason::Refused } else { Reason::HandlerFailed };
                if reason == Reason::Refused {
                    // As an application that has no such endpoint: nobody has looked at it.
                    self.refused.insert(tag);
                }
                session.cancel(key, reason, "by chance");
                session.release(key);
                return true;
            }
            _ => {}
        }
        let mut came = Vec::new();
        while let Read::Data(bytes) = session.read(key) {
            came.extend_from_slice(&bytes);
        }
        assert_eq!(&came[..], &body(tag, false, length)[..], "a request's body");
        handling.began = self.random.chance(20);
        let length = if handling.began { 0 } else { self.random.below(2_500) };
        let head = ResponseHead::encode(200, &tagged(tag, length)).unwrap();
        if session.fits(head.as_bytes().len(), length) {
            session.respond(key, head, body(tag, true, length), !handling.began, false).unwrap();
        } else {
            let refused = session.respond(key, head, body(tag, true, length), true, false);
            assert!(refused.is_err(), "{length} bytes do not fit");
            session.cancel(key, Reason::PayloadLimit, "");
        }
        if !handling.began {
            session.release(key);
        }
        !handling.began
    }

    fn judge(mut self) -> Summary {
        assert!(self.calls.is_empty(), "calls without an outcome: {:?}", self.calls);
        assert!(self.handlings.is_empty(), "handlers that never ended: {:?}", self.handlings);
        assert_eq!(self.finished.len() + self.abandoned, self.opened, "as many outcomes as requests");
        let severed = self.pair.gateway.is_over() || self.pair.service.is_over();
        for end in [End::Gateway, End::Service] {
            let session = self.pair.end(end);
            assert_eq!((session.remembered(), session.streams()), (0, (0, 0)), "{end:?}: {session:?}");
        }
        assert_eq!((self.pair.lease.in_flight(), self.pair.service_lease.in_flight()), (0, 0), "leases");
        assert_eq!([self.budgets[0].used(), self.budgets[1].used()], [0, 0], "buffered bytes");
        if !severed {
            assert_eq!(self.answered, self.offered, "the last set is answered, whatever was lost");
            assert_eq!(self.pair.lease.limit(), self.pair.service_lease.limit(), "the lease is known");
        }
        let mut summary = Summary { requests: self.opened, abandoned: self.abandoned, ..Summary::default() };
        for (tag, outcome) in &self.finished {
            match outcome {
                None => summary.complete += 1,
                Some(StreamFailure::Unseen) => {
                    let seen = self.handled.contains(tag) && !self.refused.contains(tag);
                    assert!(!seen, "request {tag} is called unseen, and a handler has it");
                    summary.unseen += 1;
                }
                Some(StreamFailure::Lost) => {
                    assert!(self.broken || severed, "lost, and nothing was");
                    summary.lost += 1;
                }
                Some(_) => summary.cancelled += 1,
            }
        }
        summary
    }
}
