//! Joins the quickstart's gateway over TCP, as another version of the service that is in it.

use std::process::ExitCode;

use clap::Parser;
use microservice_sdk::{Json, Microservice, Path, endpoint, endpoints};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Greeting {
    greeting: String,
    version: &'static str,
}

/// Greet somebody, at some length.
#[endpoint(GET, "/greetings/{name}")]
async fn greet(Path(name): Path<String>) -> Json<Greeting> {
    Json(Greeting { greeting: format!("A very good day to you, dear {name}!"), version: VERSION })
}

const VERSION: &str = "2.0.0";

/// Another version of the quickstart's service; it joins the gateway and leaves on Ctrl-C.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value = "tcp://127.0.0.1:5100")]
    gateway: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    quickstart::run(join(Options::parse())).await
}

async fn join(options: Options) -> anyhow::Result<()> {
    let stop = quickstart::stop_signal()?;
    let service = Microservice::new("greetings", VERSION).endpoints(endpoints![greet]).gateway(&options.gateway);
    let mut running = service.start()?;
    tokio::pin!(stop);
    tokio::select! {
        ready = running.ready() => ready?,
        () = &mut stop => return Ok(running.shutdown().await?),
    }
    println!("greetings {VERSION} has joined {}. A request that names its version gets it:\n", options.gateway);
    println!("  curl -i http://127.0.0.1:8080/greetings/Ada -H 'x-service-version: {VERSION}'\n");
    println!("Ctrl-C leaves.");
    tokio::select! {
        ended = running.ended() => return Ok(ended?),
        () = &mut stop => {}
    }
    running.shutdown().await?;
    println!("left");
    Ok(())
}
