//! `cargo xtask bench fair`: what small requests wait when one large body stands, or moves, on the link they use.
//!
//! A body that moves as fast as it can takes the core for itself, and would make small requests wait if they shared
//! nothing else with it. So the same body is measured in three places: on the same link, on another link of the same
//! gateway, and at another gateway on the same core. The first beside the last is what sharing the link costs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::goals::{self, Goal, Wanted};
use super::launch::{Cores, RunFolder};
use super::load::{self, Rate, Steady};
use super::machine::{self, Machine};
use super::report::{self, Disturbance, Progress};
use super::samples::Summary;
use super::stand::{Peer, Placement, Programs, ServiceOptions, Site, Stand};
use super::{accounting, table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only through the gateway, and only on the same link: the rows that the goal is about.
    #[arg(long)]
    quick: bool,

    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds of one measurement.
    #[arg(long, value_name = "S", default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Small requests a second.
    #[arg(long, value_name = "N", default_value = "4000", value_parser = clap::value_parser!(u64).range(16..))]
    rate: u64,

    /// Where all samples go. [default: bench/fair.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const PLACEMENT: Placement = Placement::Pinned;
/// Connections of the small requests.
const CONNECTIONS: u64 = 16;
/// Of a body that moves: the gateway's default limit is 16 MiB.
const BULK_BYTES: u64 = 10 << 20;
/// Of a body that stands still: more than all sockets on its way hold together.
const STALLED_UPLOAD_BYTES: u64 = 16 << 20;
const STALLED_DOWNLOAD_BYTES: u64 = 256 << 20;
/// Bytes a second of a body that leaves most of the core to others.
const PACE: u64 = 100 << 20;
/// The version of the service that large bodies go to where they are to have a link of their own. It never is the
/// default one.
const BULK_VERSION: &str = "2.0.0-bulk";

/// What goes on beside the small requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Beside {
    Nothing,
    /// A client that asked for a body and does not read it.
    StalledDown,
    /// A client that sends half a body and then nothing more.
    StalledUp,
    /// A client that has its body sent back, and reads nothing: it stands in both directions.
    StalledBoth,
    PacedDown,
    PacedUp,
    Down,
    Up,
    Both,
}

impl Beside {
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::StalledDown,
        Self::StalledUp,
        Self::StalledBoth,
        Self::PacedDown,
        Self::PacedUp,
        Self::Down,
        Self::Up,
        Self::Both,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::StalledDown => "stalled download",
            Self::StalledUp => "stalled upload",
            Self::StalledBoth => "stalled echo",
            Self::PacedDown => "download, 100 MiB/s",
            Self::PacedUp => "upload, 100 MiB/s",
            Self::Down => "download",
            Self::Up => "upload",
            Self::Both => "echo",
        }
    }

    const fn is_stalled(self) -> bool {
        matches!(self, Self::StalledDown | Self::StalledUp | Self::StalledBoth)
    }

    const fn is_bulk(self) -> bool {
        !self.is_stalled() && !matches!(self, Self::Nothing)
    }

    /// What the client is told to do.
    fn arguments(self) -> Vec<String> {
        let way = match self {
            Self::Nothing => return Vec::new(),
            Self::StalledDown | Self::PacedDown | Self::Down => "down",
            Self::StalledUp | Self::PacedUp | Self::Up => "up",
            Self::StalledBoth | Self::Both => "both",
        };
        let bytes = match self {
            Self::StalledDown => STALLED_DOWNLOAD_BYTES,
            Self::StalledUp | Self::StalledBoth => STALLED_UPLOAD_BYTES,
            _ => BULK_BYTES,
        };
        let mut arguments = vec![format!("--way={way}"), format!("--bytes={bytes}")];
        match self {
            Self::PacedDown | Self::PacedUp => arguments.push(format!("--pace={PACE}")),
            _ if self.is_stalled() => arguments.push("--stall".to_owned()),
            _ => {}
        }
        arguments
    }
}

/// Which way the large body takes, beside that of the small requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// The same proxy and the same service; through the gateway that is the same link.
    Same,
    /// The same gateway, another service.
    OtherLink,
    /// Another gateway with a service of its own, on the same core.
    OtherGateway,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Case {
    peer: Peer,
    beside: Beside,
    place: Place,
}

impl Case {
    const fn alone(peer: Peer) -> Self {
        Self { peer, beside: Beside::Nothing, place: Place::Same }
    }

    const fn place(self) -> &'static str {
        match (self.beside, self.place, self.peer) {
            (Beside::Nothing, ..) => "-",
            (_, Place::Same, Peer::Gateway) => "same link",
            (_, Place::Same, _) => "same proxy",
            (_, Place::OtherLink, _) => "other link",
            (_, Place::OtherGateway, _) => "other gateway",
        }
    }

    fn words(self) -> String {
        format!("{}, {}, {}", self.peer.name(), self.beside.name(), self.place())
    }
}

/// In the order in which they are measured and shown.
fn cases(quick: bool) -> Vec<Case> {
    let ours = Beside::ALL.into_iter().flat_map(|beside| {
        let elsewhere: &[Place] = match beside {
            Beside::Nothing | Beside::StalledDown | Beside::StalledUp | Beside::StalledBoth => &[],
            _ if quick => &[],
            Beside::PacedDown | Beside::PacedUp => &[Place::OtherGateway],
            Beside::Down | Beside::Up | Beside::Both => &[Place::OtherLink, Place::OtherGateway],
        };
        let places = std::iter::once(Place::Same).chain(elsewhere.iter().copied());
        places.map(move |place| Case { peer: Peer::Gateway, beside, place })
    });
    // An echo stalls nginx by itself.
    let others = [
        (Peer::Nginx, &[Beside::Nothing, Beside::PacedDown, Beside::PacedUp, Beside::Down, Beside::Up][..]),
        (Peer::HyperProxy, &[Beside::Nothing, Beside::Down, Beside::Up, Beside::Both]),
    ];
    let others = others
        .into_iter()
        .filter(|_| !quick)
        .flat_map(|(peer, besides)| besides.iter().map(move |&beside| Case { peer, beside, place: Place::Same }));
    ours.chain(others).collect()
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    case: Case,
    round: u32,
    small: Steady,
    /// Of the large body meanwhile.
    mebibytes_per_second: Option<f64>,
    others: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    rate: Rate,
    samples: &'a [Sample],
    goals: &'a [Goal],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    PLACEMENT.check()?;
    let programs = [tools::H2LOAD, tools::NGINX, tools::HAPROXY];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "fair")?;
    let machine = Machine::describe(workspace, &programs);
    let place = Places::start(&folder, &built)?;

    let rate = Rate { per_second: args.rate, connections: CONNECTIONS, seconds: args.seconds };
    let cases = cases(args.quick);
    let mut progress = Progress::of(cases.len() * args.rounds as usize);
    let mut samples = Vec::new();
    for round in 1..=args.rounds {
        for &case in &cases {
            let sample = measure(&folder, &built, &place, rate, (case, round)).with_context(|| case.words())?;
            progress.step(&format!("round {round}, {}: p99 {:.0} us", case.words(), sample.small.p99_us));
            samples.push(sample);
        }
    }

    let goals = goals_of(&samples);
    println!(
        "{machine}\n\nGET /hello at a fixed {} requests/s over {CONNECTIONS} connections, beside one other stream; pinned, one link, {} s, {} rounds, median (spread)\n",
        args.rate, args.seconds, args.rounds
    );
    println!("{}\n\n{}", table_of(&samples, &cases), goals::shown(&goals));
    if let Some(note) = report::disturbed(Summary::of(samples.iter().map(|sample| sample.others)).map(|s| s.median)) {
        println!("\n{note}");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/fair.json"));
    report::write_json(&json, &Report { machine: &machine, rate, samples: &samples, goals: &goals })
}

/// All that large bodies can go to. Ended when dropped.
struct Places {
    // Services leave before what they have joined.
    _bulk_service: super::launch::Process,
    other: Site,
    stand: Stand,
}

impl Places {
    fn start(folder: &RunFolder, programs: &Programs) -> Result<Self> {
        let stand = Stand::start(folder, programs, PLACEMENT, ServiceOptions::default())?;
        let args = ["--threads=1", "--links=1", &format!("--version={BULK_VERSION}")].map(str::to_owned);
        let bulk_service = stand.launch_service(folder, "bulk-service", &args)?;
        let mut other = Site::start(folder, programs, PLACEMENT, "other-gateway")?;
        let service = other.launch_service(folder, "other-service", PLACEMENT.servers(), &["--links=1".to_owned()])?;
        other.services.push(service);
        Ok(Self { _bulk_service: bulk_service, other, stand })
    }

    /// How a client is told to take this way.
    fn arguments(&self, case: Case) -> Vec<String> {
        match case.place {
            Place::Same => vec![format!("--to={}", self.stand.front(case.peer))],
            Place::OtherLink => {
                vec![format!("--to={}", self.stand.front(case.peer)), format!("--version={BULK_VERSION}")]
            }
            Place::OtherGateway => vec![format!("--to={}", self.other.http)],
        }
    }
}

/// What the client says at its end.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Moved {
    bytes: u64,
    seconds: f64,
}

fn measure(
    folder: &RunFolder,
    programs: &Programs,
    places: &Places,
    rate: Rate,
    (case, round): (Case, u32),
) -> Result<Sample> {
    let mut beside = None;
    if case.beside != Beside::Nothing {
        let call = [vec!["beside".to_owned()], case.beside.arguments(), places.arguments(case)].concat();
        // Where there is a third core, it is not in the way of those that measure.
        let cores = if machine::cores() > 2 { Cores::Only(2) } else { PLACEMENT.client() };
        let mut client = folder.client("beside-client", cores, &programs.peers, &call)?;
        client.says("begin")?;
        beside = Some(client);
    }
    // Clients that have ended are this program's, and all that runs is its family.
    let used = || -> Result<f64> {
        Ok(accounting::processor_seconds(std::process::id())? + accounting::seconds_of_ended_children()?)
    };
    let disturbance = Disturbance::watch()?;
    let before = used()?;
    let small = load::steady(folder, PLACEMENT.client(), places.stand.front(case.peer), rate)?;
    let others = disturbance.by_others(used()? - before)?;
    let mut mebibytes_per_second = None;
    if let Some(mut client) = beside {
        client.go_on()?;
        let said = client.says("end")?;
        let moved: Moved = serde_json::from_str(&said).with_context(|| format!("the client said {said}"))?;
        let rate = moved.bytes as f64 / f64::from(1 << 20) / moved.seconds.max(1e-3);
        mebibytes_per_second = case.beside.is_bulk().then_some(rate);
    }
    Ok(Sample { case, round, small, mebibytes_per_second, others })
}

/// One case's rounds, in their order.
fn rounds(samples: &[Sample], case: Case, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().filter(|sample| sample.case == case).map(figure).collect()
}

const P99: fn(&Sample) -> f64 = |sample| sample.small.p99_us;

/// The 99th percentile beside that of another case, round by round.
fn beside(samples: &[Sample], case: Case, other: Case) -> Option<Summary> {
    Summary::of_ratios(&rounds(samples, case, P99), &rounds(samples, other, P99))
}

fn table_of(samples: &[Sample], cases: &[Case]) -> String {
    let head = [
        "small requests through",
        "beside",
        "which takes",
        "reached/s",
        "p50 us",
        "p99 us",
        "x alone",
        "x other gateway",
        "MiB/s of the other",
    ];
    let mut rows = vec![table::row(head)];
    for &case in cases {
        let of = |figure: fn(&Sample) -> f64| Summary::of(rounds(samples, case, figure));
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let moved = samples.iter().filter(|sample| sample.case == case).filter_map(|s| s.mebibytes_per_second);
        let elsewhere = Case { place: Place::OtherGateway, ..case };
        let is_ours = case.peer == Peer::Gateway;
        rows.push(vec![
            case.peer.name().to_owned(),
            case.beside.name().to_owned(),
            case.place().to_owned(),
            dash(of(|sample| sample.small.per_second).map(|rate| rate.alone(table::whole))),
            dash(of(|sample| sample.small.p50_us).map(|us| us.spread(table::whole))),
            dash(of(P99).map(|us| us.spread(table::whole))),
            dash(beside(samples, case, Case::alone(case.peer)).map(|ratio| ratio.spread(table::hundredths))),
            dash(beside(samples, case, elsewhere).filter(|_| is_ours).map(|ratio| ratio.spread(table::hundredths))),
            dash(Summary::of(moved).map(|rate| rate.alone(table::whole))),
        ]);
    }
    table::aligned(&rows, 3)
}

fn goals_of(samples: &[Sample]) -> Vec<Goal> {
    let goals = Beside::ALL.into_iter().filter(|beside| *beside != Beside::Nothing).map(|what| {
        let case = Case { peer: Peer::Gateway, beside: what, place: Place::Same };
        Goal {
            name: "P14",
            what: format!("p99 of small requests beside one {}", what.name()),
            wanted: Wanted::AtMost,
            goal: 2.0,
            stretch: None,
            reached: beside(samples, case, Case::alone(Peer::Gateway)),
            unit: " x alone",
        }
    });
    goals.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(case: Case, p99_us: f64, mebibytes_per_second: Option<f64>) -> Sample {
        let small = Steady { per_second: 4000.0, p50_us: p99_us / 2.0, p99_us };
        Sample { case, round: 1, small, mebibytes_per_second, others: 0.0 }
    }

    #[test]
    fn each_case_stands_beside_its_own_base() {
        let all = cases(false);
        for (place, case) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| other != case), "twice: {}", case.words());
            assert!(all.contains(&Case::alone(case.peer)), "no base: {}", case.words());
        }
        let quick = cases(true);
        assert_eq!(quick.len(), Beside::ALL.len());
        assert!(quick.iter().all(|case| case.peer == Peer::Gateway && case.place == Place::Same));
    }

    #[test]
    fn the_link_is_told_apart_from_the_core() {
        let same = Case { peer: Peer::Gateway, beside: Beside::Down, place: Place::Same };
        let elsewhere = Case { place: Place::OtherGateway, ..same };
        let alone = Case::alone(Peer::Gateway);
        let samples =
            [sample(alone, 100.0, None), sample(same, 300.0, Some(900.0)), sample(elsewhere, 250.0, Some(1000.0))];
        let text = table_of(&samples, &[alone, same, elsewhere]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines[2],
            "Stella Router download same link 4000 150 (150..150) 300 (300..300) 3.00 (3.00..3.00) 1.20 (1.20..1.20) 900"
        );
        assert!(lines[1].ends_with("100 (100..100) 1.00 (1.00..1.00) - -"), "{}", lines[1]);
        let goals = goals_of(&samples);
        let reached: Vec<_> = goals.iter().filter_map(|goal| Some(goal.reached?.median)).collect();
        assert_eq!((goals.len(), reached), (8, vec![3.0]));
    }

    #[test]
    fn what_stalls_is_told_to_and_what_is_paced_too() {
        assert_eq!(Beside::StalledBoth.arguments(), ["--way=both", "--bytes=16777216", "--stall"]);
        assert_eq!(Beside::PacedDown.arguments(), ["--way=down", "--bytes=10485760", "--pace=104857600"]);
        assert_eq!(Beside::Up.arguments(), ["--way=up", "--bytes=10485760"]);
        assert!(Beside::Nothing.arguments().is_empty());
    }

    #[test]
    fn the_client_speaks_json() {
        let said = r#"{"bytes":12,"seconds":1.5}"#;
        assert_eq!(serde_json::from_str::<Moved>(said).expect("the client's format").bytes, 12);
    }
}
