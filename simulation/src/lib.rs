//! The real gateway, SDK and session on a deterministic network, from a seed.
//!
//! A seed gives a plan: who there is, what clients ask, what goes wrong and when. A run carries it out, repairs
//! everything, waits in simulated time until all is quiet, and checks the invariants: each request ended exactly once
//! and as it may, no handler ran more often than it may, no response was another's, no body that was cut looked whole, and
//! every stream, credit, slot, byte and task was given back. A seed that fails is run again with the same outcome.
//!
//! No part of the product knows that it is simulated: it is given listeners, connectors, a clock and randomness, as any
//! program may give them.

mod client;
mod environment;
mod gateway;
mod invariants;
mod ledger;
mod memory;
mod net;
mod plan;
mod post;
mod service;
mod wire;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::plan::Plan;

/// What carries frames and HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// TCP between hosts, by turmoil.
    Network,
    /// The in-memory transport, with faults of its own, and byte pipes for clients.
    Memory,
}

impl Carrier {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Network, Self::Memory];
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Memory => "memory",
        })
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    pub carrier: Carrier,
    pub seed: u64,
    /// What must not have been; none, if all is well.
    pub violations: Vec<String>,
    /// What happened, in order, each with its simulated time in seconds.
    pub log: Vec<String>,
    /// Of the whole log: equal for equal seeds.
    pub hash: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Requests, by how they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Handlers that ran.
    pub runs: u64,
    /// Single checks that were made.
    pub checks: u64,
}

impl Report {
    /// The command that repeats this run.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo xtask simulate --carrier {} --seed {}", self.carrier, self.seed)
    }

    /// Notes it as a violation if another run of the same seed was another one.
    pub fn compare(&mut self, again: &Self) {
        if self.hash == again.hash {
            return;
        }
        let differs = |(one, other): &(&String, &String)| one != other;
        let first = self.log.iter().zip(&again.log).find(differs);
        self.violations.push(format!("a second run of the same seed differs, first here: {first:#?}"));
    }

    /// Everything that is wrong, how to see it again, and the end of the event log.
    #[must_use]
    pub fn failure(&self) -> String {
        const SHOWN: usize = 60;
        let skipped = self.log.len().saturating_sub(SHOWN);
        let end = self.log.get(skipped..).unwrap_or_default().join("\n");
        let violations = self.violations.join("\n  ");
        format!("{violations}\nto see it again: {}\nthe last of {} events:\n{end}", self.command(), self.log.len())
    }
}

/// Runs one seed. Whatever happens, even a panic of the product, is in the report.
#[must_use]
pub fn run(carrier: Carrier, seed: u64) -> Report {
    note_panics();
    PANICS.take();
    let plan = Plan::draw(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| world::run(carrier, seed, &plan)));
    let panics = PANICS.take();
    let mut report = Report {
        carrier,
        seed,
        violations: Vec::new(),
        log: Vec::new(),
        hash: 0,
        faults: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        runs: 0,
        checks: 0,
    };
    if let Ok(ledger) = ended {
        let mut books = ledger.books();
        report.violations = std::mem::take(&mut books.violations);
        report.log = std::mem::take(&mut books.log);
        report.hash = books.hash;
        report.faults = std::mem::take(&mut books.faults);
        report.checks = books.checks;
        for entry in books.requests.values() {
            report.runs += entry.runs.len() as u64;
            for outcome in &entry.outcomes {
                *report.outcomes.entry(outcome.kind()).or_default() += 1;
            }
        }
    }
    report.violations.extend(panics.into_iter().map(|panic| format!("a panic: {panic}")));
    report
}

/// A seed's plan, for people.
#[must_use]
pub fn describe(seed: u64) -> String {
    format!("{:#?}", Plan::draw(seed))
}

thread_local! {
    /// Panics of the run on this thread: a task's would be seen by nobody.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What a handler of the simulation says when it panics because it was asked to.
const ON_PURPOSE: &str = "on purpose";

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() == Some(ON_PURPOSE) {
                return;
            }
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
}
