//! The contract of every transport, over TCP on loopback.

use router_link::testing::Ends;
use router_link::{Connector, Listener};
use transport_tcp::{TcpConnector, TcpListener};

async fn ends() -> Ends {
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let connector = TcpConnector::new(listener.local()).expect("a target");
    let listener: &mut dyn Listener = &mut listener;
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    Ends { service: service.expect("connected"), gateway: gateway.expect("accepted") }
}

router_link::contract!(ends);
