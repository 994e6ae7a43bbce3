//! `cargo xtask bench compare`: `GET /hello` through each proxy, round by round, and what each of them used for it.
//!
//! A round measures every peer once, in turn; ratios are made within a round, so that what disturbs the machine for
//! a while disturbs both sides. It knows what is measured and what the goals are, not how a peer is configured.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::goals::{self, Goal, Wanted};
use super::launch::RunFolder;
use super::load::{self, Rate, Steady, Wrk};
use super::machine::Machine;
use super::report::{self, Disturbance, Progress};
use super::samples::Summary;
use super::stand::{Peer, Placement, Programs, ServiceOptions, Stand};
use super::{accounting, table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// 64 connections, pinned, short runs: about three minutes.
    #[arg(long)]
    quick: bool,

    /// How often each peer is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Client connections. [default: 1,8,64,256; with --quick 64]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    connections: Vec<u32>,

    /// Seconds of one measurement. [default: 8; with --quick 6]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,

    /// Only pinned, or only unpinned. [default: both; with --quick pinned]
    #[arg(long, value_enum)]
    placement: Option<PlacementName>,

    /// Where all samples go. [default: bench/compare.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum PlacementName {
    Pinned,
    Unpinned,
}

/// What the arguments come to.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Plan {
    rounds: u32,
    connections: Vec<u32>,
    seconds: u32,
    placements: Vec<Placement>,
    steady_seconds: u32,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let placements = match args.placement {
            Some(PlacementName::Pinned) => vec![Placement::Pinned],
            Some(PlacementName::Unpinned) => vec![Placement::Unpinned],
            None if args.quick => vec![Placement::Pinned],
            None => vec![Placement::Pinned, Placement::Unpinned],
        };
        let connections = match (&args.connections[..], args.quick) {
            ([], true) => vec![64],
            ([], false) => vec![1, 8, 64, 256],
            (given, _) => given.to_vec(),
        };
        let (seconds, steady_seconds) = if args.quick { (6, 3) } else { (8, 5) };
        Self { rounds: args.rounds, connections, seconds: args.seconds.unwrap_or(seconds), placements, steady_seconds }
    }

    fn is_steady_measured(&self) -> bool {
        self.placements.contains(&Placement::Pinned)
    }

    fn steps(&self) -> usize {
        let loads = self.placements.len() * self.connections.len() * Peer::ALL.len();
        let steady = if self.is_steady_measured() { STEADY_PEERS.len() } else { 0 };
        (loads + steady) * self.rounds as usize
    }
}

/// Before each measurement, with the same load.
const WARM_UP_SECONDS: u32 = 1;
/// Requests a second of the measurement at a fixed rate.
const STEADY_RATE: u64 = 8000;
const STEADY_PEERS: [Peer; 4] = [Peer::Gateway, Peer::Nginx, Peer::Haproxy, Peer::NoProxy];

/// One peer, measured once.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    placement: Placement,
    connections: u32,
    round: u32,
    peer: Peer,
    load: Wrk,
    /// Seconds of processor time for 100,000 requests.
    proxy: Option<f64>,
    backend: f64,
    sum: f64,
    /// Bytes that the proxy had resident at most.
    proxy_peak: Option<u64>,
    /// Processors that others kept busy meanwhile.
    others: f64,
}

/// One peer, measured once at a fixed rate.
#[derive(Clone, Debug, Serialize)]
struct SteadySample {
    round: u32,
    peer: Peer,
    load: Steady,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    plan: &'a Plan,
    samples: &'a [Sample],
    steady: &'a [SteadySample],
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let plan = Plan::of(args);
    for placement in &plan.placements {
        placement.check()?;
    }
    let programs = [tools::WRK, tools::H2LOAD, tools::NGINX, tools::HAPROXY];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "compare")?;
    let machine = Machine::describe(workspace, &programs);
    let mut progress = Progress::of(plan.steps());

    let (mut samples, mut steady) = (Vec::new(), Vec::new());
    for &placement in &plan.placements {
        let stand = Stand::start(&folder, &built, placement, ServiceOptions::default())?;
        for &connections in &plan.connections {
            for round in 1..=plan.rounds {
                for peer in Peer::ALL {
                    let sample = measure(&folder, &stand, &plan, Cell { placement, connections, round, peer })?;
                    progress.step(&sample.line());
                    samples.push(sample);
                }
            }
        }
        if placement == Placement::Pinned {
            for round in 1..=plan.rounds {
                for peer in STEADY_PEERS {
                    let rate = Rate { per_second: STEADY_RATE, connections: 64, seconds: plan.steady_seconds };
                    let load = load::steady(&folder, placement.client(), stand.front(peer), rate)
                        .with_context(|| format!("{} at a fixed rate", peer.name()))?;
                    progress.step(&format!(
                        "{STEADY_RATE}/s, round {round}, {}: p99 {:.0} us",
                        peer.name(),
                        load.p99_us
                    ));
                    steady.push(SteadySample { round, peer, load });
                }
            }
        }
    }

    let goals = goals_of(&samples, &steady);
    println!(
        "{machine}\n\nGET /hello, {} s, {} rounds, median (spread); processor time in seconds for 100,000 requests\n",
        plan.seconds, plan.rounds
    );
    println!("{}\n", loads_table(&samples));
    if !steady.is_empty() {
        println!("At a fixed {STEADY_RATE} requests/s, 64 connections, pinned\n\n{}\n", steady_table(&steady));
    }
    println!("{}", goals::shown(&goals));
    if let Some(note) = report::disturbed(Summary::of(samples.iter().map(|sample| sample.others)).map(|s| s.median)) {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/compare.json"));
    let report = Report { machine: &machine, plan: &plan, samples: &samples, steady: &steady, goals: &goals };
    report::write_json(&json, &report)
}

#[derive(Clone, Copy)]
struct Cell {
    placement: Placement,
    connections: u32,
    round: u32,
    peer: Peer,
}

fn measure(folder: &RunFolder, stand: &Stand, plan: &Plan, cell: Cell) -> Result<Sample> {
    let Cell { placement, connections, round, peer } = cell;
    let at = stand.front(peer);
    let proxy = stand.proxy(peer);
    let backend = stand.backend(peer).context("there is no service")?;
    let load = |seconds| {
        load::wrk(folder, placement.client(), at, connections, seconds)
            .with_context(|| format!("{}, {}, {connections} connections", peer.name(), placement.name()))
    };
    if let Some(proxy) = proxy {
        accounting::reset_peak(proxy)?;
    }
    load(WARM_UP_SECONDS)?;

    let used = || -> Result<(Option<f64>, f64)> {
        Ok((proxy.map(accounting::processor_seconds).transpose()?, accounting::processor_seconds(backend)?))
    };
    let disturbance = Disturbance::watch()?;
    let clients_before = accounting::seconds_of_ended_children()?;
    let before = used()?;
    let measured = load(plan.seconds)?;
    let after = used()?;
    let clients = accounting::seconds_of_ended_children()? - clients_before;

    let proxy_seconds = after.0.zip(before.0).map(|(after, before)| after - before);
    let backend_seconds = after.1 - before.1;
    let each = |seconds: f64| seconds * 1e5 / measured.requests as f64;
    let own = proxy_seconds.unwrap_or(0.0) + backend_seconds;
    Ok(Sample {
        placement,
        connections,
        round,
        peer,
        load: measured,
        proxy: proxy_seconds.map(each),
        backend: each(backend_seconds),
        sum: each(own),
        proxy_peak: proxy.map(accounting::memory).transpose()?.map(|memory| memory.peak),
        others: disturbance.by_others(own + clients)?,
    })
}

impl Sample {
    fn line(&self) -> String {
        let Self { placement, connections, round, peer, load, sum, .. } = self;
        format!(
            "{}, {connections} connections, round {round}, {}: {}/s, {sum:.3} s for 100k",
            placement.name(),
            peer.name(),
            table::rate(load.per_second)
        )
    }
}

/// Picks the rounds of one peer in one situation, in their order.
fn rounds(
    samples: &[Sample],
    placement: Placement,
    connections: u32,
    peer: Peer,
    figure: impl Fn(&Sample) -> Option<f64>,
) -> Vec<f64> {
    let fits =
        |sample: &&Sample| sample.placement == placement && sample.connections == connections && sample.peer == peer;
    samples.iter().filter(fits).filter_map(figure).collect()
}

const PROXY: fn(&Sample) -> Option<f64> = |sample| sample.proxy;
const SUM: fn(&Sample) -> Option<f64> = |sample| Some(sample.sum);
const PER_SECOND: fn(&Sample) -> Option<f64> = |sample| Some(sample.load.per_second);

fn loads_table(samples: &[Sample]) -> String {
    let mut rows = vec![table::row([
        "placement",
        "connections",
        "peer",
        "requests/s",
        "x nginx",
        "p50 us",
        "p99 us",
        "proxy CPU",
        "x nginx",
        "backend CPU",
        "sum CPU",
        "x nginx",
        "peak MiB",
    ])];
    let mut situations: Vec<_> = samples.iter().map(|sample| (sample.placement, sample.connections)).collect();
    situations.dedup();
    for (placement, connections) in situations {
        for peer in Peer::ALL {
            let all = |figure: &dyn Fn(&Sample) -> Option<f64>| rounds(samples, placement, connections, peer, figure);
            let of = |figure: &dyn Fn(&Sample) -> Option<f64>| Summary::of(all(figure));
            let beside = |figure: fn(&Sample) -> Option<f64>| {
                let nginx = rounds(samples, placement, connections, Peer::Nginx, figure);
                Summary::of_ratios(&all(&figure), &nginx)
            };
            let spread = |summary: Option<Summary>, show: fn(f64) -> String| {
                summary.map_or_else(|| "-".to_owned(), |summary| summary.spread(show))
            };
            let alone = |summary: Option<Summary>, show: fn(f64) -> String| {
                summary.map_or_else(|| "-".to_owned(), |summary| summary.alone(show))
            };
            rows.push(vec![
                placement.name().to_owned(),
                connections.to_string(),
                peer.name().to_owned(),
                spread(of(&PER_SECOND), table::rate),
                alone(beside(PER_SECOND), table::hundredths),
                alone(of(&|sample| Some(sample.load.p50_us)), table::whole),
                alone(of(&|sample| Some(sample.load.p99_us)), table::whole),
                spread(of(&PROXY), table::thousandths),
                alone(beside(PROXY), table::hundredths),
                alone(of(&|sample| Some(sample.backend)), table::thousandths),
                spread(of(&SUM), table::thousandths),
                alone(beside(SUM), table::hundredths),
                alone(of(&|sample| sample.proxy_peak.map(|bytes| bytes as f64)), table::mebibytes),
            ]);
        }
    }
    table::aligned(&rows, 3)
}

fn steady_rounds(samples: &[SteadySample], peer: Peer) -> Vec<f64> {
    samples.iter().filter(|sample| sample.peer == peer).map(|sample| sample.load.p99_us).collect()
}

/// What a proxy adds to the 99th percentile, round by round.
fn added(samples: &[SteadySample], peer: Peer) -> Vec<f64> {
    let without = steady_rounds(samples, Peer::NoProxy);
    steady_rounds(samples, peer).iter().zip(without).map(|(with, without)| with - without).collect()
}

fn steady_table(samples: &[SteadySample]) -> String {
    let mut rows = vec![table::row(["peer", "reached/s", "p50 us", "p99 us", "added p99 us", "x nginx"])];
    for peer in STEADY_PEERS {
        let of = |figure: fn(&Steady) -> f64| {
            Summary::of(samples.iter().filter(|sample| sample.peer == peer).map(|sample| figure(&sample.load)))
        };
        let spread = |summary: Option<Summary>| summary.map_or_else(|| "-".to_owned(), |s| s.spread(table::whole));
        let (added_p99, ratio) = match peer {
            Peer::NoProxy => (None, None),
            _ => (
                Summary::of(added(samples, peer)),
                Summary::of_ratios(&added(samples, peer), &added(samples, Peer::Nginx)),
            ),
        };
        rows.push(vec![
            peer.name().to_owned(),
            spread(of(|load| load.per_second)),
            spread(of(|load| load.p50_us)),
            spread(of(|load| load.p99_us)),
            spread(added_p99),
            ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.alone(table::hundredths)),
        ]);
    }
    table::aligned(&rows, 1)
}

fn goals_of(samples: &[Sample], steady: &[SteadySample]) -> Vec<Goal> {
    let beside = |placement, connections, figure: fn(&Sample) -> Option<f64>| {
        let ours = rounds(samples, placement, connections, Peer::Gateway, figure);
        Summary::of_ratios(&ours, &rounds(samples, placement, connections, Peer::Nginx, figure))
    };
    let at_most = |name, connections: u32, what: &str, goal, stretch, figure| Goal {
        name,
        what: format!("{what}, {connections} connection{}", if connections == 1 { "" } else { "s" }),
        wanted: Wanted::AtMost,
        goal,
        stretch,
        reached: beside(Placement::Pinned, connections, figure),
        unit: " x nginx",
    };
    let rate = |placement: Placement, connections: u32, goal| Goal {
        name: "P3",
        what: format!("requests/s, {connections} connections, {}", placement.name()),
        wanted: Wanted::AtLeast,
        goal,
        stretch: None,
        reached: beside(placement, connections, PER_SECOND),
        unit: " x nginx",
    };
    let sum = "gateway and service CPU a request";
    let all = vec![
        at_most("P1", 64, "gateway CPU a request", 0.70, Some(0.63), PROXY),
        at_most("P2", 64, sum, 0.52, Some(0.48), SUM),
        at_most("P2", 8, sum, 0.60, None, SUM),
        at_most("P2", 1, sum, 0.90, None, SUM),
        rate(Placement::Pinned, 64, 2.0),
        rate(Placement::Pinned, 256, 2.0),
        rate(Placement::Unpinned, 64, 1.6),
        rate(Placement::Unpinned, 256, 1.6),
        Goal {
            name: "P4",
            what: format!("added p99 at {STEADY_RATE} requests/s"),
            wanted: Wanted::AtMost,
            goal: 0.4,
            stretch: Some(0.32),
            reached: Summary::of_ratios(&added(steady, Peer::Gateway), &added(steady, Peer::Nginx)),
            unit: " x nginx",
        },
    ];
    all.into_iter().filter(|goal| goal.reached.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &[&str]) -> Plan {
        Plan::of(&Line::parse_from([&["compare"], line].concat()).args)
    }

    #[test]
    fn quick_is_one_situation() {
        let quick = plan(&["--quick"]);
        assert_eq!((&quick.connections[..], quick.seconds, quick.rounds), (&[64][..], 6, 3));
        assert_eq!(quick.placements, [Placement::Pinned]);
        assert_eq!(quick.steps(), 15 + 12);
        let asked = plan(&["--quick", "--connections", "1,8", "--seconds", "2", "--rounds", "5"]);
        assert_eq!((&asked.connections[..], asked.seconds, asked.rounds), (&[1, 8][..], 2, 5));
        assert_eq!(plan(&[]).steps(), 2 * 4 * 5 * 3 + 12);
        assert_eq!(plan(&["--placement", "unpinned"]).steps(), 4 * 5 * 3);
    }

    fn sample(peer: Peer, round: u32, per_second: f64, proxy: Option<f64>, backend: f64) -> Sample {
        let load = Wrk { requests: 1000, per_second, p50_us: 100.0, p99_us: 200.0 };
        let sum = proxy.unwrap_or(0.0) + backend;
        let proxy_peak = proxy.map(|_| 3 << 20);
        Sample {
            placement: Placement::Pinned,
            connections: 64,
            round,
            peer,
            load,
            proxy,
            backend,
            sum,
            proxy_peak,
            others: 0.0,
        }
    }

    fn samples() -> Vec<Sample> {
        let nginx = sample(Peer::Nginx, 1, 50_000.0, Some(1.0), 0.5);
        let gateway = sample(Peer::Gateway, 1, 110_000.0, Some(0.6), 0.12);
        let none = sample(Peer::NoProxy, 1, 150_000.0, None, 0.5);
        vec![gateway, nginx, none]
    }

    #[test]
    fn the_table_sets_each_peer_beside_nginx() {
        let text = loads_table(&samples());
        let line = |name: &str| {
            text.lines()
                .find(|line| line.contains(name))
                .expect("a line")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            line("Stella"),
            "pinned 64 Stella Router 110.0k (110.0k..110.0k) 2.20 100 200 0.600 (0.600..0.600) 0.60 0.120 \
             0.720 (0.720..0.720) 0.48 3.0"
        );
        assert_eq!(
            line("no proxy"),
            "pinned 64 no proxy 150.0k (150.0k..150.0k) 3.00 100 200 - - 0.500 0.500 (0.500..0.500) 0.33 -"
        );
    }

    #[test]
    fn goals_that_were_not_measured_are_left_out() {
        let goals = goals_of(&samples(), &[]);
        let names: Vec<_> = goals.iter().map(|goal| (goal.name, goal.reached.map(|reached| reached.median))).collect();
        assert_eq!(names, [("P1", Some(0.6)), ("P2", Some(0.48)), ("P3", Some(2.2))]);
    }

    #[test]
    fn what_a_proxy_adds_is_over_no_proxy() {
        let of =
            |peer, p99_us| SteadySample { round: 1, peer, load: Steady { per_second: 8000.0, p50_us: 90.0, p99_us } };
        let steady =
            [of(Peer::Gateway, 330.0), of(Peer::Nginx, 600.0), of(Peer::Haproxy, 700.0), of(Peer::NoProxy, 200.0)];
        assert_eq!(added(&steady, Peer::Gateway), [130.0]);
        let goals = goals_of(&[], &steady);
        assert_eq!(goals.len(), 1);
        assert_eq!(goals[0].reached.map(|reached| reached.median), Some(0.325));
    }
}
