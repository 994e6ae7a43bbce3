//! The contract of every transport, over the in-memory one.

use router_link::testing::Ends;
use router_link::{Connector, Listener};
use transport_in_memory::InMemory;

async fn ends() -> Ends {
    let (connector, mut listener) = InMemory::new();
    let service = connector.connect().await.expect("the listener is there");
    let listener: &mut dyn Listener = &mut listener;
    Ends { service, gateway: listener.accept().await.expect("one was dialled") }
}

router_link::contract!(ends);
