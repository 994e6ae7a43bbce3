//! What a service is given to serve: lists of endpoints with their handlers, and endpoints described at run time.
//!
//! Nothing here has an id or is checked against others: that is the service's.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use router_common::endpoint::{ClaimRequirement, EndpointDescriptor, EndpointId, PathTemplate, TemplateError};

use crate::handler::{AnyHandler, Handler};
use crate::macros::Definition;

/// Endpoints of a state `S`: what `endpoints![..]` makes, and what a module of endpoints can return.
#[derive(Debug)]
pub struct Endpoints<S = ()> {
    pub(crate) listed: Vec<Listed<S>>,
}

#[derive(Debug)]
pub(crate) struct Listed<S> {
    pub(crate) route: Route,
    pub(crate) handler: AnyHandler<S>,
}

impl<S: Send + Sync + 'static> Endpoints<S> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { listed: Vec::new() }
    }

    /// One more, described by `#[endpoint(..)]`.
    #[doc(hidden)]
    #[must_use]
    pub fn with<M: 'static, H: Handler<M, S>>(self, definition: Definition, handler: H) -> Self {
        self.route(Route::from_definition(definition), handler)
    }

    /// One more, described at run time.
    #[must_use]
    pub fn route<M: 'static, H: Handler<M, S>>(mut self, route: Route, handler: H) -> Self {
        self.listed.push(Listed { route, handler: AnyHandler::new(handler) });
        self
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.listed.extend(others.listed);
        self
    }
}

impl<S: Send + Sync + 'static> Default for Endpoints<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// A value whose methods are endpoints: what `#[service]` makes of an impl block.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "its methods are no endpoints",
    note = "put `#[service]` on an impl block of `{Self}`, and `#[endpoint(..)]` on methods in it"
)]
pub trait Handlers: Send + Sync + 'static {
    /// Its endpoints; they share the value.
    fn endpoints(self: Arc<Self>) -> Endpoints;
}

/// An endpoint described at run time, for what `#[endpoint(..)]` cannot know when it compiles.
///
/// ```
/// use microservice_sdk::{Microservice, Request, Route, http::Method};
/// use std::time::Duration;
///
/// let mut service = Microservice::new("tables", "1.0.0");
/// for table in ["orders", "customers"] {
///     let route = Route::new(Method::GET, format!("/{table}/{{id}}")).timeout(Duration::from_secs(2)).idempotent();
///     service = service.route(route, |_request: Request| async { "a row" });
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Route {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) detached: bool,
    pub(crate) blocking: bool,
    pub(crate) descriptor: Result<EndpointDescriptor, TemplateError>,
}

impl Route {
    /// An endpoint of a method and a path template; whether the template is one is told when the service starts.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        let descriptor =
            path.parse::<PathTemplate>().map(|path| EndpointDescriptor::new(EndpointId::FIRST, method, path));
        Self { name: String::new(), path, detached: false, blocking: false, descriptor }
    }

    fn from_definition(definition: Definition) -> Self {
        Self {
            name: definition.name.to_owned(),
            path: definition.path.to_owned(),
            detached: definition.detached,
            blocking: definition.blocking,
            descriptor: definition.descriptor(EndpointId::FIRST),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut EndpointDescriptor)) -> Self {
        if let Ok(descriptor) = &mut self.descriptor {
            set(descriptor);
        }
        self
    }

    /// Time to answer.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|endpoint| endpoint.timeout = Some(timeout))
    }

    /// May run more than once for one request.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.set(|endpoint| endpoint.idempotent = true)
    }

    /// The request body flows while the handler runs.
    #[must_use]
    pub fn streaming_request(self) -> Self {
        self.set(|endpoint| endpoint.streaming_request = true)
    }

    /// The response body flows, without an end to wait for.
    #[must_use]
    pub fn streaming_response(self) -> Self {
        self.set(|endpoint| endpoint.streaming_response = true)
    }

    /// 202 on admission; a client that leaves does not cancel the work.
    #[must_use]
    pub fn one_way(self) -> Self {
        self.set(|endpoint| endpoint.one_way = true)
    }

    /// The handler runs to its end though the request was cancelled.
    #[must_use]
    pub const fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// The handler computes for long, or calls what blocks: it runs on a thread of its own (of tokio's blocking pool, which
    /// has 512 unless the runtime says otherwise), and what it does not find room for there waits.
    ///
    /// Its arguments are taken beforehand. Once begun it cannot be stopped: when nobody waits for its answer any more it
    /// runs to its end, and holds its slot of the lease until then, so no more of them are ever at work than the lease
    /// allows; its answer is dropped. Not even the end of the service's grace stops it, and a runtime that is dropped
    /// waits for it.
    #[must_use]
    pub const fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// Largest request body, in bytes.
    #[must_use]
    pub fn max_request_bytes(self, bytes: u64) -> Self {
        self.set(|endpoint| endpoint.max_request_bytes = Some(bytes))
    }

    /// One more claim that the caller must hold; with no values, any value will do.
    #[must_use]
    pub fn requiring_claim<V: Into<String>>(
        self,
        kind: impl Into<String>,
        any_of: impl IntoIterator<Item = V>,
    ) -> Self {
        let requirement = ClaimRequirement { kind: kind.into(), any_of: any_of.into_iter().map(Into::into).collect() };
        self.set(|endpoint| endpoint.requiring_claims.push(requirement))
    }

    /// One more tag, for documents.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        self.set(|endpoint| endpoint.tags.push(tag))
    }

    /// One line for documents.
    #[must_use]
    pub fn summary(self, summary: impl Into<String>) -> Self {
        let summary = summary.into();
        self.set(|endpoint| endpoint.summary = Some(summary))
    }
}
