//! The RabbitMQ transport: whole frames in messages, through a broker that both sides dial (SPEC 7).
//!
//! A side has one AMQP connection with one queue of its own, however many links it has: `station` keeps them (`up`), and
//! rebuilds them from nothing whenever they are lost. `listener` and `connector` are what the two sides add: whom they announce
//! themselves to, and who may open links. `link`, `keys` and `message` know nothing of topology. docs/RABBITMQ.md says
//! what there is on the broker, docs/PROTOCOL.md what is in a message.
//!
//! Nothing here decides who may register: the session's handshake does. Its keys then seal every message.

mod announcement;
mod broker;
mod config;
mod connector;
mod dial;
mod discovery;
mod error;
mod keys;
mod link;
mod listener;
mod mailbox;
mod message;
mod node;
mod owed;
mod publish;
mod station;
mod up;
mod watch;

pub use broker::Broker;
pub use config::{BrokerUrls, RabbitListenerSettings};
pub use connector::RabbitConnector;
pub use listener::{RabbitListener, RabbitListenerOptions};
/// What AMQPS is spoken with.
pub use transport_tls::ClientTls;

/// Name of the transport.
pub(crate) const TRANSPORT: &str = "rabbitmq";
/// The exchange by which gateways and services find one another, unless another one is named.
pub const EXCHANGE: &str = "stella";
/// Messages that a side may have been sent and not acknowledged, unless another number is set. Each is at most a broker's
/// frame long, 128 KiB by default.
pub const PREFETCH: u16 = 256;
