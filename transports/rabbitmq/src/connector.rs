//! Dialling gateways through a broker: all that announce themselves there, or whichever is heard of first.

use std::sync::Arc;
use std::time::Duration;

use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_link::{BoxFuture, BoxLink, Connector, Discovered, Discovery, LinkError};
use tokio::time::timeout;

use crate::PREFETCH;
use crate::broker::Broker;
use crate::dial::CONNECT_TIMEOUT;
use crate::discovery::{RabbitDiscovery, ServiceRole};
use crate::error::Broken;
use crate::station::{self, Station};
use crate::up::{DEFAULT_MAX_FRAME, Settings};

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
    /// Largest frame payload on a broker with the frame size of its default settings, in bytes.
    pub const MAX_FRAME: u32 = DEFAULT_MAX_FRAME;

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

    /// Dials whichever gateway is heard of first, over an AMQP connection of this link's own.
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
