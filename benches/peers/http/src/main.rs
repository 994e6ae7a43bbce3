//! What the gateway is measured beside, and with: a service and a reverse proxy on plain hyper, a client that streams,
//! a client that only holds connections.
//!
//! It knows nothing of Stella Router. The clients print `begin` and `end` around what is to be measured, so that
//! whoever started them can read processor time at these two moments.

mod beside;
mod hold;
mod proxy;
mod runtime;
mod service;
mod stream;

use clap::{Parser, Subcommand};

/// Programs to measure beside, and with.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// A service: GET /hello, GET /bytes/{n}, GET /sleep/{ms}, POST /echo, POST /sink.
    Service(service::Options),
    /// A reverse proxy with a pool of connections.
    Proxy(proxy::Options),
    /// Large bodies, one after the other, over one connection.
    Stream(stream::Options),
    /// One large body that moves or stands still, until it is told to stop.
    Beside(beside::Options),
    /// Connections that are opened and kept; on command, each with a request in flight.
    Hold(hold::Options),
}

fn main() -> anyhow::Result<()> {
    match Options::parse().program {
        Program::Service(options) => service::run(&options),
        Program::Proxy(options) => proxy::run(&options),
        Program::Stream(options) => stream::run(&options),
        Program::Beside(options) => beside::run(&options),
        Program::Hold(options) => hold::run(&options),
    }
}

/// Tells whoever started this program what it has come to.
fn mark(line: &str) {
    println!("{line}");
}
