//! Tunnel: a request that opens a stream of opaque bytes both ways, in any protocol (SPEC 4).
//!
//! A client asks for one by HTTP/1.1's `Upgrade` or HTTP/2's extended CONNECT; a handler sees no difference. What is
//! spoken on it is the handler's own: `websocket` stands on this.

use std::future::Future;
use std::io;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use router_link::{Accept, Body, BodyError, UPGRADE_PROTOCOLS};

pub use router_link::Tunnel as TunnelStream;

use super::FromRequest;
use crate::error::Problem;
use crate::invocation::Invocation;
use crate::message::{Request, Response};

/// A request for a tunnel, to be accepted, or answered like any other. The endpoint's method is GET.
///
/// What is not a request for a tunnel is 400 `tunnel_required`.
///
/// ```
/// use microservice_sdk::{Response, Tunnel, endpoint};
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// #[endpoint(GET, "/echo", streaming)]
/// async fn echo(tunnel: Tunnel) -> Response {
///     if tunnel.protocol() != "echo/1" {
///         return Tunnel::required("echo/1");
///     }
///     tunnel.accept(|mut stream| async move {
///         let mut piece = [0; 1024];
///         loop {
///             match stream.read(&mut piece).await? {
///                 0 => return Ok(()),
///                 length => stream.write_all(&piece[..length]).await?,
///             }
///         }
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Tunnel {
    protocol: Arc<str>,
    incoming: Body,
}

impl Tunnel {
    /// What the client wants to speak: `websocket`, or any other name, in the client's own letters.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The response that opens the tunnel. Fields may be added to it; with another status than its 200, nothing is opened.
    ///
    /// `work` is done on the open tunnel. It is part of the handler: it holds the request's slot until it ends, and is
    /// dropped when the client has gone. Writing waits for the client's credit, and reading returns it. When it ends the
    /// tunnel does: in good order with `Ok`, visibly cut with `Err`. There is no deadline; the gateway ends a tunnel on
    /// which nothing moves (default 5 minutes).
    pub fn accept<F, Fut>(self, work: F) -> Response
    where
        F: FnOnce(TunnelStream) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let mut response = Response::new(Body::empty());
        let work = move |stream| {
            let working = work(stream);
            async move { working.await.map_err(BodyError::from_source) }
        };
        Accept::new(self.incoming, work).put_into(&mut response);
        response
    }

    /// 426 `upgrade_required`: what is spoken here is this, as it would stand in `Upgrade`: one name, or several
    /// with commas between them.
    #[must_use]
    pub fn required(protocols: &'static str) -> Response {
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required")
            .detail(format!("this endpoint speaks {protocols}"));
        let mut response = problem.render();
        if let Ok(protocols) = HeaderValue::from_str(protocols) {
            response.headers_mut().insert(UPGRADE_PROTOCOLS, protocols);
        }
        response
    }

    /// The tunnel that a request asks for.
    pub(super) fn of(request: Request) -> Option<Self> {
        let protocol = request.extensions().get::<Invocation>()?.context.tunnel.clone()?;
        Some(Self { protocol, incoming: request.into_body() })
    }
}

impl<S: Send + Sync> FromRequest<S> for Tunnel {
    type Rejection = Problem;
    const FIELDS: bool = false;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Self::of(request).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, "tunnel_required")
                .detail("this endpoint opens tunnels: a request needs `Upgrade`, or CONNECT with `:protocol`")
        })
    }
}
