//! Explain: why a request goes where it goes, step by step (SPEC 5, 13).
//!
//! [`explain`] runs the decision itself with somebody who listens, and changes nothing: no turn moves, no slot is taken. It
//! decides nothing and knows no rule; what is written here is what the decision has told. `text` makes it readable, `brief`
//! makes it fit into a header.

mod brief;
mod text;

use std::collections::BTreeMap;
use std::time::Instant;

use http::Method;
use router_common::endpoint::{ClaimRequirement, PathTemplate};
use router_common::identity::{ServiceName, Version};
use router_common::path::PathError;
use router_common::problem::{Problem, ProblemCode, retry_after_seconds};
use serde::{Deserialize, Serialize};

use super::decision::{Outcome, Rejection, RequestFacts, decide_traced};
use super::instance::{Candidate, Figures, Health};
use super::strategy;
use super::table::{RouteTable, ServiceLive};
use super::trace::{Step, Trace, VersionBy, Why};

/// Why a request goes where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub request: Asked,
    /// The service whose path it is; absent: nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SelectedVersion>,
    /// All versions of the service that are live, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<LiveVersion>,
    /// The endpoint in the selected version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<MatchedEndpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    pub strategy: String,
    /// All instances of the version, in the order in which they take turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<SeenInstance>,
    /// In their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepTaken>,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenInstance>,
    /// What it gets instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// The request in question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// As the version header names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The worker that decides: links of its own are preferred.
    pub worker: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectedVersion {
    pub version: String,
    pub because: VersionBy,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveVersion {
    pub version: String,
    pub instances: usize,
    /// Whether one of them may be routed to.
    pub in_service: bool,
    pub promotion: Promotion,
}

/// Whether a version may serve those who name none (SPEC 2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    Promoted,
    PromotedInSeconds(f64),
    /// A pre-release, which serves only by name.
    Prerelease,
    /// Too few instances of it are in service.
    TooFewInstances,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedEndpoint {
    pub method: String,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub required: Vec<ClaimRequirement>,
    /// Whether the caller may use the endpoint.
    pub allowed: bool,
}

/// An instance with its figures, as they were compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenInstance {
    /// Its id; with `@region` where another one of the version has the same.
    pub instance: String,
    pub region: String,
    /// 0: the own region; then the neighbours in their order; then all others.
    pub tier: u16,
    pub health: Health,
    /// Its first heartbeat was acknowledged.
    pub routable: bool,
    pub draining: bool,
    /// It keeps failing, and is passed over as long as another one is fit.
    pub ejected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    pub in_flight: u32,
    pub lease: u32,
    pub heartbeats_missed: u32,
    pub links: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTaken {
    pub step: Step,
    pub survivors: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallen: Vec<Fallen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallen {
    pub instance: String,
    pub why: Why,
    /// The same in words, with the figures.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenInstance {
    pub instance: String,
    pub region: String,
    /// The gateway's number of the link.
    pub link: u64,
    /// The worker that drives it.
    pub worker: usize,
}

/// What a request gets instead of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub status: u16,
    /// Absent where the router answers itself, without a problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// Explains what the decision on this table, with these facts, is. Nothing changes by it.
#[must_use]
pub fn explain<H>(table: &RouteTable<H>, facts: &RequestFacts<'_>) -> Explanation {
    let mut heard = Heard::default();
    let outcome = decide_traced(table, facts, &mut heard);
    let live = heard.service.as_ref().and_then(|name| table.services().iter().find(|service| service.name == *name));
    let version = heard.version.as_ref();
    let of_version = |service: &'_ std::sync::Arc<ServiceLive<H>>| {
        let place = service.versions.iter().position(|live| version.is_some_and(|(own, _)| live.version == *own))?;
        Some(service.versions.get(place)?.candidates.clone())
    };
    let candidates = live.and_then(of_version);
    let candidates = candidates.as_deref().unwrap_or_default();
    let names = names(candidates);
    let asked = asked(facts.method.as_str(), facts.path.raw(), facts.version_header, facts.worker);
    let mut explanation = Explanation::begin(asked, table.strategy());
    explanation.service = heard.service.as_ref().map(ToString::to_string);
    explanation.version =
        version.map(|(version, because)| SelectedVersion { version: version.to_string(), because: *because });
    explanation.versions = live.map(|service| live_versions(service, facts.now)).unwrap_or_default();
    explanation.claims =
        heard.endpoint.as_ref().map(|(_, required)| Claims { required: required.clone(), allowed: heard.authorized });
    explanation.endpoint = heard.endpoint.take().map(|(endpoint, _)| endpoint);
    explanation.instances = heard.instances(candidates, &names);
    explanation.steps = heard.steps(&explanation.instances, &names);
    match outcome {
        Ok(outcome) => explanation.chosen = Some(chosen(&outcome, candidates, &names)),
        Err(rejection) => explanation.refused = Some(rejection.into()),
    }
    explanation
}

impl Explanation {
    fn begin(request: Asked, strategy: strategy::Strategy) -> Self {
        Self {
            request,
            service: None,
            version: None,
            versions: Vec::new(),
            endpoint: None,
            claims: None,
            strategy: strategy.as_str().to_owned(),
            instances: Vec::new(),
            steps: Vec::new(),
            chosen: None,
            refused: None,
        }
    }

    /// Of a request whose path cannot be read: it is refused before there is anything to decide.
    #[must_use]
    pub fn of_bad_path<H>(
        table: &RouteTable<H>,
        (method, path, version): (&Method, &str, Option<&str>),
        error: PathError,
    ) -> Self {
        let refused = Some(Rejection::Problem(error.into()).into());
        Self { refused, ..Self::begin(asked(method.as_str(), path, version, 0), table.strategy()) }
    }
}

fn asked(method: &str, path: &str, version: Option<&str>, worker: usize) -> Asked {
    Asked { method: method.to_owned(), path: path.to_owned(), version: version.map(str::to_owned), worker }
}

fn chosen<H>(outcome: &Outcome<'_, H>, candidates: &[Candidate<H>], names: &[String]) -> ChosenInstance {
    let (state, link) = (&outcome.candidate.instance, outcome.link());
    let place = candidates.iter().position(|candidate| candidate.instance.key() == state.key());
    ChosenInstance {
        instance: place.and_then(|place| names.get(place).cloned()).unwrap_or_default(),
        region: state.instance().region.to_string(),
        link: link.id().0,
        worker: link.worker(),
    }
}

/// By which each candidate is told from the others of its version.
fn names<H>(candidates: &[Candidate<H>]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in candidates {
        *counts.entry(candidate.instance.instance().id.as_str()).or_default() += 1;
    }
    let name = |candidate: &Candidate<H>| {
        let instance = candidate.instance.instance();
        match counts.get(instance.id.as_str()) {
            Some(2..) => format!("{}@{}", instance.id, instance.region),
            _ => instance.id.to_string(),
        }
    };
    candidates.iter().map(name).collect()
}

fn live_versions<H>(service: &ServiceLive<H>, now: Instant) -> Vec<LiveVersion> {
    let live = service.versions.iter().filter(|live| !live.candidates.is_empty());
    let version = |live: &super::table::VersionLive<H>| LiveVersion {
        version: live.version.to_string(),
        instances: live.candidates.len(),
        in_service: live.in_service,
        promotion: match live.default_from {
            _ if live.version.is_prerelease() => Promotion::Prerelease,
            Some(from) if from <= now => Promotion::Promoted,
            Some(from) => Promotion::PromotedInSeconds(from.saturating_duration_since(now).as_secs_f64()),
            None => Promotion::TooFewInstances,
        },
    };
    live.map(version).collect()
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        let problem = match rejection {
            Rejection::Options { allow } => {
                let detail = Some("the router answers OPTIONS itself".to_owned());
                return Self { status: 204, code: None, detail, allow: Some(allow), retry_after_seconds: None };
            }
            Rejection::LeasedOut(..) => Problem::new(ProblemCode::NoCapacity)
                .detail("every instance that could serve it is leased out: it waits in line first"),
            Rejection::Problem(problem) => problem,
        };
        Self {
            status: problem.code.status(),
            code: Some(problem.code.to_string()),
            detail: Some(problem.detail.map_or_else(|| problem.code.title().to_owned(), Into::into)),
            allow: problem.allow,
            retry_after_seconds: problem.retry_after.map(retry_after_seconds),
        }
    }
}

/// All that a decision tells.
#[derive(Default)]
struct Heard {
    service: Option<ServiceName>,
    version: Option<(Version, VersionBy)>,
    endpoint: Option<(MatchedEndpoint, Vec<ClaimRequirement>)>,
    authorized: bool,
    figures: BTreeMap<usize, Figures>,
    fallen: BTreeMap<Step, Vec<(usize, Why)>>,
}

impl Trace for Heard {
    const LISTENS: bool = true;

    fn service(&mut self, name: &ServiceName) {
        self.service = Some(name.clone());
    }

    fn version(&mut self, version: &Version, by: VersionBy) {
        self.version = Some((version.clone(), by));
    }

    fn endpoint(&mut self, method: &Method, path: &PathTemplate, required: &[ClaimRequirement]) {
        let endpoint = MatchedEndpoint { method: method.to_string(), path: path.to_string() };
        self.endpoint = Some((endpoint, required.to_vec()));
    }

    fn authorized(&mut self) {
        self.authorized = true;
    }

    fn saw(&mut self, place: usize, figures: &Figures) {
        self.figures.insert(place, *figures);
    }

    fn fell(&mut self, step: Step, place: usize, why: Why) {
        self.fallen.entry(step).or_default().push((place, why));
    }

    fn survived(&mut self, step: Step, _: usize) {
        self.fallen.entry(step).or_default();
    }
}

impl Heard {
    fn instances<H>(&self, candidates: &[Candidate<H>], names: &[String]) -> Vec<SeenInstance> {
        let seen = |(place, figures): (&usize, &Figures)| {
            let (candidate, name) = (candidates.get(*place)?, names.get(*place)?);
            Some(SeenInstance {
                instance: name.clone(),
                region: candidate.instance.instance().region.to_string(),
                tier: candidate.tier,
                health: figures.fitness.health(),
                routable: figures.fitness.is_routable(),
                draining: figures.fitness.is_draining(),
                ejected: figures.fitness.is_ejected(),
                round_trip_ms: figures.round_trip().map(|trip| trip.as_secs_f64() * 1000.0),
                in_flight: figures.in_flight,
                lease: figures.lease,
                heartbeats_missed: figures.missed,
                links: candidate.links.len(),
            })
        };
        self.figures.iter().filter_map(seen).collect()
    }

    /// Of all steps, who was left after each, and who fell there.
    fn steps(&self, instances: &[SeenInstance], names: &[String]) -> Vec<StepTaken> {
        let mut left: Vec<usize> = self.figures.keys().copied().collect();
        let step = |(step, fallen): (&Step, &Vec<(usize, Why)>)| {
            left.retain(|place| !fallen.iter().any(|(gone, _)| gone == place));
            let still: Vec<&SeenInstance> = left.iter().filter_map(|place| instances.get(*place)).collect();
            let fell = |(place, why): &(usize, Why)| {
                let seen = instances.get(*place)?;
                Some(Fallen { instance: seen.instance.clone(), why: *why, detail: text::why(*why, seen, &still) })
            };
            StepTaken {
                step: *step,
                survivors: left.iter().filter_map(|place| names.get(*place).cloned()).collect(),
                fallen: fallen.iter().filter_map(fell).collect(),
            }
        };
        self.fallen.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests;
