//! Trials of whole processes: what a gateway and its services do under slow readers, storms of cancellations, restarts,
//! kills, exchanged certificates, brokers that fail, and hours of mixed load.
//!
//! Each trial starts the programs that it is given, drives them from outside with real HTTP over loopback, looks at
//! what the admin pages and the system tell, prints its figures, and fails when something was lost, mixed up or not
//! given back. It links nothing of the product: `cargo xtask endure` builds the programs and passes their paths.

mod ask;
mod books;
mod broker;
mod cancels;
mod certificates;
mod replace;
mod slow_readers;
mod soak;
mod stand;
mod tally;
mod ways;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::stand::Programs;

/// Trials of whole processes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask endure", bin_name = "cargo xtask endure")]
struct Options {
    #[command(flatten)]
    programs: Programs,
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Debug, Subcommand)]
enum Trial {
    /// A thousand clients that read slowly beside fast ones on the same links: what the fast ones notice, and what the
    /// gateway holds for each slow one.
    SlowReaders(slow_readers::Options),
    /// Requests that are given up at random points: nothing may be left of them.
    Cancels(cancels::Options),
    /// Services restarted one after the other, the gateway replaced, an instance killed, all under load.
    Replace(replace::Options),
    /// The certificates of the CA, of the gateway and of the services exchanged under load: nobody may notice.
    Certificates(certificates::Options),
    /// Services over RabbitMQ, and the broker restarted, or a node of a cluster or a gateway killed, under load.
    Broker(broker::Options),
    /// Mixed load with faults for as long as one likes: memory must stay flat.
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let programs = &options.programs;
    runtime.block_on(async {
        match &options.trial {
            Trial::SlowReaders(options) => slow_readers::run(programs, options).await,
            Trial::Cancels(options) => cancels::run(programs, options).await,
            Trial::Replace(options) => replace::run(programs, options).await,
            Trial::Certificates(options) => certificates::run(programs, options).await,
            Trial::Broker(options) => broker::run(programs, options).await,
            Trial::Soak(options) => soak::run(programs, options).await,
        }
    })
}

/// Says what is going on.
fn say(text: impl std::fmt::Display) {
    eprintln!("==> {text}");
}
