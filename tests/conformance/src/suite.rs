//! The program that runs the scenarios that a transport is to pass.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::carrier::Transport;
use crate::scenario::Scenario;
use crate::{scenarios, within};

/// How many scenarios a transport passed, and how many it failed.
type Counts = Arc<Mutex<BTreeMap<&'static str, (usize, usize)>>>;

/// Runs the suite on these transports, as the command line says (`--help`): the `main` of a test target with `harness =
/// false`. At the end it says how many scenarios each transport has passed.
#[must_use]
pub fn main(transports: &[Transport]) -> ExitCode {
    let arguments = Arguments::from_args();
    let counts = Counts::default();
    let trials = transports.iter().flat_map(|&transport| trials(transport, &counts)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (transport, (passed, failed)) in &*counts {
            println!("conformance of {transport}: {passed} scenarios passed, {failed} failed");
        }
    }
    conclusion.exit_code()
}

fn trials(transport: Transport, counts: &Counts) -> impl Iterator<Item = Trial> {
    let met = move |scenario: &Scenario| scenario.needs.are_met_by(transport.capabilities());
    scenarios::AREAS
        .iter()
        .flat_map(move |(area, scenarios)| {
            scenarios.iter().copied().filter(move |scenario| met(scenario)).map(move |scenario| (*area, scenario))
        })
        .map({
            let counts = Arc::clone(counts);
            move |(area, scenario)| {
                let counts = Arc::clone(&counts);
                let name = format!("{}::{area}::{}", transport.name(), scenario.name);
                Trial::test(name, move || count(&counts, transport, || play(transport, scenario)))
            }
        })
}

/// Threads of their own, so that what blocks one scenario is in no other's way.
fn play(transport: Transport, scenario: Scenario) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(within(scenario.name, (scenario.play)(transport)));
    runtime.shutdown_background();
    Ok(())
}

fn count(counts: &Counts, transport: Transport, test: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    let passed = matches!(outcome, Ok(Ok(())));
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let (passes, failures) = counts.entry(transport.name()).or_default();
    *if passed { passes } else { failures } += 1;
    drop(counts);
    match outcome {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
