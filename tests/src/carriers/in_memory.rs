//! In memory: a connector that finds whichever listener was made last.

use std::sync::{Arc, Mutex, PoisonError};

use router_common::session::{Secret, Secrets};
use router_conformance::{Carrier, Place};
use router_link::{BoxFuture, BoxLink, BoxListener, Capabilities, Connector, LinkError};
use transport_in_memory::{InMemory, InMemoryConnector};

pub(super) struct InProcess;

impl Carrier for InProcess {
    fn name(&self) -> &'static str {
        "in-memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::STREAM
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        Box::pin(async { Ok(Arc::new(Room::default()) as Arc<dyn Place>) })
    }
}

#[derive(Default)]
struct Room(Arc<Mutex<Option<InMemoryConnector>>>);

impl Place for Room {
    fn listen<'a>(&'a self, _: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        let (connector, listener) = InMemory::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(connector);
        Box::pin(async { Ok(Box::new(listener) as BoxListener) })
    }

    fn connector(&self, _: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        Ok(Arc::new(Door(Arc::clone(&self.0))))
    }
}

/// Leads to the listener that is in the room when it is dialled.
struct Door(Arc<Mutex<Option<InMemoryConnector>>>);

impl Connector for Door {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        let connector = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let nobody = || LinkError::Target { target: "in-memory:".to_owned(), problem: "nobody listens".to_owned() };
            connector.ok_or_else(nobody)?.connect().await
        })
    }

    fn target(&self) -> &str {
        "in-memory:"
    }
}
