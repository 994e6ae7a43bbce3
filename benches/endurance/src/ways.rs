//! Ways: what a stand's gateway and services reach one another over, and how each is told.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::{Context as _, Result};

use crate::ask::Ask;

/// What both ends know, where the transport asks for it.
const SECRET: &str = "a secret of both ends of a trial, 32 bytes or more";
/// Below those that Linux gives to clients (32768 and above): whoever dials a port again and again while nobody listens
/// there would otherwise be given that very port, sooner or later.
const PORTS: Range<u16> = 10_000..32_000;
/// Ports that are tried for one that is free.
const TRIED: usize = 1_000;
/// Where a stand's certificates are, in its folder.
pub(crate) const CERTIFICATES: &str = "certs";
/// As whom the services register.
pub(crate) const SERVICE: &str = "bench";
/// Endpoints with a number, for asking what an answer can be told by where bodies are not echoed.
const NUMBERED: u64 = 16;

/// A transport, or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Over {
    Tcp,
    /// With certificates of both ends.
    Tls,
    /// Small calls only.
    Udp,
    /// By a RabbitMQ broker: the one that AMQP_URL names, else one of the trial's own.
    Amqp,
    /// TCP, and RabbitMQ beside it.
    Several,
}

impl Over {
    /// Starts a broker, if need be.
    ///
    /// # Errors
    /// When there is no free port, or no broker.
    pub(crate) async fn ways(self) -> Result<Ways> {
        let broker = async || Ok::<_, anyhow::Error>(tokio::task::spawn_blocking(test_broker::shared_url).await??);
        match self {
            Self::Tcp => Ways::tcp(),
            Self::Tls => Ok(Ways::tls(free_address()?)),
            Self::Udp => Ways::udp(),
            Self::Amqp => Ok(Ways::amqp(&[broker().await?])),
            Self::Several => Ok(Ways::several(free_address()?, &broker().await?)),
        }
    }

    /// What a client asks of services that are reached so.
    pub(crate) const fn ask(self) -> fn(u64, u64) -> Ask {
        match self {
            Self::Udp => |number, turn| match (number + turn) % 4 {
                0 => Ask::Once(5),
                1 => Ask::Hello,
                _ => Ask::Numbered((number * 7 + turn) % NUMBERED),
            },
            _ => Ask::mixed,
        }
    }
}

/// What `router.yaml` says of transports, and what a service is told to come by them.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    transports: String,
    dial: Vec<String>,
}

impl Ways {
    /// TCP on a port of its own.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) fn tcp() -> Result<Self> {
        let listen = free_address()?;
        let dial = words(&["--gateway", &format!("tcp://{listen}")]);
        Ok(Self { transports: format!("tcp: {{ listen: \"{listen}\" }}"), dial })
    }

    /// TLS, with the certificates that the stand has under [`CERTIFICATES`], on both sides.
    pub(crate) fn tls(listen: SocketAddr) -> Self {
        let file = |name: &str| format!("\"{{folder}}/{CERTIFICATES}/{name}\"");
        let transports = format!(
            "tls: {{ listen: \"{listen}\", certificate: {}, key: {}, client_ca: {}, client_certificate: required }}",
            file("gateway.pem"),
            file("gateway.key"),
            file("ca.pem")
        );
        Self { transports, dial: dial_tls(listen, CERTIFICATES, CERTIFICATES) }
    }

    /// UDP on a port of its own. Endpoints that stream are refused, and the others are served.
    fn udp() -> Result<Self> {
        let listen = free_address()?;
        let transports = format!("udp: {{ listen: \"{listen}\", shared_secret: \"{SECRET}\" }}");
        let (url, numbered) = (format!("udp://{listen}"), NUMBERED.to_string());
        let dial = ["--gateway", &url, "--secret", SECRET, "--on-refused", "warn", "--endpoints", &numbered];
        Ok(Self { transports, dial: words(&dial) })
    }

    /// A broker at one or several addresses, the first of them first.
    pub(crate) fn amqp(urls: &[String]) -> Self {
        let mut dial = words(&["--secret", SECRET]);
        dial.extend(urls.iter().take(1).flat_map(|first| {
            // A service dials every `--gateway`; further addresses of one broker stand in its URL.
            ["--gateway".to_owned(), several_hosts(first, urls)]
        }));
        let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
        let transports = format!("rabbitmq: {{ url: [{}], shared_secret: \"{SECRET}\" }}", urls.join(", "));
        Self { transports, dial }
    }

    fn several(tcp: SocketAddr, broker: &str) -> Self {
        let transports = format!(
            "tcp: {{ listen: \"{tcp}\", shared_secret: \"{SECRET}\" }}, \
             rabbitmq: {{ url: \"{broker}\", shared_secret: \"{SECRET}\" }}"
        );
        let dial = words(&["--secret", SECRET, "--gateway", &format!("tcp://{tcp}"), "--gateway", broker]);
        Self { transports, dial }
    }

    /// The line of `router.yaml`.
    pub(crate) fn yaml(&self) -> String {
        format!("transports: {{ {} }}\n", self.transports)
    }

    /// Arguments of the service's program.
    pub(crate) fn dial(&self) -> &[String] {
        &self.dial
    }
}

/// Arguments of a service that comes over TLS, believes the CA in one folder, and shows what is in another.
pub(crate) fn dial_tls(listen: SocketAddr, ca: &str, own: &str) -> Vec<String> {
    let url = format!("tls://{listen}");
    let (ca, certificate, key) =
        (format!("{ca}/ca.pem"), format!("{own}/{SERVICE}.pem"), format!("{own}/{SERVICE}.key"));
    words(&["--gateway", &url, "--ca", &ca, "--certificate", &certificate, "--key", &key])
}

/// The first URL with the hosts of all: `amqp://user:password@one:5672,two:5672/%2f`.
fn several_hosts(first: &str, all: &[String]) -> String {
    let hosts = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest).to_owned()
    };
    let own = hosts(first);
    first.replacen(&own, &all.iter().map(|url| hosts(url)).collect::<Vec<_>>().join(","), 1)
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}

/// A loopback address with a free port.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let [address] = free_addresses()?;
    Ok(address)
}

/// Loopback addresses with free ports, all different.
///
/// # Errors
/// When there are none.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::with_capacity(N);
    for address in &mut addresses {
        let free = (0..TRIED).find_map(|_| {
            let tried = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS)));
            Some((tried, TcpListener::bind(tried).ok()?, UdpSocket::bind(tried).ok()?))
        });
        let (found, tcp, udp) = free.context("no free port on 127.0.0.1")?;
        *address = found;
        held.push((tcp, udp));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_nodes_of_a_broker_stand_in_one_url() {
        let urls = ["amqp://guest:guest@127.0.0.1:1/%2f".to_owned(), "amqp://guest:guest@127.0.0.1:2/%2f".to_owned()];
        let ways = Ways::amqp(&urls);
        assert_eq!(ways.dial().last().map(String::as_str), Some("amqp://guest:guest@127.0.0.1:1,127.0.0.1:2/%2f"));
        assert!(ways.yaml().contains("url: [\"amqp://guest:guest@127.0.0.1:1/%2f\", \"amqp://"), "{}", ways.yaml());
        assert_eq!(several_hosts(&urls[0], &urls[..1]), urls[0]);
    }

    #[test]
    fn free_addresses_differ() {
        let addresses = free_addresses::<8>().unwrap();
        let ports: std::collections::BTreeSet<_> = addresses.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 8);
    }
}
