//! `cargo xtask bench idle`: what is held for a client that says nothing, for a request that waits for its answer, and
//! for an instance that is registered.
//!
//! What is measured is a process's own memory (`RssAnon`): neither the program's text nor the kernel's socket buffers.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::goals::{self, Goal, Wanted};
use super::launch::{Client, RunFolder, pause};
use super::machine::Machine;
use super::report::{self, Progress};
use super::samples::Summary;
use super::stand::{Peer, Placement, Programs, ServiceOptions, Stand};
use super::{accounting, table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Client connections, each of them idle and then with a request in flight.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Instances that register, each with 100 endpoints.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,

    /// Where the figures go. [default: bench/idle.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const PLACEMENT: Placement = Placement::Pinned;
/// Endpoints of each instance, beside those that every one has.
const ENDPOINTS: u32 = 100;
/// How long the requests in flight take.
const SLOW: Duration = Duration::from_secs(12);
/// Time for a process to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(4);

/// Bytes for each connection.
#[derive(Clone, Copy, Debug, Serialize)]
struct Held {
    peer: Peer,
    connections: u32,
    idle_proxy: f64,
    /// In addition to an idle connection.
    in_flight_proxy: f64,
    in_flight_service: f64,
    /// Once all answers have come, in addition to an idle connection: what was not given back.
    kept_proxy: f64,
}

/// Bytes for each instance.
#[derive(Clone, Copy, Debug, Serialize)]
struct Registered {
    /// The first one brings the routes.
    first: f64,
    further: f64,
    instances: u32,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    held: &'a [Held],
    registered: Registered,
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    PLACEMENT.check()?;
    let programs = [tools::NGINX, tools::HAPROXY];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "idle")?;
    let machine = Machine::describe(workspace, &programs);
    let mut progress = Progress::of(Peer::PROXIES.len() + 1);

    let mut held = Vec::new();
    let registered = {
        let lease = Some(args.connections as usize * 2);
        let stand = Stand::start(&folder, &built, PLACEMENT, ServiceOptions { lease })?;
        // First, because what an allocator gives back late after a burst would hide what so few instances need.
        let registered = register(&folder, &stand, args.instances)?;
        progress.step(&format!("{} bytes an instance", table::grouped(registered.further)));
        for peer in Peer::PROXIES {
            let one = hold(&folder, &built, &stand, peer, args.connections).with_context(|| peer.name())?;
            progress.step(&format!("{}: {} bytes an idle connection", peer.name(), table::grouped(one.idle_proxy)));
            held.push(one);
        }
        registered
    };

    let goals = goals_of(&held, registered);
    println!(
        "{machine}\n\n{} connections, pinned; growth of the process's own memory in bytes, for each\n",
        args.connections
    );
    println!("{}\n", table_of(&held));
    println!(
        "a registered instance with {ENDPOINTS} endpoints: {} bytes of the gateway ({} the first)\n",
        table::grouped(registered.further),
        table::grouped(registered.first)
    );
    println!("{}", goals::shown(&goals));
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/idle.json"));
    report::write_json(&json, &Report { machine: &machine, held: &held, registered, goals: &goals })
}

fn hold(folder: &RunFolder, programs: &Programs, stand: &Stand, peer: Peer, connections: u32) -> Result<Held> {
    let proxy = stand.proxy(peer).context("there is no proxy")?;
    let service = stand.backend(peer).context("there is no service")?;
    let own = |pid| -> Result<f64> { Ok(accounting::memory(pid)?.anonymous as f64) };
    let start = |connections: u32| -> Result<Client> {
        let call = [
            "hold".to_owned(),
            format!("--to={}", stand.front(peer)),
            format!("--connections={connections}"),
            format!("--slow={}", SLOW.as_millis()),
        ];
        let mut client = folder.client("hold-client", PLACEMENT.client(), &programs.peers, &call)?;
        client.says("idle")?;
        Ok(client)
    };
    // A few first, so that what a process sets up once is not taken for what a connection costs.
    drop(start(8)?);
    pause(REST);
    let (proxy_before, service_before) = (own(proxy)?, own(service)?);

    let mut client = start(connections)?;
    pause(REST);
    let (proxy_idle, service_idle) = (own(proxy)?, own(service)?);
    client.go_on()?;
    client.says("in flight")?;
    pause(REST);
    let (proxy_busy, service_busy) = (own(proxy)?, own(service)?);
    client.go_on()?;
    client.says("done")?;
    pause(REST);
    let proxy_after = own(proxy)?;
    drop(client);

    let each = |bytes: f64| bytes / f64::from(connections);
    // A proxy that keeps a connection to the service for each request has the service hold these too.
    let service_base = service_before.max(service_idle);
    Ok(Held {
        peer,
        connections,
        idle_proxy: each(proxy_idle - proxy_before),
        in_flight_proxy: each(proxy_busy - proxy_idle),
        in_flight_service: each(service_busy - service_base),
        kept_proxy: each(proxy_after - proxy_idle),
    })
}

fn register(folder: &RunFolder, stand: &Stand, instances: u32) -> Result<Registered> {
    let gateway = stand.proxy(Peer::Gateway).context("there is no gateway")?;
    let own = || -> Result<f64> {
        pause(REST);
        Ok(accounting::memory(gateway)?.anonymous as f64)
    };
    let options = |instances: u32| {
        // Of a version of their own, because their endpoints are others than the standing service's.
        ["--name", "bench", "--version", "2.0.0", "--threads", "1", "--instances"]
            .map(str::to_owned)
            .into_iter()
            .chain([instances.to_string(), "--endpoints".to_owned(), ENDPOINTS.to_string()])
            .collect::<Vec<_>>()
    };
    let before = own()?;
    let first_service = stand.launch_service(folder, "first-instance", &options(1))?;
    let with_one = own()?;
    let further_services = stand.launch_service(folder, "further-instances", &options(instances))?;
    let with_all = own()?;
    drop((first_service, further_services));
    Ok(Registered { first: with_one - before, further: (with_all - with_one) / f64::from(instances), instances })
}

fn table_of(held: &[Held]) -> String {
    let head = ["peer", "idle connection", "request in flight", "in its service", "not given back"];
    let rows = held.iter().map(|held| {
        let figures = [held.idle_proxy, held.in_flight_proxy, held.in_flight_service, held.kept_proxy];
        std::iter::once(held.peer.name().to_owned()).chain(figures.map(table::grouped)).collect()
    });
    table::aligned(&std::iter::once(table::row(head)).chain(rows).collect::<Vec<Vec<String>>>(), 1)
}

fn goals_of(held: &[Held], registered: Registered) -> Vec<Goal> {
    let gateway = held.iter().find(|held| held.peer == Peer::Gateway);
    let goal = |what: &str, kibibytes, stretch, bytes: Option<f64>| Goal {
        name: "P9",
        what: what.to_owned(),
        wanted: Wanted::AtMost,
        goal: kibibytes,
        stretch,
        reached: bytes.and_then(|bytes| Summary::of([bytes / 1024.0])),
        unit: " KiB",
    };
    vec![
        goal("idle client connection", 12.0, Some(4.0), gateway.map(|held| held.idle_proxy)),
        goal("request in flight, gateway", 5.0, None, gateway.map(|held| held.in_flight_proxy)),
        goal("request in flight, service", 1.5, None, gateway.map(|held| held.in_flight_service)),
        goal("registered instance, 100 endpoints", 64.0, None, Some(registered.further)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_stands_in_its_column() {
        let held = Held {
            peer: Peer::Gateway,
            connections: 2000,
            idle_proxy: 11_600.4,
            in_flight_proxy: 4096.0,
            in_flight_service: 1024.0,
            kept_proxy: -12.0,
        };
        let text = table_of(&[held]);
        let words: Vec<_> = text.lines().last().expect("a line").split_whitespace().collect();
        assert_eq!(words, ["Stella", "Router", "11,600", "4,096", "1,024", "-12"]);
        let goals = goals_of(&[held], Registered { first: 1e6, further: 32_768.0, instances: 50 });
        let reached: Vec<_> = goals.iter().filter_map(|goal| goal.reached.map(|reached| reached.median)).collect();
        assert_eq!(reached[1..], [4.0, 1.0, 32.0]);
    }
}
