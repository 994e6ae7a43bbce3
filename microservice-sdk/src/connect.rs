//! From a gateway's URL to the connector of its transport: the only file of the SDK that names transports.

use std::path::PathBuf;
use std::sync::Arc;

use router_common::identity::KeyId;
use router_common::session::Secret;
use router_common::token::Token;
use router_link::Connector;

/// The URL schemes of the transports that were compiled in.
const SCHEMES: &[&str] = &[
    #[cfg(feature = "tcp")]
    "tcp",
    #[cfg(feature = "rabbitmq")]
    "amqp",
    #[cfg(feature = "rabbitmq")]
    "amqps",
    #[cfg(feature = "tls")]
    "tls",
    #[cfg(feature = "udp")]
    "udp",
];

/// What a transport may have to know of a gateway beside its URL.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// The shared secret and its id: some transports protect each message with it.
    pub(crate) secret: Option<(KeyId, Secret)>,
    /// Shown in place of a secret, over TLS alone.
    pub(crate) token: Option<Token>,
    pub(crate) tls: TlsAccess,
    /// The largest datagram to send, in bytes, over UDP alone.
    pub(crate) datagram: Option<usize>,
}

/// What a service shows and believes in TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsAccess {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

impl TlsAccess {
    /// The first thing that is said of TLS.
    fn first(&self) -> Option<&'static str> {
        let said = [
            ("ca", self.ca.is_some()),
            ("certificate", self.certificate.is_some() || self.key.is_some()),
            ("server_name", self.server_name.is_some()),
        ];
        said.into_iter().find_map(|(name, is_there)| is_there.then_some(name))
    }
}

/// The connector for a URL.
///
/// # Errors
/// What is wrong with the URL, for people.
pub(crate) fn connector(url: &str, access: &Access) -> Result<Arc<dyn Connector>, String> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if access.token.is_some() && scheme != "tls" {
        return Err("a token is shown over TLS alone: dial `tls://`, or use a shared secret".to_owned());
    }
    if let (Some(said), "tcp" | "udp" | "amqp") = (access.tls.first(), scheme) {
        return Err(format!("`{said}` is about TLS, and over `{scheme}://` there is none: dial `tls://`"));
    }
    if access.datagram.is_some() && scheme != "udp" {
        return Err(format!("`datagram` is about UDP, and not about `{scheme}://`"));
    }
    match scheme {
        #[cfg(feature = "tcp")]
        "tcp" => match transport_tcp::TcpConnector::new(url) {
            Ok(connector) => Ok(Arc::new(connector)),
            Err(error) => Err(error.to_string()),
        },
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => match transport_rabbitmq::Broker::new([url]) {
            Ok(broker) => {
                let TlsAccess { ca, certificate, key, server_name } = access.tls.clone();
                let broker = broker.with_tls(transport_rabbitmq::ClientTls { ca, certificate, key, server_name });
                Ok(Arc::new(transport_rabbitmq::RabbitConnector::new(broker, access.secret.clone())))
            }
            Err(error) => Err(error.to_string()),
        },
        #[cfg(feature = "tls")]
        "tls" => {
            let TlsAccess { ca, certificate, key, server_name } = access.tls.clone();
            let tls = transport_tls::ClientTls { ca, certificate, key, server_name };
            match transport_tls::TlsConnector::new(url, tls) {
                Ok(connector) => Ok(Arc::new(connector)),
                Err(router_link::LinkError::Target { problem, .. }) => Err(problem),
                Err(error) => Err(error.to_string()),
            }
        }
        #[cfg(feature = "udp")]
        "udp" => {
            let mut settings = transport_udp::UdpConnectorSettings::default();
            settings.secret = access.secret.as_ref().map(|(_, secret)| secret.clone());
            settings.datagram = access.datagram.unwrap_or(settings.datagram);
            match transport_udp::UdpConnector::new(url, settings) {
                Ok(connector) => Ok(Arc::new(connector)),
                Err(router_link::LinkError::Target { problem, .. }) => Err(problem),
                Err(error) => Err(error.to_string()),
            }
        }
        "" => Err("a gateway is named by a URL, as in `tcp://127.0.0.1:5100`".to_owned()),
        unknown => Err(format!(
            "no transport for `{unknown}://` was compiled in; there are: {}",
            if SCHEMES.is_empty() { "none".to_owned() } else { SCHEMES.join(", ") }
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, connector};

    #[test]
    fn unknown_schemes_are_told_with_what_there_is() {
        let told = |url| connector(url, &Access::default()).err().unwrap_or_default();
        assert!(told("carrier-pigeon://x").contains("no transport for `carrier-pigeon://`"));
        assert!(told("127.0.0.1:5100").contains("named by a URL"));
        #[cfg(feature = "tcp")]
        assert!(connector("tcp://127.0.0.1:5100", &Access::default()).is_ok());
    }

    #[test]
    fn a_datagrams_size_is_for_udp_and_within_its_bounds() {
        let told = |url, datagram| {
            let access = Access { datagram: Some(datagram), ..Access::default() };
            connector(url, &access).err().unwrap_or_default()
        };
        assert!(told("tcp://127.0.0.1:5100", 1200).contains("`datagram` is about UDP"));
        #[cfg(feature = "udp")]
        {
            assert_eq!(told("udp://127.0.0.1:5102", 65_507), "");
            assert_eq!(told("udp://127.0.0.1:5102", 100), "a datagram has 1200 to 65507 bytes");
        }
    }
}
