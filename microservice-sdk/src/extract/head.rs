//! What the head and the router say of a request: method, URI, headers, deadline, claims, endpoint.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::Authority;
use http::{HeaderMap, Method, Uri};
use router_common::endpoint::EndpointDescriptor;
use router_common::head::Scheme;
use router_link::{Cancellation, Environment, RequestContext};

use super::{FromRequestParts, Parts};
use crate::client::Client;
use crate::draining::Draining;
use crate::error::Problem;
use crate::health::Health;
use crate::invocation::Invocation;
use crate::trace::TraceContext;

impl<S: Send + Sync> FromRequestParts<S> for HeaderMap {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.headers.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Method {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.method.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Uri {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.uri.clone())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parts {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.clone())
    }
}

/// Whether anybody still waits for the answer; for handlers of `detached` endpoints, which are not dropped then.
impl<S: Send + Sync> FromRequestParts<S> for Cancellation {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let invocation = parts.extensions.get::<Invocation>();
        Ok(invocation.map(|invocation| invocation.context.cancellation().clone()).unwrap_or_default())
    }
}

/// When the answer is no longer wanted (SPEC 6). The handler is dropped then, unless its endpoint is `detached`.
#[derive(Clone)]
pub struct Deadline {
    at: Option<Instant>,
    environment: Arc<dyn Environment>,
}

impl Deadline {
    /// The instant, by the service's clock; `None`: there is no deadline.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// The time that is left, zero when it has passed; `None`: there is no deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(self.environment.now()))
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.remaining().is_some_and(|remaining| remaining.is_zero())
    }
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Deadline").field(&self.remaining()).finish()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let invocation = invocation(parts)?;
        Ok(Self { at: invocation.context.deadline, environment: Arc::clone(invocation.environment()) })
    }
}

/// The claims the caller holds, as the gateway verified them (SPEC 9). Empty where the request has no credentials.
#[derive(Debug, Clone, Default)]
pub struct Claims(RequestContext);

impl Claims {
    /// The first value of a claim type.
    #[must_use]
    pub fn value(&self, kind: &str) -> Option<&str> {
        self.iter().find(|(held, _)| *held == kind).map(|(_, value)| value)
    }

    /// All values of a claim type.
    pub fn values<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(held, _)| *held == kind).map(|(_, value)| value)
    }

    /// Whether the caller holds this value of this type.
    #[must_use]
    pub fn has(&self, kind: &str, value: &str) -> bool {
        self.values(kind).any(|held| held == value)
    }

    /// All claims, as (type, value).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.claims().iter().map(|claim| (claim.kind.as_str(), claim.value.as_str()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Claims {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let invocation = parts.extensions.get::<Invocation>();
        Ok(Self(invocation.map(|invocation| invocation.context.clone()).unwrap_or_default()))
    }
}

/// The endpoint that was matched, and how the request came.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    invocation: Invocation,
}

impl RequestInfo {
    /// The endpoint as it was registered, overrides of microservice.yaml applied.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointDescriptor {
        &self.invocation.endpoint
    }

    /// The client's address, as the gateway saw it.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.invocation.context.client
    }

    /// Whether the client came over http or https.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.invocation.context.scheme
    }

    /// The host the client asked for.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.invocation.context.authority.as_ref()
    }

    /// Routers and services the request has been through.
    #[must_use]
    pub fn hops(&self) -> u8 {
        self.invocation.context.hops
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self { invocation: invocation(parts)?.clone() })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TraceContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The way to other services, within this request: its calls get what is left of the request's time, and carry its trace
/// context.
impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let invocation = invocation(parts)?;
        let Some(client) = invocation.client() else {
            return Err(Problem::misuse("`Client` needs a service that is connected, and this one is asked directly"));
        };
        Ok(client.within(invocation.context.deadline, TraceContext::of(&parts.headers)))
    }
}

/// The health of the service whose endpoint this is; of one that is asked without a gateway, of which nobody is told.
impl<S: Send + Sync> FromRequestParts<S> for Health {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let invocation = parts.extensions.get::<Invocation>();
        Ok(invocation.map_or_else(Self::of_nobody, |of| of.surroundings.health.get_or_init(Self::of_nobody).clone()))
    }
}

/// Whether the service drains; never so in one that is asked without a gateway.
impl<S: Send + Sync> FromRequestParts<S> for Draining {
    type Rejection = Infallible;
    const FIELDS: bool = false;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let invocation = parts.extensions.get::<Invocation>();
        Ok(Self::new(invocation.map(|invocation| invocation.surroundings.draining.clone()).unwrap_or_default()))
    }
}

fn invocation(parts: &Parts) -> Result<&Invocation, Problem> {
    parts
        .extensions
        .get::<Invocation>()
        .ok_or_else(|| Problem::misuse("an extractor was used on a request that no endpoint matched"))
}
