//! A gateway's place at a broker: it announces itself, and services open links at its queue.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::ShortString;
use router_common::identity::Incarnation;
use router_common::limits;
use router_common::session::Secrets;
use router_link::{BoxLink, Environment as _, LinkError, Listener, PeerInfo, SystemEnvironment};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::announcement::{self, SOLICIT, Solicit, VERSION, WHO, is_queue};
use crate::broker::Broker;
use crate::keys::{End, Keys};
use crate::link::{Making, RabbitLink};
use crate::message::Header;
use crate::station::{self, Role, Standing, Station};
use crate::up::{Settings, Up};
use crate::{PREFETCH, TRANSPORT};

/// Links through one listener.
const LINKS: usize = 65_536;

/// What a listener is told.
#[derive(Debug, Clone)]
pub struct RabbitListenerOptions {
    /// The gateway's name, as in WELCOME. Several may have the same one: services tell listeners apart.
    pub node: String,
    /// The very same as the session's: the service's seals each message.
    pub secrets: Secrets,
    /// Messages that the broker may have sent here and that are not acknowledged. Default 256.
    pub prefetch: u16,
    /// How long a message may wait at the broker. Default 30 s, as `health.dead_after`.
    pub dead_after: Duration,
    /// Largest frame payload that is accepted, in bytes; the same as in the gateway's receive limits. Default 64 KiB.
    pub max_frame: u32,
}

impl RabbitListenerOptions {
    /// The defaults for a gateway of this name.
    #[must_use]
    pub fn new(node: impl Into<String>, secrets: Secrets) -> Self {
        Self {
            node: node.into(),
            secrets,
            prefetch: PREFETCH,
            dead_after: Duration::from_secs(30),
            max_frame: limits::FRAME_PAYLOAD_BYTES,
        }
    }
}

/// Accepts links through a broker (SPEC 7). What it holds there is rebuilt whenever it is lost; once it is dropped no more
/// links are opened, and those that are there go on to their ends.
#[derive(Debug)]
pub struct RabbitListener {
    accepted: mpsc::Receiver<RabbitLink>,
    local: String,
    _guard: DropGuard,
}

impl RabbitListener {
    /// Begins to listen; the broker need not be there yet. To be called within a tokio runtime, which is to outlive all
    /// links.
    #[must_use]
    pub fn start(broker: Broker, options: RabbitListenerOptions) -> Self {
        let station = Station::new();
        let (accept, accepted) = mpsc::channel(limits::UNWELCOMED);
        let local = broker.shown().to_string();
        let settings = Settings {
            broker,
            name: format!("stella gateway {}", options.node),
            prefetch: options.prefetch,
            ttl: options.dead_after,
        };
        let guard = station.leaving.clone().drop_guard();
        let mut process = [0; 16];
        SystemEnvironment.random(&mut process);
        let (place, process) = (Arc::clone(&station), Incarnation(process));
        let role = GatewayRole { station: place, process, options, accept, told_down: false };
        tokio::spawn(station::keep(station, settings, role));
        Self { accepted, local, _guard: guard }
    }
}

impl Listener for RabbitListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxLink, LinkError>> {
        self.accepted.poll_recv(cx).map(|link| match link {
            Some(link) => Ok(Box::new(link) as BoxLink),
            None => Err(LinkError::Closed),
        })
    }

    fn local(&self) -> &str {
        &self.local
    }
}

/// What a gateway does at its place.
struct GatewayRole {
    station: Arc<Station>,
    /// What it is told from other gateways of its name by, for as long as it listens.
    process: Incarnation,
    options: RabbitListenerOptions,
    accept: mpsc::Sender<RabbitLink>,
    /// That the broker is away is said once, until it is back.
    told_down: bool,
}

impl GatewayRole {
    fn solicit(&self, up: &Arc<Up>, leaving: bool) -> Vec<u8> {
        let (node, queue) = (self.options.node.clone(), up.queue.to_string());
        announcement::write(&Solicit { version: VERSION, node, process: Some(self.process), queue, leaving })
    }
}

impl Role for GatewayRole {
    const HEARS: &'static str = WHO;
    const WORD: &'static str = "gateway";

    fn announce(&mut self, up: &Arc<Up>, _: bool) {
        self.told_down = false;
        up.announce(SOLICIT, None, self.solicit(up, false));
    }

    fn heard(&mut self, up: &Arc<Up>, announcement: &[u8]) {
        if let Some(who) = announcement::read_who(announcement)
            && !self.accept.is_closed()
        {
            up.announce(SOLICIT, Some(&who.queue), self.solicit(up, false));
        }
    }

    fn stranger(&mut self, up: &Arc<Up>, header: Header, delivery: Delivery) {
        let to = delivery.properties.reply_to().clone().filter(|queue| is_queue(queue.as_str()));
        let (0, false, Some(to)) = (header.sequence, delivery.redelivered, to) else {
            // Of a link that is over, as a rule.
            tracing::debug!(link = ?header.link, sequence = header.sequence, "a message for no link was dropped");
            return;
        };
        if self.accept.is_closed() {
            return;
        }
        let Some(mailbox) = self.station.join(header.link, &to, LINKS) else { return };
        mailbox.deliver(delivery.data.into());
        let link = RabbitLink::new(Making {
            station: Arc::clone(&self.station),
            up: Arc::clone(up),
            id: header.link,
            mailbox,
            peer: PeerInfo::new(TRANSPORT, to.as_str()),
            to,
            keys: Keys::new(End::Gateway, self.options.secrets.clone()),
            max_frame: self.options.max_frame,
            on_end: None,
        });
        if self.accept.try_send(link).is_err() {
            tracing::warn!(broker = %up.broker, "more links wait to be accepted than may wait");
        }
    }

    fn ask(&mut self, up: &Arc<Up>, queue: ShortString, standing: Standing) {
        up.probe(SOLICIT, queue, self.solicit(up, standing == Standing::Leaving));
    }

    fn leave(&mut self, up: &Arc<Up>) {
        up.announce(SOLICIT, None, self.solicit(up, true));
    }

    fn is_down(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told_down, true) {
            tracing::warn!(error = why, "no place at the broker; trying again until there is one");
        }
    }
}
