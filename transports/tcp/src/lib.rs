//! The TCP transport: frames as a byte stream (SPEC 7).
//!
//! It knows sockets: addresses, options, deadlines for connecting. Framing is `router_link`'s, and who may connect is
//! proved by the session's handshake; after it a network is trusted.

mod config;
mod connector;
mod listener;
mod socket;

pub use config::TcpListenerSettings;
pub use connector::{TcpConnector, TcpConnectorSettings, authority};
pub use listener::{TcpListener, open};
pub use socket::prepare;
