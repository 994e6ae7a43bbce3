//! A gateway in one process with a service, which others can join over TCP.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use quickstart::greetings;
use router_config::Sources;
use router_gateway::Gateway;
use router_gateway::settings::{Settings, listen};

/// A gateway with a demo service inside. Ctrl-C stops it.
#[derive(Debug, Parser)]
struct Options {
    /// The port for HTTP clients; 0: any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http: u16,
    /// The port that services join over TCP.
    #[arg(long, value_name = "PORT", default_value_t = 5100)]
    tcp: u16,
    /// The port for operators.
    #[arg(long, value_name = "PORT", default_value_t = 9901)]
    admin: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    quickstart::run(serve(Options::parse())).await
}

async fn serve(Options { http, tcp, admin }: Options) -> anyhow::Result<()> {
    let stop = quickstart::stop_signal()?;
    let sources = Sources::router().text("router.yaml", include_str!("../router.yaml")).overrides([
        format!("http.listen=127.0.0.1:{http}"),
        format!("transports.tcp.listen=127.0.0.1:{tcp}"),
        format!("admin.listen=127.0.0.1:{admin}"),
    ]);
    let config: Settings = router_config::load(sources)?;
    let mut builder = Gateway::builder(&config);
    for listener in listen(&config)? {
        builder = builder.services(listener);
    }
    let gateway = builder.start().await?;

    let mut service = greetings::service().connector(Arc::new(gateway.in_memory())).start()?;
    service.ready().await?;
    tell(&gateway);
    tokio::select! {
        ended = service.ended() => ended?,
        () = stop => service.shutdown().await?,
    }
    gateway.shutdown().await;
    println!("stopped");
    Ok(())
}

/// Everything to try, once it works.
fn tell(gateway: &Gateway) {
    let http = gateway.http_addr().map_or_else(String::new, |address| address.to_string());
    println!("A gateway is ready, with the service `greetings` 1.0.0 inside. In another terminal, try:\n");
    println!("  curl -i 'http://{http}/greetings/Ada'");
    println!("  curl -i 'http://{http}/greetings/Ada?language=tlh'");
    println!("  curl -i 'http://{http}/guests' -H 'content-type: application/json' -d '{{\"name\": \"Ada\"}}'");
    println!("  curl -iN 'http://{http}/greetings/Ada/countdown'\n");
    for address in gateway.service_listeners() {
        println!("Let another version of the service join, over TCP:\n");
        println!("  cargo run --release -p quickstart --bin greeter -- --gateway {address}\n");
    }
    if let Some(admin) = gateway.admin_addr() {
        println!("See who is there and what is routed where: curl 'http://{admin}/routes'\n");
    }
    println!("Ctrl-C stops.");
}
