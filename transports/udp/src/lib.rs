//! The UDP transport: whole frames in datagrams, for small calls (SPEC 7).
//!
//! [`packet`], [`replay`], [`pacing`], [`cookie`], [`handshake`], [`outgoing`], [`channel`], [`delivery`] and [`dial`] are
//! the packet layer: no sockets, no clock, no randomness. The rest is a socket for each service that dials, and one for
//! all services that a gateway listens to. Neither knows sessions; they only read the nonces of the handshake that passes.

mod carrier;
pub mod channel;
mod config;
mod connector;
pub mod cookie;
mod counters;
pub mod delivery;
mod demux;
pub mod dial;
pub mod handshake;
mod link;
mod listener;
pub mod outgoing;
pub mod pacing;
pub mod packet;
pub mod replay;
mod seat;
mod socket;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{UdpListenerSettings, check_datagram};
pub use connector::{UdpConnector, UdpConnectorSettings};
pub use counters::Counters;
pub use listener::UdpListener;
