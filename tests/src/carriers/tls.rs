//! TLS: a free port of loopback, with a CA, a gateway's certificate and a service's of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use router_common::session::{Secret, Secrets};
use router_conformance::client::octets;
use router_conformance::{Carrier, Place};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};
use tempfile::TempDir;
use transport_tls::development::DevelopmentCa;
use transport_tls::{ClientTls, TlsConnector, TlsListener, TlsListenerSettings};

pub(super) struct Tls;

impl Carrier for Tls {
    fn name(&self) -> &'static str {
        "tls"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        Box::pin(async { Ok(Arc::new(Port::new().context("certificates")?) as Arc<dyn Place>) })
    }
}

struct Port {
    files: TempDir,
    address: OnceLock<SocketAddr>,
}

impl Port {
    fn new() -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let ca = DevelopmentCa::new()?;
        let gateway = ca.gateway(&["127.0.0.1"])?;
        for (name, pem) in [
            ("ca.pem", ca.certificate()),
            ("gateway.pem", gateway.certificate.as_str()),
            ("gateway.key", gateway.key.as_str()),
        ] {
            std::fs::write(files.path().join(name), pem)?;
        }
        Ok(Self { files, address: OnceLock::new() })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

impl Place for Port {
    fn listen<'a>(&'a self, _: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        Box::pin(async {
            let mut settings = TlsListenerSettings::new(self.file("gateway.pem"), self.file("gateway.key"));
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            settings.listen = self.address.get().copied().unwrap_or(any).into();
            let listener = TlsListener::bind(&settings)?;
            self.address.get_or_init(|| listener.local_addr());
            Ok(Box::new(listener) as BoxListener)
        })
    }

    fn connector(&self, _: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        let nothing = || LinkError::Target { target: "tls://".to_owned(), problem: "nothing listens yet".to_owned() };
        let address = self.address.get().ok_or_else(nothing)?;
        let tls = ClientTls { ca: Some(self.file("ca.pem")), ..ClientTls::default() };
        Ok(Arc::new(TlsConnector::new(&format!("tls://{address}"), tls)?))
    }

    fn intrude<'a>(&'a self, bytes: &'a [u8]) -> Option<BoxFuture<'a, io::Result<()>>> {
        let address = *self.address.get()?;
        Some(Box::pin(async move { octets(address, bytes).await.map(drop) }))
    }
}
