//! Calls to other services, through the gateways and over the same links (SPEC 4, service-opened requests).
//!
//! The gateway routes them by method, path and version, and authorizes this service's identity and the bearer token
//! that the request carries. Typed calls build on this.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use router_link::{Call, CallError, Environment};

use crate::extract::Deadline;
use crate::handler::{Request, Response};
use crate::link_state::Board;

/// Sends requests to other services. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    board: Arc<Board>,
    environment: Arc<dyn Environment>,
    deadline: Option<Instant>,
    trace: Vec<(&'static str, HeaderValue)>,
}

/// Why a call has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No link to any gateway is open now. The request was not sent.
    #[error("no gateway is connected")]
    NotConnected,
    /// The deadline passed before the response.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The exchange failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What W3C trace context travels in.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

impl Client {
    pub(crate) const fn new(board: Arc<Board>, environment: Arc<dyn Environment>) -> Self {
        Self { board, environment, deadline: None, trace: Vec::new() }
    }

    /// A client whose calls end with the request that is being answered: they get what is left of its time.
    #[must_use]
    pub fn until(mut self, deadline: &Deadline) -> Self {
        self.deadline = [self.deadline, deadline.at()].into_iter().flatten().min();
        self
    }

    /// A client whose calls end this much later than now, if not before.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let at = self.environment.now().checked_add(timeout);
        self.deadline = [self.deadline, at].into_iter().flatten().min();
        self
    }

    /// A client whose calls carry the trace context of the request that is being answered.
    #[must_use]
    pub fn traced(mut self, headers: &http::HeaderMap) -> Self {
        self.trace = TRACE.iter().filter_map(|name| Some((*name, headers.get(*name)?.clone()))).collect();
        self
    }

    /// Sends a request and waits for the head of its response; the body streams.
    ///
    /// Dropping the future, or the response's body before its end, cancels the call.
    ///
    /// # Errors
    /// There is no response: see [`ClientError`]. An error of the called service is a response.
    pub async fn call(&self, mut request: Request) -> Result<Response, ClientError> {
        let link = self.board.any_link().ok_or(ClientError::NotConnected)?;
        for (name, value) in &self.trace {
            request.headers_mut().entry(*name).or_insert_with(|| value.clone());
        }
        let exchange = link.call(request, Call { deadline: self.deadline, ..Call::default() });
        let Some(deadline) = self.deadline else { return Ok(exchange.await?) };
        let left = deadline.saturating_duration_since(self.environment.now());
        match tokio::time::timeout(left, exchange).await {
            Ok(response) => Ok(response?),
            Err(_) => Err(ClientError::DeadlineExceeded),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
