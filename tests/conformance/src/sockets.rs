//! Clients that open tunnels: by HTTP/1.1's Upgrade, and by HTTP/2's extended CONNECT. They show how a tunnel ends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::within;

/// Bytes both ways.
pub trait Bidirectional: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bidirectional for T {}

/// A client's end of a tunnel.
pub type Stream = Box<dyn Bidirectional>;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Upgrade,
    Connect,
}

/// Both of them.
pub const BOTH: [By; 2] = [By::Upgrade, By::Connect];

impl By {
    /// Opens a tunnel.
    ///
    /// # Panics
    /// When it is not opened.
    pub async fn open(self, server: SocketAddr, path: &str, protocol: &'static str) -> Stream {
        let (status, _, stream) = self.ask(server, path, protocol, &[]).await;
        let accepted = if self == Self::Upgrade { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        assert_eq!(status, accepted, "{self:?} {path}");
        stream.expect("a tunnel")
    }

    /// Opens a WebSocket.
    ///
    /// # Panics
    /// When it is not opened.
    pub async fn websocket(self, server: SocketAddr, path: &str, offers: &'static str) -> WebSocketStream<Stream> {
        let (_, headers, stream) = self.ask(server, path, "websocket", &websocket(self, offers)).await;
        if self == Self::Upgrade {
            assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(
                (&headers["upgrade"], &headers["connection"]),
                (&"websocket".parse().unwrap(), &"upgrade".parse().unwrap())
            );
        } else {
            assert!(!headers.contains_key("sec-websocket-accept"), "{headers:?}");
        }
        WebSocketStream::from_raw_socket(stream.expect("a tunnel"), Role::Client, None).await
    }

    /// Asks for a tunnel, and gives what came.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask(
        self,
        server: SocketAddr,
        path: &str,
        protocol: &'static str,
        fields: &[(&'static str, &'static str)],
    ) -> (StatusCode, HeaderMap, Option<Stream>) {
        match self {
            Self::Upgrade => {
                let mut request = format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: {protocol}\r\n");
                for (name, value) in fields {
                    request += &format!("{name}: {value}\r\n");
                }
                request += "Connection: keep-alive, Upgrade\r\n\r\n";
                let mut stream = TcpStream::connect(server).await.expect("a connection");
                stream.write_all(request.as_bytes()).await.expect("written");
                let (status, headers) = within("an answer", head(&mut stream)).await;
                let stream: Stream = Box::new(stream);
                (status, headers, (status == StatusCode::SWITCHING_PROTOCOLS).then_some(stream))
            }
            Self::Connect => {
                let client = Http2::connect(server).await;
                let (status, headers, stream) = client.ask(path, protocol, fields).await;
                (status, headers, stream.map(|stream| Box::new(stream) as Stream))
            }
        }
    }
}

/// The fields of a WebSocket's handshake.
#[must_use]
pub fn websocket(by: By, offers: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut fields = vec![("sec-websocket-version", "13")];
    if by == By::Upgrade {
        fields.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="));
    }
    if !offers.is_empty() {
        fields.push(("sec-websocket-protocol", offers));
    }
    fields
}

/// Reads the head of an answer, and not a byte more.
///
/// # Panics
/// When it is none.
pub async fn head(stream: &mut TcpStream) -> (StatusCode, HeaderMap) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.expect("the answer goes on"));
    }
    let text = String::from_utf8(text).expect("text");
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    });
    (status, fields.collect())
}

/// One HTTP/2 connection, as plain as can be.
#[derive(Debug, Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
}

impl Http2 {
    /// Connects, and waits until the server has said that it knows extended CONNECT.
    ///
    /// # Panics
    /// When it does not.
    pub async fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.expect("a connection");
        let mut builder = h2::client::Builder::new();
        // Reads all that comes to the connection: what one stream leaves is not to stand in another's way.
        builder.initial_connection_window_size(16 * 1024 * 1024);
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let known = async {
            while !sender.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
        };
        within("the server knows extended CONNECT", known).await;
        Self { sender }
    }

    /// Asks for a tunnel.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask(
        &self,
        path: &str,
        protocol: &'static str,
        fields: &[(&'static str, &'static str)],
    ) -> (StatusCode, HeaderMap, Option<Http2Tunnel>) {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("http://gateway.test{path}").parse().expect("a target");
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let mut sender = self.sender.clone().ready().await.expect("a connection");
        let (response, send) = sender.send_request(request, false).expect("a request");
        let response = within("an answer", response).await.expect("an answer");
        let (head, receive) = response.into_parts();
        let opened = head.status.is_success().then_some(Http2Tunnel { send, receive, rest: Bytes::new() });
        (head.status, head.headers, opened)
    }

    /// Opens a tunnel.
    ///
    /// # Panics
    /// When it is not opened.
    pub async fn open(&self, path: &str, protocol: &'static str) -> Http2Tunnel {
        let (status, _, tunnel) = self.ask(path, protocol, &[]).await;
        tunnel.unwrap_or_else(|| panic!("{status}"))
    }
}

/// A tunnel over HTTP/2. A reset is an error to who reads it.
#[derive(Debug)]
pub struct Http2Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    rest: Bytes,
}

impl Http2Tunnel {
    /// Leaves without a word.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl AsyncRead for Http2Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(bytes)) => self.rest = bytes,
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        // A connection that is over needs no credit.
        let _ = self.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(buf.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = self.send.capacity().min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..length]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
