//! TCP: a free port of loopback, and the same again for a gateway that comes back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use router_common::session::{Secret, Secrets};
use router_conformance::client::octets;
use router_conformance::{Carrier, Place};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};
use transport_tcp::{TcpConnector, TcpListener};

pub(super) struct Tcp;

impl Carrier for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        Box::pin(async { Ok(Arc::new(Port::default()) as Arc<dyn Place>) })
    }
}

#[derive(Default)]
struct Port(OnceLock<SocketAddr>);

impl Port {
    fn taken(&self) -> Result<SocketAddr, LinkError> {
        let nothing = || LinkError::Target { target: "tcp://".to_owned(), problem: "nothing listens yet".to_owned() };
        self.0.get().copied().ok_or_else(nothing)
    }
}

impl Place for Port {
    fn listen<'a>(&'a self, _: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        Box::pin(async {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = TcpListener::bind(self.0.get().copied().unwrap_or(any))?;
            self.0.get_or_init(|| listener.local_addr());
            Ok(Box::new(listener) as BoxListener)
        })
    }

    fn connector(&self, _: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        Ok(Arc::new(TcpConnector::new(&format!("tcp://{}", self.taken()?))?))
    }

    fn intrude<'a>(&'a self, bytes: &'a [u8]) -> Option<BoxFuture<'a, io::Result<()>>> {
        let port = self.taken().ok()?;
        Some(Box::pin(async move { octets(port, bytes).await.map(drop) }))
    }
}
