//! RabbitMQ: an exchange that nobody else meets at, on the broker that the tests are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use router_common::identity::KeyId;
use router_common::session::{Secret, Secrets};
use router_conformance::{Carrier, Place};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};
use transport_rabbitmq::{Broker, RabbitConnector, RabbitListener, RabbitListenerOptions};

pub(super) struct RabbitMq;

impl Carrier for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    /// With the frame size that brokers have by default: 128 KiB.
    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: true, streaming: true, max_frame: RabbitConnector::MAX_FRAME }
    }

    /// A broker leads to as many gateways as meet there.
    fn discovers(&self) -> bool {
        true
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        Box::pin(async {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let url = tokio::task::spawn_blocking(test_broker::shared_url).await??;
            let mut broker = Broker::new([url.as_str()])?;
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let exchange = format!("conformance-{}-{number}", std::process::id());
            broker.set_exchange(&exchange).map_err(anyhow::Error::msg)?;
            Ok(Arc::new(Exchange(broker)) as Arc<dyn Place>)
        })
    }
}

struct Exchange(Broker);

impl Place for Exchange {
    fn listen<'a>(&'a self, secrets: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        Box::pin(async {
            let options = RabbitListenerOptions::new("gateway", secrets.clone());
            Ok(Box::new(RabbitListener::start(self.0.clone(), options)) as BoxListener)
        })
    }

    fn connector(&self, secret: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        let secret = secret.map(|secret| (KeyId::sole(), secret.clone()));
        Ok(Arc::new(RabbitConnector::new(self.0.clone(), secret)))
    }
}
