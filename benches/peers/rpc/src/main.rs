//! Request and reply over one connection, with many requests in flight: Stella Router's link alone, over each transport,
//! and with the SDK, beside tarpc, tonic, NATS, bare UDP and bare lapin.
//!
//! Both ends are in this process, so that what it uses is what a request costs: on one thread, where all that is ready
//! is done before anything waits, or on a thread each, as two programs would be. A broker, where there is one, is a process
//! of its own. It prints `begin` and `end` around what is to be measured, and measures no processor time itself.

mod lapin_peer;
mod load;
mod nats;
mod over;
mod stella;
mod tarpc_peer;
mod tonic_peer;
mod udp_peer;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::load::Load;
use crate::over::{Over, Way};

#[derive(Debug, Parser)]
struct Options {
    peer: Peer,
    /// Requests in flight.
    #[arg(long, default_value = "64")]
    in_flight: u32,
    /// What carries the requests of `link` and `sdk`.
    #[arg(long, default_value = "tcp")]
    over: Over,
    /// Bytes of a request, and of its reply.
    #[arg(long, default_value = "64")]
    body: usize,
    /// For how long is measured, after a second that is not.
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// Each end on a thread of its own.
    #[arg(long)]
    apart: bool,
    /// Where the broker is: nats://127.0.0.1:4222, or amqp://127.0.0.1:5672
    #[arg(long, required_if_eq_any([("peer", "nats"), ("peer", "lapin"), ("over", "rabbitmq")]))]
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
    /// Datagrams that are sent back.
    Udp,
    /// Messages that are answered, through RabbitMQ.
    Lapin,
}

fn main() -> Result<()> {
    let Options { peer, in_flight, over, body, seconds, apart, broker } = Options::parse();
    let load = Load { in_flight, seconds, body };
    let broker = broker.unwrap_or_default();
    // A service of Stella Router dials its gateway, so there the near end listens; of the others the far end does.
    let way = matches!(peer, Peer::Link | Peer::Sdk).then(|| over.way(&broker, body)).transpose()?;
    let (listen, dial) = match way {
        Some(Way { listen, connector, secret, files }) => (Some((listen, secret.clone(), files)), Some((connector, secret))),
        None => (None, None),
    };
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    tcp.set_nonblocking(true)?;
    let tcp_address = tcp.local_addr()?;
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    udp.set_nonblocking(true)?;
    let udp_address = udp.local_addr()?;

    let far_broker = broker.clone();
    let far = async move || match (peer, dial) {
        (Peer::Tarpc, _) => tarpc_peer::answer(load, tcp).await,
        (Peer::Tonic, _) => tonic_peer::answer(load, tcp).await,
        (Peer::Nats, _) => nats::answer(&far_broker).await,
        (Peer::Udp, _) => udp_peer::answer(udp).await,
        (Peer::Sdk, Some((connector, _))) => stella::answer_by_sdk(load, connector).await,
        (Peer::Link, Some((connector, secret))) => stella::answer(load, connector, secret).await,
        (Peer::Lapin | Peer::Sdk | Peer::Link, _) => lapin_peer::answer(&far_broker).await,
    };
    let near = async move || match (peer, listen) {
        (Peer::Tarpc, _) => tarpc_peer::ask(load, tcp_address).await,
        (Peer::Tonic, _) => tonic_peer::ask(load, tcp_address).await,
        (Peer::Nats, _) => nats::ask(load, &broker).await,
        (Peer::Udp, _) => udp_peer::ask(load, udp_address).await,
        (Peer::Link | Peer::Sdk, Some((listen, secret, _files))) => stella::ask(load, listen().await?, secret).await,
        (Peer::Lapin | Peer::Link | Peer::Sdk, _) => lapin_peer::ask(load, &broker).await,
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
