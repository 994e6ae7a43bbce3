//! Dialling one gateway that was found.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use router_common::limits;
use router_common::session::Secrets;
use router_link::{BoxFuture, BoxLink, Connector, Environment, LinkError, PeerInfo, SystemEnvironment};
use tokio::time::timeout;

use crate::TRANSPORT;
use crate::error::Broken;
use crate::keys::{End, Keys};
use crate::link::{Making, Outcome, RabbitLink};
use crate::message::LinkId;
use crate::node::Node;
use crate::station::Station;

/// How long a link waits for its broker.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Links of one service at one broker, over all gateways.
const LINKS: usize = 4096;

/// Dials one gateway that was found.
pub(crate) struct NodeConnector {
    station: Arc<Station>,
    secrets: Secrets,
    node: Arc<Node>,
    target: String,
}

impl NodeConnector {
    pub(crate) fn new(station: Arc<Station>, secrets: Secrets, node: Arc<Node>, broker: &str) -> Self {
        let target = format!("{broker} ({})", node.key);
        Self { station, secrets, node, target }
    }

    async fn dial(&self) -> Result<BoxLink, LinkError> {
        let waiting = timeout(CONNECT_TIMEOUT, self.station.up()).await;
        let up =
            waiting.map_err(|_| LinkError::ConnectTimeout { target: self.target.clone(), after: CONNECT_TIMEOUT })?;
        let queue = self.node.queue().ok_or(Broken::Left)?;
        let mut id = [0; 16];
        SystemEnvironment.random(&mut id);
        let id = LinkId(id);
        let refuse = || LinkError::Target { target: self.target.clone(), problem: format!("more than {LINKS} links") };
        let mailbox = self.station.join(id, &queue, LINKS).ok_or_else(refuse)?;
        self.node.links.fetch_add(1, Ordering::AcqRel);
        let node = Arc::clone(&self.node);
        let dialled = queue.clone();
        let on_end = move |outcome| {
            node.links.fetch_sub(1, Ordering::AcqRel);
            match outcome {
                Outcome::Welcomed => {}
                Outcome::NotWelcomed => node.put_last(dialled.as_str()),
                Outcome::Returned => node.lose(dialled.as_str()),
            }
        };
        let mut link = RabbitLink::new(Making {
            station: Arc::clone(&self.station),
            up,
            id,
            mailbox,
            to: queue.clone(),
            keys: Keys::new(End::Service, self.secrets.clone()),
            peer: PeerInfo::new(TRANSPORT, queue.as_str()),
            max_frame: limits::FRAME_PAYLOAD_BYTES,
            on_end: Some(Box::new(on_end)),
        });
        link.open();
        Ok(Box::new(link))
    }
}

impl Connector for NodeConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.dial())
    }

    fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Debug for NodeConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeConnector({})", self.target)
    }
}
