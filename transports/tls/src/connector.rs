//! Dialling a gateway over TLS. Dialling again is the caller's work.

use std::sync::Arc;
use std::time::Duration;

use router_common::limits;
use router_link::{BoxFuture, BoxLink, Connector, FramedLink, LinkError, PeerInfo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::TRANSPORT;
use crate::client::{Client, ClientTls, Versions};
use crate::explain::{self, Speaker};
use crate::files::CertificateProblem;
use crate::listener::channel_binding;
use crate::stream::{Carrier, Socket};

/// Scheme of its URLs.
const SCHEME: &str = "tls";

/// What a connector can be told beside its address and its certificates.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TlsConnectorSettings {
    /// Name resolution, connecting and the TLS handshake together. Default 10 s.
    pub connect_timeout: Duration,
    /// Largest frame payload this side accepts, in bytes; the same as in its receive limits. Default 64 KiB.
    pub max_frame: u32,
}

impl Default for TlsConnectorSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), max_frame: limits::FRAME_PAYLOAD_BYTES }
    }
}

/// Dials `tls://host:port` (SPEC 7).
#[derive(Debug, Clone)]
pub struct TlsConnector {
    target: String,
    name: ServerName<'static>,
    client: Arc<Client>,
    settings: TlsConnectorSettings,
}

impl TlsConnector {
    /// A connector for `tls://host:port`. The host is resolved at each dial, so it may move; so may the files' contents.
    ///
    /// # Errors
    /// [`LinkError::Target`] when the URL is not of that form, or something is wrong with the certificates.
    pub fn new(url: &str, tls: ClientTls) -> Result<Self, LinkError> {
        let address = transport_tcp::authority(SCHEME, url)?;
        let target = format!("{SCHEME}://{address}");
        let refuse =
            |problem: CertificateProblem| LinkError::Target { target: target.clone(), problem: problem.to_string() };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = tls.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name =
            ServerName::try_from(name.clone()).map_err(|_| refuse(CertificateProblem::ServerName { found: name }))?;
        let client = Client::new(tls, Versions::default()).map_err(refuse)?;
        Ok(Self { target, name, client: Arc::new(client), settings: TlsConnectorSettings::default() })
    }

    /// The same with other settings.
    #[must_use]
    pub const fn with_settings(mut self, settings: TlsConnectorSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The same with other versions of TLS.
    ///
    /// # Errors
    /// As [`Self::new`]: the files are read anew.
    pub fn with_versions(mut self, versions: Versions) -> Result<Self, LinkError> {
        let client = self
            .client
            .again(versions)
            .map_err(|problem| LinkError::Target { target: self.target.clone(), problem: problem.to_string() })?;
        self.client = Arc::new(client);
        Ok(self)
    }

    fn address(&self) -> &str {
        self.target.get(SCHEME.len() + "://".len()..).unwrap_or_default()
    }

    async fn dial(&self) -> Result<BoxLink, LinkError> {
        let after = self.settings.connect_timeout;
        timeout(after, self.dial_unbounded())
            .await
            .unwrap_or_else(|_| Err(LinkError::ConnectTimeout { target: self.target.clone(), after }))
    }

    async fn dial_unbounded(&self) -> Result<BoxLink, LinkError> {
        let client = Arc::clone(&self.client);
        let config = tokio::task::spawn_blocking(move || client.current())
            .await
            .map_err(|error| LinkError::io("reading certificates", std::io::Error::other(error)))?;
        let stream = TcpStream::connect(self.address())
            .await
            .map_err(|error| LinkError::io(format!("connecting to {}", self.target), error))?;
        let prepared = transport_tcp::prepare(&stream).and_then(|()| stream.peer_addr());
        let peer = prepared.map_err(|error| LinkError::io(format!("preparing {}", self.target), error))?;
        let refuse = |problem| LinkError::Handshake { peer: self.target.clone(), problem };
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = connector
            .connect(self.name.clone(), Socket::new(stream))
            .await
            .map_err(|error| refuse(explain::handshake(Speaker::Service, &error)))?;
        let (_, connection) = tls.get_ref();
        let mut info = PeerInfo::at(TRANSPORT, peer);
        info.channel_binding = Some(channel_binding(connection).map_err(refuse)?);
        Ok(Box::new(FramedLink::new(Carrier::new(tls.into()), info, self.settings.max_frame)))
    }
}

impl Connector for TlsConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.dial())
    }

    fn target(&self) -> &str {
        &self.target
    }
}
