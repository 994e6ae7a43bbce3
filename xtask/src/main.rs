//! The project's own commands, as `cargo xtask <command>`.
//!
//! A command here orchestrates cargo and reads the repository; it needs nothing but a Rust toolchain. It
//! deliberately knows no type of the product: what it checks, it checks from the outside, so that it still
//! builds and speaks when the product does not.

mod bench;
mod broker;
mod endure;
mod lint;
mod metadata;
mod process;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::Workspace;

/// Stella Router's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what the tests need, then run every test of the workspace and every snippet of its documents.
    Test(test::Args),
    /// Check format, clippy, documentation and the house rules; run them all, then say which failed.
    Lint,
    /// Check the house rules alone: crate graph, import cycles, file headers and lengths, banned words.
    Tidy,
    /// Run the product on a deterministic network with faults, from seeds.
    Simulate(simulate::Args),
    /// Run the criterion benches and print one table.
    Bench(bench::Args),
    /// Run a private RabbitMQ broker until this is ended; its address is printed.
    Broker,
    /// Try whole processes: slow readers, cancellations, restarts and kills under load, soaks.
    Endure(endure::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Workspace::locate().and_then(|workspace| match cli.command {
        Command::Test(args) => test::run(&workspace, &args),
        Command::Lint => lint::run(&workspace),
        Command::Tidy => tidy::run(&workspace),
        Command::Simulate(args) => simulate::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Broker => broker::run(),
        Command::Endure(args) => endure::run(&workspace, &args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_flags_goes_to_the_test_runner() {
        let cli = Cli::parse_from(["cargo xtask", "test", "-p", "router-common", "codec", "--no-capture"]);
        let Command::Test(args) = cli.command else {
            panic!("parsed as another command");
        };
        assert_eq!(args.package, ["router-common"]);
        assert_eq!(args.runner, ["codec", "--no-capture"]);
    }
}
