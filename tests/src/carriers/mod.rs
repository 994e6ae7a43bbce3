//! The transports of this workspace, each as the conformance suite wants it.

mod in_memory;
mod tcp;
mod tls;

pub use router_conformance::Transport;

pub const IN_MEMORY: Transport = Transport::new(&in_memory::InProcess);
pub const TCP: Transport = Transport::new(&tcp::Tcp);
pub const TLS: Transport = Transport::new(&tls::Tls);

/// All of them.
pub const ALL: &[Transport] = &[IN_MEMORY, TCP, TLS];
