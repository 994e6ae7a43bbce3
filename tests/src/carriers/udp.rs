//! UDP: a free port of loopback, and a network before it if there is to be weather.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use router_common::session::{Secret, Secrets};
use router_conformance::{Carrier, Place};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};
use tokio::net::UdpSocket;
use transport_udp::packet::DATAGRAM_BYTES;
use transport_udp::testing::{Forwarder, Weather};
use transport_udp::{UdpConnector, UdpConnectorSettings, UdpListener};

/// How long a port may be taken by the listener before, whose links end in their own time.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Udp {
    pub(super) name: &'static str,
    pub(super) weather: Option<Weather>,
}

impl Carrier for Udp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        let max_frame = transport_udp::outgoing::max_frame(DATAGRAM_BYTES);
        Capabilities { ordered: false, streaming: false, max_frame }
    }

    fn needs_secret(&self) -> bool {
        true
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        let weather = self.weather;
        Box::pin(async move { Ok(Arc::new(Port { weather, ..Port::default() }) as Arc<dyn Place>) })
    }
}

#[derive(Default)]
struct Port {
    weather: Option<Weather>,
    address: OnceLock<SocketAddr>,
    network: OnceLock<Forwarder>,
}

impl Port {
    async fn bind(&self, secrets: &Secrets) -> Result<UdpListener, LinkError> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = self.address.get().copied().unwrap_or(any);
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match UdpListener::bind(address, secrets.clone(), DATAGRAM_BYTES) {
                Err(LinkError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse && tokio::time::Instant::now() < until =>
                {
                    tokio::task::yield_now().await;
                }
                bound => return bound,
            }
        }
    }
}

impl Place for Port {
    fn listen<'a>(&'a self, secrets: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        Box::pin(async move {
            let listener = self.bind(secrets).await?;
            let address = *self.address.get_or_init(|| listener.local_addr());
            if let Some(weather) = self.weather
                && self.network.get().is_none()
            {
                let network = Forwarder::start(address, weather, 1).await;
                let network = network.map_err(|error| LinkError::io("putting a network before it", error))?;
                self.network.get_or_init(|| network);
            }
            Ok(Box::new(listener) as BoxListener)
        })
    }

    fn connector(&self, secret: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        let nothing = || LinkError::Target { target: "udp://".to_owned(), problem: "nothing listens yet".to_owned() };
        let direct = self.address.get().copied();
        let address = self.network.get().map(Forwarder::address).or(direct).ok_or_else(nothing)?;
        let Some(secret) = secret.cloned() else {
            let problem = "there is no way without a secret".to_owned();
            return Err(LinkError::Target { target: format!("udp://{address}"), problem });
        };
        let mut settings = UdpConnectorSettings::default();
        settings.secret = Some(secret);
        Ok(Arc::new(UdpConnector::new(&format!("udp://{address}"), settings)?))
    }

    fn intrude<'a>(&'a self, bytes: &'a [u8]) -> Option<BoxFuture<'a, io::Result<()>>> {
        let address = *self.address.get()?;
        Some(Box::pin(async move {
            let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            stranger.send_to(bytes, address).await.map(drop)
        }))
    }
}
