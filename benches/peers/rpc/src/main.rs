//! Request and reply with 64 bytes each over one TCP connection, with many requests in flight: Stella Router's link
//! alone and with the SDK, beside tarpc, tonic and NATS.
//!
//! Both ends are in this process, on one thread, so that what it uses is what a request costs; a broker, where there
//! is one, is a process of its own. It prints `begin` and `end` around what is to be measured, and measures no processor
//! time itself.

mod load;
mod nats;
mod stella;
mod tarpc_peer;
mod tonic_peer;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::load::Load;

#[derive(Debug, Parser)]
struct Options {
    peer: Peer,
    /// Requests in flight.
    #[arg(long, default_value = "64")]
    in_flight: u32,
    /// For how long is measured, after a second that is not.
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// Where the NATS server is: nats://127.0.0.1:4222
    #[arg(long, required_if_eq("peer", "nats"))]
    broker: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Two drivers with their sessions, and a handler that answers in place.
    Link,
    /// The same, with a service of the SDK at the far end.
    Sdk,
    Tarpc,
    Tonic,
    Nats,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let load = Load { in_flight: options.in_flight, seconds: options.seconds };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let broker = options.broker.as_deref().unwrap_or_default();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match options.peer {
            Peer::Link => stella::link(load).await,
            Peer::Sdk => stella::sdk(load).await,
            Peer::Tarpc => tarpc_peer::run(load).await,
            Peer::Tonic => tonic_peer::run(load).await,
            Peer::Nats => nats::run(load, broker).await,
        }
    })
}
