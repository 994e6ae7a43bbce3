//! The gateway from outside: bytes on its sockets, a service over the in-memory transport.

mod common;
mod explain;
mod gateway;
mod http1;
mod http2;
mod limits;
mod links;
mod memory;
mod quiet;
mod retries;
mod slow;
mod stub;
mod tunnels;
mod waiting;
