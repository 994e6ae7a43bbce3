//! In memory, as bad as a carrier may be that is still honest: small frames, in any order, and some of them lost.

use std::sync::{Arc, Mutex, PoisonError};

use router_common::session::{Secret, Secrets};
use router_conformance::{Carrier, Place};
use router_link::testing::Scattering;
use router_link::testing::scattering::ScatteringConnector;
use router_link::{BoxFuture, BoxLink, BoxListener, Capabilities, Connector, LinkError};

pub(super) struct Scattered {
    pub(super) name: &'static str,
    pub(super) scattering: Scattering,
}

impl Carrier for Scattered {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.scattering.capabilities()
    }

    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>> {
        let room = Room { scattering: self.scattering, door: Door::default() };
        Box::pin(async { Ok(Arc::new(room) as Arc<dyn Place>) })
    }
}

struct Room {
    scattering: Scattering,
    door: Door,
}

impl Place for Room {
    fn listen<'a>(&'a self, _: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>> {
        let (connector, listener) = self.scattering.transport();
        *self.door.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(connector);
        Box::pin(async { Ok(Box::new(listener) as BoxListener) })
    }

    fn connector(&self, _: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError> {
        Ok(Arc::new(self.door.clone()))
    }
}

/// Leads to the listener that was made last.
#[derive(Clone, Default)]
struct Door(Arc<Mutex<Option<ScatteringConnector>>>);

impl Connector for Door {
    fn connect(&self) -> BoxFuture<'_, Result<BoxLink, LinkError>> {
        let connector = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let nobody =
                || LinkError::Target { target: "scattering:".to_owned(), problem: "nobody listens".to_owned() };
            connector.ok_or_else(nobody)?.connect().await
        })
    }

    fn target(&self) -> &str {
        "scattering:"
    }
}
