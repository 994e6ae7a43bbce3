//! The UDP transport: whole frames in datagrams, for small calls (SPEC 7).
//!
//! [`packet`], [`replay`], [`pacing`], [`cookie`], [`handshake`], [`outgoing`], [`channel`], [`delivery`] and [`dial`] are
//! the packet layer: no sockets, no clock, no randomness. The rest is a socket for each service that dials, and one for
//! all services that a gateway listens to. Neither knows sessions; they only read the nonces of the handshake that passes.

pub mod channel;
pub mod cookie;
pub mod delivery;
pub mod dial;
pub mod handshake;
pub mod outgoing;
pub mod pacing;
pub mod packet;
pub mod replay;
