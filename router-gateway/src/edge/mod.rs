//! The HTTP edge: accepts clients, speaks HTTP/1.1 and HTTP/2 with them, and hands their requests to the stack.
//!
//! | file | what it does |
//! |---|---|
//! | `listener` | where client connections come from: TCP, or anything given from outside |
//! | `worker` | what the connections of one worker share |
//! | `accept` | the accept loop of one worker, its bound, its graceful stop |
//! | `connection` | one client connection: protocol detection, its requests, its end |
//! | `opened` | a tunnel that a service has accepted, on its way to the connection |
//! | `tunnel` | its bytes both ways |
//! | `connect` | the HTTP/2 stream under a tunnel |
//! | `client` | what a connection's task, its requests and their bodies share |
//! | `floor` | how many connections each worker has, and how one with too many passes a fresh one on |
//! | `gate` | whether newcomers are let in now, later, or not any more |
//! | `held` | how many request bytes are held now |
//! | `stop` | the wish that all of it ends in good order |
//! | `io` | the byte stream under the HTTP library: patience with slow clients, refusals in our own words |
//! | `scan` | what the HTTP library does not tell about a request head |
//! | `body` | request bodies, counted and limited; response bodies |
//!
//! The edge knows nothing of routes, services or the framed protocol.

mod accept;
mod body;
mod client;
mod connect;
mod connection;
mod floor;
mod gate;
mod held;
mod io;
mod listener;
mod opened;
mod scan;
mod stop;
mod tunnel;
mod worker;

use std::sync::Arc;
use std::time::Duration;

pub use body::{Upload, UploadFailure};
pub use client::ClientConnection;
pub use connection::Answering;
pub(crate) use floor::Door;
pub use floor::{Floor, Seat};
pub use gate::{Gate, Keeper};
pub use held::HeldBytes;
pub(crate) use listener::bind;
pub use listener::{BoxHttpListener, BoxIo, ByteStream, HttpListener, TcpHttpListener};
pub use opened::OpenTunnel;
pub use stop::Stop;
pub use worker::Edge;

use crate::http_semantics::Introduction;
use crate::request_id::RequestIds;

/// A connection, and where it comes from.
pub type Accepted<IO> = std::io::Result<(IO, std::net::SocketAddr)>;

/// How slow and how large clients may be (SPEC 12).
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// First byte of a request head to its last; also accept to the first byte. Then 408.
    pub header_timeout: Duration,
    /// How long a connection without a request is kept.
    pub keep_alive_timeout: Duration,
    /// Longest pause between two pieces of a request body, or in a client's reading of the response.
    pub body_idle_timeout: Duration,
    /// Longest silence of a tunnel, in both directions.
    pub tunnel_idle_timeout: Duration,
    /// Size of a request head, in bytes. Then 431.
    pub max_header_bytes: usize,
    /// Fields of a request head. Then 431.
    pub max_headers: usize,
    /// Length of a request target, in bytes. Then 414.
    pub max_uri_bytes: usize,
    /// Requests that one HTTP/2 connection may have in flight.
    pub max_concurrent_streams: u32,
    /// Request bytes held for one client connection. Then 429.
    pub max_connection_bytes: u64,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_secs(30),
            tunnel_idle_timeout: Duration::from_secs(300),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 16 * 1024,
            max_concurrent_streams: 256,
            max_connection_bytes: 64 * 1024 * 1024,
        }
    }
}

/// What every connection of a worker shares.
#[derive(Debug)]
pub struct EdgeContext {
    pub settings: EdgeSettings,
    /// Request bytes held in the whole node.
    pub node_bytes: Arc<HeldBytes>,
    pub request_ids: Arc<RequestIds>,
}

/// What the edge knows about a request and HTTP does not say: an extension of each request from a client.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub connection: Arc<ClientConnection>,
    /// The progress of the request's body, if it has one.
    pub upload: Option<Arc<Upload>>,
    /// The head had both Content-Length and Transfer-Encoding: the HTTP library hides this (RFC 9112 6.1).
    pub two_lengths: bool,
    /// How the sender presents itself; set by the layer that checks the message.
    pub sender: Option<Arc<Introduction>>,
    /// The client behind trusted proxies; set by the layer that reads them.
    pub client: std::net::SocketAddr,
    /// The client waits for `100 Continue` before it sends the body.
    pub waits_for_continue: bool,
    /// It holds the admin token, and asks why its request goes where it goes; set by the layer that strips its header.
    pub explain: bool,
    /// The protocol of the tunnel that is asked for; set by the layers that read how.
    pub tunnel: Option<Arc<str>>,
}

/// The answer to that, in one line: an extension of the response.
#[derive(Debug, Clone)]
pub struct Explained(pub http::HeaderValue);

impl Arrival {
    /// Whether the connection holds as many request bytes as it may.
    #[must_use]
    pub fn connection_full(&self, limit: u64) -> bool {
        self.connection.held.held() >= limit
    }
}
