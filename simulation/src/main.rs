//! Runs seeds and says what they came to: what `cargo xtask simulate` starts.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use simulation::{Carrier, Report};

/// Runs the real gateway, SDK and session on a deterministic network, from seeds.
#[derive(Parser)]
struct Args {
    /// How many seeds to run, with each carrier.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This seed alone, with its event log.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// This carrier alone.
    #[arg(long)]
    carrier: Option<Carrier>,
    /// Threads; default: one a core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs each seed twice: a run that differs from itself fails.
    #[arg(long)]
    twice: bool,
    /// With --seed: also what the product itself logs, such as `debug` or `router_link=trace`.
    #[arg(long, requires = "seed")]
    logs: Option<String>,
    /// With --seed: also what was drawn from it.
    #[arg(long, requires = "seed")]
    plan: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let carriers = args.carrier.map_or_else(|| Carrier::ALL.to_vec(), |carrier| vec![carrier]);
    match args.seed {
        Some(seed) => one(&args, &carriers, seed),
        None => many(&args, &carriers),
    }
}

fn one(args: &Args, carriers: &[Carrier], seed: u64) -> ExitCode {
    if let Some(logs) = &args.logs {
        let filter = tracing_subscriber::EnvFilter::new(logs);
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .without_time()
            .init();
    }
    if args.plan {
        println!("{}", simulation::describe(seed));
    }
    let mut failed = false;
    for carrier in carriers {
        let mut report = simulation::run(*carrier, seed);
        if args.twice {
            report.compare(&simulation::run(*carrier, seed));
        }
        for line in &report.log {
            println!("{line}");
        }
        println!(
            "seed {seed} over {carrier}: {} events, hash {:016x}, {} checks",
            report.log.len(),
            report.hash,
            report.checks
        );
        for violation in &report.violations {
            println!("  VIOLATION {violation}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What all runs together came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    requests: u64,
    handlers: u64,
    checks: u64,
    faults: BTreeMap<&'static str, u64>,
    outcomes: BTreeMap<String, u64>,
    failures: Vec<Report>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.handlers += report.runs;
        self.checks += report.checks;
        self.requests += report.outcomes.values().sum::<u64>();
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &report.outcomes {
            *self.outcomes.entry(kind.clone()).or_default() += count;
        }
        if !report.violations.is_empty() {
            self.failures.push(report);
        }
    }
}

fn many(args: &Args, carriers: &[Carrier]) -> ExitCode {
    let began = Instant::now();
    let all = args.seeds.saturating_mul(carriers.len() as u64);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        return;
                    }
                    let carrier = carriers[(number % carriers.len() as u64) as usize];
                    let seed = args.from + number / carriers.len() as u64;
                    let report = if args.twice {
                        let mut report = simulation::run(carrier, seed);
                        report.compare(&simulation::run(carrier, seed));
                        report
                    } else {
                        simulation::run(carrier, seed)
                    };
                    if !report.violations.is_empty() {
                        eprintln!("\nseed {seed} over {carrier} fails:\n  {}", report.violations.join("\n  "));
                        eprintln!("  to see it again: {}", report.command());
                    }
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    sum.add(report);
                    progress(&sum, all, began);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary(&sum, began);
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(sum: &Sum, all: u64, began: Instant) {
    let line =
        format!("{} of {all} runs, {} failed, {:.0} s", sum.runs, sum.failures.len(), began.elapsed().as_secs_f64());
    let mut out = std::io::stderr();
    // Progress that cannot be shown is no reason to stop.
    if out.is_terminal() {
        let _ = write!(out, "\r{line}");
        let _ = out.flush();
    } else if sum.runs.is_multiple_of(100) {
        let _ = writeln!(out, "{line}");
    }
}

fn summary(sum: &Sum, began: Instant) {
    let Sum { runs, requests, handlers, checks, faults, outcomes, failures } = sum;
    println!(
        "\n{runs} runs in {:.1} s: {requests} requests, {handlers} handlers ran, {checks} checks",
        began.elapsed().as_secs_f64()
    );
    println!("faults injected:");
    for (kind, count) in faults {
        println!("  {count:>8}  {kind}");
    }
    println!("requests ended as:");
    for (kind, count) in outcomes {
        println!("  {count:>8}  {kind}");
    }
    println!("runs that failed: {}", failures.len());
    for report in failures {
        println!("  {}", report.command());
        for violation in &report.violations {
            println!("    {violation}");
        }
    }
}
