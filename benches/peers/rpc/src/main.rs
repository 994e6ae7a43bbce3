//! Request and reply with 64 bytes each over one TCP connection, with many requests in flight: Stella Router's link
//! alone and with the SDK, beside tarpc, tonic and NATS.
//!
//! Both ends are in this process, so that what it uses is what a request costs: on one thread, where all that is ready
//! is done before anything waits, or on a thread each, as two programs would be. A broker, where there is one, is a process
//! of its own. It prints `begin` and `end` around what is to be measured, and measures no processor time itself.

mod load;
mod nats;
mod stella;
mod tarpc_peer;
mod tonic_peer;

use std::net::{Ipv4Addr, TcpListener};
use std::thread;

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
    /// Each end on a thread of its own.
    #[arg(long)]
    apart: bool,
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
    let Options { peer, in_flight, seconds, apart, broker } = Options::parse();
    let load = Load { in_flight, seconds };
    let broker = broker.unwrap_or_default();
    // A service of Stella Router dials its gateway, so there the near end listens.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listens_far = matches!(peer, Peer::Tarpc | Peer::Tonic);
    let (far_listener, near_listener) = if listens_far { (Some(listener), None) } else { (None, Some(listener)) };

    let far_broker = broker.clone();
    let far = async move || match (peer, far_listener) {
        (Peer::Tarpc, Some(listener)) => tarpc_peer::answer(load, listener).await,
        (Peer::Tonic, Some(listener)) => tonic_peer::answer(load, listener).await,
        (Peer::Nats, _) => nats::answer(&far_broker).await,
        (Peer::Sdk, _) => stella::answer_by_sdk(load, address).await,
        (_, _) => stella::answer(load, address).await,
    };
    let near = async move || match (peer, near_listener) {
        (Peer::Tarpc, _) => tarpc_peer::ask(load, address).await,
        (Peer::Tonic, _) => tonic_peer::ask(load, address).await,
        (Peer::Link | Peer::Sdk, Some(listener)) => stella::ask(load, listener).await,
        (_, _) => nats::ask(load, &broker).await,
    };

    if apart {
        thread::spawn(move || runtime()?.block_on(far()));
        let near = tokio::task::LocalSet::new().block_on(&runtime()?, near());
        return near;
    }
    tokio::task::LocalSet::new().block_on(&runtime()?, async {
        tokio::select! {
            outcome = near() => outcome,
            ended = async { tokio::task::spawn_local(far()).await? } => ended,
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
