//! The transports of this workspace, each as the conformance suite wants it.

mod in_memory;
mod rabbitmq;
mod scattering;
mod tcp;
mod tls;
mod udp;

pub use router_conformance::Transport;
use router_link::testing::Scattering;
use transport_udp::testing::Weather;

pub const IN_MEMORY: Transport = Transport::new(&in_memory::InProcess);
pub const TCP: Transport = Transport::new(&tcp::Tcp);
pub const TLS: Transport = Transport::new(&tls::Tls);
pub const UDP: Transport = Transport::new(&udp::Udp { name: "udp", weather: None });
/// The same over a network that loses, doubles, delays and reorders 30 % of the datagrams.
pub const UDP_IN_BAD_WEATHER: Transport =
    Transport::new(&udp::Udp { name: "udp-in-bad-weather", weather: Some(Weather::BAD) });
pub const RABBITMQ: Transport = Transport::new(&rabbitmq::RabbitMq);

/// No transport, but what a bad one would be: it delivers small messages in any order,
pub const SCATTERING: Transport =
    Transport::new(&scattering::Scattered { name: "scattering", scattering: Scattering::CALM });
/// and not all of them.
pub const LOSSY: Transport =
    Transport::new(&scattering::Scattered { name: "lossy", scattering: Scattering { loses: 10, ..Scattering::CALM } });

/// All of them.
pub const ALL: &[Transport] = &[IN_MEMORY, TCP, TLS, UDP, RABBITMQ];
