//! What ends a link over a broker, and what keeps one from being made.

use std::io;
use std::time::Duration;

use router_link::LinkError;

/// Why a link over a broker ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("message {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    #[error("the broker delivered a message for the second time")]
    Redelivered,
    #[error("a message that its sender has not sealed")]
    Forged,
    #[error("a message that is cut short")]
    Cut,
    #[error("the other side's queue is gone: the broker returned what was sent")]
    Returned,
    #[error("more than {0} bytes wait to be read")]
    Overflow(usize),
    #[error("the node's buffers are full, and what waits here was not read for long")]
    Stalled,
    #[error("the connection to the broker was lost: {0}")]
    Broker(String),
    #[error("no gateway has announced itself within {0:?}")]
    NoGateway(Duration),
    #[error("the gateway has left")]
    Left,
}

impl From<Broken> for LinkError {
    fn from(broken: Broken) -> Self {
        Self::io("over RabbitMQ", io::Error::other(broken))
    }
}
