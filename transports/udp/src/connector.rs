//! Dialling a gateway. Dialling again is the caller's work.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use router_common::session::Secret;
use router_link::{BoxFuture, BoxLink, Connector, LinkError};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::carrier::Carrier;
use crate::dial::Dialling;
use crate::link::{SCHEME, UdpLink};
use crate::packet::{DATAGRAM_BYTES, DATAGRAM_BYTES_MAX};

/// What a connector can be told beside its address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UdpConnectorSettings {
    /// Name resolution, and then each half of the handshake. Default 5 s.
    pub connect_timeout: Duration,
    /// The secret that the session will prove: each datagram is protected with a key from it. Default: none, which only
    /// a gateway on loopback accepts.
    pub secret: Option<Secret>,
    /// The largest datagram to send, in bytes: 1200 to 65507. Default 1200.
    pub datagram: usize,
}

impl Default for UdpConnectorSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), secret: None, datagram: DATAGRAM_BYTES }
    }
}

/// Dials `udp://host:port` (SPEC 7).
#[derive(Debug)]
pub struct UdpConnector {
    target: String,
    settings: UdpConnectorSettings,
    /// Where to look in the list of a host's addresses: nobody answers a datagram that is sent to the wrong one.
    turn: AtomicUsize,
}

impl UdpConnector {
    /// A connector for `udp://host:port`. The host is resolved at each dial, so it may move; of several addresses each
    /// dial takes the next.
    ///
    /// # Errors
    /// [`LinkError::Target`] when the URL is not of that form, or the datagrams' size is out of bounds.
    pub fn new(url: &str, settings: UdpConnectorSettings) -> Result<Self, LinkError> {
        let refuse = |problem: &str| LinkError::Target { target: url.to_owned(), problem: problem.to_owned() };
        let address = url.strip_prefix(SCHEME).ok_or_else(|| refuse("write `udp://host:port`"))?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("the port is missing: `udp://host:port`"))?;
        match port.parse::<u16>() {
            Ok(0) | Err(_) => return Err(refuse("the port is a number from 1 to 65535")),
            Ok(_) => {}
        }
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) || (host.contains(':') && !bracketed) {
            return Err(refuse("the host is a name or an address; an IPv6 address stands in brackets"));
        }
        if !(DATAGRAM_BYTES..=DATAGRAM_BYTES_MAX).contains(&settings.datagram) {
            return Err(refuse("a datagram has 1200 to 65507 bytes"));
        }
        Ok(Self { target: format!("{SCHEME}{address}"), settings, turn: AtomicUsize::new(0) })
    }

    /// A socket for the next address of the host. That it could be had says nothing of whether somebody is there: the
    /// handshake, which is the session's, finds that out.
    async fn dial(&self) -> Result<BoxLink, LinkError> {
        let after = self.settings.connect_timeout;
        let connecting = |error| LinkError::io(format!("connecting to {}", self.target), error);
        let address = self.target.get(SCHEME.len()..).unwrap_or_default();
        let addresses: Vec<SocketAddr> = timeout(after, tokio::net::lookup_host(address))
            .await
            .map_err(|_| LinkError::ConnectTimeout { target: self.target.clone(), after })?
            .map_err(connecting)?
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(peer) = turn.checked_rem(addresses.len()).and_then(|turn| addresses.get(turn)).copied() else {
            let problem = "the host has no address".to_owned();
            return Err(LinkError::Target { target: self.target.clone(), problem });
        };
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(connecting)?;
        socket.connect(peer).await.map_err(connecting)?;
        let UdpConnectorSettings { secret, datagram, .. } = self.settings.clone();
        let dialling = Dialling::new(secret, datagram, after);
        Ok(Box::new(UdpLink::dialling(Carrier::own(socket), peer, dialling, datagram)))
    }
}

impl Connector for UdpConnector {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        Box::pin(self.dial())
    }

    fn target(&self) -> &str {
        &self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_host_and_a_port() {
        let new = |url: &str| UdpConnector::new(url, UdpConnectorSettings::default());
        for good in ["udp://127.0.0.1:5102", "udp://gateway.example:5102", "udp://[::1]:5102", "udp://localhost:5102/"]
        {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in ["", "tcp://a:1", "udp://a", "udp://:1", "udp://a:0", "udp://::1:5102", "udp://u@a:1", "udp://a/b:1"]
        {
            assert!(matches!(new(bad), Err(LinkError::Target { .. })), "{bad}");
        }
        for (datagram, legal) in [(1199, false), (1200, true), (65_507, true), (65_508, false)] {
            let settings = UdpConnectorSettings { datagram, ..UdpConnectorSettings::default() };
            assert_eq!(UdpConnector::new("udp://a:1", settings).is_ok(), legal, "{datagram}");
        }
    }
}
