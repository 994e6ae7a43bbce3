//! The stack: every policy that a client's request passes, outermost first, one a line.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use router_link::{Body, Environment};
use tower::{Service, ServiceBuilder, service_fn};

use crate::dispatch::Dispatch;
use crate::edge::EdgeContext;
use crate::http_semantics::TrustedProxies;
use crate::layers::{AccessLog, Identify, Intermediary, Message, Policy as _, PolicyLayer};
use crate::token::AdminToken;

/// Builds one worker's stack. It is always ready: what is too much is answered, not made to wait.
pub(crate) fn stack(
    edge: &Arc<EdgeContext>,
    environment: &Arc<dyn Environment>,
    node: &str,
    trusted: TrustedProxies,
    explains_to: Option<AdminToken>,
    dispatch: Dispatch,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    // First, so that every answer has the id, and refusals from anywhere below get their document.
    let policies = Identify::new(Arc::clone(&edge.request_ids), Arc::clone(environment))
        // Below the id, to write it; above all else, to see every outcome.
        .then(AccessLog::new(Arc::clone(environment)))
        // What is no correct HTTP goes no further.
        .then(Message::new(Arc::clone(edge)))
        // What ends at this hop ends here, in both directions.
        .then(Intermediary::new(node, trusted).explains_to(explains_to));
    ServiceBuilder::new().layer(PolicyLayer::new(policies)).service(service_fn(move |mut request| {
        let dispatch = dispatch.clone();
        // Boxed, so that the layers above hand on a pointer.
        Box::pin(async move { Ok(dispatch.run(&mut request).await) })
    }))
}
