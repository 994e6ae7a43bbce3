//! `cargo xtask bench transports`: round trips over one link of each transport, beside bare UDP and bare lapin.
//!
//! Both ends are in one process and on one thread, on core 0, so that what it uses is what a round trip costs; a broker
//! has the other core, and its time is not counted.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::both_ends::{self, Measured};
use super::goals::{self, Goal, Wanted};
use super::launch::RunFolder;
use super::machine::Machine;
use super::report::{self, Progress};
use super::samples::Summary;
use super::stand::{Placement, build_peer};
use super::table;
use crate::broker::ForTests;
use crate::metadata::Metadata;
use crate::process::Workspace;

/// The broker, where it need not be named.
const GIVEN: &str = "AMQP_URL";
const BODIES: [u32; 2] = [64, 16 * 1024];
const IN_FLIGHT: [u32; 2] = [1, 64];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each transport is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds of one measurement.
    #[arg(long, value_name = "S", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Where all samples go. [default: bench/transports.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What carries the round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Carrier {
    InMemory,
    Tcp,
    Tls,
    Udp,
    BareUdp,
    Rabbitmq,
    BareLapin,
}

impl Carrier {
    const ALL: [Self; 7] =
        [Self::InMemory, Self::Tcp, Self::Tls, Self::Udp, Self::BareUdp, Self::Rabbitmq, Self::BareLapin];

    /// As the program that measures calls it: the peer, and what its frames go over.
    const fn call(self) -> (&'static str, &'static str) {
        match self {
            Self::InMemory => ("link", "in-memory"),
            Self::Tcp => ("link", "tcp"),
            Self::Tls => ("link", "tls"),
            Self::Udp => ("link", "udp"),
            Self::BareUdp => ("udp", "tcp"),
            Self::Rabbitmq => ("link", "rabbitmq"),
            Self::BareLapin => ("lapin", "tcp"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::InMemory => "in memory",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
            Self::BareUdp => "bare UDP",
            Self::Rabbitmq => "RabbitMQ",
            Self::BareLapin => "bare lapin",
        }
    }

    /// What it is held to.
    const fn beside(self) -> Option<Self> {
        match self {
            Self::Tls => Some(Self::Tcp),
            Self::Udp => Some(Self::BareUdp),
            Self::Rabbitmq => Some(Self::BareLapin),
            _ => None,
        }
    }
}

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    body: u32,
    in_flight: u32,
    round: u32,
    carrier: Carrier,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { body, in_flight, round, carrier } = self;
        write!(f, "{body} bytes, {in_flight} in flight, round {round}, {}", carrier.name())
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
    let mut broker = ForTests::start(workspace, &[])?;
    let target = Metadata::read(workspace)?.target_directory;
    let program = build_peer(workspace, &target, both_ends::PROGRAM)?;
    let folder = RunFolder::create(&target, "transports")?;
    let machine = Machine::describe(workspace, &[]);
    let url = match broker.url()? {
        Some(url) => url,
        None => std::env::var(GIVEN).context("a broker")?,
    };

    let mut progress = Progress::of(BODIES.len() * IN_FLIGHT.len() * Carrier::ALL.len() * args.rounds as usize);
    let mut samples = Vec::new();
    for body in BODIES {
        for in_flight in IN_FLIGHT {
            for round in 1..=args.rounds {
                for carrier in Carrier::ALL {
                    let cell = Cell { body, in_flight, round, carrier };
                    let sample =
                        measure(&folder, &program, args.seconds, &url, cell).with_context(|| cell.to_string())?;
                    let Measured { per_second, ends, .. } = sample.measured;
                    progress.step(&format!("{cell}: {}/s, {ends:.2} us", table::rate(per_second)));
                    samples.push(sample);
                }
            }
        }
    }

    let goals = goals_of(&samples);
    println!(
        "{machine}\n\nround trips over one link, both ends on one thread, {} s, {} rounds, median (spread); processor time of both ends in us a round trip\n",
        args.seconds, args.rounds
    );
    println!("{}\n\n{}", table_of(&samples), goals::shown(&goals));
    if let Some(note) =
        report::disturbed(Summary::of(samples.iter().map(|sample| sample.measured.others)).map(|s| s.median))
    {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/transports.json"));
    report::write_json(&json, &Report { machine: &machine, samples: &samples, goals: &goals })
}

fn measure(folder: &RunFolder, program: &Path, seconds: u32, broker: &str, cell: Cell) -> Result<Sample> {
    let (peer, over) = cell.carrier.call();
    let call = [
        peer.to_owned(),
        format!("--over={over}"),
        format!("--body={}", cell.body),
        format!("--in-flight={}", cell.in_flight),
        format!("--seconds={seconds}"),
        format!("--broker={broker}"),
    ];
    Ok(Sample { cell, measured: both_ends::measure(folder, program, Placement::Pinned, &call, None)? })
}

type Situation = (u32, u32);
type Figure = fn(&Sample) -> f64;
const RATE: Figure = |sample| sample.measured.per_second;
const ENDS: Figure = |sample| sample.measured.ends;

/// A figure of one carrier's rounds, in their order.
fn rounds(samples: &[Sample], (body, in_flight): Situation, carrier: Carrier, figure: Figure) -> Vec<f64> {
    let fits =
        |sample: &&Sample| (sample.cell.body, sample.cell.in_flight, sample.cell.carrier) == (body, in_flight, carrier);
    samples.iter().filter(fits).map(figure).collect()
}

/// How many times as many round trips a second as what it is held to.
fn times(samples: &[Sample], situation: Situation, carrier: Carrier) -> Option<Summary> {
    let other = rounds(samples, situation, carrier.beside()?, RATE);
    Summary::of_ratios(&rounds(samples, situation, carrier, RATE), &other)
}

fn table_of(samples: &[Sample]) -> String {
    let mut rows = vec![table::row(["bytes", "in flight", "carrier", "round trips/s", "x", "CPU of both ends"])];
    for body in BODIES {
        for in_flight in IN_FLIGHT {
            let situation = (body, in_flight);
            for carrier in Carrier::ALL {
                let of = |figure, show: fn(f64) -> String| {
                    let summary = Summary::of(rounds(samples, situation, carrier, figure));
                    summary.map_or_else(|| "-".to_owned(), |summary| summary.spread(show))
                };
                let beside = times(samples, situation, carrier).zip(carrier.beside());
                rows.push(vec![
                    body.to_string(),
                    in_flight.to_string(),
                    carrier.name().to_owned(),
                    of(RATE, table::rate),
                    beside.map_or_else(String::new, |(times, other)| {
                        format!("{} {}", times.alone(table::hundredths), other.name())
                    }),
                    of(ENDS, table::hundredths),
                ]);
            }
        }
    }
    table::aligned(&rows, 3)
}

fn goals_of(samples: &[Sample]) -> Vec<Goal> {
    let goals = [
        ("P10", Carrier::Tls, 0.85, " x TCP"),
        ("P11", Carrier::Rabbitmq, 1.5, " x bare lapin"),
        ("P12", Carrier::Udp, 0.5, " x bare UDP"),
    ];
    let goal = |(name, carrier, goal, unit): (&'static str, Carrier, f64, &'static str)| Goal {
        name,
        what: format!("{}, 64 bytes, 64 in flight", carrier.name()),
        wanted: Wanted::AtLeast,
        goal,
        stretch: None,
        reached: times(samples, (64, 64), carrier),
        unit,
    };
    goals.map(goal).into_iter().filter(|goal| goal.reached.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_held_to_its_nearest_peer() {
        let sample = |carrier, per_second| Sample {
            cell: Cell { body: 64, in_flight: 64, round: 1, carrier },
            measured: both_ends::measured(per_second, 3.0, None),
        };
        let samples = [sample(Carrier::Tcp, 100.0), sample(Carrier::Tls, 90.0), sample(Carrier::Udp, 50.0)];
        let reached: Vec<_> =
            goals_of(&samples).iter().map(|goal| (goal.name, goal.reached.map(|x| x.median))).collect();
        assert_eq!(reached, [("P10", Some(0.9))]);
        assert!(table_of(&samples).lines().any(|line| line.contains("0.90 TCP")));
    }
}
