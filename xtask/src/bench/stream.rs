//! `cargo xtask bench stream`: large bodies through each proxy, over one HTTP/1.1 connection, one after the other.
//!
//! Up is `POST /sink`, down `GET /bytes/{n}`, both ways `POST /echo`, where the body comes back while it is being sent.
//! A peer that does not get through with one is reported as stalled, and that is a result, not an error.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::goals::{self, Goal, Wanted};
use super::launch::RunFolder;
use super::machine::Machine;
use super::report::{self, Disturbance, Progress};
use super::samples::Summary;
use super::stand::{Peer, Placement, Programs, ServiceOptions, Stand};
use super::{accounting, table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each peer is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds of one measurement.
    #[arg(long, value_name = "S", default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Bytes of a body; the gateway's default limit is 16 MiB.
    #[arg(long, value_name = "N", default_value = "10485760", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: u64,

    /// Where all samples go. [default: bench/stream.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Up,
    Down,
    Both,
}

impl Way {
    const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Both];

    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
}

/// Seconds after which a body counts as stalled.
const STALL: u32 = 10;
const PLACEMENT: Placement = Placement::Pinned;

/// What the client says at its end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Moved {
    requests: u64,
    seconds: f64,
    stalled: bool,
    /// One, if it was kept.
    connections: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    way: Way,
    round: u32,
    peer: Peer,
    moved: Moved,
    mebibytes_per_second: f64,
    /// Seconds of processor time for a GiB.
    proxy: Option<f64>,
    sum: f64,
    /// Bytes that the proxy's peak grew over what it had resident before.
    growth: Option<u64>,
    others: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    bytes: u64,
    samples: &'a [Sample],
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    PLACEMENT.check()?;
    let programs = [tools::NGINX, tools::HAPROXY];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "stream")?;
    let machine = Machine::describe(workspace, &programs);
    let stand = Stand::start(&folder, &built, PLACEMENT, ServiceOptions::default())?;

    let mut progress = Progress::of(Way::ALL.len() * Peer::ALL.len() * args.rounds as usize);
    let mut samples: Vec<Sample> = Vec::new();
    for way in Way::ALL {
        for round in 1..=args.rounds {
            for peer in Peer::ALL {
                let what = format!("{}, round {round}, {}", way.name(), peer.name());
                if samples.iter().any(|sample| sample.way == way && sample.peer == peer && sample.moved.stalled) {
                    progress.step(&format!("{what}: stalled before"));
                    continue;
                }
                let sample =
                    measure(&folder, &built, &stand, args, (way, round, peer)).with_context(|| what.clone())?;
                let stalled = if sample.moved.stalled { ", stalled" } else { "" };
                progress.step(&format!("{what}: {:.0} MiB/s{stalled}", sample.mebibytes_per_second));
                samples.push(sample);
            }
        }
    }

    let goals = goals_of(&samples);
    println!(
        "{machine}\n\n{} MiB bodies over one connection, pinned, {} s, {} rounds, median (spread); processor time in seconds for a GiB\n",
        args.bytes >> 20,
        args.seconds,
        args.rounds
    );
    println!("{}\n\n{}", table_of(&samples), goals::shown(&goals));
    if let Some(note) = report::disturbed(Summary::of(samples.iter().map(|sample| sample.others)).map(|s| s.median)) {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/stream.json"));
    report::write_json(&json, &Report { machine: &machine, bytes: args.bytes, samples: &samples, goals: &goals })
}

fn measure(
    folder: &RunFolder,
    programs: &Programs,
    stand: &Stand,
    args: &Args,
    (way, round, peer): (Way, u32, Peer),
) -> Result<Sample> {
    let proxy = stand.proxy(peer);
    let backend = stand.backend(peer).context("there is no service")?;
    let before = match proxy {
        Some(proxy) => {
            accounting::reset_peak(proxy)?;
            Some(accounting::memory(proxy)?.resident)
        }
        None => None,
    };
    let call = [
        "stream".to_owned(),
        format!("--to={}", stand.front(peer)),
        format!("--way={}", way.name()),
        format!("--bytes={}", args.bytes),
        format!("--seconds={}", args.seconds),
        format!("--limit={STALL}"),
    ];
    let mut client = folder.client("stream-client", PLACEMENT.client(), &programs.peers, &call)?;
    client.says("begin")?;
    let used = || -> Result<(Option<f64>, f64, f64)> {
        let proxy = proxy.map(accounting::processor_seconds).transpose()?;
        Ok((proxy, accounting::processor_seconds(backend)?, accounting::processor_seconds(std::process::id())?))
    };
    let disturbance = Disturbance::watch()?;
    let begin = used()?;
    let said = client.says("end")?;
    let end = used()?;
    let moved: Moved = serde_json::from_str(&said).with_context(|| format!("the client said {said}"))?;
    let after = proxy.map(accounting::memory).transpose()?;

    let proxy_seconds = end.0.zip(begin.0).map(|(end, begin)| end - begin);
    let sum = proxy_seconds.unwrap_or(0.0) + end.1 - begin.1;
    let moved_bytes = (moved.requests * args.bytes) as f64;
    let each = |seconds: f64| seconds * f64::from(1 << 30) / moved_bytes;
    Ok(Sample {
        way,
        round,
        peer,
        moved,
        mebibytes_per_second: moved_bytes / f64::from(1 << 20) / moved.seconds.max(1e-3),
        proxy: proxy_seconds.map(each),
        sum: each(sum),
        growth: after.zip(before).map(|(after, before)| after.peak.saturating_sub(before)),
        // The family of this program holds the client, and proxy and service too.
        others: disturbance.by_others(end.2 - begin.2)?,
    })
}

/// The rounds of one peer in which it did not stall.
fn rounds(samples: &[Sample], way: Way, peer: Peer, figure: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
    let fits = |sample: &&Sample| sample.way == way && sample.peer == peer && !sample.moved.stalled;
    samples.iter().filter(fits).filter_map(figure).collect()
}

const RATE: fn(&Sample) -> Option<f64> = |sample| Some(sample.mebibytes_per_second);

fn beside_hyper(samples: &[Sample], way: Way, peer: Peer) -> Option<Summary> {
    Summary::of_ratios(&rounds(samples, way, peer, RATE), &rounds(samples, way, Peer::HyperProxy, RATE))
}

/// The most of all rounds, because memory that is kept from one round is no growth in the next.
fn growth(samples: &[Sample], way: Way, peer: Peer) -> Option<Summary> {
    let most =
        rounds(samples, way, peer, |sample| sample.growth.map(|bytes| bytes as f64)).into_iter().max_by(f64::total_cmp);
    Summary::of(most)
}

fn table_of(samples: &[Sample]) -> String {
    let head = ["way", "peer", "MiB/s", "x hyper proxy", "proxy CPU", "sum CPU", "peak growth MiB", "connection"];
    let mut rows = vec![table::row(head)];
    for way in Way::ALL {
        for peer in Peer::ALL {
            let stalled = samples.iter().any(|sample| sample.way == way && sample.peer == peer && sample.moved.stalled);
            if stalled {
                let mut cells = table::row([way.name(), peer.name(), "stalled"]);
                cells.resize(head.len(), "-".to_owned());
                rows.push(cells);
                continue;
            }
            let of = |figure: fn(&Sample) -> Option<f64>| Summary::of(rounds(samples, way, peer, figure));
            let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let kept = samples.iter().filter(|s| s.way == way && s.peer == peer).all(|s| s.moved.connections == 1);
            rows.push(vec![
                way.name().to_owned(),
                peer.name().to_owned(),
                dash(of(RATE).map(|rate| rate.spread(table::whole))),
                dash(beside_hyper(samples, way, peer).map(|ratio| ratio.alone(table::hundredths))),
                dash(of(|sample| sample.proxy).map(|seconds| seconds.alone(table::hundredths))),
                dash(of(|sample| Some(sample.sum)).map(|seconds| seconds.alone(table::hundredths))),
                dash(growth(samples, way, peer).map(|bytes| bytes.alone(table::mebibytes))),
                if kept { "kept" } else { "not kept" }.to_owned(),
            ]);
        }
    }
    table::aligned(&rows, 2)
}

fn goals_of(samples: &[Sample]) -> Vec<Goal> {
    let rates = Way::ALL.map(|way| Goal {
        name: "P8",
        what: format!("MiB/s {}", way.name()),
        wanted: Wanted::AtLeast,
        goal: 1.0,
        stretch: Some(1.15),
        reached: beside_hyper(samples, way, Peer::Gateway),
        unit: " x hyper proxy",
    });
    let growths = Way::ALL.map(|way| Goal {
        name: "P8",
        what: format!("peak growth {}", way.name()),
        wanted: Wanted::AtMost,
        goal: 2.0,
        stretch: None,
        reached: growth(samples, way, Peer::Gateway).and_then(|bytes| Summary::of([bytes.median / f64::from(1 << 20)])),
        unit: " MiB",
    });
    rates.into_iter().chain(growths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(way: Way, peer: Peer, rate: f64, growth: u64, stalled: bool) -> Sample {
        let moved = Moved { requests: 100, seconds: 1.0, stalled, connections: 1 };
        let growth = Some(growth << 20);
        Sample {
            way,
            round: 1,
            peer,
            moved,
            mebibytes_per_second: rate,
            proxy: Some(0.5),
            sum: 1.0,
            growth,
            others: 0.0,
        }
    }

    #[test]
    fn a_stall_is_told_and_counts_nowhere() {
        let samples = [
            sample(Way::Both, Peer::Gateway, 900.0, 3, false),
            sample(Way::Both, Peer::Nginx, 10.0, 1, true),
            sample(Way::Both, Peer::HyperProxy, 600.0, 1, false),
        ];
        let text = table_of(&samples);
        let line = |name: &str| {
            let found = text.lines().find(|line| line.starts_with("both") && line.contains(name)).expect("a line");
            found.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("Stella"), "both Stella Router 900 (900..900) 1.50 0.50 1.00 3.0 kept");
        assert_eq!(line("nginx"), "both nginx stalled - - - - -");
        let goals = goals_of(&samples);
        let reached: Vec<_> = goals.iter().map(|goal| goal.reached.map(|reached| reached.median)).collect();
        assert_eq!(reached, [None, None, Some(1.5), None, None, Some(3.0)]);
    }

    #[test]
    fn the_client_speaks_json() {
        let said = r#"{"requests":12,"seconds":1.5,"stalled":false,"connections":1}"#;
        assert_eq!(serde_json::from_str::<Moved>(said).expect("the client's format").requests, 12);
    }
}
