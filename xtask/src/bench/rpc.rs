//! `cargo xtask bench rpc`: 64 bytes there and 64 bytes back over one TCP connection, with many requests in flight, over
//! our link and over others.
//!
//! Both ends are in one process, so what it uses is what a request costs. It is measured with both on one thread, on
//! core 0, and with a thread for each, wherever the system puts them. NATS needs a broker besides: in the first case it
//! has core 1.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::both_ends::{self, Measured};
use super::goals::{self, Goal, Wanted};
use super::launch::{Process, RunFolder, free_addresses};
use super::machine::Machine;
use super::report::{self, Progress};
use super::samples::Summary;
use super::stand::{Placement, build_peer};
use super::{table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each peer is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Requests in flight.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "64,1024", value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Vec<u32>,

    /// Seconds of one measurement.
    #[arg(long, value_name = "S", default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Where all samples go. [default: bench/rpc.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What carries the requests, as the program that measures it calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Carrier {
    Sdk,
    Link,
    Tarpc,
    Nats,
    Tonic,
}

impl Carrier {
    const ALL: [Self; 5] = [Self::Sdk, Self::Link, Self::Tarpc, Self::Nats, Self::Tonic];

    const fn word(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Link => "link",
            Self::Tarpc => "tarpc",
            Self::Nats => "nats",
            Self::Tonic => "tonic",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sdk => "Stella link and SDK",
            Self::Link => "Stella link alone",
            Self::Tarpc => "tarpc",
            Self::Nats => "NATS core",
            Self::Tonic => "tonic (gRPC)",
        }
    }
}

/// How the two ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ends {
    Together,
    Apart,
}

impl Ends {
    const ALL: [Self; 2] = [Self::Together, Self::Apart];

    const fn name(self) -> &'static str {
        match self {
            Self::Together => "one thread",
            Self::Apart => "two threads",
        }
    }

    const fn placement(self) -> Placement {
        match self {
            Self::Together => Placement::Pinned,
            Self::Apart => Placement::Unpinned,
        }
    }
}

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    run: Ends,
    in_flight: u32,
    round: u32,
    carrier: Carrier,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, in_flight, round, carrier } = self;
        write!(f, "{}, {in_flight} in flight, round {round}, {}", run.name(), carrier.name())
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    #[serde(flatten)]
    cell: Cell,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    samples: &'a [Sample],
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    Placement::Pinned.check()?;
    let programs = [tools::NATS];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let program = build_peer(workspace, &target, both_ends::PROGRAM)?;
    let folder = RunFolder::create(&target, "rpc")?;
    let machine = Machine::describe(workspace, &programs);
    let broker_program = tools::NATS.path().context("nats-server is gone")?;

    let cells = Ends::ALL.len() * args.in_flight.len() * Carrier::ALL.len();
    let mut progress = Progress::of(cells * args.rounds as usize);
    let mut samples = Vec::new();
    for run in Ends::ALL {
        let [at] = free_addresses()?;
        let words = ["--addr".to_owned(), at.ip().to_string(), "--port".to_owned(), at.port().to_string()];
        let mut broker = folder.serve("nats-server", run.placement().client(), &broker_program, &words)?;
        broker.listens(at)?;
        for &in_flight in &args.in_flight {
            for round in 1..=args.rounds {
                for carrier in Carrier::ALL {
                    let cell = Cell { run, in_flight, round, carrier };
                    let mut call = vec![
                        carrier.word().to_owned(),
                        format!("--in-flight={in_flight}"),
                        format!("--seconds={}", args.seconds),
                        format!("--broker=nats://{at}"),
                    ];
                    call.extend((run == Ends::Apart).then(|| "--apart".to_owned()));
                    let sample = measure(&folder, &program, &call, &broker, cell).with_context(|| cell.to_string())?;
                    let (rate, sum) = (table::rate(sample.measured.per_second), sample.measured.sum());
                    progress.step(&format!("{cell}: {rate}/s, {sum:.2} us"));
                    samples.push(sample);
                }
            }
        }
    }

    let goals = goals_of(&samples);
    println!(
        "{machine}\n\nrequest and reply, 64 bytes each, one TCP connection, {} s, {} rounds, median (spread); processor time in us a request\n",
        args.seconds, args.rounds
    );
    println!("{}\n\n{}", table_of(&samples), goals::shown(&goals));
    if let Some(note) =
        report::disturbed(Summary::of(samples.iter().map(|sample| sample.measured.others)).map(|s| s.median))
    {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/rpc.json"));
    report::write_json(&json, &Report { machine: &machine, samples: &samples, goals: &goals })
}

fn measure(folder: &RunFolder, program: &Path, call: &[String], broker: &Process, cell: Cell) -> Result<Sample> {
    let mut measured = both_ends::measure(folder, program, cell.run.placement(), call, Some(broker))?;
    // It is there beside all of them, and works for one.
    measured.broker = measured.broker.filter(|_| cell.carrier == Carrier::Nats);
    Ok(Sample { cell, measured })
}

/// One carrier in one situation, and a figure of its rounds in their order.
fn rounds(samples: &[Sample], (run, in_flight): (Ends, u32), carrier: Carrier, figure: Figure) -> Vec<f64> {
    let fits = |sample: &&Sample| {
        sample.cell.run == run && sample.cell.in_flight == in_flight && sample.cell.carrier == carrier
    };
    samples.iter().filter(fits).filter_map(figure).collect()
}

type Figure = fn(&Sample) -> Option<f64>;
const RATE: Figure = |sample| Some(sample.measured.per_second);

/// How many times as many requests a second ours answers.
fn times(samples: &[Sample], situation: (Ends, u32), other: Carrier) -> Option<Summary> {
    let ours = rounds(samples, situation, Carrier::Sdk, RATE);
    Summary::of_ratios(&ours, &rounds(samples, situation, other, RATE))
}

fn table_of(samples: &[Sample]) -> String {
    let head =
        ["ends", "in flight", "carrier", "requests/s", "ours is x this", "CPU of both ends", "of a broker", "sum"];
    let mut rows = vec![table::row(head)];
    let mut situations: Vec<_> = samples.iter().map(|sample| (sample.cell.run, sample.cell.in_flight)).collect();
    situations.dedup();
    for situation in situations {
        for carrier in Carrier::ALL {
            let of = |figure: Figure| Summary::of(rounds(samples, situation, carrier, figure));
            let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            rows.push(vec![
                situation.0.name().to_owned(),
                situation.1.to_string(),
                carrier.name().to_owned(),
                dash(of(RATE).map(|rate| rate.spread(table::rate))),
                dash(times(samples, situation, carrier).map(|ratio| ratio.alone(table::hundredths))),
                dash(of(|sample| Some(sample.measured.ends)).map(|us| us.spread(table::hundredths))),
                dash(of(|sample| sample.measured.broker).map(|us| us.alone(table::hundredths))),
                dash(of(|sample| Some(sample.measured.sum())).map(|us| us.alone(table::hundredths))),
            ]);
        }
    }
    table::aligned(&rows, 3)
}

fn goals_of(samples: &[Sample]) -> Vec<Goal> {
    let goals = Ends::ALL.into_iter().flat_map(|run| {
        let ours = |in_flight, figure| Summary::of(rounds(samples, (run, in_flight), Carrier::Sdk, figure));
        let beside = |other| times(samples, (run, 64), other);
        let goal = |what: &str, wanted, goal, stretch, reached, unit| {
            let what = format!("{what}, {}", run.name());
            Goal { name: "P5", what, wanted, goal, stretch, reached, unit }
        };
        let (most, least) = (Wanted::AtMost, Wanted::AtLeast);
        [
            goal("requests/s, 64 in flight", least, 300e3, None, ours(64, RATE), ""),
            goal("requests/s, 1,024 in flight", least, 300e3, Some(1e6), ours(1024, RATE), ""),
            goal("CPU a request, 64 in flight", most, 3.0, None, ours(64, |sample| Some(sample.measured.ends)), " us"),
            goal("requests/s, 64 in flight", least, 2.0, None, beside(Carrier::Tarpc), " x tarpc"),
            goal("requests/s, 64 in flight", least, 6.0, None, beside(Carrier::Tonic), " x tonic"),
            goal("requests/s, 64 in flight", least, 2.3, None, beside(Carrier::Nats), " x NATS"),
        ]
    });
    goals.filter(|goal| goal.reached.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(carrier: Carrier, per_second: f64, ends: f64, broker: Option<f64>) -> Sample {
        let cell = Cell { run: Ends::Together, in_flight: 64, round: 1, carrier };
        Sample { cell, measured: both_ends::measured(per_second, ends, broker) }
    }

    #[test]
    fn a_broker_is_counted_too() {
        let samples = [sample(Carrier::Sdk, 320e3, 2.9, None), sample(Carrier::Nats, 128e3, 3.9, Some(4.6))];
        let text = table_of(&samples);
        let line = text.lines().find(|line| line.contains("NATS")).expect("a line");
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, "one thread 64 NATS core 128.0k (128.0k..128.0k) 2.50 3.90 (3.90..3.90) 4.60 8.50");
        let reached: Vec<_> = goals_of(&samples).iter().filter_map(|goal| Some(goal.reached?.median)).collect();
        assert_eq!(reached, [320e3, 2.9, 2.5]);
    }
}
