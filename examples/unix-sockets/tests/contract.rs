//! The contract of links.

use router_link::testing::Ends;
use router_link::{Connector as _, Listener};
use unix_sockets::{UnixConnector, UnixListener};

async fn ends() -> Ends {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let mut listener: Box<dyn Listener> = Box::new(UnixListener::bind(&path).unwrap());
    let connector = UnixConnector::new(listener.local()).unwrap();
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    Ends { service: service.unwrap(), gateway: gateway.unwrap() }
}

router_link::contract!(ends);
