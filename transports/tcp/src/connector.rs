//! Dialling a gateway. Dialling again is the caller's work.

use std::time::Duration;

use router_common::limits;
use router_link::{BoxFuture, BoxLink, Connector, FramedLink, LinkError, PeerInfo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::socket;

/// Name of the transport, and scheme of its URLs.
pub(crate) const TRANSPORT: &str = "tcp";
const SCHEME: &str = "tcp";

/// What a connector can be told beside its address.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TcpConnectorSettings {
    /// Name resolution and connecting together. Default 5 s.
    pub connect_timeout: Duration,
    /// Largest frame payload this side accepts, in bytes; the same as in its receive limits. Default 64 KiB.
    pub max_frame: u32,
}

impl Default for TcpConnectorSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), max_frame: limits::FRAME_PAYLOAD_BYTES }
    }
}

/// Dials `tcp://host:port` (SPEC 7).
#[derive(Debug, Clone)]
pub struct TcpConnector {
    target: String,
    settings: TcpConnectorSettings,
}

impl TcpConnector {
    /// A connector for `tcp://host:port`. The host is resolved at each dial, so it may move.
    ///
    /// # Errors
    /// [`LinkError::Target`] when the URL is not of that form.
    pub fn new(url: &str) -> Result<Self, LinkError> {
        let address = authority(SCHEME, url)?;
        Ok(Self { target: format!("{SCHEME}://{address}"), settings: TcpConnectorSettings::default() })
    }

    /// The same with other settings.
    #[must_use]
    pub const fn with_settings(mut self, settings: TcpConnectorSettings) -> Self {
        self.settings = settings;
        self
    }

    fn address(&self) -> &str {
        self.target.get(SCHEME.len() + "://".len()..).unwrap_or_default()
    }

    async fn dial(&self) -> Result<BoxLink, LinkError> {
        let after = self.settings.connect_timeout;
        let stream = timeout(after, TcpStream::connect(self.address()))
            .await
            .map_err(|_| LinkError::ConnectTimeout { target: self.target.clone(), after })?
            .map_err(|error| LinkError::io(format!("connecting to {}", self.target), error))?;
        let prepared = socket::prepare(&stream).and_then(|()| stream.peer_addr());
        let peer = prepared.map_err(|error| LinkError::io(format!("preparing {}", self.target), error))?;
        let peer = PeerInfo::at(TRANSPORT, peer);
        Ok(Box::new(FramedLink::new(stream, peer, self.settings.max_frame)))
    }
}

impl Connector for TcpConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.dial())
    }

    fn target(&self) -> &str {
        &self.target
    }
}

/// Host and port of `scheme://host:port`, for whatever runs over TCP.
///
/// # Errors
/// [`LinkError::Target`] when the URL is not of that form.
pub fn authority<'a>(scheme: &str, url: &'a str) -> Result<&'a str, LinkError> {
    let refuse = |problem: &str| LinkError::Target { target: url.to_owned(), problem: problem.to_owned() };
    let address = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let address = address.ok_or_else(|| refuse(&format!("write `{scheme}://host:port`")))?;
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) =
        address.rsplit_once(':').ok_or_else(|| refuse(&format!("the port is missing: `{scheme}://host:port`")))?;
    match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(refuse("the port is a number from 1 to 65535")),
        Ok(_) => {}
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) || (host.contains(':') && !bracketed) {
        return Err(refuse("the host is a name or an address; an IPv6 address stands in brackets"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_host_and_a_port() {
        for good in ["tcp://127.0.0.1:5100", "tcp://gateway.example:5100", "tcp://[::1]:5100", "tcp://localhost:5100/"]
        {
            assert!(TcpConnector::new(good).is_ok(), "{good}");
        }
        let none =
            ["", "127.0.0.1:5100", "http://a:1", "tcp://a", "tcp://:1", "tcp://a:0", "tcp://a:b", "tcp://::1:5100"];
        for bad in none.into_iter().chain(["tcp://user@a:1", "tcp://a/b:1", "tcp://a:1/x"]) {
            assert!(matches!(TcpConnector::new(bad), Err(LinkError::Target { .. })), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_an_error_that_names_it() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connector = TcpConnector::new(&format!("tcp://{unused}")).unwrap();
        let error = connector.connect().await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("connecting to tcp://{unused}: ")), "{error}");
    }
}
