//! The gateway's binary: reads the command line and the configuration, opens the transports, and serves until it is told
//! to stop. Other subcommands ask one that is running.

mod commands;

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use router_config::router::{LogConfig, LogFormat};
use router_config::{Sources, load, schema_for_microservice, schema_for_router};
use router_gateway::Gateway;
use router_gateway::handover::{TakeOver, UpgradeSocket, activation, notify};
use router_gateway::settings::{self, Settings, Transports};
use router_gateway::sockets::Sockets;
use router_gateway::workers::Workers;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[cfg(feature = "tls")]
use crate::commands::certs;
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
        /// Take the place of the process that serves at `upgrade.socket`, with its listening sockets and its services, so
        /// that nobody notices. Without such a process, serve as usual.
        #[arg(long)]
        take_over: bool,
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
    /// Make certificates to try TLS with.
    #[cfg(feature = "tls")]
    Certs(certs::Certs),
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
        Command::Serve { config, overrides, take_over } => match read(config, overrides) {
            Ok(settings) => serve(&settings, take_over),
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
        #[cfg(feature = "tls")]
        Command::Certs(command) => certs::run(&command),
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

fn serve(settings: &Settings, take_over: bool) -> ExitCode {
    log_to_standard_error(&settings.log);
    if take_over && settings.upgrade.socket.is_none() {
        tracing::error!("`--take-over` needs `upgrade.socket` in the configuration");
        return ExitCode::from(USAGE);
    }
    if let Err(error) = settings::check_secrets(&settings.transports) {
        tracing::error!("{error}");
        return ExitCode::from(USAGE);
    }
    match run(settings, take_over) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, take_over: bool) -> anyhow::Result<ExitCode> {
    let passed = activation::passed_sockets().context("a socket that the service manager passed")?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let count = settings.node.workers.map_or_else(cores, usize::from);
    let workers = Workers::start(count)?;
    // Signals, the admin listener and the accepting of links have a runtime of their own: they wait for no request.
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = control.block_on(serve_until_told(settings, take_over, passed, &workers))?;
    workers.stop();
    tracing::info!("stopped");
    Ok(code)
}

/// Serves until a signal, an operator or another process ends it; in the place of another process, if that is wanted.
async fn serve_until_told(
    settings: &Settings,
    take_over: bool,
    passed: Sockets,
    workers: &Workers,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut renew = signal(SignalKind::hangup())?;
    let node = &settings.node;
    let upgrade = settings.upgrade.socket.as_deref();
    let mut taking = match upgrade.filter(|_| take_over) {
        Some(path) => TakeOver::ask(path).await?,
        None => None,
    };
    let mut socket = match upgrade {
        // Whoever is there is asked to leave it first.
        Some(path) if taking.is_none() => Some(UpgradeSocket::bind(path, node.id.as_str()).await?),
        _ => None,
    };
    let mut sockets = taking.as_mut().map(TakeOver::take_sockets).unwrap_or_default();
    let passed = passed.without(&sockets);
    sockets.append(passed);

    let mut builder = Gateway::builder(settings).workers(workers.handles());
    for listener in settings::listen_with(settings, &mut sockets)? {
        builder = builder.services(listener);
    }
    builder = builder.sockets(sockets);
    if taking.is_some() {
        builder = builder.held();
    }
    let gateway = builder.start().await?;
    let environment = node.environment.as_deref().map(tracing::field::display);
    tracing::info!(node = %node.id, region = %node.region, environment, "up");
    if let Some(taking) = taking {
        tokio::select! {
            completed = taking.complete(&gateway, settings.upgrade.wait.as_duration()) => completed?,
            () = signals.next() => {
                tracing::info!("told to stop before taking over; the old process goes on");
                return Ok(ExitCode::FAILURE);
            }
        }
        socket = upgrade.and_then(|path| match UpgradeSocket::replace(path, node.id.as_str()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::error!(%error, "no other process will be able to take over");
                None
            }
        });
    }
    announce(&gateway, workers.handles().len());
    notify::ready();

    let handed_over = async {
        match &mut socket {
            Some(socket) => socket.handed_over(&gateway).await,
            None => std::future::pending().await,
        }
    };
    let is_replaced = tokio::select! {
        () = signals.next() => false,
        () = gateway.drain_wanted() => false,
        () = handed_over => true,
        never = renewals(&mut renew, &gateway) => match never {},
    };
    let ended = async {
        if is_replaced {
            gateway.leave_to_another_process().await;
        } else {
            tracing::info!("stopping; a further signal ends at once");
            notify::stopping();
            gateway.shutdown().await;
        }
    };
    tokio::select! {
        () = ended => Ok(ExitCode::SUCCESS),
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// The signals that end a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Looks at the certificates whenever SIGHUP asks for it.
async fn renewals(renew: &mut Signal, gateway: &Gateway) -> Infallible {
    loop {
        if renew.recv().await.is_none() {
            return std::future::pending().await;
        }
        tracing::info!("SIGHUP: looking at the certificates");
        gateway.renew_certificates().await;
    }
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
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // The AMQP client prints whole messages here, whatever is in them.
    if let Ok(silence) = "lapin::returned_messages=off".parse() {
        filter = filter.add_directive(silence);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        eprintln!("logging could not be set up: {error}");
    }
}
