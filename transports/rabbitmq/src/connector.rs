//! Dialling gateways through a broker: all that announce themselves there, or one of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use router_common::identity::KeyId;
use router_common::limits;
use router_common::session::{Secret, Secrets};
use router_link::{
    BoxFuture, BoxLink, Connector, Discovered, Discovery, Environment, LinkError, PeerInfo, SystemEnvironment,
};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::discovery::{Node, RabbitDiscovery, ServiceRole};
use crate::error::Broken;
use crate::keys::{End, Keys};
use crate::link::{Making, Outcome, RabbitLink};
use crate::message::LinkId;
use crate::station::{self, Settings, Station};
use crate::{PREFETCH, TRANSPORT};

/// How long a link waits for its broker, and for a gateway to announce itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Links of one service at one broker, over all gateways.
const LINKS: usize = 4096;
/// How long a message may wait at the broker: the default of `dead_after`.
const TTL: Duration = Duration::from_secs(30);

/// Finds the gateways on a broker, and makes links to them (SPEC 7).
#[derive(Debug, Clone)]
pub struct RabbitConnector {
    settings: Settings,
    secrets: Secrets,
    target: String,
}

impl RabbitConnector {
    /// A connector for all gateways of one broker. `secret` is the very same as the session's: it seals each message.
    #[must_use]
    pub fn new(broker: Broker, secret: Option<(KeyId, Secret)>) -> Self {
        let target = broker.shown().to_string();
        let name = format!("stella service, process {}", std::process::id());
        let settings = Settings { broker, name, prefetch: PREFETCH, ttl: TTL };
        Self { settings, secrets: secret.into_iter().collect(), target }
    }

    /// The same under a name of its own in the broker's list of connections.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// To be called within a tokio runtime.
    fn search(&self) -> RabbitDiscovery {
        let station = Station::new();
        let (role, discovery) = ServiceRole::new(Arc::clone(&station), self.secrets.clone());
        tokio::spawn(station::keep(station, self.settings.clone(), role));
        discovery
    }

    /// Dials whichever gateway is heard of first.
    async fn any(&self) -> Result<BoxLink, LinkError> {
        let mut search = self.search();
        let search: &mut dyn Discovery = &mut search;
        let mut last = None;
        let found = timeout(CONNECT_TIMEOUT, async {
            loop {
                match search.next().await {
                    Ok(Discovered::Found { connector, .. }) => return connector,
                    Ok(Discovered::Gone { .. }) => {}
                    Err(error) => last = Some(error),
                }
            }
        });
        match found.await {
            Ok(connector) => connector.connect().await,
            Err(_) => Err(last.unwrap_or_else(|| Broken::NoGateway(CONNECT_TIMEOUT).into())),
        }
    }
}

impl Connector for RabbitConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.any())
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn discover(&self) -> Option<Box<dyn Discovery>> {
        Some(Box::new(self.search()))
    }
}

/// Dials one gateway that was found.
pub(crate) struct NodeConnector {
    station: Arc<Station>,
    secrets: Secrets,
    node: Arc<Node>,
    target: String,
}

impl NodeConnector {
    pub(crate) fn new(station: Arc<Station>, secrets: Secrets, node: Arc<Node>, broker: &str) -> Self {
        let target = format!("{broker} ({})", node.name);
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
        let mailbox = self.station.join(id, LINKS).ok_or_else(refuse)?;
        self.node.links.fetch_add(1, Ordering::AcqRel);
        let node = Arc::clone(&self.node);
        let dialled = queue.clone();
        let on_end = move |outcome| {
            node.links.fetch_sub(1, Ordering::AcqRel);
            match outcome {
                Outcome::Welcomed => {}
                Outcome::NotWelcomed => node.put_last(dialled.as_str()),
                Outcome::Returned => node.forget(dialled.as_str()),
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
