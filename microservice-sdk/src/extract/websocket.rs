//! WebSocket: messages both ways over a tunnel (RFC 6455, and 8441 over HTTP/2; SPEC 12).
//!
//! The handshake is the gateway's, which knows the client's connection; frames and messages are a library's. What is here
//! joins them to a handler.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub use tokio_tungstenite::tungstenite::protocol::CloseFrame;
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
pub use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};

use super::{FromRequest, Tunnel};
use crate::extract::TunnelStream;
use crate::message::{Request, Response};
use crate::response::IntoResponse;

/// Largest message, and largest frame, that is taken unless told otherwise: 1 MiB.
const MAX_BYTES: usize = 1024 * 1024;
/// What is held for each socket to read and to write, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;

/// A request for a WebSocket. The endpoint's method is GET.
///
/// What is none is 426 `upgrade_required`.
///
/// ```
/// use microservice_sdk::{Response, WebSocketUpgrade, endpoint};
///
/// #[endpoint(GET, "/chat", streaming)]
/// async fn chat(upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(|mut socket| async move {
///         while let Some(Ok(message)) = socket.recv().await {
///             if message.is_text() && socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     })
/// }
/// ```
#[derive(Debug)]
pub struct WebSocketUpgrade {
    tunnel: Tunnel,
    /// What the client offers, in its order.
    offered: Vec<HeaderValue>,
    chosen: Option<HeaderValue>,
    max_message_bytes: usize,
    max_frame_bytes: usize,
}

impl WebSocketUpgrade {
    /// Chooses a subprotocol: the first of these that the client offers. None of them is no reason to refuse; see
    /// [`WebSocketUpgrade::protocol`].
    #[must_use]
    pub fn protocols(mut self, known: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.chosen = known.into_iter().find_map(|known| {
            let offers = |line: &&HeaderValue| line.as_bytes() == known.as_ref().as_bytes();
            self.offered.iter().find(offers).cloned()
        });
        self
    }

    /// The subprotocol that was chosen.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.chosen.as_ref()?.to_str().ok()
    }

    /// The largest message that is taken, in bytes. Default 1 MiB; a larger one ends the socket with an error.
    #[must_use]
    pub const fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// The largest frame that is taken, in bytes: a message may have several. Default 1 MiB.
    #[must_use]
    pub const fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = bytes;
        self
    }

    /// The response that opens the socket. Fields may be added to it; with another status than its 200, nothing is opened.
    ///
    /// `work` is done on the open socket. It is part of the handler: it holds the request's slot until it ends, and is
    /// dropped when the client has gone without a word. There is no deadline; the gateway ends a socket on which nothing
    /// moves (default 5 minutes), so that a quiet one is kept by pings. The client is told of the end in good order if
    /// `work` closes the socket ([`WebSocket::close`]).
    pub fn on_upgrade<F, Fut>(self, work: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = BUFFER_BYTES;
        config.write_buffer_size = BUFFER_BYTES;
        config.max_message_size = Some(self.max_message_bytes);
        config.max_frame_size = Some(self.max_frame_bytes);
        let protocol = self.chosen.clone();
        let mut response = self.tunnel.accept(move |stream| async move {
            let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            work(WebSocket { inner, protocol }).await;
            Ok(())
        });
        if let Some(chosen) = self.chosen {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        response
    }
}

impl<S: Send + Sync> FromRequest<S> for WebSocketUpgrade {
    type Rejection = NoWebSocket;

    async fn from_request(request: Request, _: &S) -> Result<Self, NoWebSocket> {
        let offered = offered(request.headers());
        let tunnel = Tunnel::of(request).filter(|tunnel| tunnel.protocol().eq_ignore_ascii_case("websocket"));
        let tunnel = tunnel.ok_or(NoWebSocket(()))?;
        Ok(Self { tunnel, offered, chosen: None, max_message_bytes: MAX_BYTES, max_frame_bytes: MAX_BYTES })
    }
}

/// 426: what was asked for is no WebSocket.
#[derive(Debug)]
pub struct NoWebSocket(());

impl IntoResponse for NoWebSocket {
    fn into_response(self) -> Response {
        Tunnel::required("websocket")
    }
}

fn offered(headers: &HeaderMap) -> Vec<HeaderValue> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
    names.filter_map(|name| HeaderValue::from_str(name).ok()).collect()
}

/// An open WebSocket: a `Stream` and a `Sink` of messages. Pings are answered by themselves, while it is read.
pub struct WebSocket {
    inner: WebSocketStream<TunnelStream>,
    protocol: Option<HeaderValue>,
}

impl WebSocket {
    /// The next message; `None` after a closing handshake.
    ///
    /// May be dropped while it waits, without losing a message.
    pub async fn recv(&mut self) -> Option<Result<Message, WebSocketError>> {
        self.inner.next().await
    }

    /// Sends a message at once; waits while the client does not keep pace.
    ///
    /// # Errors
    /// The socket is closed, or the client is gone.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), WebSocketError> {
        self.inner.send(message.into()).await
    }

    /// Says that this is the end, and why. The client's own word for it is the last that [`WebSocket::recv`] gives.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn close(&mut self, why: Option<CloseFrame>) -> Result<(), WebSocketError> {
        match self.inner.close(why).await {
            // It was closed already.
            Ok(()) | Err(WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The subprotocol that was chosen.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_ref()?.to_str().ok()
    }
}

impl Stream for WebSocket {
    type Item = Result<Message, WebSocketError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl Sink<Message> for WebSocket {
    type Error = WebSocketError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.inner.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), WebSocketError> {
        self.inner.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.inner.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        self.inner.poll_close_unpin(cx)
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("protocol", &self.protocol()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_offers_may_stand_in_several_lines() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat.v2 , chat.v1"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("plain,"));
        assert_eq!(offered(&headers), ["chat.v2", "chat.v1", "plain"]);
    }
}
