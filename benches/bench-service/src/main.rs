//! A service to measure with: one process, as many instances, links and endpoints as one likes.
//!
//! It is an ordinary user of the SDK and knows nothing of gateways but their addresses. `endpoints` says what it
//! answers. When every instance can be reached through every gateway it prints one line that begins with `ready`.

mod endpoints;

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use microservice_sdk::{Microservice, OnRefused, Running, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::endpoints::Info;

/// A service to measure with. Logs by RUST_LOG, to the standard error.
#[derive(Debug, Parser)]
#[command(version = None)]
struct Options {
    /// A gateway to join, as tcp://127.0.0.1:5100, or a broker that leads to gateways, as amqp://guest:guest@127.0.0.1:5672/%2f;
    /// may be given several times.
    #[arg(long = "gateway", value_name = "URL", required = true)]
    gateways: Vec<String>,

    /// The secret shared with the gateways, or where it is kept: env:NAME. Gateways at tls:// are shown the certificate or
    /// the token instead, if there is one.
    #[arg(long, value_name = "S")]
    secret: Option<String>,

    /// The CAs of which one has signed the certificates of gateways at tls://, a PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The certificate to show to gateways at tls://, a PEM file.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,

    /// Its private key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,

    /// The name that gateways' certificates are for. Default: the host of the URL.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,

    /// The bearer token to show to gateways at tls://, or where it is kept: env:NAME.
    #[arg(long, value_name = "T")]
    token: Option<String>,

    /// The largest datagram to send to gateways at udp://, in bytes. Default: 1200.
    #[arg(long, value_name = "BYTES")]
    datagram: Option<usize>,

    /// Parallel links from each instance to each gateway. Default: as many as the gateway wants.
    #[arg(long, value_name = "N")]
    links: Option<NonZeroU16>,

    /// Threads that serve; 1 is a single-threaded runtime. Default: one a core.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// The service's name.
    #[arg(long, default_value = "bench")]
    name: String,

    /// The service's version.
    #[arg(long = "version", default_value = "1.0.0")]
    service_version: String,

    /// Where the instances say that they run. Default: the SDK's.
    #[arg(long, value_name = "R")]
    region: Option<String>,

    /// The instance's id; of several instances ID-1, ID-2 and so on. Default: a new one at each start.
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,

    /// Instances in this process.
    #[arg(long, value_name = "N", default_value = "1")]
    instances: NonZeroUsize,

    /// Further endpoints: GET /e/0, GET /e/1 and so on.
    #[arg(long, value_name = "N", default_value = "0")]
    endpoints: usize,

    /// Requests that may be in flight in one instance. Default: the SDK's.
    #[arg(long, value_name = "N")]
    lease: Option<u32>,

    /// When a gateway refuses an endpoint, for example one that streams over UDP.
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    on_refused: Refusal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Refusal {
    /// The start fails.
    Fail,
    /// It is said, and the rest is served.
    Warn,
}

fn main() -> ExitCode {
    match start(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<()> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(std::io::stderr).init();
    let mut runtime = match options.threads {
        Some(NonZeroUsize::MIN) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = options.threads.filter(|threads| *threads > NonZeroUsize::MIN) {
        runtime.worker_threads(threads.get());
    }
    runtime.enable_all().build()?.block_on(run(options))
}

/// Starts the instances and owns them, until a signal or the first one that ends by itself.
async fn run(options: &Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let secret = options.secret.as_deref().map(|text| kept("--secret", text)).transpose()?;
    let token = options.token.as_deref().map(|text| kept("--token", text)).transpose()?;
    let token = token.map(String::from_utf8).transpose().context("--token")?;
    let total = options.instances.get();
    let (ready, mut becoming_ready) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut instances = JoinSet::new();
    for number in 1..=total {
        let instance = service(options, number, secret.as_deref(), token.as_deref()).start()?;
        instances.spawn(serve(instance, ready.clone(), stop.clone()));
    }
    drop(ready);
    let mut are_ready = 0;
    while !instances.is_empty() {
        tokio::select! {
            Some(()) = becoming_ready.recv() => {
                are_ready += 1;
                if are_ready == total {
                    let Options { name, service_version, gateways, .. } = options;
                    println!("ready: {name} {service_version}, instances: {total}, gateways: {}", gateways.len());
                }
            }
            Some(ended) = instances.join_next() => ended??,
            _ = terminate.recv() => if stop_or_end(&stop) { break },
            _ = interrupt.recv() => if stop_or_end(&stop) { break },
        }
    }
    Ok(())
}

/// The first signal drains the instances; a second one ends them at once.
fn stop_or_end(stop: &CancellationToken) -> bool {
    let again = stop.is_cancelled();
    stop.cancel();
    again
}

async fn serve(mut instance: Running, ready: mpsc::Sender<()>, stop: CancellationToken) -> Result<(), StartError> {
    let working = async {
        instance.ready().await?;
        // Nobody counts any more when the process is ending.
        let _ = ready.send(()).await;
        instance.ended().await
    };
    match stop.run_until_cancelled(working).await {
        Some(ended) => ended,
        None => instance.shutdown().await,
    }
}

/// One instance as the options describe it.
fn service(options: &Options, number: usize, secret: Option<&[u8]>, token: Option<&str>) -> Microservice<Info> {
    let info = Info { version: options.service_version.clone() };
    let mut service = endpoints::add(Microservice::new(&options.name, &options.service_version).state(info));
    for place in 0..options.endpoints {
        service = endpoints::add_numbered(service, place);
    }
    for url in &options.gateways {
        service = service.gateway(url);
        if let Some(links) = options.links {
            service = service.links(links.get());
        }
        let is_tls = url.starts_with("tls://");
        // Who is known by something else proves nothing, and asks for no proof.
        let is_known = is_tls && (options.certificate.is_some() || token.is_some());
        if let Some(secret) = secret.filter(|_| !is_known) {
            service = service.shared_secret(secret);
        }
        // What is said of TLS is for those gateways that are reached by it.
        if is_tls || url.starts_with("amqps://") {
            service = secured(service, options);
        }
        if let Some(bytes) = options.datagram
            && url.starts_with("udp://")
        {
            service = service.datagram(bytes);
        }
        if let Some(token) = token.filter(|_| is_tls) {
            service = service.token(token);
        }
    }
    if let Some(region) = &options.region {
        service = service.region(region);
    }
    if let Some(id) = &options.instance_id {
        let only = options.instances == NonZeroUsize::MIN;
        service = service.instance_id(if only { id.clone() } else { format!("{id}-{number}") });
    }
    let service = match options.on_refused {
        Refusal::Fail => service,
        Refusal::Warn => service.on_refused(OnRefused::Warn),
    };
    match options.lease {
        Some(lease) => service.lease(lease),
        None => service,
    }
}

/// Tells what to show to the gateway named last, and whom to believe.
fn secured(mut service: Microservice<Info>, options: &Options) -> Microservice<Info> {
    if let Some(ca) = &options.ca {
        service = service.ca(ca);
    }
    if let (Some(certificate), Some(key)) = (&options.certificate, &options.key) {
        service = service.certificate(certificate, key);
    }
    match &options.server_name {
        Some(name) => service.server_name(name),
        None => service,
    }
}

/// A secret itself, or the environment variable it stands in.
fn kept(option: &str, text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("env:") {
        Some(name) => {
            let value = std::env::var_os(name).with_context(|| format!("{option}: {name} is not set"))?;
            Ok(value.into_encoded_bytes())
        }
        None => Ok(text.as_bytes().to_vec()),
    }
}
