//! Links, connectors and listeners, and the driver that joins a link to a pure session.
//!
//! This crate stands between `router_common::session::Session`, which knows no clock and no I/O, and everyone who speaks
//! `http::Request<Body>` and `http::Response<Body>`. It deliberately knows neither the gateway nor the SDK, and no
//! transport: each of those depends on it.
//!
//! | to do this | use |
//! |---|---|
//! | carry frames over something new | [`Link`], [`Connector`], [`Listener`], and [`FramedLink`] for byte streams, such as tokio's sockets |
//! | find gateways that come and go behind one address | [`Connector::discover`], [`Discovery`] |
//! | run one link | [`Driver`], with an [`Application`] that takes what the peer sends |
//! | send a request over a link | [`Handle::call`], which gives an [`Exchange`] |
//! | answer one | [`Responder`] |
//! | carry opaque bytes both ways | [`Tunnel`], which [`Accept`] opens for who answers |
//! | prove that a transport keeps the contract | `contract!` (feature `testing`) |

mod application;
mod backoff;
mod body;
mod body_error;
mod call;
mod context;
mod convert;
mod driver;
mod environment;
mod exchange;
mod framed;
mod handle;
mod inbound;
mod incoming;
mod link;
mod pump;
mod responder;
mod shared;
mod sockets;
#[cfg(feature = "testing")]
pub mod testing;
mod tunnel;
mod whole;

pub use application::{Application, ConnectionEvent, Refused};
pub use backoff::Backoff;
pub use body::Body;
pub use body_error::BodyError;
pub use call::Call;
pub use context::{Cancellation, Cancelled, Parameters, RequestContext};
pub use convert::Fields;
pub use driver::{DetachedDriver, Driver};
pub use environment::{Environment, SystemEnvironment};
pub use exchange::{CallError, Exchange};
pub use framed::{ByteStream, FramedLink};
pub use handle::Handle;
pub use inbound::Inbound;
pub use link::{
    BoxFuture, BoxLink, BoxListener, Capabilities, Connector, DetachedLink, Discarded, Discovered, Discovery, Link,
    LinkError, Listener, PeerInfo,
};
pub use responder::{Respond, RespondError, Responder, Unwanted};
pub use tunnel::{Accept, Tunnel, UPGRADE_PROTOCOLS};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_threads_may() {
        fn send<T: Send>() {}
        fn shared<T: Send + Sync + Clone>() {}
        send::<Body>();
        send::<Driver>();
        send::<DetachedDriver>();
        send::<Exchange>();
        send::<Responder>();
        send::<Respond>();
        send::<Tunnel>();
        shared::<Handle>();
        shared::<Cancellation>();
        shared::<RequestContext>();
    }
}
