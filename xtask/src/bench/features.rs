//! `cargo xtask bench features`: what of a request's instructions goes where, and what each feature adds to them.
//!
//! Callgrind counts them in a whole gateway, and in a whole service, while requests pass: nothing of the kernel, nothing
//! of waiting, and the same on a busy machine. What can be switched is counted once with and once without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::callgrind::{Profile, Shares};
use super::launch::{Process, RunFolder, free_addresses};
use super::load::{self, Asked};
use super::machine::Machine;
use super::parts::{self, Entry, Part};
use super::report::{self, Progress};
use super::stand::{Placement, Programs, gateway_configuration};
use super::{table, tools};
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests that are counted in each case.
    #[arg(long, value_name = "N", default_value = "4000", value_parser = clap::value_parser!(u32).range(100..))]
    requests: u32,

    /// Only the parts, without what can be switched.
    #[arg(long)]
    parts: bool,

    /// Show what each part is made of, too.
    #[arg(long)]
    details: bool,

    /// Where all of it goes. [default: bench/features.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const PLACEMENT: Placement = Placement::Pinned;
/// Requests before those that are counted: connections are open then, and tables filled.
const WARM_UP: u32 = 800;
/// Of all instructions: when more than this belongs to no part, the tables of parts are out of date.
const NOTICEABLE: f64 = 0.01;
/// Of all instructions: what is less than this is no detail worth a line.
const DETAIL: f64 = 0.005;

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Gateway,
    Service,
}

impl Side {
    const ALL: [Self; 2] = [Self::Gateway, Self::Service];

    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Service => "service",
        }
    }
}

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug, Serialize)]
struct Variant {
    name: &'static str,
    /// For the gateway, as in `--set key=value`.
    settings: &'static [&'static str],
    links: u32,
    asked: Asked,
}

const HELLO: Asked = Asked { path: "/hello", connections: 16, headers: &[], body: 0 };
const DEFAULTS: Variant = Variant { name: "the defaults", settings: &[], links: 1, asked: HELLO };

const fn set(name: &'static str, settings: &'static [&'static str]) -> Variant {
    Variant { name, settings, ..DEFAULTS }
}

const fn asked(name: &'static str, asked: Asked) -> Variant {
    Variant { name, asked, ..DEFAULTS }
}

const VARIANTS: [Variant; 17] = [
    set("access log on", &["log.access=true"]),
    set("access log on, as JSON", &["log.access=true", "log.format=json"]),
    set("log level debug", &["log.level=debug"]),
    set("log level off", &["log.level=off"]),
    set("heartbeats 100 times as often", &["health.heartbeat=100ms"]),
    set("strategy round_robin", &["routing.strategy=round_robin"]),
    set("strategy least_loaded", &["routing.strategy=least_loaded"]),
    set("tenants by a header (not sent)", &["routing.tenant_header=x-tenant"]),
    Variant {
        name: "a trusted proxy's forwarded fields",
        settings: &["http.trusted_proxies=[127.0.0.1]"],
        asked: Asked { headers: &["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https"], ..HELLO },
        ..DEFAULTS
    },
    asked("the client sends an id", Asked { headers: &["x-request-id: 0123456789abcdef"], ..HELLO }),
    asked("the client names a version", Asked { headers: &["x-service-version: 1.0.0"], ..HELLO }),
    asked(
        "8 more request headers",
        Asked {
            headers: &[
                "accept-language: en",
                "cache-control: no-cache",
                "cookie: session=0123456789abcdef",
                "origin: https://example.org",
                "referer: https://example.org/page",
                "x-one: 1",
                "x-two: 2",
                "x-three: 3",
            ],
            ..HELLO
        },
    ),
    asked("1 KiB in the request's body", Asked { path: "/sink", body: 1024, ..HELLO }),
    asked("1 KiB in the answer's body", Asked { path: "/bytes/1024", ..HELLO }),
    Variant { name: "2 links", links: 2, ..DEFAULTS },
    asked("1 connection", Asked { connections: 1, ..HELLO }),
    asked("64 connections", Asked { connections: 64, ..HELLO }),
];

/// Instructions a request.
#[derive(Debug, Serialize)]
struct Counted {
    side: Side,
    total: f64,
    entries: Vec<(Entry, f64)>,
    not_attributed: Vec<(String, f64)>,
}

#[derive(Debug, Serialize)]
struct Varied {
    variant: Variant,
    instructions: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    requests: u32,
    counted: &'a [Counted],
    varied: &'a [Varied],
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    PLACEMENT.check()?;
    let programs = [tools::VALGRIND, tools::H2LOAD];
    tools::ensure(&programs)?;
    let target = Metadata::read(workspace)?.target_directory;
    let built = Programs::build(workspace)?;
    let folder = RunFolder::create(&target, "features")?;
    let machine = Machine::describe(workspace, &programs);
    let count = |side, variant: &Variant| {
        count(&folder, &built, side, variant, args.requests)
            .with_context(|| format!("{}, counted in the {}", variant.name, side.name()))
    };

    let varied = if args.parts { &[][..] } else { &VARIANTS };
    let mut progress = Progress::of(Side::ALL.len() + varied.len());
    let root = workspace.root().to_string_lossy();
    let mut counted = Vec::new();
    for side in Side::ALL {
        let profile = count(side, &DEFAULTS)?;
        let shares = profile.share(|function, file| parts::belongs(&root, function, file));
        let one = Counted::of(side, profile.total(), &shares, args.requests);
        progress.step(&format!("{}: {} instructions a request", side.name(), table::grouped(one.total)));
        counted.push(one);
    }
    let mut variants = Vec::new();
    for variant in varied {
        let instructions = count(Side::Gateway, variant)?.total() as f64 / f64::from(args.requests);
        progress.step(&format!("{}: {} instructions a request", variant.name, table::grouped(instructions)));
        variants.push(Varied { variant: *variant, instructions });
    }

    println!("{machine}\n\nGET /hello, 16 connections, one link, {} requests: instructions a request\n", args.requests);
    println!("{}", table_of(&counted));
    if args.details {
        println!("\n{}", table_of_details(&counted));
    }
    if let Some(base) = counted.first().filter(|_| !variants.is_empty()) {
        println!("\nIn the gateway, by what is switched or asked\n\n{}", table_of_variants(base.total, &variants));
    }
    for note in counted.iter().filter_map(Counted::note) {
        println!("\n{note}");
    }
    for path in parts::stale(|path| begins_a_file(workspace.root(), path)) {
        println!("\nNOTE: xtask/src/bench/parts.rs names {path}, and no such file is there");
    }
    let json = args.json.clone().unwrap_or_else(|| target.join("bench/features.json"));
    let report = Report { machine: &machine, requests: args.requests, counted: &counted, varied: &variants };
    report::write_json(&json, &report)
}

/// Whether a file or a folder is there whose path begins so.
fn begins_a_file(root: &Path, path: &str) -> bool {
    let path = root.join(path.trim_end_matches('/'));
    let begin = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&begin))
}

/// Starts a gateway and its service, one of them under callgrind, and counts while requests pass.
fn count(folder: &RunFolder, programs: &Programs, side: Side, variant: &Variant, requests: u32) -> Result<Profile> {
    let [http, admin, join] = free_addresses()?;
    let file = folder.write("router.yaml", &gateway_configuration(PLACEMENT, http, admin, join))?;
    let mut gateway_args = vec!["serve".to_owned(), "--config".to_owned(), file.display().to_string()];
    gateway_args.extend(variant.settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]));
    let service_args =
        ["--threads=1".to_owned(), format!("--links={}", variant.links), format!("--gateway=tcp://{join}")];
    let written = folder.path().join("callgrind.out");
    let start = |name, is: Side, program: &Path, args: &[String]| -> Result<Process> {
        let cores = PLACEMENT.servers();
        if is != side {
            return folder.serve(name, cores, program, args);
        }
        let valgrind = tools::VALGRIND.path().context("valgrind is gone")?;
        let call = [
            "--tool=callgrind".to_owned(),
            "--instr-atstart=no".to_owned(),
            format!("--callgrind-out-file={}", written.display()),
            program.display().to_string(),
        ];
        folder.serve(name, cores, &valgrind, &[&call, args].concat())
    };
    let mut gateway = start("gateway", Side::Gateway, &programs.gateway, &gateway_args)?;
    gateway.listens(http)?;
    let mut service = start("bench-service", Side::Service, &programs.service, &service_args)?;
    service.prints("ready")?;
    gateway.answers(http)?;

    let observed = if side == Side::Gateway { gateway.id() } else { service.id() };
    let ask = |requests| load::ask(folder, PLACEMENT.client(), http, variant.asked, requests);
    ask(WARM_UP)?;
    control(&["--instr=on"], observed)?;
    ask(requests)?;
    control(&["--instr=off"], observed)?;
    control(&["--dump"], observed)?;
    // In the order in which they leave each other in peace.
    drop(service);
    drop(gateway);
    let profile = first_part(&written)?;
    Profile::parse(&profile)
}

/// What was dumped on request has a number behind its name; what the process writes at its end has none.
fn first_part(written: &Path) -> Result<String> {
    let path = written.with_extension("out.1");
    let text = fs::read_to_string(&path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
    fs::remove_file(&path)?;
    Ok(text)
}

fn control(args: &[&str], pid: u32) -> Result<()> {
    let output = Command::new("callgrind_control").args(args).arg(pid.to_string()).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.contains("OK"), "callgrind_control {} said: {said}", args.join(" "));
    Ok(())
}

impl Counted {
    fn of(side: Side, total: u64, shares: &Shares<Entry>, requests: u32) -> Self {
        let each = |instructions: f64| instructions / f64::from(requests);
        let entries = shares.parts.iter().map(|(entry, instructions)| (*entry, each(*instructions))).collect();
        let mut not_attributed: Vec<_> =
            shares.unknown.iter().map(|(name, instructions)| (name.clone(), each(*instructions))).collect();
        not_attributed.sort_by(|a, b| b.1.total_cmp(&a.1));
        Self { side, total: each(total as f64), entries, not_attributed }
    }

    fn part(&self, part: Part) -> Option<f64> {
        let of_it: Vec<f64> = self.entries.iter().filter(|((is, _), _)| *is == part).map(|(_, n)| *n).collect();
        (!of_it.is_empty()).then(|| of_it.iter().sum())
    }

    fn rest(&self) -> f64 {
        self.not_attributed.iter().map(|(_, instructions)| instructions).sum()
    }

    /// Where the tables of parts have to be gone on with.
    fn note(&self) -> Option<String> {
        if self.rest() <= NOTICEABLE * self.total {
            return None;
        }
        let names: Vec<String> =
            self.not_attributed.iter().take(8).map(|(name, n)| format!("{name} ({n:.0})")).collect();
        let rest = table::grouped(self.rest());
        let side = self.side.name();
        Some(format!(
            "NOT ATTRIBUTED: {rest} instructions a request of the {side}; xtask/src/bench/parts.rs does not name: {}",
            names.join(", ")
        ))
    }
}

fn table_of(counted: &[Counted]) -> String {
    let mut head = vec!["part".to_owned()];
    head.extend(counted.iter().flat_map(|one| [one.side.name().to_owned(), "share".to_owned()]));
    let row = |name: &str, figure: &dyn Fn(&Counted) -> Option<f64>| {
        let cells = counted.iter().flat_map(|one| match figure(one) {
            Some(figure) => [table::grouped(figure), percent(figure / one.total)],
            None => ["-".to_owned(), "-".to_owned()],
        });
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let mut rows = vec![head];
    for part in Part::ALL.into_iter().filter(|part| counted.iter().any(|one| one.part(*part).is_some())) {
        rows.push(row(part.name(), &|one| one.part(part)));
    }
    rows.push(row("not attributed", &|one| Some(one.rest())));
    rows.push(row("all", &|one| Some(one.total)));
    table::aligned(&rows, 1)
}

/// What the parts are made of, by the tables' entries, where it is worth a line.
fn table_of_details(counted: &[Counted]) -> String {
    let mut rows = vec![table::row(["in", "part", "files", "instructions a request"])];
    for one in counted {
        let mut entries: Vec<_> = one.entries.iter().filter(|(_, n)| *n >= DETAIL * one.total).collect();
        entries.sort_by(|a, b| b.1.total_cmp(&a.1));
        rows.extend(entries.iter().map(|((part, files), n)| {
            vec![one.side.name().to_owned(), part.name().to_owned(), (*files).to_owned(), table::grouped(*n)]
        }));
    }
    table::aligned(&rows, 3)
}

fn table_of_variants(base: f64, varied: &[Varied]) -> String {
    let mut rows = vec![table::row(["what", "instructions a request", "more than by default", "share"])];
    rows.push(vec![DEFAULTS.name.to_owned(), table::grouped(base), "-".to_owned(), "-".to_owned()]);
    for Varied { variant, instructions } in varied {
        let more = instructions - base;
        let sign = if more > 0.5 { "+" } else { "" };
        rows.push(vec![
            variant.name.to_owned(),
            table::grouped(*instructions),
            format!("{sign}{}", table::grouped(more)),
            percent(more / base),
        ]);
    }
    table::aligned(&rows, 1)
}

fn percent(share: f64) -> String {
    // Zero is added so that nothing has no sign.
    format!("{:.1} %", (share * 1000.0).round() / 10.0 + 0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn counted(unknown: f64) -> Counted {
        let shares = Shares {
            parts: BTreeMap::from([
                ((Part::Http, "hyper/"), 400_000.0),
                ((Part::Http, "httparse/"), 200_000.0),
                ((Part::Session, "s"), 300_000.0),
            ]),
            unknown: BTreeMap::from([("/new/thing.rs".to_owned(), unknown), ("main".to_owned(), 0.0)]),
        };
        Counted::of(Side::Gateway, 1_000_000, &shares, 100)
    }

    #[test]
    fn the_table_adds_up_and_shows_what_is_left() {
        let text = table_of(&[counted(100_000.0)]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "part gateway share",
            "HTTP parsing and encoding (hyper) 6,000 60.0 %",
            "session 3,000 30.0 %",
            "not attributed 1,000 10.0 %",
            "all 10,000 100.0 %",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn details_are_told_the_largest_first() {
        let text = table_of_details(&[counted(0.0)]);
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(lines, ["request", "4,000", "3,000", "2,000"]);
    }

    #[test]
    fn what_is_left_is_named_when_it_is_noticeable() {
        assert_eq!(counted(9_000.0).note(), None);
        assert!(counted(20_000.0).note().is_some_and(|note| note.contains("/new/thing.rs (200), main (0)")));
    }

    #[test]
    fn variants_stand_beside_the_defaults() {
        let varied = [
            Varied { variant: set("log", &[]), instructions: 11_000.0 },
            Varied { variant: set("off", &[]), instructions: 9_999.0 },
        ];
        let text = table_of_variants(10_000.0, &varied);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[2..], ["log 11,000 +1,000 10.0 %", "off 9,999 -1 0.0 %"]);
    }

    #[test]
    fn paths_begin_files_or_folders() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(begins_a_file(root, "src/bench/feat") && begins_a_file(root, "src/bench/"));
        assert!(!begins_a_file(root, "src/bench/nothing") && !begins_a_file(root, "nowhere/at/all"));
    }
}
