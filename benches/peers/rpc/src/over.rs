//! The transports of Stella Router, each with two ends on this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_link::{BoxFuture, BoxListener, Connector};
use tempfile::TempDir;
use transport_in_memory::InMemory;
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};
use transport_tcp::{TcpConnector, TcpListener};
use transport_tls::development::DevelopmentCa;
use transport_tls::{ClientTls, Credentials, TlsConnector, TlsListener, TlsListenerSettings};
use transport_udp::{UdpConnector, UdpConnectorSettings, UdpListener};

/// What both ends know where messages are sealed.
const SECRET: &[u8] = b"known to both ends of the bench, and long enough";
/// Bytes of a datagram that holds 16 KiB and a head; loopback carries up to 64 KiB whole. Small messages share none that is
/// larger than what is usual.
const LARGE_DATAGRAM: usize = 20_000;
const DATAGRAM: usize = 1_200;
/// Bodies up to this size are small, bytes.
const SMALL: usize = 512;

/// What carries the frames between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    InMemory,
    Tcp,
    Tls,
    Udp,
    Rabbitmq,
}

/// Listens, within the runtime that accepts.
type Listen = Box<dyn FnOnce() -> BoxFuture<'static, Result<BoxListener>> + Send>;

/// Two ends that find one another.
pub(crate) struct Way {
    pub(crate) listen: Listen,
    pub(crate) connector: Arc<dyn Connector>,
    /// Where messages are sealed.
    pub(crate) secret: Option<Secret>,
    /// Certificates, for as long as they are looked at.
    pub(crate) files: Option<TempDir>,
}

impl Over {
    /// For bodies of this size; `broker` is where RabbitMQ is.
    pub(crate) fn way(self, broker: &str, body: usize) -> Result<Way> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let secret = Secret::new(SECRET)?;
        let (listen, connector, secret, files): (Listen, Arc<dyn Connector>, _, _) = match self {
            Self::InMemory => {
                let (connector, listener) = InMemory::new();
                (listen(async || Ok(Box::new(listener) as BoxListener)), Arc::new(connector), None, None)
            }
            Self::Tcp => {
                let socket = StdTcpListener::bind(loopback)?;
                let connector = TcpConnector::new(&format!("tcp://{}", socket.local_addr()?))?;
                let listen = listen(async || Ok(Box::new(TcpListener::from_std(socket)?) as BoxListener));
                (listen, Arc::new(connector), None, None)
            }
            Self::Tls => {
                let files = tempfile::tempdir()?;
                let ca = DevelopmentCa::new()?;
                let gateway = ca.gateway(&["127.0.0.1"])?;
                let [ca_file, certificate, key] = ["ca.pem", "gateway.pem", "gateway.key"].map(|name| files.path().join(name));
                std::fs::write(&ca_file, ca.certificate())?;
                std::fs::write(&certificate, &gateway.certificate)?;
                std::fs::write(&key, &gateway.key)?;
                let settings = TlsListenerSettings::new(certificate, key);
                let credentials = Credentials::load(&settings)?;
                let socket = StdTcpListener::bind(loopback)?;
                let tls = ClientTls { ca: Some(ca_file), ..ClientTls::default() };
                let connector = TlsConnector::new(&format!("tls://{}", socket.local_addr()?), tls)?;
                let listen = listen(async move || {
                    Ok(Box::new(TlsListener::from_std(socket, &settings, credentials)?) as BoxListener)
                });
                (listen, Arc::new(connector), None, Some(files))
            }
            Self::Udp => {
                let address = UdpSocket::bind(loopback)?.local_addr()?;
                let datagram = if body <= SMALL { DATAGRAM } else { LARGE_DATAGRAM };
                let mut settings = UdpConnectorSettings::default();
                settings.datagram = datagram;
                settings.secret = Some(secret.clone());
                let connector = UdpConnector::new(&format!("udp://{address}"), settings)?;
                let secrets = Secrets::sole(secret.clone());
                let listen = listen(async move || {
                    Ok(Box::new(UdpListener::bind(address, secrets, datagram)?) as BoxListener)
                });
                (listen, Arc::new(connector), Some(secret), None)
            }
            Self::Rabbitmq => {
                let mut broker = Broker::new([broker])?;
                broker.set_exchange(&format!("bench-{}", std::process::id())).map_err(|text| anyhow!(text))?;
                let connector = RabbitConnector::new(broker.clone(), Some((KeyId::sole(), secret.clone())));
                let options = RabbitListenerOptions::new("bench", Secrets::sole(secret.clone()));
                let listen = listen(async || Ok(Box::new(RabbitListener::start(broker, options)) as BoxListener));
                (listen, Arc::new(connector), Some(secret), None)
            }
        };
        Ok(Way { listen, connector, secret, files })
    }
}

fn listen<F, L>(listen: L) -> Listen
where
    L: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<BoxListener>> + Send + 'static,
{
    Box::new(move || Box::pin(listen()))
}
