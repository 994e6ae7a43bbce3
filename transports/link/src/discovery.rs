//! Discovery: one address that leads to gateways which come and go, such as a broker's (SPEC 7).
//!
//! It says which gateways there are and how each is dialled. It opens no link, and does not know who uses it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::link::{Connector, LinkError};

/// Finds the gateways behind one address, for as long as it is polled and not dropped.
///
/// It goes on for ever: where what it searches through is lost (a broker, say), it reaches for it again by itself, with
/// waits that grow to two seconds at most, and finds again. Links end by themselves when what carries them is lost, so a
/// loss need not be told as [`Discovered::Gone`].
pub trait Discovery: Send + 'static {
    /// Waits for the next change. Nothing is asked of the order in which gateways are found, and each change is given out
    /// once; what is found and gone between two polls need not be given out at all.
    ///
    /// # Errors
    /// Something to be told to people, after which it goes on: the broker cannot be reached, for example.
    /// [`LinkError::Closed`] is the last word: it is not polled again, and whoever wants more asks the connector for another
    /// one. Whoever polls it waits up to a second after an error.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<Discovered, LinkError>>;
}

/// What has changed about the gateways behind an address.
pub enum Discovered {
    /// A gateway is there; or one that was there already is to be dialled by another connector from now on, and at once if
    /// nothing of it is connected.
    Found {
        /// The gateway's name for itself, by which it is told from the others behind this address. What WELCOME says is
        /// what counts: this need not be proved.
        node: Arc<str>,
        /// Dials this one gateway; it does not discover.
        connector: Arc<dyn Connector>,
    },
    /// A gateway has left for good: it is not dialled any more, and links to it are closed. Of one that was never found,
    /// it says nothing.
    Gone { node: Arc<str> },
}

impl fmt::Debug for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { node, connector } => {
                f.debug_struct("Found").field("node", node).field("target", &connector.target()).finish()
            }
            Self::Gone { node } => f.debug_struct("Gone").field("node", node).finish(),
        }
    }
}

impl dyn Discovery {
    /// [`Discovery::poll_change`] as a future. Nothing is lost when it is dropped.
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Result<Discovered, LinkError> {
        std::future::poll_fn(|cx| self.poll_change(cx)).await
    }
}
