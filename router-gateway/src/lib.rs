//! The HTTP router gateway: a library and a binary.
//!
//! HTTP clients talk to it; services dial in, register their endpoints, and get requests over the framed protocol.
//! [`Gateway::builder`] starts one within any program; the binary is a thin shell around it.

mod admin;
pub mod certificates;
mod dispatch;
pub mod edge;
mod gateway;
#[cfg(unix)]
pub mod handover;
pub mod http_semantics;
pub mod layers;
mod links;
mod publishing;
pub mod registry;
pub mod request_id;
pub mod respond;
pub mod routing;
pub mod settings;
pub mod sockets;
mod stack;
pub mod telemetry;
mod token;
pub mod workers;

pub use gateway::{Builder, Gateway, StartError};
