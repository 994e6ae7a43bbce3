//! The gateways that a service hears of.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use lapin::message::Delivery;
use lapin::types::ShortString;
use router_common::session::Secrets;
use router_link::{Discovered, Discovery, LinkError};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::announcement::{self, SOLICIT, Solicit, VERSION, WHO, Who};
use crate::dial::NodeConnector;
use crate::message::Header;
use crate::node::Node;
use crate::station::{Role, Standing, Station};
use crate::up::Up;

/// Gateways that are remembered.
const NODES: usize = 1024;
/// Changes that wait to be taken; what comes beyond is told at the next announcement.
const CHANGES: usize = 256;

/// What a service does at its place.
pub(crate) struct ServiceRole {
    pub(crate) station: Arc<Station>,
    pub(crate) secrets: Secrets,
    nodes: HashMap<Arc<str>, Arc<Node>>,
    changes: mpsc::Sender<Result<Discovered, LinkError>>,
}

impl ServiceRole {
    pub(crate) fn new(station: Arc<Station>, secrets: Secrets) -> (Self, RabbitDiscovery) {
        let (changes, told) = mpsc::channel(CHANGES);
        let guard = station.leaving.clone().drop_guard();
        let role = Self { station, secrets, nodes: HashMap::new(), changes };
        (role, RabbitDiscovery { told, _guard: guard })
    }

    fn who(up: &Up) -> Vec<u8> {
        announcement::write(&Who { version: VERSION, queue: up.queue.to_string() })
    }

    fn solicited(&mut self, up: &Arc<Up>, solicit: &Solicit) {
        let key = solicit.gateway();
        if solicit.leaving {
            if let Some(node) = self.nodes.get(key.as_str()) {
                node.leave(&solicit.queue);
            }
            return self.tidy();
        }
        let node = match self.nodes.get(key.as_str()) {
            Some(node) => Arc::clone(node),
            None if self.nodes.len() >= NODES => return,
            None => {
                let node = Arc::new(Node::new(&key, &solicit.node));
                self.nodes.insert(Arc::clone(&node.key), Arc::clone(&node));
                node
            }
        };
        if !node.hear(&solicit.queue) {
            return;
        }
        let namesakes = self.nodes.values().filter(|other| other.is_called(&solicit.node));
        for queue in namesakes.flat_map(|other| other.queues()).filter(|queue| queue.as_str() != solicit.queue) {
            // Its process may be another one now, or the queue may have been lost: links to it are not to wait until they
            // have something to say.
            up.probe(WHO, queue, Self::who(up));
        }
        tracing::debug!(broker = %up.broker, node = %node.key, queue = solicit.queue, "a gateway is there");
        let connector =
            NodeConnector::new(Arc::clone(&self.station), self.secrets.clone(), Arc::clone(&node), &up.broker);
        let found = Discovered::Found { node: Arc::clone(&node.key), connector: Arc::new(connector) };
        if self.changes.try_send(Ok(found)).is_err() {
            // Nobody takes it now; it is news again when it is heard again.
            node.unhear(&solicit.queue);
        }
        self.tidy();
    }

    /// Tells of the gateways that are gone.
    fn tidy(&mut self) {
        let is_replaced = |node: &Node| {
            let namesakes = self.nodes.values().filter(|other| other.shares_name(node));
            namesakes.filter(|other| other.queue().is_some()).any(|other| other.key != node.key)
        };
        let gone: Vec<_> = self.nodes.values().filter(|node| node.is_gone(|| is_replaced(node))).cloned().collect();
        for node in gone {
            if self.changes.try_send(Ok(Discovered::Gone { node: Arc::clone(&node.key) })).is_ok() {
                self.nodes.remove(&node.key);
            }
        }
    }
}

impl Role for ServiceRole {
    const HEARS: &'static str = SOLICIT;
    const WORD: &'static str = "service";

    fn announce(&mut self, up: &Arc<Up>, first: bool) {
        if first {
            // Queues do not outlive the connection to their broker, and so what was known of them is of no use.
            for node in self.nodes.values() {
                node.forget_all();
            }
            up.announce(WHO, None, Self::who(up));
        }
        self.tidy();
    }

    fn heard(&mut self, up: &Arc<Up>, announcement: &[u8]) {
        if let Some(solicit) = announcement::read_solicit(announcement) {
            self.solicited(up, &solicit);
        }
    }

    fn stranger(&mut self, _: &Arc<Up>, header: Header, _: Delivery) {
        tracing::debug!(link = ?header.link, "a message for a link that is over was dropped");
    }

    fn queue_gone(&mut self, queue: &str) {
        for node in self.nodes.values() {
            node.lose(queue);
        }
        self.tidy();
    }

    fn link_left(&mut self) {
        self.tidy();
    }

    fn ask(&mut self, up: &Arc<Up>, queue: ShortString, _: Standing) {
        up.probe(WHO, queue, Self::who(up));
    }

    fn leave(&mut self, _: &Arc<Up>) {}

    fn is_down(&mut self, why: &str) {
        let error = LinkError::io("the broker", std::io::Error::other(why.to_owned()));
        // Nobody need hear it twice.
        let _ = self.changes.try_send(Err(error));
    }
}

/// What a connector's `discover` gives.
#[derive(Debug)]
pub(crate) struct RabbitDiscovery {
    told: mpsc::Receiver<Result<Discovered, LinkError>>,
    /// Dropped with this: no more gateways are looked for, and the place goes with its last link.
    _guard: DropGuard,
}

impl Discovery for RabbitDiscovery {
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>> {
        self.told.poll_recv(cx).map(|change| change.unwrap_or(Err(LinkError::Closed)))
    }
}
