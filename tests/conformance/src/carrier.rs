//! What a transport gives to be tested: what it says of itself, and a place where a gateway listens and services dial.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use router_common::session::{Secret, Secrets};
use router_link::{BoxFuture, BoxListener, Capabilities, Connector, LinkError};

/// A transport under test.
pub trait Carrier: Send + Sync + 'static {
    /// Its name, as its links' `PeerInfo::transport` has it.
    fn name(&self) -> &'static str;

    /// What its links can do.
    fn capabilities(&self) -> Capabilities;

    /// Whether its links do not come about without a shared secret. Default: they do.
    fn needs_secret(&self) -> bool {
        false
    }

    /// Whether its connectors look for gateways that come and go. Then one that does not let a service in is one among others,
    /// and the service goes on looking, where otherwise it would end with what it was told. Default: they dial one gateway.
    fn discovers(&self) -> bool {
        false
    }

    /// Finds a place where nobody else is. Each scenario has one of its own, or several.
    fn place(&self) -> BoxFuture<'_, anyhow::Result<Arc<dyn Place>>>;
}

/// Where one gateway listens, and services dial.
pub trait Place: Send + Sync + 'static {
    /// A gateway's listener. Called again after an earlier one was dropped, it listens in the same place: connectors
    /// that were made before lead to it. `secrets` are those that the gateway's sessions rule by.
    fn listen<'a>(&'a self, secrets: &'a Secrets) -> BoxFuture<'a, Result<BoxListener, LinkError>>;

    /// Leads to that listener. `secret` is the one that the service's sessions prove, under the key id `default`.
    ///
    /// # Errors
    /// There is none, because nothing has listened here yet.
    fn connector(&self, secret: Option<&Secret>) -> Result<Arc<dyn Connector>, LinkError>;

    /// Lets a stranger's bytes reach the listener, as one message or on one connection of their own, and waits until it
    /// has had enough of them, if it can be seen. Default: no stranger can reach it.
    fn intrude<'a>(&'a self, bytes: &'a [u8]) -> Option<BoxFuture<'a, io::Result<()>>> {
        let _ = bytes;
        None
    }
}

/// A transport, to be handed from scenario to scenario.
#[derive(Clone, Copy)]
pub struct Transport(&'static dyn Carrier);

impl Transport {
    #[must_use]
    pub const fn new(carrier: &'static dyn Carrier) -> Self {
        Self(carrier)
    }
}

impl Deref for Transport {
    type Target = dyn Carrier;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
