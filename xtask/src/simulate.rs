//! `cargo xtask simulate`: builds the simulation, optimised and with its checks on, and has it run seeds.
//!
//! It knows nothing of what is simulated; the program shows progress and a summary, and fails if a seed does.

use anyhow::{Result, bail};

use crate::process::Workspace;

/// Options go on to the program as they are: `--seeds N` and `--from S` for a number of seeds, `--seed X` for one with its
/// event log, `--carrier network|memory`, `--jobs N`, `--twice`; with `--seed` also `--plan` and `--logs FILTER`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let start = ["run", "--quiet", "--profile", "simulation", "--package", "simulation", "--"];
    let options = args.options.iter().map(String::as_str);
    if !workspace.cargo(start.into_iter().chain(options)).run()? {
        bail!("the simulation failed");
    }
    Ok(())
}
