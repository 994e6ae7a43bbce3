//! What must hold after every run: each request ended once and as it may, no handler ran too often, and everything that
//! was taken is given back.

use std::time::Duration;

use crate::client::DISCARDED;
use crate::gateway::{Account, BODY_IDLE, TIMEOUT};
use crate::ledger::{Entry, Ledger, Outcome};
use crate::plan::{Host, Limits, Plan, SERVICES, VERSIONS, What};
use crate::service::{NEVER_TIMEOUT, Standing};

/// What an answer may be late by its deadline: the way to and fro, and the steps in which time goes.
const SLACK: Duration = Duration::from_millis(1_500);

/// Judges every request of a run.
pub(crate) fn judge(plan: &Plan, ledger: &Ledger) {
    let requests = std::mem::take(&mut ledger.books().requests);
    for entry in requests.values() {
        let Err(what) = judge_one(plan, entry) else {
            ledger.check(true, String::new);
            continue;
        };
        let Entry { ask, runs, outcomes, asked_at, ended_at, .. } = entry;
        let (asked, ended) = (asked_at.as_secs_f64(), ended_at.as_secs_f64());
        ledger.check(false, || {
            format!("{what}: {ask:?}, asked at {asked:.3}, ended at {ended:.3}, outcomes {outcomes:?}, runs {runs:?}")
        });
    }
    ledger.books().requests = requests;
}

fn judge_one(plan: &Plan, entry: &Entry) -> Result<(), String> {
    let Entry { ask, runs, outcomes, .. } = entry;
    let [outcome] = outcomes.as_slice() else {
        return Err(format!("a request has {} outcomes", outcomes.len()));
    };
    let most = if ask.what.is_idempotent() { 2 } else { 1 };
    if runs.len() > most {
        return Err(format!("its handler ran {} times", runs.len()));
    }
    if matches!(outcome, Outcome::Answered { .. } | Outcome::Cut { .. }) && runs.is_empty() {
        return Err("it was answered, and no handler ran".to_owned());
    }
    if let Outcome::Problem { code, .. } = outcome
        && most == 1
        && says_unseen(code)
        && !runs.is_empty()
    {
        return Err(format!("`{code}` says that no handler has seen it, but one has"));
    }
    if matches!(ask.what, What::Missing | What::NoVersion) && !runs.is_empty() {
        return Err("a handler ran for what does not exist".to_owned());
    }
    allowed(plan, entry, outcome)?;
    in_time(plan, entry, outcome)
}

impl What {
    pub(crate) const fn is_idempotent(self) -> bool {
        matches!(self, Self::Again)
    }
}

/// Codes that promise that the request had no effect.
fn says_unseen(code: &str) -> bool {
    matches!(
        code,
        "no_instance" | "no_capacity" | "route_not_found" | "version_not_found" | "node_overloaded" | "draining"
    )
}

/// Whether an outcome is one that may be, considering all that went wrong.
fn allowed(plan: &Plan, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
    let Entry { ask, client_host, gateway, .. } = entry;
    let is_clean = plan.is_clean(*client_host, *gateway);
    let exists = plan.instances.iter().any(|instance| instance.service == ask.service);
    match outcome {
        Outcome::Left if ask.leaves.is_some() => Ok(()),
        Outcome::Left => Err("the client did not leave".to_owned()),
        Outcome::GaveUp { .. } | Outcome::Failed { .. } if !is_clean => Ok(()),
        // A gateway that answers early need not read all of a large body; what the client sees then is its own affair.
        Outcome::Failed { .. } if ask.sends > DISCARDED && (may_refuse_body(plan, entry) || !plan.is_calm()) => Ok(()),
        // turmoil keeps an end that finds the reader's queue full, and never delivers it: a slow client of a large answer
        // that was cut waits for ever.
        Outcome::GaveUp { head_seen: true } if !plan.is_calm() && ask.slow.is_some() && ask.is_large() => Ok(()),
        Outcome::GaveUp { .. } => Err("there was no end".to_owned()),
        Outcome::Failed { .. } => Err("there was no response".to_owned()),
        Outcome::Cut { .. } if ask.what == What::Cut => Ok(()),
        Outcome::Cut { .. } if !is_clean || !plan.is_calm() => Ok(()),
        Outcome::Cut { .. } if ask.sends > DISCARDED && may_refuse_body(plan, entry) => Ok(()),
        Outcome::Cut { .. } => Err("its answer was cut".to_owned()),
        Outcome::Answered { status } => match (ask.what, status) {
            (What::Cut | What::Missing | What::NoVersion | What::Never | What::Panic, _) => {
                Err("it cannot have been answered".to_owned())
            }
            (What::OneWay, 202) => Ok(()),
            (What::OneWay, _) => Err("one-way requests are answered by 202".to_owned()),
            // A handler that was given a part of a body says so; nobody should be there to hear it.
            (_, 400) if !is_clean => Ok(()),
            (_, 200) => Ok(()),
            _ => Err("a status that no handler gives".to_owned()),
        },
        Outcome::Problem { status, code } => problem_allowed(plan, entry, *status, code, exists),
    }
}

fn problem_allowed(plan: &Plan, entry: &Entry, status: u16, code: &str, exists: bool) -> Result<(), String> {
    let ask = &entry.ask;
    let refused = || Err(format!("it must not be answered by {status} `{code}`"));
    let may = |may: bool| if may { Ok(()) } else { refused() };
    if ask.what == What::Head && code.is_empty() {
        return may(matches!(status, 404 | 502 | 503 | 504));
    }
    let is_calm = plan.is_calm();
    let leases = plan.instances.iter().any(|instance| instance.lease < 1024);
    match code {
        "route_not_found" => may(ask.what == What::Missing || !exists || !is_calm || plan_is_young(entry)),
        "version_not_found" => may(ask.what == What::NoVersion || ask.version.is_some() || !is_calm),
        "no_instance" => may(!is_calm || plan_is_young(entry)),
        "no_capacity" => may(leases || !is_calm),
        "node_overloaded" | "connection_bytes_exceeded" => may(is_tight(&plan.limits)),
        "payload_too_large" => may(ask.sends as u64 > plan.limits.call_bytes),
        "deadline_exceeded" => may(!is_calm
            || leases
            || ask.what == What::Never
            || ask.deadline.is_some()
            || ask.work > Duration::from_secs(3)
            || ask.slow.is_some()
            || plan.latency.1 > Duration::from_millis(100)),
        "connection_lost" | "service_failed" => may(!is_calm || (code == "service_failed" && ask.what == What::Cut)),
        "internal_error" => may(ask.what == What::Panic),
        "draining" => may(!is_calm),
        "request_timeout" => may(!plan.is_clean(entry.client_host, entry.gateway)),
        _ => refused(),
    }
}

/// Whether the gateway may refuse a request before it has read its body.
fn may_refuse_body(plan: &Plan, entry: &Entry) -> bool {
    let ask = &entry.ask;
    ask.sends as u64 > plan.limits.call_bytes
        || is_tight(&plan.limits)
        || matches!(ask.what, What::Missing | What::NoVersion | What::Never | What::Panic | What::OneWay)
        || ask.deadline.is_some()
        || ask.version.is_some()
        || plan.instances.iter().any(|instance| instance.lease < 1024)
        || plan_is_young(entry)
}

fn is_tight(limits: &Limits) -> bool {
    limits.call_bytes < 1 << 20
}

/// Whether services may not have come yet when it was asked.
fn plan_is_young(entry: &Entry) -> bool {
    entry.asked_at < Duration::from_secs(3)
}

/// Where nothing hurt the way between client and gateway, an answer comes by its deadline.
fn in_time(plan: &Plan, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
    let Entry { ask, client_host, gateway, asked_at, ended_at, .. } = entry;
    let streams = matches!(ask.what, What::Bytes | What::Echo | What::Cut);
    if !plan.is_clean(*client_host, *gateway) || ask.leaves.is_some() || ask.slow.is_some() || streams {
        return Ok(());
    }
    if matches!(outcome, Outcome::Failed { .. }) {
        return Ok(());
    }
    let mut due = Duration::from_secs(TIMEOUT);
    if ask.what == What::Never {
        due = NEVER_TIMEOUT;
    }
    due = due.min(ask.deadline.unwrap_or(due));
    // A body that is not read any more is one pause more.
    let late = if ask.sends > DISCARDED { Duration::from_secs(BODY_IDLE) } else { Duration::ZERO };
    let due = due + late + SLACK + plan.latency.1 * 8;
    let took = ended_at.saturating_sub(*asked_at);
    if took > due {
        return Err(format!("it took {took:?}, and {due:?} was due"));
    }
    Ok(())
}

/// Why a gateway is not at rest yet; `None`: it is.
pub(crate) fn unrest(plan: &Plan, number: usize, account: &Account) -> Option<String> {
    let Account { stopped, in_flight, waiting, inflight_bytes, buffered_bytes, leased, streams, others, tasks, .. } =
        account;
    if *stopped {
        return Some(format!("gateway-{number} has stopped"));
    }
    let mut serving = account.serving.clone();
    serving.sort();
    let mut expected = expected(plan);
    expected.sort();
    let links: usize = plan.instances.iter().filter(|it| it.double_of.is_none()).map(|it| usize::from(it.links)).sum();
    let quiet = *in_flight == 0
        && *waiting == 0
        && *inflight_bytes == 0
        && *buffered_bytes == 0
        && *leased == 0
        && *streams == 0
        && *tasks == 0
        && account.links == links
        && others.is_empty()
        && serving == expected;
    (!quiet).then(|| format!("gateway-{number} is not at rest: {account:?}; expected {expected:?} with {links} links"))
}

/// The instances that are to serve at the end.
fn expected(plan: &Plan) -> Vec<String> {
    let living = plan.instances.iter().enumerate().filter(|(_, instance)| instance.double_of.is_none());
    living
        .map(|(number, instance)| format!("{} {} i{number}", SERVICES[instance.service], VERSIONS[instance.version]))
        .collect()
}

/// How the processes of services are to stand at the end of a run, when all has been repaired: one of each identity runs.
/// Which one of two is for the gateways to say, by who came last: to one that has come back, both are new.
pub(crate) fn judge_processes(plan: &Plan, standings: &[Option<Standing>]) -> Result<(), String> {
    for (number, instance) in plan.instances.iter().enumerate().filter(|(_, instance)| instance.double_of.is_none()) {
        let is_double = |(other, _): &(usize, &Option<Standing>)| plan.instances[*other].double_of == Some(number);
        let double = standings.iter().enumerate().find(is_double).and_then(|(_, standing)| standing.as_ref());
        let own = standings.get(number).and_then(Option::as_ref);
        // One task a link, and the one that owns them.
        let tasks = 1 + plan.gateways * usize::from(instance.links);
        let runs = |standing: Option<&Standing>| standing == Some(&Standing::Runs { tasks });
        let was_superseded = |standing: Option<&Standing>| standing == Some(&Standing::Superseded { tasks: 0 });
        let good = match double {
            None => runs(own),
            _ => (runs(own) && was_superseded(double)) || (was_superseded(own) && runs(double)),
        };
        if !good {
            let host = Host::Instance(number);
            return Err(format!("{host} stands as {own:?}, its double as {double:?}; {tasks} tasks expected"));
        }
    }
    Ok(())
}
