//! `cargo xtask test`: every test of the workspace, and proof that they ran.
//!
//! Uses cargo-nextest where it is installed and plain `cargo test` elsewhere; knows no test by name. A run in
//! which no test ran is a failure: an empty run is how a broken filter or a lost target hides.

use anyhow::{Result, bail};

use crate::broker;
use crate::metadata::{Metadata, Package};
use crate::process::{Watched, Workspace};

/// `-p` narrows every step to those packages. Whatever else is given (a filter, runner options) goes to the test
/// runner, and then the doctests, which would not understand it, are left out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this package; may be given several times.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) package: Vec<String>,

    /// Use `cargo test` even where cargo-nextest is installed.
    #[arg(long)]
    pub(crate) without_nextest: bool,

    /// Filters and options for the test runner.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "RUNNER ARGS")]
    pub(crate) runner: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let scope = scope(&args.package);
    // It comes up while the programs are built, and ends with this function.
    let mut broker = broker::ForTests::start(workspace, &args.package)?;

    // First, because integration tests start the programs that this builds.
    if !workspace.cargo(["build"].into_iter().chain(strs(&scope)).chain(["--bins", "--examples"])).run()? {
        bail!("the programs and examples do not build");
    }

    let tests = run_tests(workspace, &scope, args, broker.url()?)?;
    let mut failed = Vec::new();
    if !tests.succeeded {
        failed.push("tests");
    }
    let mut doctests = 0;
    if args.runner.is_empty() {
        let outcome = run_doctests(workspace, &args.package)?;
        doctests = outcome.ran;
        if !outcome.succeeded {
            failed.push("doctests");
        }
    }

    eprintln!("==> {} tests and {doctests} doctests ran", tests.ran);
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if tests.ran == 0 {
        bail!("no test ran: an empty run counts as a failure");
    }
    Ok(())
}

struct Outcome {
    succeeded: bool,
    ran: u64,
}

/// A way to run tests: how to call it, and where it says how many ran.
struct Runner {
    call: &'static [&'static str],
    watched: Watched,
    ran: fn(&str) -> Option<u64>,
}

const NEXTEST: Runner =
    Runner { call: &["nextest", "run", "--no-fail-fast"], watched: Watched::Stderr, ran: ran_under_nextest };

/// `--tests` leaves the doctests to their own step and the benches to `cargo xtask bench`.
const LIBTEST: Runner =
    Runner { call: &["test", "--tests", "--no-fail-fast"], watched: Watched::Stdout, ran: ran_under_libtest };

fn run_tests(workspace: &Workspace, scope: &[String], args: &Args, broker: Option<String>) -> Result<Outcome> {
    let nextest = !args.without_nextest && workspace.has_cargo_subcommand("nextest");
    let runner = if nextest { NEXTEST } else { LIBTEST };
    let mut ran = 0;
    let mut step = workspace.cargo(runner.call.iter().copied().chain(strs(scope)).chain(strs(&args.runner)));
    if let Some(url) = broker {
        step = step.env(test_broker::URL_VARIABLE, url);
    }
    let succeeded = step.run_watching(runner.watched, |line| ran += (runner.ran)(line).unwrap_or(0))?;
    Ok(Outcome { succeeded, ran })
}

fn run_doctests(workspace: &Workspace, packages: &[String]) -> Result<Outcome> {
    let mut documented = packages.to_vec();
    if !packages.is_empty() {
        // Named alone, a package without a library is an error to rustdoc; in a whole workspace it is passed over.
        let metadata = Metadata::read(workspace)?;
        documented.retain(|name| metadata.package(name).is_some_and(Package::has_library));
        if documented.is_empty() {
            return Ok(Outcome { succeeded: true, ran: 0 });
        }
    }
    let mut ran = 0;
    let succeeded = workspace
        .cargo(["test", "--doc", "--no-fail-fast"].into_iter().chain(strs(&scope(&documented))))
        .run_watching(Watched::Stdout, |line| ran += ran_under_libtest(line).unwrap_or(0))?;
    Ok(Outcome { succeeded, ran })
}

/// The packages to act on, as cargo's arguments.
fn scope(packages: &[String]) -> Vec<String> {
    if packages.is_empty() {
        return vec!["--workspace".to_owned()];
    }
    packages.iter().flat_map(|name| ["--package".to_owned(), name.clone()]).collect()
}

fn strs(args: &[String]) -> impl Iterator<Item = &str> {
    args.iter().map(String::as_str)
}

/// Reads `Summary [0.190s] 12 tests run: ...`, and `3/12 tests run: ...` of an interrupted run.
fn ran_under_nextest(line: &str) -> Option<u64> {
    if !line.trim_start().starts_with("Summary") {
        return None;
    }
    let before = line.split_once(" tests run:").or_else(|| line.split_once(" test run:"))?.0;
    let counted = before.rsplit(' ').next()?;
    counted.split('/').next()?.parse().ok()
}

/// Reads `test result: ok. 5 passed; 1 failed; ...`; there is one such line a test binary.
fn ran_under_libtest(line: &str) -> Option<u64> {
    let verdict = line.trim_start().strip_prefix("test result: ")?;
    let ran = verdict
        .split(['.', ';'])
        .filter_map(|part| part.trim().strip_suffix(" passed").or(part.trim().strip_suffix(" failed")))
        .filter_map(|number| number.parse::<u64>().ok())
        .sum();
    Some(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_counted() {
        assert_eq!(ran_under_nextest("     Summary [   0.190s] 12 tests run: 12 passed, 0 skipped\n"), Some(12));
        assert_eq!(ran_under_nextest("     Summary [   0.1s] 1 test run: 1 passed"), Some(1));
        assert_eq!(ran_under_nextest("     Summary [   0.1s] 3/12 tests run: 2 passed, 1 failed"), Some(3));
        assert_eq!(ran_under_nextest("        PASS [   0.1s] a::b 12 tests run: odd name"), None);
    }

    #[test]
    fn libtest_verdicts_are_counted() {
        let line = "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out";
        assert_eq!(ran_under_libtest(line), Some(6));
        assert_eq!(ran_under_libtest("test codec::tests::result ... ok"), None);
    }

    #[test]
    fn packages_replace_the_workspace() {
        assert_eq!(scope(&[]), ["--workspace"]);
        assert_eq!(scope(&["a".into(), "b".into()]), ["--package", "a", "--package", "b"]);
    }
}
