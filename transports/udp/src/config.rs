//! The `transports.udp` section of `router.yaml`.

use router_config::{ByteSize, Checks, ListenAddr, Refusal, SharedSecrets, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packet::{DATAGRAM_BYTES, DATAGRAM_BYTES_MAX};

/// Default port of the UDP transport.
const PORT: u16 = 5102;

/// Where services reach a gateway over UDP, and what they must know (SPEC 7, 8, 10).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UdpListenerSettings {
    /// Default 127.0.0.1:5102.
    pub listen: ListenAddr,
    /// What services prove to know, and what protects every datagram. It is required, but on loopback with `insecure`.
    pub shared_secret: Option<SharedSecrets>,
    /// The largest datagram that the gateway sends: 1200 to 65507 bytes. Default 1200. A request that does not fit is
    /// answered 413.
    pub datagram: ByteSize,
    /// Do without a secret, on loopback only: whoever knows the port may register any service.
    pub insecure: bool,
}

impl Default for UdpListenerSettings {
    fn default() -> Self {
        let loopback = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, PORT));
        let datagram = ByteSize::bytes(DATAGRAM_BYTES as u64);
        Self { listen: loopback.into(), shared_secret: None, datagram, insecure: false }
    }
}

impl Validate for UdpListenerSettings {
    fn validate(&self, checks: &mut Checks) {
        if let Err(problem) = check_datagram(self.datagram) {
            checks.refuse("datagram", problem).allowed(allowed());
        }
        checks.take(self.check_safety());
    }
}

impl UdpListenerSettings {
    fn check_safety(&self) -> Result<(), Refusal> {
        if self.shared_secret.is_some() || (self.insecure && self.listen.is_loopback()) {
            return Ok(());
        }
        let mut refusal;
        if self.listen.is_loopback() {
            refusal = Refusal::new("shared_secret", "without a secret, anybody can say anything in a service's name");
            refusal.help("add `shared_secret: env:NAME`");
            refusal.help("to try it on this machine alone, say `insecure: true`");
        } else {
            let found = format!("`{}` can be reached from other machines, and there is no secret", self.listen);
            refusal = Refusal::new("listen", found);
            refusal.help("add `shared_secret: env:NAME`; over UDP, `insecure: true` is for loopback only");
        }
        Err(refusal)
    }
}

/// Whether datagrams may be that large.
///
/// # Errors
/// What is wrong with it.
pub fn check_datagram(size: ByteSize) -> Result<usize, String> {
    match size.as_usize() {
        bytes @ DATAGRAM_BYTES..=DATAGRAM_BYTES_MAX => Ok(bytes),
        bytes => Err(format!("found {bytes} bytes")),
    }
}

/// The sizes that a datagram may have, for people.
fn allowed() -> String {
    format!("{DATAGRAM_BYTES} to {DATAGRAM_BYTES_MAX} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_secret_it_listens_on_loopback_only_and_only_if_that_is_meant() {
        let refused = |address: &str, secret: bool, insecure| {
            let shared_secret = secret.then(|| SharedSecrets::sole("env:NAME".into()));
            let listen = address.parse().unwrap();
            let settings = UdpListenerSettings { listen, shared_secret, insecure, ..UdpListenerSettings::default() };
            settings.check_safety().err().map(|refusal| refusal.key())
        };
        assert_eq!(refused("0.0.0.0:5102", true, false), None);
        assert_eq!(refused("127.0.0.1:5102", false, true), None);
        assert_eq!(refused("127.0.0.1:5102", false, false).as_deref(), Some("shared_secret"));
        assert_eq!(refused("0.0.0.0:5102", false, true).as_deref(), Some("listen"));
    }

    #[test]
    fn datagrams_have_a_size_that_udp_can_carry() {
        for (bytes, legal) in [(1199, false), (1200, true), (65_507, true), (65_508, false)] {
            assert_eq!(check_datagram(ByteSize::bytes(bytes)).is_ok(), legal, "{bytes}");
        }
    }
}
