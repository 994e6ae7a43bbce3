//! The contract of every transport, over a real broker.

use std::sync::atomic::{AtomicU32, Ordering};

use router_common::session::Secrets;
use router_link::testing::Ends;
use router_link::{Connector, Listener};
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};

/// A broker's address with an exchange that nobody else meets at.
fn meeting_place() -> Broker {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let url = test_broker::shared_url().expect("a broker");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut broker = Broker::new([url.as_str()]).expect("an address");
    broker.set_exchange(&format!("contract-{}-{number}", std::process::id())).expect("a name");
    broker
}

async fn ends() -> Ends {
    let broker = meeting_place();
    let mut listener = RabbitListener::start(broker.clone(), RabbitListenerOptions::new("gateway", Secrets::none()));
    let connector = RabbitConnector::new(broker, None);
    let listener: &mut dyn Listener = &mut listener;
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    Ends { service: service.expect("connected"), gateway: gateway.expect("accepted") }
}

router_link::contract!(ends);
