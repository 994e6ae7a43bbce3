//! Two sessions and the wire between them, under virtual time: for tests of this crate and of others.
//!
//! Nothing here runs by itself: a test moves frames and time, so every schedule can be made and made again.

pub mod fuzz;
pub mod hostile;
pub mod scattered;
pub mod world;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::codec::{self, FrameDecoder};
use crate::frame::{Frame, Hello, PROTOCOL_VERSION, ReceiveLimits};
use crate::identity::{Identity, Incarnation, Instance, Version};
use crate::session::lease::Lease;
use crate::session::{
    Accepted, Carrier, Closed, Common, Event, GatewaySide, Output, ProtocolError, Secret, Secrets, ServiceSide, Session,
};

/// Random numbers from a seed: SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[must_use]
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    #[must_use]
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// True in `percent` of 100 calls.
    #[must_use]
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Which end of a [`Pair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Gateway,
    Service,
}

impl End {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Service,
            Self::Service => Self::Gateway,
        }
    }
}

/// How a [`Pair`] is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub gateway: Common,
    pub service: Common,
    pub gateway_secrets: Secrets,
    pub service_secret: Option<Secret>,
    pub lease: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            gateway: Common::default(),
            service: Common::default(),
            gateway_secrets: Secrets::none(),
            service_secret: None,
            lease: crate::limits::LEASE,
        }
    }
}

/// A gateway's and a service's session, and the frames in transit.
#[derive(Debug)]
pub struct Pair {
    pub gateway: Session,
    pub service: Session,
    /// The instance's lease, as the gateway sees it.
    pub lease: std::sync::Arc<Lease>,
    /// And as the service enforces it.
    pub service_lease: std::sync::Arc<Lease>,
    pub now: Instant,
    to_service: VecDeque<Frame>,
    to_gateway: VecDeque<Frame>,
    max_frame: u32,
}

/// A HELLO that a gateway accepts.
#[must_use]
pub fn hello() -> Hello {
    Hello {
        versions: vec![PROTOCOL_VERSION],
        extensions: Vec::new(),
        instance: Instance {
            service: "orders".parse().expect("a service name"),
            version: Version::new(1, 2, 0),
            region: "eu-west".parse().expect("a region"),
            id: "orders-1".parse().expect("an instance id"),
        },
        incarnation: Incarnation([9; 16]),
        link: 0,
        links: 1,
        preference: 0,
        key_id: None,
        token: None,
        nonce: [1; 32],
        limits: ReceiveLimits::default(),
        lease: 0,
    }
}

impl Pair {
    /// Two sessions that have not spoken yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let service_lease = Lease::new(setup.lease);
        let most = |common: &Common| match common.carrier {
            Carrier::Stream => common.limits.max_frame,
            Carrier::Datagrams { max_frame } => max_frame,
        };
        let max_frame = most(&setup.gateway).max(most(&setup.service));
        let service = ServiceSide {
            common: setup.service,
            hello: hello(),
            secret: setup.service_secret,
            lease: service_lease.clone(),
        };
        let gateway = GatewaySide {
            common: setup.gateway,
            node: "gw-1".parse().expect("a node id"),
            secrets: setup.gateway_secrets,
            nonce: [2; 32],
            identity: Identity::Anonymous,
        };
        Self {
            gateway: Session::gateway(gateway, now),
            service: Session::service(service, now),
            lease: Lease::new(0),
            service_lease,
            now,
            to_service: VecDeque::new(),
            to_gateway: VecDeque::new(),
            max_frame,
        }
    }

    /// Two sessions with an established link.
    ///
    /// # Panics
    /// When the handshake fails.
    #[must_use]
    pub fn established(setup: Setup) -> Self {
        let mut pair = Self::new(setup);
        pair.settle();
        assert!(pair.gateway.is_established() && pair.service.is_established(), "{pair:?}");
        pair
    }

    pub fn end(&mut self, end: End) -> &mut Session {
        match end {
            End::Gateway => &mut self.gateway,
            End::Service => &mut self.service,
        }
    }

    /// Polls `end` until it has nothing to say: its frames go into transit, its events come back. The gateway says yes
    /// to whoever joins.
    pub fn poll(&mut self, end: End) -> (Vec<Event>, Option<Closed>) {
        let mut events = Vec::new();
        loop {
            match self.end(end).poll() {
                Output::Transmit(frame) => self.wire(end.other()).push_back(frame),
                Output::Event(Event::Joining(_)) => {
                    let accepted = Accepted { lease: self.lease.clone(), revision: 0, links: 1 };
                    self.gateway.welcome(accepted, self.now);
                }
                Output::Event(event) => events.push(event),
                Output::Idle { .. } => return (events, None),
                Output::Closed(closed) => return (events, Some(closed)),
            }
        }
    }

    /// Lets the frame that has travelled longest towards `end` arrive. `None`: nothing is in transit.
    pub fn deliver(&mut self, end: End) -> Option<Result<(), ProtocolError>> {
        let frame = self.wire(end).pop_front()?;
        let frame = self.through_bytes(frame);
        let now = self.now;
        Some(self.end(end).handle_frame(frame, now))
    }

    /// Lets any frame that is on its way to `end` arrive, as on a link that reorders.
    pub fn deliver_any(&mut self, end: End, random: &mut Random) -> Option<Result<(), ProtocolError>> {
        let frame = self.take_any(end, random)?;
        self.wire(end).push_front(frame);
        self.deliver(end)
    }

    /// Takes any frame that is on its way to `end`: it is lost, or comes later.
    pub fn take_any(&mut self, end: End, random: &mut Random) -> Option<Frame> {
        let wire = self.wire(end);
        if wire.is_empty() { None } else { wire.remove(random.below(wire.len())) }
    }

    /// Exchanges two neighbouring data frames of different streams on their way to `end`, if there are such.
    pub fn reorder(&mut self, end: End, random: &mut Random) {
        let wire = self.wire(end);
        if wire.len() < 2 {
            return;
        }
        let at = random.below(wire.len() - 1);
        let is_data =
            |frame: &Frame| matches!(frame, Frame::RequestData(_) | Frame::ResponseData(_) | Frame::Response(_));
        if is_data(&wire[at]) && is_data(&wire[at + 1]) && wire[at].stream() != wire[at + 1].stream() {
            wire.swap(at, at + 1);
        }
    }

    /// Frames on their way to `end`.
    pub fn wire(&mut self, end: End) -> &mut VecDeque<Frame> {
        match end {
            End::Gateway => &mut self.to_gateway,
            End::Service => &mut self.to_service,
        }
    }

    /// Polls and delivers until nothing moves; gives the events of both ends.
    ///
    /// # Panics
    /// When an end breaks the protocol.
    pub fn settle(&mut self) -> Vec<(End, Event)> {
        let mut all = Vec::new();
        loop {
            let mut moved = false;
            for end in [End::Gateway, End::Service] {
                let (events, _) = self.poll(end);
                moved |= !events.is_empty();
                all.extend(events.into_iter().map(|event| (end, event)));
                while let Some(result) = self.deliver(end) {
                    result.expect("both ends keep to the protocol");
                    moved = true;
                }
            }
            if !moved && self.to_gateway.is_empty() && self.to_service.is_empty() {
                return all;
            }
        }
    }

    /// Lets time pass at both ends.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.gateway.handle_timeout(self.now);
        self.service.handle_timeout(self.now);
    }

    /// The carrier breaks: what was in transit is gone.
    pub fn cut(&mut self) {
        self.to_service.clear();
        self.to_gateway.clear();
        self.gateway.handle_link_closed();
        self.service.handle_link_closed();
    }

    /// Frames in transit pass through their encoding, as on a byte stream.
    fn through_bytes(&self, frame: Frame) -> Frame {
        let mut bytes = BytesMut::new();
        let body = codec::encode(&frame, &mut bytes);
        bytes.extend_from_slice(&body);
        assert_eq!(bytes.len(), codec::encoded_len(&frame), "{}", frame.name());
        let decoded =
            FrameDecoder::new(self.max_frame).decode(&mut bytes).expect("our own frame").expect("a whole one");
        assert_eq!(decoded, frame);
        decoded
    }
}
