//! Write a service as async functions; Stella Router brings it the requests.

mod client;
mod connect;
mod dispatch;
mod endpoints;
mod error;
pub mod extract;
mod handler;
mod lifecycle;
mod link_state;
mod link_task;
#[doc(hidden)]
pub mod macros;
mod overrides;
mod plan;
pub mod response;
mod serve;
mod service;
mod start_error;

pub use {bytes, http};

pub use self::client::{Client, ClientError};
pub use self::endpoints::{Endpoints, Route};
pub use self::error::{EndpointError, Internal, Problem};
pub use self::extract::{
    Claims, Deadline, FromRef, FromRequest, FromRequestParts, Json, Path, Query, RequestInfo, State,
};
pub use self::handler::{Handler, HandlerFuture, Request, Response};
pub use self::lifecycle::Running;
pub use self::response::{Chunks, IntoResponse, IntoResponseParts};
pub use self::service::Microservice;
pub use self::start_error::{Mistake, StartError};
pub use router_common::frame::HealthStatus;
pub use router_config::MicroserviceConfig;
pub use router_config::microservice::OnRefused;
pub use router_link::{Body, BodyError, Cancellation};
pub use sdk_macros::{EndpointError, endpoint, endpoints, version};
