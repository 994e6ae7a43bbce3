//! Call: what a request needs to be sent, beside its HTTP parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use router_common::endpoint::{Claim, EndpointId};
use router_common::head::Scheme;
use router_common::session::lease::Permit;

use crate::context::Parameters;

/// What a request needs to be sent, beside its HTTP parts. The default is a request that a service opens.
#[derive(Debug, Default)]
pub struct Call {
    /// The receiver's endpoint; `None`: the receiver routes by method and path.
    pub endpoint: Option<EndpointId>,
    /// When the answer is no longer wanted. The receiver is told how much time is left, unless a tunnel is asked for; the
    /// exchange ends by then, if the head of the response is not here.
    pub deadline: Option<Instant>,
    /// Routers and services passed so far.
    pub hops: u8,
    /// How the client came.
    pub scheme: Scheme,
    /// Offsets of the path parameters in the raw target.
    pub parameters: Parameters,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// What the caller may do, as verified.
    pub claims: Option<Arc<[Claim]>>,
    /// The slot of the instance's lease that this request takes.
    pub permit: Option<Permit>,
    /// Asks for a tunnel of this protocol. The request has no body, and is whole until the tunnel is open: see
    /// [`Tunnel::of`](crate::Tunnel::of).
    pub tunnel: Option<Arc<str>>,
    /// Open before the body is asked for its first bytes: for clients that wait for 100 (Continue).
    pub open_first: bool,
}
