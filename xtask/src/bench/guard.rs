//! Instruction counts of the functions that every request goes through, beside those that are recorded in the repository.
//!
//! gungraun and callgrind count; this installs what they need, reads what they say, and tells what grew. It fails for no
//! figure: some growth is worth its price, and then the baseline is recorded anew, where a review sees it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::table::{aligned, grouped, row};
use super::tools::{VALGRIND, ensure};
use crate::metadata::Metadata;
use crate::process::Workspace;

/// The calls that each guard makes of its function: `CALLS` of benches/guards.
const CALLS: f64 = 64.0;

/// Growth that is told of: less comes and goes with what the compiler inlines.
const TOLD: f64 = 0.05;

const BASELINE: &str = "benches/guards/baseline.json";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Record what is counted as the new baseline.
    #[arg(long)]
    record: bool,
}

/// Instructions a call, by guard, and what they were counted with.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    counted_with: String,
    instructions: BTreeMap<String, f64>,
}

pub(super) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    ensure(&[VALGRIND])?;
    let runner = runner(workspace)?;
    let command = ["bench", "--package", "bench-guards", "--bench", "guards", "--", "--output-format=json"];
    let said = workspace.cargo(command).env("GUNGRAUN_RUNNER", &runner).read()?;
    let instructions = read(&String::from_utf8_lossy(&said))?;

    let path = workspace.root().join(BASELINE);
    let recorded = recorded(&path)?;
    println!("{}\n", Machine::describe(workspace, &[VALGRIND]));
    println!("{}", table(&instructions, &recorded.instructions));
    let now = Baseline { counted_with: counted_with(), instructions };
    if args.record {
        fs::write(&path, serde_json::to_string_pretty(&now)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("==> recorded in {BASELINE}");
        return Ok(());
    }
    for note in notes(&now, &recorded) {
        println!("\n{note}");
    }
    Ok(())
}

/// gungraun's own program, of the version that its library has here: it speaks with no other.
fn runner(workspace: &Workspace) -> Result<PathBuf> {
    let lock = fs::read_to_string(workspace.root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let version = locked_version(&lock, "gungraun-runner").context("Cargo.lock has no gungraun-runner")?;
    let root = Metadata::read(workspace)?.target_directory.join(format!("tools/gungraun-runner-{version}"));
    let program = root.join("bin/gungraun-runner");
    if !program.is_file() {
        let root = root.to_string_lossy().into_owned();
        let install = ["install", "gungraun-runner", "--version", version, "--locked", "--root", &root];
        if !workspace.cargo(install).run()? {
            bail!("gungraun-runner {version}, which the guards are run by, could not be installed");
        }
    }
    Ok(program)
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let wanted = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != wanted);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn recorded(path: &Path) -> Result<Baseline> {
    if !path.exists() {
        return Ok(Baseline::default());
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what --record writes", path.display()))
}

/// What counts depend on beside the code.
fn counted_with() -> String {
    let rustc = super::machine::rustc();
    format!("{rustc}, {}", std::env::consts::ARCH)
}

/// A line of gungraun's: one bench.
#[derive(Deserialize)]
struct Summary {
    group: String,
    function_name: String,
    id: Option<String>,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    total: Total,
}

#[derive(Deserialize)]
struct Total {
    metrics: BTreeMap<String, Metric>,
}

#[derive(Deserialize)]
struct Metric {
    values: Values,
}

#[derive(Deserialize)]
struct Values {
    new: f64,
}

/// Instructions a call, by guard.
fn read(said: &str) -> Result<BTreeMap<String, f64>> {
    let mut counts = BTreeMap::new();
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let Summary { group, function_name, id, profiles } =
            serde_json::from_str(line).context("not what gungraun writes")?;
        let name = [format!("{group}/{function_name}"), id.unwrap_or_default()].join(" ").replace('_', " ");
        let count = profiles.first().and_then(|profile| profile.data.total.metrics.get("Ir"));
        let count = count.with_context(|| format!("{name}: no instructions were counted"))?;
        counts.insert(name.trim_end().to_owned(), tenths(count.values.new / CALLS));
    }
    if counts.is_empty() {
        bail!("no guard ran");
    }
    Ok(counts)
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn table(now: &BTreeMap<String, f64>, recorded: &BTreeMap<String, f64>) -> String {
    let mut rows = vec![row(["guard", "instructions a call", "baseline", "change"])];
    rows.extend(now.iter().map(|(name, count)| {
        let before = recorded.get(name);
        let change =
            before.map_or_else(|| "new".to_owned(), |before| format!("{:+.1} %", grown(*count, *before) * 100.0));
        vec![name.clone(), short(*count), before.map_or_else(|| "-".to_owned(), |before| short(*before)), change]
    }));
    aligned(&rows, 1)
}

fn short(count: f64) -> String {
    if count < 100.0 { format!("{count:.1}") } else { grouped(count) }
}

fn grown(now: f64, before: f64) -> f64 {
    if before > 0.0 { now / before - 1.0 } else { 0.0 }
}

/// What a reader should not overlook.
fn notes(now: &Baseline, recorded: &Baseline) -> Vec<String> {
    if recorded.instructions.is_empty() {
        return vec!["NOTE: there is no baseline yet: --record makes one".to_owned()];
    }
    let mut notes = Vec::new();
    for (name, count) in &now.instructions {
        let Some(before) = recorded.instructions.get(name) else { continue };
        let grown = grown(*count, *before);
        if grown > TOLD {
            notes.push(format!(
                "GREW: {name}: {:.1} % more instructions than recorded; if they are worth it, record them with --record",
                grown * 100.0
            ));
        }
    }
    for name in recorded.instructions.keys().filter(|name| !now.instructions.contains_key(*name)) {
        notes.push(format!("GONE: {name} is recorded, and was not counted"));
    }
    if now.counted_with != recorded.counted_with {
        notes.push(format!(
            "NOTE: the baseline was recorded with {}, this is {}: changes may be the compiler's",
            recorded.counted_with, now.counted_with
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(guards: &[(&str, f64)]) -> Baseline {
        Baseline {
            counted_with: "rustc 1".to_owned(),
            instructions: guards.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }

    #[test]
    fn gungrauns_lines_are_read() {
        let line = r#"{"group":"codec","function_name":"head_encode","id":"of_8_headers","kind":"LibraryBenchmark",
            "profiles":[{"tool":"Callgrind","data":{"parts":[],"total":{"regressions":[],"metrics":{
            "Ir":{"change":null,"values":{"new":6400,"old":1}},"L1hits":{"values":{"new":1.5}}}}}}]}"#;
        let said = format!("\n{}\n", line.replace('\n', ""));
        let counts = read(&said).expect("gungraun's format");
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("codec/head encode of 8 headers".to_owned(), 100.0)]);
        assert!(read("").is_err());
    }

    #[test]
    fn growth_over_a_twentieth_is_told_and_less_is_not() {
        let recorded = counted(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)]);
        let now = counted(&[("a", 104.9), ("b", 105.2), ("c", 50.0), ("e", 7.0)]);
        let notes = notes(&now, &recorded);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("GREW: b: 5.2 %"), "{notes:?}");
        assert!(notes[1].starts_with("GONE: d"), "{notes:?}");
        let text = table(&now.instructions, &recorded.instructions);
        assert!(text.lines().last().is_some_and(|line| line.starts_with('e') && line.ends_with("new")), "{text}");
    }

    #[test]
    fn another_compiler_is_told_of() {
        let recorded = counted(&[("a", 100.0)]);
        let now = Baseline { counted_with: "rustc 2".to_owned(), ..counted(&[("a", 100.0)]) };
        assert_eq!(notes(&now, &recorded).len(), 1);
        assert!(notes(&now, &Baseline::default())[0].contains("--record"));
    }

    #[test]
    fn the_lock_file_says_which_runner_is_right() {
        let lock =
            "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"ab\"\nversion = \"2.0.0\"\n";
        assert_eq!(locked_version(lock, "ab"), Some("2.0.0"));
        assert_eq!(locked_version(lock, "b"), None);
    }
}
