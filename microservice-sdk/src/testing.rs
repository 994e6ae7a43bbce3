//! The test harness: services behind a real gateway in the test's own process, without a port and without waiting.
//!
//! Everything between a client and a handler is the real thing, HTTP parsing, routing, the framed protocol; only the
//! wires are memory. Mistakes of a test panic with what is wrong, as assertions do.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use router_config::{HumanDuration, RouterConfig};
use router_gateway::Gateway;
use router_gateway::edge::{BoxHttpListener, BoxIo, HttpListener};
use router_link::Body;
use serde::de::DeserializeOwned;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
#[cfg(feature = "websocket")]
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::bytes::Bytes;
use crate::lifecycle::Running;
use crate::message::{Request, Response};
use crate::service::Microservice;

/// Bytes that a connection in memory holds each way.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

/// A client's end of a WebSocket: a `Stream` and a `Sink` of messages.
#[cfg(feature = "websocket")]
pub type TestWebSocket = tokio_tungstenite::WebSocketStream<DuplexStream>;

/// A gateway in memory, with the services that joined it.
///
/// ```
/// # use microservice_sdk::{Microservice, Path, endpoint, endpoints};
/// use microservice_sdk::testing::TestGateway;
///
/// #[endpoint(GET, "/hello/{name}")]
/// async fn hello(Path(name): Path<String>) -> String {
///     format!("Hello, {name}!")
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let service = Microservice::new("greeter", "1.0.0").endpoints(endpoints![hello]);
/// let gateway = TestGateway::start(service).await;
///
/// let response = gateway.get("/hello/Ann").await;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.text().await, "Hello, Ann!");
/// # });
/// ```
pub struct TestGateway {
    gateway: Gateway,
    services: Vec<Running>,
    dial: mpsc::Sender<DuplexStream>,
    connections: std::sync::Mutex<JoinSet<()>>,
}

impl TestGateway {
    /// A gateway with one service, ready for requests.
    ///
    /// # Panics
    /// If the gateway or the service does not start.
    pub async fn start<S: Send + Sync + 'static>(service: Microservice<S>) -> Self {
        let mut config = RouterConfig::<()>::default();
        // Nobody waits for requests that no test sends any more.
        config.shutdown.idle_linger = HumanDuration::from_secs(0);
        let mut gateway = Self::empty(&config).await;
        let running = gateway.join(service).await;
        gateway.services.push(running);
        gateway
    }

    /// A gateway without services, configured as `router.yaml` would.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn empty<T>(config: &RouterConfig<T>) -> Self {
        let (dial, accept) = mpsc::channel(BACKLOG);
        let listener: BoxHttpListener = Box::new(Listener { accept });
        let started = Gateway::builder(config).without_admin().http_listener(listener).start().await;
        let gateway = started.unwrap_or_else(|error| panic!("the gateway does not start: {error}"));
        Self { gateway, services: Vec::new(), dial, connections: std::sync::Mutex::default() }
    }

    /// One more service: another one, another version, or another instance. It leaves when it is shut down or dropped.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn join<S: Send + Sync + 'static>(&self, service: Microservice<S>) -> Running {
        let started = service.connector(Arc::new(self.gateway.in_memory())).start();
        let mut running = started.unwrap_or_else(|error| panic!("the service does not start: {error}"));
        if let Err(error) = running.ready().await {
            panic!("the service does not get ready: {error}");
        }
        running
    }

    /// The gateway itself.
    #[must_use]
    pub const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// `GET` of a path with its query.
    ///
    /// # Panics
    /// If the path is none, or there is no answer.
    pub async fn get(&self, path: &str) -> TestResponse {
        let request = http::Request::get(path).body(Body::empty());
        self.request(request.unwrap_or_else(|error| panic!("`{path}` cannot be requested: {error}"))).await
    }

    /// `POST` of a value as JSON.
    ///
    /// # Panics
    /// If the path is none, the value cannot be written, or there is no answer.
    pub async fn post_json(&self, path: &str, value: &impl serde::Serialize) -> TestResponse {
        let body = serde_json::to_vec(value).unwrap_or_else(|error| panic!("the value is no JSON: {error}"));
        let request = http::Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        self.request(request.unwrap_or_else(|error| panic!("`{path}` cannot be requested: {error}"))).await
    }

    /// Sends a request, over a connection of its own.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn request(&self, request: http::Request<impl Into<Body>>) -> TestResponse {
        match self.try_request(request).await {
            Ok(response) => response,
            Err(error) => panic!("there is no answer: {error}"),
        }
    }

    /// As [`TestGateway::request`], for tests in which no answer is the right one.
    ///
    /// # Errors
    /// HTTP's own, when the connection ends without an answer.
    pub async fn try_request(&self, request: http::Request<impl Into<Body>>) -> Result<TestResponse, hyper::Error> {
        let mut request: Request = request.map(Into::into);
        request.headers_mut().entry(header::HOST).or_insert(const { HeaderValue::from_static("gateway.test") });
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        assert!(self.dial.send(server).await.is_ok(), "the gateway has stopped");
        let (mut sender, connection) = http1::handshake(TokioIo::new(client)).await?;
        self.drive(async move {
            // What goes wrong is told to whoever reads the response.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await?;
        Ok(TestResponse(response.map(Body::stream)))
    }

    /// Opens a WebSocket, over a connection of its own.
    ///
    /// # Panics
    /// If the path is none, or no WebSocket is opened.
    #[cfg(feature = "websocket")]
    pub async fn websocket(&self, path: &str) -> TestWebSocket {
        match self.try_websocket(format!("ws://gateway.test{path}")).await {
            Ok(socket) => socket,
            Err(error) => panic!("`{path}` opens no WebSocket: {error}"),
        }
    }

    /// As [`TestGateway::websocket`], with a request of the test's own, for tests in which it may be refused.
    ///
    /// # Errors
    /// What came instead.
    #[cfg(feature = "websocket")]
    pub async fn try_websocket(
        &self,
        request: impl IntoClientRequest + Unpin,
    ) -> Result<TestWebSocket, crate::websocket::WebSocketError> {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        assert!(self.dial.send(server).await.is_ok(), "the gateway has stopped");
        let (socket, _) = tokio_tungstenite::client_async(request, client).await?;
        Ok(socket)
    }

    /// Owns a connection until it ends, or the harness does.
    fn drive(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut connections = self.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while connections.try_join_next().is_some() {}
        connections.spawn(connection);
    }

    /// Stops the services and the gateway in good order.
    ///
    /// # Panics
    /// If a service had ended by itself.
    pub async fn shutdown(self) {
        for service in self.services {
            if let Err(error) = service.shutdown().await {
                panic!("a service had ended: {error}");
            }
        }
        self.gateway.shutdown().await;
    }
}

impl fmt::Debug for TestGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestGateway").field("services", &self.services.len()).finish_non_exhaustive()
    }
}

/// An answer.
#[derive(Debug)]
pub struct TestResponse(Response);

impl TestResponse {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// The whole body.
    ///
    /// # Panics
    /// If it was cut short.
    pub async fn bytes(self) -> Bytes {
        match self.0.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => panic!("the body was cut short: {error}"),
        }
    }

    /// The whole body as text.
    ///
    /// # Panics
    /// If it was cut short or is not UTF-8.
    pub async fn text(self) -> String {
        let bytes = self.bytes().await;
        String::from_utf8(bytes.into()).unwrap_or_else(|error| panic!("the body is no text: {error}"))
    }

    /// The whole body, read as JSON.
    ///
    /// # Panics
    /// If it was cut short or does not fit.
    pub async fn json<T: DeserializeOwned>(self) -> T {
        let bytes = self.bytes().await;
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error} in: {}", String::from_utf8_lossy(&bytes)))
    }

    /// The response with its body still streaming.
    #[must_use]
    pub fn into_inner(self) -> Response {
        self.0
    }
}

/// Accepts the client connections of the harness.
struct Listener {
    accept: mpsc::Receiver<DuplexStream>,
}

impl HttpListener for Listener {
    type Io = BoxIo;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(BoxIo, SocketAddr)>> {
        match self.accept.poll_recv(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(Ok((BoxIo::new(stream), address()))),
            // The harness is gone, and the gateway with it.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address())
    }
}

/// What stands for an address where there is none.
const fn address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}
