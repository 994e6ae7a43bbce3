//! Why a body was cut short. Nothing here knows where bodies come from.

use router_common::frame::Reason;
use router_common::session::StreamFailure;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The peer cancelled the stream; or, from a body of our own, the stream is to be cancelled with this reason.
    #[error("cancelled: {reason}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    Cancelled { reason: Reason, text: String },
    /// The link was lost.
    #[error("the link was lost")]
    Lost,
    /// The stream was closed on this side.
    #[error("the stream was closed on this side")]
    Closed,
    /// The body's length is not what its head says.
    #[error("the body does not have the length that its head says")]
    Length,
    /// A trailer field that the protocol does not carry.
    #[error("trailers: {0}")]
    Trailers(#[from] router_common::head::HeadError),
    /// A body of our own failed.
    #[error(transparent)]
    Source(BoxError),
}

impl BodyError {
    /// Wraps a foreign error; one that already is a `BodyError` stays itself.
    pub fn from_source(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(error) => Self::Source(error),
        }
    }

    /// A body that went over its limit (SPEC 6).
    #[must_use]
    pub const fn payload_limit() -> Self {
        Self::Cancelled { reason: Reason::PayloadLimit, text: String::new() }
    }

    /// The reason with which a stream is cancelled when its sender's body fails so; `otherwise` where the error does not
    /// tell.
    #[must_use]
    pub const fn reason(&self, otherwise: Reason) -> Reason {
        match self {
            Self::Cancelled { reason, .. } => *reason,
            _ => otherwise,
        }
    }
}

impl From<StreamFailure> for BodyError {
    fn from(failure: StreamFailure) -> Self {
        match failure {
            StreamFailure::Cancelled { reason, text } => Self::Cancelled { reason, text },
            StreamFailure::Unseen | StreamFailure::Lost => Self::Lost,
            StreamFailure::Length => Self::Length,
            _ => Self::Closed,
        }
    }
}
