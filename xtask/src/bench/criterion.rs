//! The criterion benches, and one table of what they measured.
//!
//! Criterion measures and does the statistics; this reads its files. It knows nothing of whole processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::table;
use crate::metadata::Metadata;
use crate::process::Workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the benches whose names match this regular expression.
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,

    /// Measure each bench only until it looks settled: rough figures, soon.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Options) -> Result<()> {
    let results = Metadata::read(workspace)?.target_directory.join("criterion");
    let started = SystemTime::now();

    // `--bench *` names the bench targets alone; the library's own harness would not know criterion's options.
    let mut call = vec!["bench", "--package", "bench-suite", "--bench", "*", "--", "--noplot"];
    if args.quick {
        call.push("--quick");
    }
    call.extend(args.filter.as_deref());
    if !workspace.cargo(call).env("CRITERION_HOME", &results).run()? {
        bail!("the benches failed");
    }

    let mut measurements = Vec::new();
    collect(&results, started, &mut measurements)?;
    if measurements.is_empty() {
        bail!("no bench ran{}", args.filter.as_ref().map_or("", |_| ": does the filter match one?"));
    }
    measurements.sort_by(|a, b| a.name.cmp(&b.name));
    println!("{}", table(&measurements));
    eprintln!("==> {} benches; details in {}", measurements.len(), results.display());
    Ok(())
}

struct Measurement {
    name: String,
    median: Estimate,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

/// Nanoseconds an iteration.
#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

#[derive(Deserialize)]
struct Description {
    full_id: String,
    throughput: Option<Throughput>,
}

/// What one iteration moves, in criterion's words.
#[derive(Clone, Copy, Deserialize)]
enum Throughput {
    Bits(u64),
    Bytes(u64),
    BytesDecimal(u64),
    Elements(u64),
    ElementsAndBytes { elements: u64, bytes: u64 },
}

/// Reads each `new/estimates.json` under `directory` that this run has written; older ones are of other runs.
fn collect(directory: &Path, started: SystemTime, found: &mut Vec<Measurement>) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let estimates = path.join("estimates.json");
        if path.file_name().is_none_or(|name| name != "new") || !estimates.exists() {
            collect(&path, started, found)?;
            continue;
        }
        if fs::metadata(&estimates)?.modified()? < started {
            continue;
        }
        let Estimates { median } = read_json(&estimates)?;
        let Description { full_id, throughput } = read_json(&path.join("benchmark.json"))?;
        found.push(Measurement { name: full_id, median, throughput });
    }
    Ok(())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not what criterion 0.8 writes", path.display()))
}

fn table(measurements: &[Measurement]) -> String {
    let mut rows = vec![["bench", "median", "lower", "upper", "per second"].map(str::to_owned).to_vec()];
    rows.extend(measurements.iter().map(|measurement| {
        let median = &measurement.median;
        vec![
            measurement.name.clone(),
            time(median.point_estimate),
            time(median.confidence_interval.lower_bound),
            time(median.confidence_interval.upper_bound),
            rate(median.point_estimate, measurement.throughput),
        ]
    }));
    table::aligned(&rows, 1)
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// What moves in a second at this time an iteration; iterations where the bench names nothing else.
fn rate(nanoseconds: f64, throughput: Option<Throughput>) -> String {
    let per_second = |amount: u64| amount as f64 * 1e9 / nanoseconds;
    let bytes = |amount: u64| format!("{:.1} MiB", per_second(amount) / f64::from(1 << 20));
    match throughput {
        None => scaled(per_second(1)),
        Some(Throughput::Elements(elements)) => scaled(per_second(elements)),
        Some(Throughput::Bytes(amount) | Throughput::BytesDecimal(amount)) => bytes(amount),
        Some(Throughput::Bits(bits)) => bytes(bits / 8),
        Some(Throughput::ElementsAndBytes { elements, bytes: amount }) => {
            format!("{}, {}", scaled(per_second(elements)), bytes(amount))
        }
    }
}

fn scaled(number: f64) -> String {
    match number {
        n if n < 1e3 => format!("{n:.1}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n => format!("{:.2} M", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(name: &str, nanoseconds: f64, throughput: Option<Throughput>) -> Measurement {
        Measurement {
            name: name.to_owned(),
            median: Estimate {
                point_estimate: nanoseconds,
                confidence_interval: Interval { lower_bound: nanoseconds * 0.9, upper_bound: nanoseconds * 1.1 },
            },
            throughput,
        }
    }

    #[test]
    fn the_table_aligns_names_left_and_figures_right() {
        let text = table(&[
            measurement("codec/header", 12.0, None),
            measurement("route/10", 1_500.0, Some(Throughput::Elements(3))),
            measurement("body", 1e6, Some(Throughput::Bytes(1 << 20))),
        ]);
        let expected = "\
bench           median    lower    upper  per second
codec/header   12.0 ns  10.8 ns  13.2 ns     83.33 M
route/10       1.50 us  1.35 us  1.65 us      2.00 M
body           1.00 ms  900.00 us  1.10 ms  1000.0 MiB";
        let squeeze = |text: &str| -> Vec<Vec<String>> {
            text.lines().map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
        };
        assert_eq!(squeeze(&text), squeeze(expected));
        let widths: Vec<_> = text.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn criterions_files_are_read() {
        let json = r#"{"group_id":"codec","function_id":"header","value_str":null,
            "throughput":{"Bytes":12},"full_id":"codec/header","directory_name":"codec/header","title":"x"}"#;
        let description: Description = serde_json::from_str(json).expect("criterion's format");
        assert_eq!(description.full_id, "codec/header");
        assert!(matches!(description.throughput, Some(Throughput::Bytes(12))));
        let json = r#"{"mean":{},"median":{"confidence_interval":{"confidence_level":0.95,
            "lower_bound":1.0,"upper_bound":3.0},"point_estimate":2.0,"standard_error":0.1}}"#;
        let estimates: Estimates = serde_json::from_str(json).expect("criterion's format");
        assert_eq!(time(estimates.median.point_estimate), "2.0 ns");
    }
}
