//! An HTTP client that shows everything it gets, and one for octets that no client would send.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use microservice_sdk::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::within;

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    inner: hyper_util::client::legacy::Client<HttpConnector, Body>,
    server: SocketAddr,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Client {
    #[must_use]
    pub fn http1(server: SocketAddr) -> Self {
        Self { inner: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http(), server }
    }

    #[must_use]
    pub fn http2(server: SocketAddr) -> Self {
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Self { inner: builder.http2_only(true).build_http(), server }
    }

    /// A request that this client can send, to be completed.
    ///
    /// # Panics
    /// When the path is none.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request<Body> {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.server));
        request.body(Body::empty()).expect("a path")
    }

    /// # Panics
    /// When there is no whole response.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(self.request(Method::GET, path)).await
    }

    /// A GET with one more header.
    ///
    /// # Panics
    /// When there is no whole response.
    pub async fn get_with(&self, path: &str, name: &'static str, value: &str) -> Answer {
        let mut request = self.request(Method::GET, path);
        request.headers_mut().insert(name, value.parse().expect("a header value"));
        self.ask(request).await
    }

    /// # Panics
    /// When there is no whole response.
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.ask(self.request(Method::POST, path).map(|_| body.into())).await
    }

    /// # Panics
    /// When there is no whole response.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        match self.try_ask(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("{asked}: {error}"),
        }
    }

    /// # Errors
    /// There is no response, or its body is cut short.
    pub async fn try_ask(&self, request: Request<Body>) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let response = self.head(request).await?;
        let (head, body) = response.into_parts();
        let collected = within("the response's body", body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Answer { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
    }

    /// A response whose body is still to be read.
    ///
    /// # Errors
    /// There is none.
    pub async fn head(&self, request: Request<Body>) -> Result<http::Response<hyper::body::Incoming>, Error> {
        within("a response", self.inner.request(request)).await
    }
}

impl Answer {
    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The code of a problem document, which is checked on the way.
    ///
    /// # Panics
    /// When the answer is no problem document.
    #[must_use]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16(), "{document}");
        assert!(document["title"].is_string() && document["type"].is_string(), "{document}");
        document["code"].as_str().expect("a code").to_owned()
    }
}

/// Writes octets to a server and gives all that comes back until the server closes.
///
/// # Errors
/// The connection was reset.
pub async fn octets(server: SocketAddr, send: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(send).await?;
    let mut received = Vec::new();
    within("the server closes", stream.read_to_end(&mut received)).await?;
    Ok(received)
}
