//! The `transports.tcp` section of `router.yaml`.

use router_config::{Checks, ListenAddr, ListenerSafety, SharedSecrets, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Default port of the TCP transport.
const PORT: u16 = 5100;

/// Where services reach a gateway over TCP, and what they must know (SPEC 7, 8, 10).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TcpListenerSettings {
    /// Default 127.0.0.1:5100.
    pub listen: ListenAddr,
    /// What services prove to know; absent: nothing, which is only allowed on loopback.
    pub shared_secret: Option<SharedSecrets>,
    /// Listen beyond loopback without a secret: whoever connects may register any service.
    pub insecure: bool,
}

impl Default for TcpListenerSettings {
    fn default() -> Self {
        let loopback = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, PORT));
        Self { listen: loopback.into(), shared_secret: None, insecure: false }
    }
}

impl Validate for TcpListenerSettings {
    fn validate(&self, checks: &mut Checks) {
        let safety = ListenerSafety {
            listen: self.listen,
            authenticated: self.shared_secret.is_some(),
            insecure: self.insecure,
        };
        checks.take(safety.check("listen"));
    }
}
