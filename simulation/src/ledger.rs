//! The ledger of a run: what was asked, which handlers ran, what came back. It stands outside of the simulated hosts, so
//! that a crash of any of them loses nothing of it.
//!
//! It judges nothing; `invariants` does. What can be seen wrong at once, by whoever sees it, is noted here as a
//! violation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::plan::Ask;

/// Lines of the event log that are kept; what is beyond counts for the hash alone.
const LINES: usize = 200_000;

type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The books of one run, and its event log.
pub(crate) struct Ledger {
    clock: Clock,
    books: Mutex<Books>,
}

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) requests: BTreeMap<u64, Entry>,
    pub(crate) violations: Vec<String>,
    pub(crate) log: Vec<String>,
    pub(crate) hash: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) checks: u64,
    /// Handlers, and bodies of their answers, that have not ended.
    pub(crate) alive: usize,
    /// A host is torn down: in what order its handlers go is not part of what happened.
    pub(crate) tearing_down: bool,
    /// Clients that are not through yet.
    pub(crate) clients: usize,
}

/// One request.
pub(crate) struct Entry {
    pub(crate) ask: Ask,
    pub(crate) client_host: usize,
    pub(crate) gateway: usize,
    /// Who ran a handler for it, in order.
    pub(crate) runs: Vec<String>,
    /// Of these, how many came to their end.
    pub(crate) finished: usize,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) asked_at: Duration,
    pub(crate) ended_at: Duration,
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole response from a handler.
    Answered { status: u16 },
    /// A problem document.
    Problem { status: u16, code: String },
    /// A head, and a body that was visibly cut.
    Cut { status: u16 },
    /// No response.
    Failed { error: String },
    /// The client left.
    Left,
    /// The client was patient enough.
    GaveUp { head_seen: bool },
}

impl Outcome {
    /// Its kind, for counting.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Answered { status } => format!("{status}"),
            Self::Problem { status, code } => format!("{status} {code}"),
            Self::Cut { .. } => "cut".to_owned(),
            Self::Failed { .. } => "no response".to_owned(),
            Self::Left => "client left".to_owned(),
            Self::GaveUp { .. } => "client gave up".to_owned(),
        }
    }
}

impl Ledger {
    pub(crate) fn new(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { clock: Box::new(clock), books: Mutex::default() })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    /// One line of the event log.
    pub(crate) fn log(&self, line: impl AsRef<str>) {
        let line = format!("{:>10.3} {}", self.now().as_secs_f64(), line.as_ref());
        let mut books = self.books();
        for byte in line.bytes() {
            books.hash = (books.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if books.log.len() < LINES {
            books.log.push(line);
        }
    }

    /// Something that must not be.
    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.log(format!("VIOLATION {what}"));
        self.books().violations.push(what);
    }

    /// One thing was checked; says whether it holds, and notes it if not.
    pub(crate) fn check(&self, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        self.books().checks += 1;
        if !holds {
            self.violation(otherwise());
        }
        holds
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        *self.books().faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn asked(&self, ask: &Ask, client_host: usize, gateway: usize) {
        self.log(format!("ask {} {:?} of gateway-{gateway}", ask.tag, ask.what));
        let now = self.now();
        let entry = Entry {
            ask: ask.clone(),
            client_host,
            gateway,
            runs: Vec::new(),
            finished: 0,
            outcomes: Vec::new(),
            asked_at: now,
            ended_at: now,
        };
        self.books().requests.insert(ask.tag, entry);
    }

    pub(crate) fn ended(&self, tag: u64, outcome: Outcome) {
        self.log(format!("end {tag} {outcome:?}"));
        let now = self.now();
        if let Some(entry) = self.books().requests.get_mut(&tag) {
            entry.outcomes.push(outcome);
            entry.ended_at = now;
        }
    }

    /// A handler begins. It, and the body of its answer, have ended when the presence is dropped.
    pub(crate) fn enter(self: &Arc<Self>, tag: u64, who: &str) -> Presence {
        self.log(format!("run {tag} at {who}"));
        let mut books = self.books();
        books.alive += 1;
        let known = match books.requests.get_mut(&tag) {
            Some(entry) => {
                entry.runs.push(who.to_owned());
                true
            }
            None => false,
        };
        drop(books);
        if !known {
            self.violation(format!("a handler ran for {tag}, which nobody asked"));
        }
        Presence { ledger: Arc::clone(self), tag }
    }
}

/// A handler that runs.
pub(crate) struct Presence {
    ledger: Arc<Ledger>,
    tag: u64,
}

impl Presence {
    /// The handler, or its answer's body, came to its end by itself.
    pub(crate) fn finish(&self) {
        if let Some(entry) = self.ledger.books().requests.get_mut(&self.tag) {
            entry.finished += 1;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        books.alive -= 1;
        let tearing_down = books.tearing_down;
        drop(books);
        if !tearing_down {
            self.ledger.log(format!("out {}", self.tag));
        }
    }
}
