//! From a gateway's URL to the connector of its transport: the only file of the SDK that names transports.

use std::sync::Arc;

use router_common::identity::KeyId;
use router_common::session::Secret;
use router_link::Connector;

/// The URL schemes of the transports that were compiled in.
const SCHEMES: &[&str] = &[
    #[cfg(feature = "tcp")]
    "tcp",
    #[cfg(feature = "rabbitmq")]
    "amqp",
    #[cfg(feature = "rabbitmq")]
    "amqps",
];

/// What a transport may have to know of a gateway beside its URL.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// The shared secret and its id: some transports protect each message with it.
    pub(crate) secret: Option<(KeyId, Secret)>,
}

/// The connector for a URL.
///
/// # Errors
/// What is wrong with the URL, for people.
pub(crate) fn connector(url: &str, access: &Access) -> Result<Arc<dyn Connector>, String> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    // Some transports have no use for it.
    let _ = access;
    match scheme {
        #[cfg(feature = "tcp")]
        "tcp" => match transport_tcp::TcpConnector::new(url) {
            Ok(connector) => Ok(Arc::new(connector)),
            Err(error) => Err(error.to_string()),
        },
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => match transport_rabbitmq::Broker::new([url]) {
            Ok(broker) => Ok(Arc::new(transport_rabbitmq::RabbitConnector::new(broker, access.secret.clone()))),
            Err(error) => Err(error.to_string()),
        },
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
}
