//! Addresses to listen on, and ranges of addresses to trust.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{ScalarError, text_scalar};

const LISTEN_ALLOWED: &str = "an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`";
const RANGE_ALLOWED: &str = "an IP address or a range in CIDR notation, such as `10.1.2.3`, `10.0.0.0/8` or `fd00::/8`";

/// An address and port to listen on. Port 0 lets the system choose one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddr(SocketAddr);

impl ListenAddr {
    /// The address and port as the standard library has them.
    #[must_use]
    pub const fn addr(self) -> SocketAddr {
        self.0
    }

    /// Whether only this machine can reach it: what needs no authentication (SPEC 8).
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self(addr)
    }
}

impl From<ListenAddr> for SocketAddr {
    fn from(addr: ListenAddr) -> Self {
        addr.0
    }
}

impl FromStr for ListenAddr {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        input.parse().map(Self).map_err(|_| {
            let error = ScalarError::found(input, LISTEN_ALLOWED);
            let port = input.rsplit_once(':').map(|(_, port)| port);
            match (input.parse::<IpAddr>(), port) {
                (Ok(IpAddr::V4(ip)), _) => error.help(format!("the port is missing: write `{ip}:8080`")),
                (Ok(IpAddr::V6(ip)), _) => error.help(format!("the port is missing: write `[{ip}]:8080`")),
                (Err(_), Some(port)) if input.starts_with(':') && port.parse::<u16>().is_ok() => {
                    error.help(format!("the address is missing: write `0.0.0.0:{port}` for all interfaces"))
                }
                (Err(_), Some(port)) if input.starts_with("localhost:") => {
                    error.help(format!("a name could mean several addresses: write `127.0.0.1:{port}`"))
                }
                (Err(_), Some(port)) if port.parse::<u32>().is_ok_and(|port| port > 65_535) => {
                    error.help("a port is at most 65535")
                }
                _ => error,
            }
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_scalar!(ListenAddr, allowed: LISTEN_ALLOWED, schema: {
    "type": "string",
    "description": LISTEN_ALLOWED,
    "pattern": "^(\\[[0-9a-fA-F:.%]+\\]|[0-9.]+):[0-9]{1,5}$"
});

/// One address, or all addresses with a common prefix. An IPv4 range also holds its addresses mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpRange {
    base: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// Whether `ip` lies in the range.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            (base, ip) => masked(ip, self.prefix) == masked(base, self.prefix),
        }
    }
}

const fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `prefix` bits of an address; the rest zero.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let drop = u32::from(width(ip).saturating_sub(prefix));
    match ip {
        IpAddr::V4(ip) => {
            IpAddr::V4(ip.to_bits().checked_shr(drop).and_then(|bits| bits.checked_shl(drop)).unwrap_or(0).into())
        }
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(
            ip.to_bits().checked_shr(drop).and_then(|bits| bits.checked_shl(drop)).unwrap_or(0),
        )),
    }
}

impl FromStr for IpRange {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        let refuse = || ScalarError::found(input, RANGE_ALLOWED);
        let (base, prefix) = match input.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (input, None),
        };
        let base: IpAddr = base.parse().map_err(|_| refuse())?;
        let width = width(base);
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or_else(|| refuse().help(format!("the prefix length of this address is 0 to {width}")))?,
        };
        match masked(base, prefix) {
            start if start == base => Ok(Self { base, prefix }),
            start => {
                Err(refuse()
                    .help(format!("the range begins at `{start}/{prefix}`; for the one address write `{base}`")))
            }
        }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == width(self.base) {
            true => self.base.fmt(f),
            false => write!(f, "{}/{}", self.base, self.prefix),
        }
    }
}

text_scalar!(IpRange, allowed: RANGE_ALLOWED, schema: {
    "type": "string",
    "description": RANGE_ALLOWED,
    "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_names_what_is_missing() {
        let help = |text: &str| text.parse::<ListenAddr>().unwrap_err().help.unwrap_or_default();
        assert_eq!(help("127.0.0.1"), "the port is missing: write `127.0.0.1:8080`");
        assert_eq!(help("::1"), "the port is missing: write `[::1]:8080`");
        assert_eq!(help(":8080"), "the address is missing: write `0.0.0.0:8080` for all interfaces");
        assert_eq!(help("localhost:80"), "a name could mean several addresses: write `127.0.0.1:80`");
        assert_eq!(help("127.0.0.1:99999"), "a port is at most 65535");
        assert!("".parse::<ListenAddr>().is_err());
    }

    #[test]
    fn loopback_is_seen_in_every_spelling() {
        let loopback = |text: &str| text.parse::<ListenAddr>().unwrap().is_loopback();
        assert!(
            loopback("127.0.0.1:1")
                && loopback("127.9.9.9:1")
                && loopback("[::1]:1")
                && loopback("[::ffff:127.0.0.1]:1")
        );
        assert!(!loopback("0.0.0.0:1") && !loopback("[::]:1") && !loopback("10.0.0.1:1"));
    }

    #[test]
    fn ranges_hold_what_their_prefix_says() {
        let holds = |range: &str, ip: &str| range.parse::<IpRange>().unwrap().contains(ip.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "fe80::1") && holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe00::1"));
        assert!(holds("192.168.1.7", "192.168.1.7") && !holds("192.168.1.7", "192.168.1.8"));
        assert_eq!("10.0.0.0/8".parse::<IpRange>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("::1".parse::<IpRange>().unwrap().to_string(), "::1");
    }

    #[test]
    fn a_range_that_begins_elsewhere_is_refused() {
        let help = |text: &str| text.parse::<IpRange>().unwrap_err().help.unwrap_or_default();
        assert_eq!(help("10.1.0.0/8"), "the range begins at `10.0.0.0/8`; for the one address write `10.1.0.0`");
        assert_eq!(help("10.0.0.0/33"), "the prefix length of this address is 0 to 32");
        assert!("proxy.example".parse::<IpRange>().is_err());
    }
}
