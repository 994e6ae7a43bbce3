//! `cargo xtask endure`: builds the programs as they are released, and has them tried by `endurance`.
//!
//! It knows nothing of the trials but which of them need a RabbitMQ broker: what follows the command is theirs, and so is the
//! outcome.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::broker;
use crate::metadata::Metadata;
use crate::process::Workspace;

/// `--help` tells which trials there are.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// The trial and its options: `slow-readers`, `cancels`, `replace`, `certificates`, `broker`, `soak`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "TRIAL")]
    trial: Vec<String>,
}

const PACKAGES: [&str; 3] = ["router-gateway", "bench-service", "endurance"];

/// A trial, and what `--over` says, that need a broker.
const WITH_BROKER: [&str; 3] = ["broker", "amqp", "several"];

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let needs_broker = |word: &String| WITH_BROKER.contains(&word.trim_start_matches("--over="));
    if args.trial.iter().any(needs_broker) {
        broker::see_to_it()?;
    }
    let packages = PACKAGES.into_iter().flat_map(|package| ["--package", package]);
    if !workspace.cargo(["build", "--release", "--bins"].into_iter().chain(packages)).run()? {
        bail!("the programs do not build");
    }
    let release = Metadata::read(workspace)?.target_directory.join("release");
    let mut command = Command::new(release.join("endurance"));
    command.arg("--gateway-program").arg(release.join("router-gateway"));
    command.arg("--service-program").arg(release.join("bench-service"));
    let status = command.args(&args.trial).stdin(Stdio::null()).status().context("endurance cannot be started")?;
    if !status.success() {
        bail!("the trial was not passed");
    }
    Ok(())
}
