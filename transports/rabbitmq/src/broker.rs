//! Where a broker is, and one connection to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use router_link::LinkError;
use tokio::time::timeout;
use transport_tls::ClientTls;

use crate::EXCHANGE;

/// Dialling one address of a broker, its handshake and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// AMQP heartbeat that is proposed, in seconds, unless the URL names one: a broker that is gone without a word is
/// noticed after twice as long.
const HEARTBEAT: u16 = 10;
/// Addresses of one broker.
const ADDRESSES: usize = 16;
/// Longest name of an exchange, in bytes.
const EXCHANGE_BYTES: usize = 64;
/// What a URL may ask for.
const QUERY: &str = "`exchange`, `heartbeat`, `frame_max`, `channel_max` and `auth_mechanism`";

/// A broker's addresses with the credentials for it, and the exchange to meet at. It never shows the password.
#[derive(Clone)]
pub struct Broker {
    addresses: Vec<AMQPUri>,
    shown: Arc<str>,
    exchange: String,
    tls: ClientTls,
}

impl Broker {
    /// Reads `amqp://user:password@host:port/vhost`, or several of one cluster. Several hosts may also stand in one URL,
    /// with commas between them. `amqps` is over TLS. `?exchange=name` names the announcement exchange.
    ///
    /// # Errors
    /// [`LinkError::Target`], without the password.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self, LinkError> {
        let mut broker = Self {
            addresses: Vec::new(),
            shown: Arc::from(""),
            exchange: EXCHANGE.to_owned(),
            tls: ClientTls::default(),
        };
        let mut shown = Vec::new();
        for url in urls {
            let refuse = |problem: String| LinkError::Target { target: without_credentials(url), problem };
            shown.push(without_credentials(url));
            broker.add(url).map_err(refuse)?;
        }
        broker.shown = shown.join(", ").into();
        if broker.addresses.is_empty() {
            return Err(LinkError::Target { target: String::new(), problem: "no broker is named".to_owned() });
        }
        Ok(broker)
    }

    fn add(&mut self, url: &str) -> Result<(), String> {
        let form = || "write `amqp://user:password@host:5672/vhost`".to_owned();
        let (scheme, rest) = url.split_once("://").ok_or_else(form)?;
        if !matches!(scheme, "amqp" | "amqps") {
            return Err(form());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, format!("/{vhost}")),
            None => (rest, String::new()),
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("exchange", name) => self.set_exchange(name)?,
                ("heartbeat" | "frame_max" | "channel_max" | "auth_mechanism", _) => kept.push(pair),
                (other, _) => return Err(format!("`{other}` is not known here; {QUERY} are")),
            }
        }
        for host in hosts.split(',') {
            if host.is_empty() {
                return Err("the host is missing".to_owned());
            }
            let one = format!("{scheme}://{user}{host}{vhost}?{}", kept.join("&"));
            let mut address: AMQPUri = one.parse()?;
            if let Some((inner, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
                inner.clone_into(&mut address.authority.host);
            }
            address.query.heartbeat.get_or_insert(HEARTBEAT);
            self.addresses.push(address);
        }
        if self.addresses.len() > ADDRESSES {
            return Err(format!("more than {ADDRESSES} addresses of one broker"));
        }
        Ok(())
    }

    /// Names the exchange to meet at.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn set_exchange(&mut self, name: &str) -> Result<(), String> {
        check_exchange(name)?;
        name.clone_into(&mut self.exchange);
        Ok(())
    }

    /// The same with settings for AMQPS. Without a CA the system's are believed. The files are read at each dial.
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    pub(crate) fn exchange(&self) -> &str {
        &self.exchange
    }

    /// Its URLs, without credentials.
    pub(crate) const fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    pub(crate) fn addresses(&self) -> &[AMQPUri] {
        &self.addresses
    }

    /// Dials one of the addresses, as `name`.
    ///
    /// # Errors
    /// For people.
    pub(crate) async fn dial(&self, address: &AMQPUri, name: &str) -> Result<Connection, String> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connecting = async {
            match self.own_tls(address)? {
                None => Connection::connect_uri_with_runtime(address.clone(), properties, runtime).await,
                Some((connector, name)) => {
                    let dialling = async move |address: AMQPUri, runtime| {
                        let AMQPAuthority { host, port, .. } = address.authority;
                        let nobody = || std::io::Error::other(format!("{host} has no address"));
                        let found = tokio::net::lookup_host((host.as_str(), port)).await?.next().ok_or_else(nobody)?;
                        let stream = AsyncTcpStream::connect(&runtime, found).await?;
                        Ok(stream.into_rustls(&connector, &name).await?)
                    };
                    Connection::connector(address.clone(), runtime, dialling, properties).await
                }
            }
            .map_err(|error| error.to_string())
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {CONNECT_TIMEOUT:?}")))
    }

    /// What to speak TLS with, and the name that the broker's certificate must be for; `None`: plain AMQP, or what the
    /// system believes.
    fn own_tls(&self, address: &AMQPUri) -> Result<Option<(RustlsConnector, String)>, String> {
        if address.scheme != AMQPScheme::AMQPS || self.tls.ca.is_none() {
            return Ok(None);
        }
        let mut config = (*self.tls.config().map_err(|error| error.to_string())?).clone();
        // That is for proofs which are bound to the connection. The broker is in between here.
        config.require_ems = false;
        let name = self.tls.server_name.clone().unwrap_or_else(|| address.authority.host.clone());
        Ok(Some((RustlsConnector::from(Arc::new(config)), name)))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({}, exchange {})", self.shown, self.exchange)
    }
}

/// Whether this can be an exchange's name, and the beginning of queues' names.
pub(crate) fn check_exchange(name: &str) -> Result<(), String> {
    let is_sound = (1..=EXCHANGE_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name.starts_with("amq.");
    match is_sound {
        true => Ok(()),
        false => Err(format!(
            "an exchange's name is 1 to {EXCHANGE_BYTES} letters, digits and `.`, `_`, `-`, and does not begin with `amq.`"
        )),
    }
}

/// `scheme://hosts/vhost`.
fn without_credentials(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return "?".to_owned() };
    let (authority, vhost) = rest.split_once('/').map_or((rest, None), |(authority, vhost)| (authority, Some(vhost)));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    match vhost {
        Some(vhost) => format!("{scheme}://{hosts}/{vhost}"),
        None => format!("{scheme}://{hosts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(urls: &[&str]) -> Vec<(String, u16)> {
        let broker = Broker::new(urls.iter().copied()).unwrap();
        broker.addresses.iter().map(|uri| (uri.authority.host.clone(), uri.authority.port)).collect()
    }

    #[test]
    fn a_broker_has_one_address_or_several() {
        assert_eq!(hosts(&["amqp://127.0.0.1"]), [("127.0.0.1".to_owned(), 5672)]);
        assert_eq!(hosts(&["amqp://u:p@[::1]:5673/v"]), [("::1".to_owned(), 5673)]);
        let several = [("a".to_owned(), 1), ("b".to_owned(), 5671), ("c".to_owned(), 5672)];
        assert_eq!(hosts(&["amqps://u:p@a:1,b/%2f", "amqp://c"]), several);
    }

    #[test]
    fn credentials_are_never_shown() {
        let broker = Broker::new(["amqp://guest:hunter2@h:1/v?exchange=other"]).unwrap();
        assert_eq!(format!("{broker:?}"), "Broker(amqp://h:1/v, exchange other)");
        let [address] = broker.addresses() else { panic!("one") };
        assert_eq!((address.authority.userinfo.password.as_str(), address.vhost.as_str()), ("hunter2", "v"));
        for bad in ["amqp://guest:hunter2@h:1/v?tls=1", "http://guest:hunter2@h", "amqp://guest:hunter2@h:x", "hunter2"]
        {
            let error = Broker::new([bad]).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_exchange_is_named_soundly() {
        assert!(Broker::new(["amqp://h?exchange="]).is_err());
        assert!(Broker::new(["amqp://h?exchange=amq.topic"]).is_err());
        assert!(Broker::new(["amqp://h?exchange=a b"]).is_err());
        assert!(Broker::new([]).is_err());
    }
}
