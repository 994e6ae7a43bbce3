//! Admission: what a request brings beside HTTP, and whether the limits let it in (SPEC 6).
//!
//! Nothing here waits, or knows where the request goes.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::HeaderName;
use router_common::limits;
use router_common::problem::{Problem, ProblemCode};
use router_link::{Body, Call, RequestContext};

use super::Inner;
use super::problems::{RETRY_AFTER, too_large};
use crate::edge::{Arrival, Upload};
use crate::routing::RouteEndpoint;
use crate::telemetry::Shed;

/// The header with which a client asks for a shorter deadline.
const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// What a request brings beside HTTP, whoever sent it.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) upload: Option<Arc<Upload>>,
    pub(super) connection_full: bool,
    pub(super) explain: bool,
    pub(super) call: Call,
}

/// What a request brings, by who sent it.
pub(super) fn origin(request: &mut Request<Body>, max_connection_bytes: u64) -> Result<Origin, Problem> {
    if let Some(arrival) = request.extensions_mut().remove::<Arrival>() {
        let call = Call {
            client: Some(arrival.client),
            open_first: arrival.waits_for_continue,
            tunnel: arrival.tunnel.clone(),
            ..Call::default()
        };
        return Ok(Origin {
            connection_full: arrival.connection_full(max_connection_bytes),
            upload: arrival.upload,
            explain: arrival.explain,
            call,
        });
    }
    let Some(context) = request.extensions_mut().remove::<RequestContext>() else { return Ok(Origin::default()) };
    let hops = context.hops.saturating_add(1);
    if hops > limits::HOPS {
        return Err(Problem::new(ProblemCode::LoopDetected));
    }
    let call =
        Call { deadline: context.deadline, hops, scheme: context.scheme, client: context.client, ..Call::default() };
    Ok(Origin { call, ..Origin::default() })
}

impl Inner {
    /// The client may ask for less time, in whole milliseconds.
    pub(super) fn asked_timeout(&self, request: &Request<Body>) -> Result<Option<Duration>, Problem> {
        let Some(value) = request.headers().get(X_REQUEST_TIMEOUT_MS) else { return Ok(None) };
        let asked = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|ms| *ms > 0);
        asked.map(|ms| Some(Duration::from_millis(ms))).ok_or_else(|| {
            Problem::new(ProblemCode::BadRequest)
                .detail("x-request-timeout-ms is not a whole number of milliseconds, 1 or more.")
        })
    }

    /// The limits of SPEC 6, before a byte of the body is read.
    pub(super) fn admit(
        &self,
        upload: Option<&Upload>,
        connection_full: bool,
        is_tunnel: bool,
        endpoint: &RouteEndpoint,
    ) -> Result<(), Problem> {
        if upload.is_none() && !is_tunnel {
            return Ok(());
        }
        let limit = endpoint.descriptor.max_request_bytes.unwrap_or(self.settings.max_request_bytes);
        if upload.and_then(Upload::declared).is_some_and(|declared| declared > limit) {
            return Err(too_large());
        }
        if connection_full {
            return Err(self.shed(Shed::ConnectionBytes));
        }
        if self.node_bytes.is_nearly_full() {
            return Err(self.shed(Shed::InflightBytes));
        }
        if let Some(upload) = upload {
            upload.set_limit(limit);
        }
        Ok(())
    }

    /// Refuses a request, so that the node stays within its bounds.
    #[cold]
    pub(super) fn shed(&self, reason: Shed) -> Problem {
        self.metrics.node().shed(reason);
        let code = match reason {
            Shed::ConnectionBytes => ProblemCode::ConnectionBytesExceeded,
            _ => ProblemCode::NodeOverloaded,
        };
        Problem::new(code).retry_after(RETRY_AFTER)
    }
}
