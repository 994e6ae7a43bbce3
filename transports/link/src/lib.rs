//! Links, connectors and listeners, and the driver that joins a link to a pure session.
//!
//! This crate stands between `router_common::session::Session`, which knows no clock and no I/O, and everyone who speaks
//! `http::Request<Body>` and `http::Response<Body>`. It deliberately knows neither the gateway nor the SDK, and no
//! transport: each of those depends on it.
//!
//! | to do this | use |
//! |---|---|
//! | carry frames over something new | [`Link`], [`Connector`], [`Listener`], and [`FramedLink`] for byte streams |

mod backoff;
mod body;
mod context;
mod environment;
mod framed;
mod link;

pub use backoff::Backoff;
pub use body::{Body, BodyError};
pub use context::{Parameters, RequestContext};
pub use environment::{Environment, SystemEnvironment};
pub use framed::{ByteStream, FramedLink};
pub use link::{
    BoxFuture, BoxLink, BoxListener, Capabilities, Connector, DetachedLink, Link, LinkError, Listener, PeerInfo,
};
