//! Draining: that a service is about to end, for handlers that would otherwise go on (SPEC 4, drain).
//!
//! It only passes the word on; what a handler makes of it is its own.

use tokio_util::sync::CancellationToken;

/// Whether the service drains: no further requests come, and what is in flight has the rest of the grace to end. An
/// extractor, for what would last longer than that: a tunnel, a WebSocket, a stream of events. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "websocket")]
/// # mod rooms {
/// use microservice_sdk::{Draining, Response, WebSocketUpgrade, endpoint};
///
/// #[endpoint(GET, "/rooms/{room}", streaming)]
/// async fn room(draining: Draining, upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(move |mut socket| async move {
///         loop {
///             let message = tokio::select! {
///                 () = draining.begun() => {
///                     let _ = socket.send("this server is about to restart: come again").await;
///                     let _ = socket.close(None).await;
///                     return;
///                 }
///                 message = socket.recv() => message,
///             };
///             let Some(Ok(message)) = message else { return };
///             let _ = socket.send(message).await;
///         }
///     })
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Draining(CancellationToken);

impl Draining {
    pub(crate) const fn new(drains: CancellationToken) -> Self {
        Self(drains)
    }

    /// Waits until the service begins to drain; at once if it has.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Whether the service drains now.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }
}
