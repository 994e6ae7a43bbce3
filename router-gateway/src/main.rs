//! The gateway's binary: reads the command line and the configuration, opens the transports, and serves until it is told
//! to stop. Other subcommands ask one that is running.

mod commands;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use router_config::router::{LogConfig, LogFormat};
use router_config::{Sources, load, schema_for_microservice, schema_for_router};
use router_gateway::Gateway;
use router_gateway::settings::{self, Settings, Transports};
use router_gateway::workers::Workers;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::commands::explain;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "Exit codes: 0 done, or stopped in good order; 1 a failure while running, or a second signal; \
2 a wrong command line or configuration.";

/// Stella Router: HTTP in front, services that dial in behind.
#[derive(Parser)]
#[command(name = "router-gateway", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT; a second one ends at once.
    #[command(after_help = EXIT_CODES)]
    Serve {
        /// The configuration; without it, the defaults rule, and services may join over TCP on loopback.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Overrides one key, such as `http.listen=127.0.0.1:8081`; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Read a configuration as `serve` would, and say what is wrong with it.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Overrides one key; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Ask a running gateway why a request would go where it goes.
    #[command(after_help = explain::EXIT_CODES)]
    Explain(explain::Explain),
    /// Print the JSON Schema of a configuration file.
    Schema { of: SchemaOf },
}

#[derive(Clone, Copy, ValueEnum)]
enum SchemaOf {
    Router,
    Microservice,
}

/// A wrong command line or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config, overrides } => match read(config, overrides) {
            Ok(settings) => serve(&settings),
            Err(code) => code,
        },
        Command::Check { file, overrides } => match read(Some(file.clone()), overrides) {
            Ok(settings) => match settings::check_secrets(&settings.transports) {
                Err(error) if error.is_of_the_configuration() => {
                    eprintln!("error: {error}");
                    ExitCode::from(USAGE)
                }
                checked => {
                    if let Err(error) = checked {
                        eprintln!("warning: on this machine, {error}");
                    }
                    println!("{}: ok", file.display());
                    ExitCode::SUCCESS
                }
            },
            Err(code) => code,
        },
        Command::Explain(command) => explain::run(&command),
        Command::Schema { of } => {
            let schema = match of {
                SchemaOf::Router => schema_for_router::<Transports>(),
                SchemaOf::Microservice => schema_for_microservice(),
            };
            println!("{schema:#}");
            ExitCode::SUCCESS
        }
    }
}

fn read(file: Option<PathBuf>, overrides: Vec<String>) -> Result<Settings, ExitCode> {
    let mut sources = Sources::router().process_environment().overrides(overrides);
    let bare = file.is_none();
    if let Some(file) = file {
        sources = sources.file(file);
    }
    let mut settings: Settings = load(sources).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(USAGE)
    })?;
    if bare {
        // A gateway that nobody can join would be of no use to whoever just tries it.
        settings.transports.tcp.get_or_insert_default();
    }
    Ok(settings)
}

fn serve(settings: &Settings) -> ExitCode {
    log_to_standard_error(&settings.log);
    if let Err(error) = settings::check_secrets(&settings.transports) {
        tracing::error!("{error}");
        return ExitCode::from(USAGE);
    }
    match run(settings) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let count = settings.node.workers.map_or_else(cores, usize::from);
    let workers = Workers::start(count)?;
    // Signals, the admin listener and the accepting of links have a runtime of their own: they wait for no request.
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = control.block_on(async {
        let mut builder = Gateway::builder(settings).workers(workers.handles());
        for listener in settings::listen(&settings.transports)? {
            builder = builder.services(listener);
        }
        let gateway = builder.start().await?;
        let node = &settings.node;
        let environment = node.environment.as_deref().map(tracing::field::display);
        tracing::info!(node = %node.id, region = %node.region, environment, "up");
        announce(&gateway, count);
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal ends at once");
        tokio::select! {
            () = gateway.shutdown() => anyhow::Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
            _ = interrupt.recv() => Ok(ExitCode::FAILURE),
        }
    })?;
    workers.stop();
    tracing::info!("stopped");
    Ok(code)
}

fn announce(gateway: &Gateway, workers: usize) {
    if let Some(address) = gateway.http_addr() {
        tracing::info!(workers, "serving HTTP on http://{address}");
    }
    if let Some(address) = gateway.admin_addr() {
        tracing::info!("admin pages on http://{address}");
    }
    for listener in gateway.service_listeners() {
        tracing::info!("services may join at {listener}");
    }
    if gateway.service_listeners().is_empty() {
        tracing::warn!("no transport is configured: no service can join (see `transports` in router.yaml)");
    }
}

/// `RUST_LOG` rules over the configuration. The access log is off unless it is asked for.
fn log_to_standard_error(log: &LogConfig) {
    let default = format!("{},access={}", log.level.as_str(), if log.access { "info" } else { "off" });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        eprintln!("logging could not be set up: {error}");
    }
}
