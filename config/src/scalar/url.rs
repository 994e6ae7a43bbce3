//! The address of a gateway as a service dials it.
//!
//! The scheme names a transport. Which schemes there are is known to the SDK's builder, not here.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::{ScalarError, text_scalar};

const ALLOWED: &str = "the URL of a gateway, such as `tcp://127.0.0.1:5100`";

/// `scheme://authority[/path]`: the scheme says by which transport the gateway is dialled (SPEC 7).
///
/// For `tcp`, `tls` and `udp` a host and a port are required and nothing may follow them. Other schemes are kept as
/// they are. A password in the URL is never shown by `Debug`, `Display` or `Serialize`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GatewayUrl {
    raw: String,
    scheme_len: usize,
}

impl GatewayUrl {
    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.raw[..self.scheme_len]
    }

    /// The whole URL, with a password if it has one: not for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.raw
    }

    /// What lies between `//` and the next `/`, without user and password; `127.0.0.1:5100`, say.
    #[must_use]
    pub fn host_port(&self) -> &str {
        let authority = self.authority();
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    fn authority(&self) -> &str {
        let rest = &self.raw[self.scheme_len + "://".len()..];
        rest.split(['/', '?', '#']).next().unwrap_or(rest)
    }
}

impl FromStr for GatewayUrl {
    type Err = ScalarError;

    fn from_str(input: &str) -> Result<Self, ScalarError> {
        // A URL may hold a password, so what was found is shown without it.
        let refuse = || ScalarError::found(&without_password(input), ALLOWED);
        if input.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
            return Err(refuse().help("a URL has no spaces"));
        }
        let Some((scheme, rest)) = input.split_once("://") else {
            return Err(refuse().help(match input.is_empty() {
                true => "write the transport, `://`, and the gateway's address".to_owned(),
                false => format!(
                    "the scheme, which names the transport, is missing: write `tcp://{}`",
                    without_password(input)
                ),
            }));
        };
        let well_formed = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !well_formed {
            return Err(refuse().help(format!("`{scheme}` is not a scheme")));
        }
        let scheme = scheme.to_ascii_lowercase();
        if let Some(default_port) = default_port(&scheme) {
            check_host_port(rest, default_port).map_err(|help| refuse().help(help))?;
        }
        Ok(Self { raw: format!("{scheme}://{rest}"), scheme_len: scheme.len() })
    }
}

/// The transports whose address is a host and a port, with the port to suggest (SPEC 7).
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "tcp" => Some(5100),
        "tls" => Some(5101),
        "udp" => Some(5102),
        _ => None,
    }
}

fn check_host_port(rest: &str, default_port: u16) -> Result<(), String> {
    if rest.contains(['/', '?', '#']) {
        return Err("nothing may follow the port".to_owned());
    }
    if rest.contains('@') {
        return Err("there is no user here: the gateway is told who you are by `shared_secret`".to_owned());
    }
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port.strip_prefix(':')),
        Some((host, _)) => return Err(format!("`{host}` is not an IPv6 address")),
        None if rest.matches(':').count() > 1 => {
            return Err(format!("write an IPv6 address in brackets: `[::1]:{default_port}`"));
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    match port {
        None | Some("") => Err(format!("the port is missing; gateways usually listen on {default_port}")),
        Some(port) => match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            _ => Err(format!("`{port}` is not a port: ports are 1 to 65535")),
        },
    }
}

/// The URL with `:password@` shown as `:***@`.
pub(crate) fn without_password(url: &str) -> String {
    match password(url) {
        Some(range) => format!("{}***{}", &url[..range.start], &url[range.end..]),
        None => url.to_owned(),
    }
}

/// Where in a URL its password stands.
pub(crate) fn password(url: &str) -> Option<Range<usize>> {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    let at = start + url[start..end].rfind('@')?;
    let colon = start + url[start..at].find(':')?;
    Some(colon + 1..at)
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.raw))
    }
}

impl fmt::Debug for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayUrl({self})")
    }
}

text_scalar!(GatewayUrl, allowed: ALLOWED, schema: {
    "type": "string",
    "description": ALLOWED,
    "pattern": "^[A-Za-z][A-Za-z0-9+.-]*://",
    "examples": ["tcp://127.0.0.1:5100"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_its_scheme_and_address() {
        let url: GatewayUrl = "TCP://gw.example:5100".parse().unwrap();
        assert_eq!((url.scheme(), url.host_port(), url.expose()), ("tcp", "gw.example:5100", "tcp://gw.example:5100"));
        let url: GatewayUrl = "tcp://[::1]:5100".parse().unwrap();
        assert_eq!(url.host_port(), "[::1]:5100");
        let url: GatewayUrl = "amqp://guest:pa:ss@127.0.0.1:5672/%2f".parse().unwrap();
        assert_eq!((url.scheme(), url.host_port()), ("amqp", "127.0.0.1:5672"));
        assert!("in-memory://here".parse::<GatewayUrl>().is_ok());
    }

    #[test]
    fn a_password_is_never_shown() {
        let url: GatewayUrl = "amqp://guest:hunter2@host/%2f".parse().unwrap();
        assert_eq!(url.to_string(), "amqp://guest:***@host/%2f");
        assert_eq!(format!("{url:?}"), "GatewayUrl(amqp://guest:***@host/%2f)");
        let error = "guest:hunter2@host".parse::<GatewayUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let help = |text: &str| text.parse::<GatewayUrl>().unwrap_err().help.unwrap_or_default();
        assert_eq!(
            help("127.0.0.1:5100"),
            "the scheme, which names the transport, is missing: write `tcp://127.0.0.1:5100`"
        );
        assert_eq!(help("tcp://127.0.0.1"), "the port is missing; gateways usually listen on 5100");
        assert_eq!(help("tcp://:5100"), "the host is missing");
        assert_eq!(help("tcp://h:0"), "`0` is not a port: ports are 1 to 65535");
        assert_eq!(help("tcp://h:51000000"), "`51000000` is not a port: ports are 1 to 65535");
        assert_eq!(help("tcp://::1:5100"), "write an IPv6 address in brackets: `[::1]:5100`");
        assert_eq!(help("tcp://h:5100/x"), "nothing may follow the port");
        assert_eq!(help("1://h:5100"), "`1` is not a scheme");
        assert_eq!(help("tcp://a b:1"), "a URL has no spaces");
    }
}
