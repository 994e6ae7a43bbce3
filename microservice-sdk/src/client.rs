//! Calls to other services, through the gateways and over the same links (SPEC 4, service-opened requests).
//!
//! The gateway routes them by method, path and version, and authorizes this service's identity and the bearer token
//! that the request carries. Typed calls build on this.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use router_common::frame::Reason;
use router_link::{Call, CallError, Environment, Handle};

use crate::board::{Board, Needs};
use crate::message::{Request, Response};
use crate::trace::TraceContext;

/// Sends requests to other services: an extractor within a handler, or [`Running::client`](crate::Running::client). Cheap to
/// clone.
#[derive(Clone)]
pub struct Client {
    board: Arc<Board>,
    environment: Arc<dyn Environment>,
    deadline: Option<Instant>,
    trace: TraceContext,
    /// What is called may be done twice.
    is_idempotent: bool,
}

/// Why a call has no response. What the called service answers, an error included, is a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No link to any gateway is open now. The request was not sent.
    #[error("no gateway is connected")]
    NotConnected,
    /// No gateway took the request: it provably reached no handler.
    #[error("the request was not taken")]
    NotTaken,
    /// The deadline passed before the response.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The gateway cancelled the request.
    #[error("cancelled by the gateway: {reason}{}{text}", if text.is_empty() { "" } else { ": " })]
    Cancelled { reason: Reason, text: String },
    /// The link was lost after the request was sent: nobody knows the outcome.
    #[error("the link to the gateway was lost; the outcome is unknown")]
    Lost,
    /// The request cannot be sent as it is, or its body failed.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// What came back is no response.
    #[error("the response is not well-formed")]
    Response,
}

/// A request that no gateway took is sent at most this often (SPEC 5).
const TRIES: usize = 3;

impl Client {
    pub(crate) fn new(board: Arc<Board>, environment: Arc<dyn Environment>) -> Self {
        Self { board, environment, deadline: None, trace: TraceContext::default(), is_idempotent: false }
    }

    /// The same within a request: its calls end with it, and carry its trace context.
    pub(crate) fn within(&self, deadline: Option<Instant>, trace: TraceContext) -> Self {
        let deadline = [self.deadline, deadline].into_iter().flatten().min();
        let (board, environment) = (Arc::clone(&self.board), Arc::clone(&self.environment));
        Self { board, environment, deadline, trace, is_idempotent: self.is_idempotent }
    }

    /// A client whose calls end this much later than now, if not before.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let at = self.environment.now().checked_add(timeout);
        self.deadline = [self.deadline, at].into_iter().flatten().min();
        self
    }

    /// A client for calls that may be done twice. Such a call is sent once more, over a link that carries bodies of any
    /// length, when its response did not fit the link that it would have come by (UDP); any other fails then, because a
    /// handler has seen it. Not so unless said.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Sends a request and waits for the head of its response; the body streams.
    ///
    /// A request that does not fit the preferred link goes over another one that carries it, if there is any (SPEC 7).
    ///
    /// Dropping the future, or the response's body before its end, cancels the call.
    ///
    /// # Errors
    /// There is no response: see [`ClientError`]. An error of the called service is a response.
    pub async fn call(&self, mut request: Request) -> Result<Response, ClientError> {
        self.trace.pass_on(request.headers_mut());
        let Some(deadline) = self.deadline else { return self.send(request).await };
        let left = deadline.saturating_duration_since(self.environment.now());
        tokio::time::timeout(left, self.send(request)).await.unwrap_or(Err(ClientError::DeadlineExceeded))
    }

    /// A link to call over. Where all that there are end, others are being dialled.
    async fn link(&self, needs: Needs) -> Result<Handle, ClientError> {
        let mut changes = self.board.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                match self.board.any_link(needs) {
                    Some(link) => return Ok(link),
                    None if self.board.is_between_links(needs) => {}
                    None => return Err(ClientError::NotConnected),
                }
                if changes.changed().await.is_err() {
                    return Err(ClientError::NotConnected);
                }
            }
        };
        match self.board.any_link(needs) {
            Some(link) => Ok(link),
            None => tokio::time::timeout(BETWEEN_LINKS, waiting).await.unwrap_or(Err(ClientError::NotConnected)),
        }
    }

    async fn send(&self, mut request: Request) -> Result<Response, ClientError> {
        // Why a link did not carry it, for the caller if no other one does.
        let (mut unfit, mut unseen) = (None, 0);
        while unseen < TRIES {
            let needs = if unfit.is_some() { Needs::Streaming } else { Needs::Nothing };
            let link = match self.link(needs).await {
                Ok(link) => link,
                Err(error) => return Err(unfit.unwrap_or(error)),
            };
            match link.call(&mut request, Call { deadline: self.deadline, ..Call::default() }).await {
                Ok(response) => return Ok(response),
                Err(CallError::Unseen { whole: true }) => unseen += 1,
                Err(error) if unfit.is_none() && self.may_fit_another(&error) => unfit = Some(error.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClientError::NotTaken)
    }

    /// Whether a link that streams may carry what this one did not. A request that fitted has been seen.
    const fn may_fit_another(&self, error: &CallError) -> bool {
        match error {
            CallError::TooLarge | CallError::Streams => true,
            CallError::ResponseTooLarge => self.is_idempotent,
            _ => false,
        }
    }
}

/// How long a call waits for the link to a gateway's next process, after the present one has said that it leaves.
const BETWEEN_LINKS: Duration = Duration::from_secs(5);

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unseen { .. } => Self::NotTaken,
            CallError::Lost { .. } => Self::Lost,
            CallError::Cancelled { reason, text, .. } => Self::Cancelled { reason, text },
            CallError::Expired => Self::DeadlineExceeded,
            CallError::ResponseTooLarge => Self::Cancelled { reason: Reason::PayloadLimit, text: error.to_string() },
            CallError::Response => Self::Response,
            error => Self::Request(error.to_string()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
