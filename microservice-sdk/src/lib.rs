//! Write a service as async functions; Stella Router brings it the requests.
//!
//! A service opens no port. It dials out to every gateway it is given, registers its endpoints, and gets its requests
//! back over those links. Nothing about that appears in a handler: it takes what it needs from the request by the types
//! of its arguments, and returns what it has.
//!
//! ```no_run
//! use microservice_sdk::{EndpointError, Json, Microservice, Path, State, endpoint, endpoints, version};
//! use serde::Serialize;
//!
//! #[derive(Clone)]
//! struct Db;
//!
//! #[derive(Serialize)]
//! struct Order {
//!     id: u64,
//! }
//!
//! #[derive(Debug, thiserror::Error, EndpointError)]
//! enum OrderError {
//!     #[error("order {0} not found")]
//!     #[problem(404, code = "order_not_found")]
//!     NotFound(u64),
//! }
//!
//! /// Fetch one order.
//! #[endpoint(GET, "/orders/{id}", timeout = "2s", idempotent, claims(scope = "orders:read"))]
//! async fn get_order(Path(id): Path<u64>, State(_db): State<Db>) -> Result<Json<Order>, OrderError> {
//!     if id == 0 { Err(OrderError::NotFound(id)) } else { Ok(Json(Order { id })) }
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     Microservice::new("orders", version!())
//!         .state(Db)
//!         .endpoints(endpoints![get_order])
//!         .gateway("tcp://127.0.0.1:5100")
//!         .run()
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # Where to find what
//!
//! | to do this | use |
//! |---|---|
//! | declare endpoints | [`endpoint`] on functions, [`service`] on an impl block, [`Route`] at run time |
//! | serve an existing web service | [`Microservice::mount`]: any tower service of HTTP requests |
//! | take things from a request | [`extract`]: [`Path`], [`Query`], [`Json`], [`State`], [`Deadline`], [`Claims`], `HeaderMap`, `Bytes`, `String`, [`Body`], [`Request`] .. |
//! | answer | [`response`]: [`Json`], text, bytes, a status, tuples, [`Chunks`], [`Sse`], [`Response`], `Result` |
//! | speak both ways | [`WebSocketUpgrade`] (feature `websocket`, on by default), or [`Tunnel`] for any other protocol |
//! | say goodbye before the service ends | [`Draining`] |
//! | say what went wrong | [`EndpointError`](derive@EndpointError), [`Problem`], [`Internal`] |
//! | run | [`Microservice::run`], or [`Microservice::start`] within a larger program |
//! | configure | `microservice.yaml`: [`Microservice::config_file`] |
//! | call other services | [`Client`] |
//! | test | the function itself; the service as a tower `Service`; `testing::TestGateway` (feature `testing`) |
//!
//! # Testing
//!
//! A handler is still a function, so a unit test calls it. A [`Microservice`] is a tower `Service`, so a test can ask it
//! by method and path, with extractors and errors at work and no gateway:
//!
//! ```
//! # use microservice_sdk::{Body, Microservice, Path, Request, endpoint, endpoints, http};
//! # use tower::ServiceExt as _;
//! #[endpoint(GET, "/hello/{name}")]
//! async fn hello(Path(name): Path<String>) -> String {
//!     format!("Hello, {name}!")
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let service = Microservice::new("greeter", "1.0.0").endpoints(endpoints![hello]);
//! let request = http::Request::get("/hello/Ann").body(Body::empty()).unwrap();
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(response.status(), 200);
//! # });
//! ```
//!
//! # What happens to a request
//!
//! - A handler is dropped when nobody waits for its answer any more: the client left, or the deadline passed. With
//!   `detached` it runs to its end. [`Cancellation`] tells a handler that runs on that nobody waits, and why.
//! - A handler may wait for anything, but should not compute or block for long where it stands: its thread serves others.
//!   One that takes some hundred microseconds at a time is noticed, and takes turns with its like, so that the service
//!   stays alive to its gateways. What keeps a thread for longer than that, or calls what blocks, is `blocking`: it
//!   has a thread of its own from beginning to end, and is not dropped in between.
//! - A handler that panics is a 500 for its own request and nothing else.
//! - What an extractor cannot take is answered with a precise problem (RFC 9457) before the handler runs.
//! - An error from 500 on is logged with its causes, and tells the client nothing.
//!
//! Deliberately unknown here: sockets, frames and brokers (a transport is a URL), and whom a request was routed past.

mod aside;
mod board;
mod bridge;
mod client;
mod connect;
mod dispatch;
mod draining;
mod endpoints;
mod error;
pub mod extract;
mod finder;
mod fleet;
mod handler;
mod health;
mod invocation;
mod lifecycle;
mod link_state;
mod link_task;
#[doc(hidden)]
pub mod macros;
mod message;
mod outage;
mod outgoing;
mod overrides;
mod pace;
mod plan;
mod reasons;
pub mod response;
mod serve;
mod service;
mod shares;
mod start_error;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use {bytes, http};

pub use self::client::{Client, ClientError};
pub use self::draining::Draining;
pub use self::endpoints::{Endpoints, Handlers, Route};
pub use self::error::{EndpointError, Internal, Problem};
pub use self::extract::{
    Claims, Deadline, FromRef, FromRequest, FromRequestParts, Json, Path, Query, RequestInfo, State, TraceContext,
    Tunnel, TunnelStream,
};
#[cfg(feature = "websocket")]
pub use self::extract::{WebSocket, WebSocketUpgrade, websocket};
pub use self::handler::{Handler, HandlerFuture, Preparing, Reads, Work};
pub use self::health::Health;
pub use self::lifecycle::Running;
pub use self::message::{Request, Response};
pub use self::response::{Chunks, Event, IntoResponse, IntoResponseParts, Sse};
pub use self::service::Microservice;
pub use self::start_error::{Mistake, StartError};
pub use router_common::frame::{HealthStatus, Reason};
pub use router_config::MicroserviceConfig;
pub use router_config::microservice::OnRefused;
pub use router_link::{Body, BodyError, Cancellation};
pub use sdk_macros::{EndpointError, endpoint, endpoints, service, version};
