//! Write a service as async functions; Stella Router brings it the requests.

mod dispatch;
mod endpoints;
mod error;
pub mod extract;
mod handler;
#[doc(hidden)]
pub mod macros;
pub mod response;
mod service;
mod start_error;

pub use {bytes, http};

pub use self::endpoints::{Endpoints, Route};
pub use self::error::{EndpointError, Internal, Problem};
pub use self::extract::{
    Claims, Deadline, FromRef, FromRequest, FromRequestParts, Json, Path, Query, RequestInfo, State,
};
pub use self::handler::{Handler, HandlerFuture, Request, Response};
pub use self::response::{Chunks, IntoResponse, IntoResponseParts};
pub use self::service::Microservice;
pub use self::start_error::{Mistake, StartError};
pub use router_config::MicroserviceConfig;
pub use router_config::microservice::OnRefused;
pub use router_link::{Body, BodyError};
pub use sdk_macros::{EndpointError, endpoint, endpoints, version};
