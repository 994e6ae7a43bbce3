//! `cargo xtask bench`: ways to measure. Alone it runs the criterion benches; its subcommands start whole processes
//! and measure these beside others.
//!
//! Every comparison is made side by side in one run. No figure here is ever held against a limit that fails: a timed
//! assertion is no test. Where a goal stands beside a figure, it is for reading.

mod accounting;
mod both_ends;
mod callgrind;
mod compare;
mod criterion;
mod fair;
mod features;
mod goals;
mod guard;
mod idle;
mod launch;
mod load;
mod machine;
mod parts;
mod report;
mod rpc;
mod samples;
mod scale;
mod stand;
mod stream;
mod table;
mod tools;
mod transports;

use anyhow::Result;
use clap::Subcommand;

use crate::process::Workspace;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    tool: Option<Tool>,

    #[command(flatten)]
    criterion: criterion::Options,
}

#[derive(Subcommand)]
enum Tool {
    /// Small requests beside nginx, HAProxy, a hyper reverse proxy and no proxy: rate, time, processor time, memory.
    Compare(compare::Args),
    /// Bodies of 10 MiB up, down and both ways, beside the same.
    Stream(stream::Args),
    /// Memory of idle connections, of requests in flight, and of registered instances.
    Idle(idle::Args),
    /// Request and reply over one connection: our link beside tarpc, tonic and NATS.
    Rpc(rpc::Args),
    /// Round trips over each transport, beside bare UDP and bare lapin.
    Transports(transports::Args),
    /// Many endpoints, instances and connections, and instances that join and leave: what a request costs meanwhile.
    Scale(scale::Args),
    /// Small requests beside a stalled body, or a bulk one, on the same link.
    Fair(fair::Args),
    /// Instructions of a request by part of gateway and service, and what each feature adds.
    Features(features::Args),
    /// Instruction counts of single functions, beside the recorded ones: tells what grew.
    Guard(guard::Args),
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    match &args.tool {
        None => criterion::run(workspace, &args.criterion),
        Some(Tool::Compare(args)) => compare::run(workspace, args),
        Some(Tool::Stream(args)) => stream::run(workspace, args),
        Some(Tool::Idle(args)) => idle::run(workspace, args),
        Some(Tool::Rpc(args)) => rpc::run(workspace, args),
        Some(Tool::Transports(args)) => transports::run(workspace, args),
        Some(Tool::Scale(args)) => scale::run(workspace, args),
        Some(Tool::Fair(args)) => fair::run(workspace, args),
        Some(Tool::Features(args)) => features::run(workspace, args),
        Some(Tool::Guard(args)) => guard::run(workspace, args),
    }
}
