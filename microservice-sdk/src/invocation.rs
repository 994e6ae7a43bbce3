//! What extractors know beside the request itself: the endpoint it was matched to, and what its service works with.
//!
//! It knows neither handlers nor how an endpoint is found.

use std::fmt;
use std::sync::{Arc, OnceLock};

use router_common::endpoint::EndpointDescriptor;
use router_link::{Environment, RequestContext};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::health::Health;
use crate::pace::Gate;

/// An extension of every request that reaches a handler.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) endpoint: Arc<EndpointDescriptor>,
    pub(crate) context: RequestContext,
}

/// What all handlers of a service share.
pub(crate) struct Surroundings {
    pub(crate) environment: Arc<dyn Environment>,
    /// Set when the service starts.
    pub(crate) client: OnceLock<Client>,
    /// Likewise; or made when it is first asked for, where there is no gateway.
    pub(crate) health: OnceLock<Health>,
    /// The service drains, and opens nothing more.
    pub(crate) draining: CancellationToken,
    /// Through which the slow handlers go.
    pub(crate) gate: Gate,
}

impl Invocation {
    /// Largest body that is collected into memory where the endpoint says nothing: 16 MiB (SPEC 6).
    pub(crate) const DEFAULT_BODY_LIMIT: u64 = 16 * 1024 * 1024;

    pub(crate) fn body_limit(&self) -> u64 {
        self.endpoint.max_request_bytes.unwrap_or(Self::DEFAULT_BODY_LIMIT)
    }

    pub(crate) fn environment(&self) -> &Arc<dyn Environment> {
        &self.surroundings.environment
    }

    /// The way to other services; none while the service is asked without a gateway.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.surroundings.client.get()
    }
}

impl Surroundings {
    pub(crate) fn new(environment: Arc<dyn Environment>) -> Arc<Self> {
        let (client, health) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { environment, client, health, draining: CancellationToken::new(), gate: Gate::default() })
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("connected", &self.client.get().is_some()).finish_non_exhaustive()
    }
}
