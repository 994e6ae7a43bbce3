//! `cargo xtask bench scale`: what a request costs when there is much of everything, and what registering costs.
//!
//! One thing grows at a time: endpoints, instances, client connections. Then requests are asked at a fixed rate while
//! instances join and leave without pause. Gateway and services share core 0; clients have core 1, as has the service
//! that joins and leaves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

use super::goals::{self, Goal, Wanted};
use super::launch::{Client, Process, RunFolder};
use super::load::{self, Rate, Steady};
use super::machine::Machine;
use super::report::{self, Disturbance, Progress};
use super::samples::Summary;
use super::stand::{Placement, Programs, Site};
use super::{accounting, table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds of one measurement.
    #[arg(long, value_name = "S", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Requests a second while instances join and leave.
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u64).range(64..))]
    rate: u64,

    /// Where all samples go. [default: bench/scale.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const PLACEMENT: Placement = Placement::Pinned;
/// Client connections that ask; what there is beyond them is kept open and says nothing. So as many requests are in
/// flight, however many connections there are.
const CONNECTIONS: u32 = 64;
/// Endpoints that every service to measure with has.
const OWN_ENDPOINTS: u32 = 12;
/// Instances that join at a time, and then leave, in a storm.
const STORM: u32 = 250;
const WARM_UP: u32 = 1;

/// What there is of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Size {
    endpoints: u32,
    instances: u32,
    connections: u32,
}

const BASE: Size = Size { endpoints: OWN_ENDPOINTS, instances: 1, connections: CONNECTIONS };

/// One gateway with its services, and with how many connections it is asked.
const SITES: [(Size, &[u32]); 5] = [
    (BASE, &[1, CONNECTIONS, 1_000, 10_000]),
    (Size { endpoints: 1_000, ..BASE }, &[CONNECTIONS]),
    (Size { endpoints: 10_000, ..BASE }, &[CONNECTIONS]),
    (Size { instances: 100, ..BASE }, &[CONNECTIONS]),
    (Size { instances: 1_000, ..BASE }, &[CONNECTIONS]),
];

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    size: Size,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Seconds of processor time for 100,000 requests.
    gateway: f64,
    service: f64,
    /// Bytes that the gateway has resident.
    resident: f64,
    /// Seconds from the start of the service's process until all its instances can be reached.
    ready: f64,
}

/// Where instances join and leave meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Storm {
    No,
    /// At another gateway on the same core: what it costs to share the machine.
    Elsewhere,
    Here,
}

impl Storm {
    const ALL: [Self; 3] = [Self::No, Self::Elsewhere, Self::Here];

    const fn name(self) -> &'static str {
        match self {
            Self::No => "nobody joins",
            Self::Elsewhere => "at another gateway",
            Self::Here => "here",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Stormy {
    storm: Storm,
    steady: Steady,
    /// Instances that joined, and left again, a second.
    joined_per_second: f64,
    /// While instances were joining: without the time that it takes them to leave.
    joining_per_second: f64,
    /// Seconds of the stormed gateway's processor time for an instance that joins and leaves.
    gateway_each: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    by_others: f64,
    samples: &'a [Sample],
    storms: &'a [Stormy],
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    PLACEMENT.check()?;
    let programs = [tools::WRK, tools::H2LOAD];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "scale")?;
    let machine = Machine::describe(workspace, &programs);

    let measured: usize = SITES.iter().map(|(_, connections)| connections.len()).sum();
    let mut progress = Progress::of((measured + Storm::ALL.len()) * args.rounds as usize);
    let disturbance = Disturbance::watch()?;
    let ended = accounting::seconds_of_ended_children()?;
    let (mut samples, mut storms) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        for (size, connections) in SITES {
            let (site, ready) = site(&folder, &built, size)?;
            for &connections in connections {
                let sample = ask(&folder, &built, &site, Size { connections, ..size }, args.seconds, ready)?;
                progress.step(&format!("{}: {} requests/s", words(sample.size), table::rate(sample.per_second)));
                samples.push(sample);
            }
        }
        for storm in Storm::ALL {
            let stormy = ask_in_a_storm(&folder, &built, storm, args)?;
            progress.step(&format!("joining {}: p99 {} us", storm.name(), table::whole(stormy.steady.p99_us)));
            storms.push(stormy);
        }
    }
    let by_others = disturbance.by_others(accounting::seconds_of_ended_children()? - ended)?;

    let goals = goals_of(&samples);
    println!("{machine}\n");
    println!(
        "GET /hello, {} s, {} rounds, median; processor time in seconds for 100,000 requests\n",
        args.seconds, args.rounds
    );
    println!("{}\n", table_of(&samples));
    println!(
        "At a fixed {} requests/s, {CONNECTIONS} connections, while instances join and leave, {STORM} at a time\n",
        args.rate
    );
    println!("{}\n", table_of_storms(&storms));
    println!("{}", goals::shown(&goals));
    if let Some(note) = report::disturbed(Some(by_others)) {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/scale.json"));
    let report = Report { machine: &machine, by_others, samples: &samples, storms: &storms, goals: &goals };
    report::write_json(&json, &report)
}

/// A gateway with a service of this size, and how long it took until all could be reached.
fn site(folder: &RunFolder, programs: &Programs, size: Size) -> Result<(Site, f64)> {
    let mut site = Site::start(folder, programs, PLACEMENT, "gateway")?;
    let started = Instant::now();
    let further = size.endpoints.saturating_sub(OWN_ENDPOINTS);
    let service = site.launch_service(
        folder,
        "bench-service",
        PLACEMENT.servers(),
        &[format!("--instances={}", size.instances), format!("--endpoints={further}")],
    )?;
    let ready = started.elapsed().as_secs_f64();
    site.services.push(service);
    Ok((site, ready))
}

/// Opens connections, each with one request, and keeps them.
fn hold(folder: &RunFolder, programs: &Programs, site: &Site, connections: u32) -> Result<Option<Client>> {
    if connections == 0 {
        return Ok(None);
    }
    let call = ["hold".to_owned(), format!("--to={}", site.http), format!("--connections={connections}")];
    let mut client = folder.client("hold-client", PLACEMENT.client(), &programs.peers, &call)?;
    client.says("idle")?;
    Ok(Some(client))
}

fn ask(folder: &RunFolder, programs: &Programs, site: &Site, size: Size, seconds: u32, ready: f64) -> Result<Sample> {
    let asking = size.connections.min(CONNECTIONS);
    let _held = hold(folder, programs, site, size.connections - asking)?;
    let ask = |seconds| load::wrk(folder, PLACEMENT.client(), site.http, asking, seconds);
    ask(WARM_UP)?;
    let used = || -> Result<[f64; 2]> {
        let services = site.services.iter().map(Process::id).map(accounting::processor_seconds);
        Ok([accounting::processor_seconds(site.gateway.id())?, services.sum::<Result<f64>>()?])
    };
    let before = used()?;
    let wrk = ask(seconds)?;
    let after = used()?;
    let each = |index: usize| (after[index] - before[index]) * 1e5 / wrk.requests as f64;
    Ok(Sample {
        size,
        per_second: wrk.per_second,
        p50_us: wrk.p50_us,
        p99_us: wrk.p99_us,
        gateway: each(0),
        service: each(1),
        resident: accounting::memory(site.gateway.id())?.resident as f64,
        ready,
    })
}

fn ask_in_a_storm(folder: &RunFolder, programs: &Programs, storm: Storm, args: &Args) -> Result<Stormy> {
    let (asked, _) = site(folder, programs, BASE)?;
    let other = Site::start(folder, programs, PLACEMENT, "other-gateway")?;
    let rate = Rate { per_second: args.rate, connections: CONNECTIONS.into(), seconds: args.seconds };
    let steady = || load::steady(folder, PLACEMENT.client(), asked.http, rate);
    let stormed = match storm {
        Storm::No => {
            let steady = steady()?;
            return Ok(Stormy { storm, steady, joined_per_second: 0.0, joining_per_second: 0.0, gateway_each: 0.0 });
        }
        Storm::Elsewhere => &other,
        Storm::Here => &asked,
    };
    let over = AtomicBool::new(false);
    let before = accounting::processor_seconds(stormed.gateway.id())?;
    let (steady, joined) = std::thread::scope(|scope| {
        let joined = scope.spawn(|| join_and_leave(folder, stormed, &over));
        let steady = steady();
        over.store(true, Ordering::Relaxed);
        (steady, joined.join().map_err(|_| anyhow!("the storm panicked")))
    });
    let (steady, joined) = (steady?, joined??);
    let used = accounting::processor_seconds(stormed.gateway.id())? - before;
    Ok(Stormy {
        storm,
        steady,
        joined_per_second: joined.instances / joined.whole.as_secs_f64(),
        joining_per_second: joined.instances / joined.joining.as_secs_f64(),
        // Where the gateway answers requests besides, its time is not the storm's alone.
        gateway_each: if storm == Storm::Elsewhere { used / joined.instances } else { 0.0 },
    })
}

struct Joined {
    instances: f64,
    /// From the start of a process until all its instances can be reached.
    joining: Duration,
    whole: Duration,
}

/// Processes of many instances, one after the other, until it is over: each joins, and leaves in good order.
fn join_and_leave(folder: &RunFolder, site: &Site, over: &AtomicBool) -> Result<Joined> {
    let started = Instant::now();
    let mut joined = Joined { instances: 0.0, joining: Duration::ZERO, whole: Duration::ZERO };
    // Of a version of their own that never is the default, because their endpoints are others than the standing
    // service's.
    let options = ["--version=2.0.0-storm".to_owned(), format!("--instances={STORM}"), "--endpoints=10".to_owned()];
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let service = site.launch_service(folder, "storm", PLACEMENT.client(), &options)?;
        joined.joining += begun.elapsed();
        joined.instances += f64::from(STORM);
        drop(service);
    }
    joined.whole = started.elapsed();
    ensure!(joined.instances > 0.0, "nobody joined");
    Ok(joined)
}

fn words(size: Size) -> String {
    format!("{} endpoints, {} instances, {} connections", size.endpoints, size.instances, size.connections)
}

fn of(samples: &[Sample], size: Size, figure: impl Fn(&Sample) -> f64) -> Option<Summary> {
    Summary::of(samples.iter().filter(|sample| sample.size == size).map(figure))
}

/// The gateway's processor time a request beside that of the base, round by round.
fn growth(samples: &[Sample], size: Size) -> Option<Summary> {
    let gateway = |size| -> Vec<f64> {
        samples.iter().filter(|sample| sample.size == size).map(|sample| sample.gateway).collect()
    };
    Summary::of_ratios(&gateway(size), &gateway(BASE))
}

fn sizes() -> impl Iterator<Item = Size> {
    SITES
        .into_iter()
        .flat_map(|(size, connections)| connections.iter().map(move |&connections| Size { connections, ..size }))
}

fn table_of(samples: &[Sample]) -> String {
    let head = [
        "endpoints",
        "instances",
        "connections",
        "requests/s",
        "p50 us",
        "p99 us",
        "gateway CPU",
        "x base",
        "service CPU",
        "gateway MiB",
        "ready s",
    ];
    let rows = sizes().filter_map(|size| {
        let figure = |figure: fn(&Sample) -> f64| of(samples, size, figure);
        Some(vec![
            table::grouped(f64::from(size.endpoints)),
            table::grouped(f64::from(size.instances)),
            table::grouped(f64::from(size.connections)),
            figure(|s| s.per_second)?.alone(table::rate),
            figure(|s| s.p50_us)?.alone(table::whole),
            figure(|s| s.p99_us)?.alone(table::whole),
            figure(|s| s.gateway)?.spread(table::thousandths),
            growth(samples, size)?.alone(table::hundredths),
            figure(|s| s.service)?.alone(table::thousandths),
            figure(|s| s.resident)?.alone(table::mebibytes),
            figure(|s| s.ready)?.alone(table::hundredths),
        ])
    });
    table::aligned(&std::iter::once(table::row(head)).chain(rows).collect::<Vec<_>>(), 0)
}

fn table_of_storms(storms: &[Stormy]) -> String {
    let head =
        ["instances join", "reached/s", "p50 us", "p99 us", "joined and left/s", "while joining/s", "gateway ms each"];
    let rows = Storm::ALL.into_iter().filter_map(|storm| {
        let figure =
            |figure: fn(&Stormy) -> f64| Summary::of(storms.iter().filter(|stormy| stormy.storm == storm).map(figure));
        let unless_none = |figure: Summary, show: fn(f64) -> String| {
            if figure.max > 0.0 { figure.alone(show) } else { "-".to_owned() }
        };
        Some(vec![
            storm.name().to_owned(),
            figure(|s| s.steady.per_second)?.alone(table::whole),
            figure(|s| s.steady.p50_us)?.spread(table::whole),
            figure(|s| s.steady.p99_us)?.spread(table::whole),
            unless_none(figure(|s| s.joined_per_second)?, table::whole),
            unless_none(figure(|s| s.joining_per_second)?, table::whole),
            unless_none(figure(|s| s.gateway_each * 1e3)?, table::hundredths),
        ])
    });
    table::aligned(&std::iter::once(table::row(head)).chain(rows).collect::<Vec<_>>(), 1)
}

fn goals_of(samples: &[Sample]) -> Vec<Goal> {
    let goal = |what: &str, size| Goal {
        name: "P13",
        what: format!("gateway CPU a request, {what}, beside {}", words(BASE)),
        wanted: Wanted::AtMost,
        goal: 1.15,
        stretch: None,
        reached: growth(samples, size),
        unit: " x",
    };
    vec![
        goal("10,000 endpoints", Size { endpoints: 10_000, ..BASE }),
        goal("1,000 instances", Size { instances: 1_000, ..BASE }),
        goal("10,000 connections", Size { connections: 10_000, ..BASE }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_set_beside_the_base_of_its_round() {
        let sample = |size, gateway| Sample {
            size,
            per_second: 1e5,
            p50_us: 1.0,
            p99_us: 2.0,
            gateway,
            service: 0.1,
            resident: 1e6,
            ready: 0.5,
        };
        let many = Size { endpoints: 10_000, ..BASE };
        let samples = [sample(BASE, 1.0), sample(many, 1.1), sample(BASE, 2.0), sample(many, 2.2)];
        let growth = growth(&samples, many).expect("samples of both");
        assert!((growth.median - 1.1).abs() < 1e-9, "{growth:?}");
        assert_eq!(table_of(&samples).lines().count(), 3);
        assert_eq!(goals_of(&samples).iter().filter(|goal| goal.reached.is_some()).count(), 1);
    }

    #[test]
    fn the_base_is_among_the_sizes() {
        assert!(sizes().any(|size| size == BASE));
    }
}
